"""Videos as documents, one a segment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from rendering import truncate

from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError
from videochat_tools.media import frames_decoded_total
from videochat_tools.retrievers import FaissVideoStore
from videochat_tools.segmenting import make_segmenter
from videochat_tools.testing import FakeTranscriber, FakeVideoEncoder
from videochat_tools.types import TimeSpan, Transcript, Utterance
from videochat_tools.video_embeddings import VideoEmbeddings
from videochat_tools.video_loader import VideoLoader, VideoSplitter


def test_one_document_a_segment(film: Any) -> None:
    documents = VideoLoader(film.path, transcriber=None).load()
    assert [(d.metadata["start"], d.metadata["end"]) for d in documents] == [
        (round(span.start, 3), round(span.end, 3)) for span in film.spans
    ]
    for number, document in enumerate(documents):
        metadata = document.metadata
        assert document.page_content == document.id == metadata["file_id"] == film.names[number]
        assert metadata["source"] == film.path.as_uri()
        assert (metadata["video"], metadata["segment"]) == (film.path.name, number)
        assert metadata["duration"] == film.duration
        assert json.loads(json.dumps(metadata)) == metadata
    assert documents[5].metadata["transcript"] == "paul lost the hammer near the river"


def test_transcripts_for_a_store_of_texts(color_video: Path) -> None:
    heard = Transcript((Utterance(TimeSpan(0.5, 1.5), "red it is"), Utterance(TimeSpan(3.8, 5), "now blue")), "whisper")
    loader = VideoLoader(color_video, content="transcript", transcriber=FakeTranscriber({color_video.name: heard}))
    assert [d.page_content for d in loader.lazy_load()] == ["", "", ""]  # the file has no sound: nothing is asked
    color_video.with_suffix(".vtt").write_text(
        "WEBVTT\n\n00:00.500 --> 00:01.500\nred it is\n\n00:03.800 --> 00:05.000\nnow blue\n", encoding="utf-8"
    )
    assert [d.page_content for d in loader.lazy_load()] == ["red it is", "", "now blue"]


def test_documents_go_into_a_store_and_are_found(color_video: Path) -> None:
    store = FaissVideoStore.from_documents(VideoLoader(color_video).load(), VideoEmbeddings(encoder=FakeVideoEncoder()))
    for number, color in enumerate(("red", "green", "blue")):
        (document,) = store.similarity_search(f"something {color}", k=1)
        assert document.metadata["start"] == pytest.approx(2 * number)
    (document,) = store.similarity_search("red", k=1, filter={"$overlaps": [4.5, 6]})
    assert document.metadata["start"] == 4.0
    assert store.get_by_ids([document.id]) == [document]  # the name of the segment is its id: adding again replaces
    store.add_documents(VideoLoader(color_video).load())
    assert len(store) == 3


def test_it_is_lazy(color_video: Path, tmp_path: Path) -> None:
    shutil.copy(color_video, tmp_path / "b.mp4")
    before = frames_decoded_total()
    documents = VideoLoader([color_video, tmp_path / "b.mp4"], transcriber=None).lazy_load()
    assert frames_decoded_total() == before
    assert next(documents).metadata["video"] == color_video.name
    assert frames_decoded_total() - before <= 60 + 4  # one film of sixty frames, opened some times over
    assert [d.metadata["video"] for d in documents] == [color_video.name] * 2 + ["b.mp4"] * 3


def test_folders_patterns_and_other_segments(color_video: Path) -> None:
    for source in (color_video.parent, str(color_video.parent / "*.mp4"), color_video.as_uri()):
        documents = VideoLoader(source, segmenter=make_segmenter("fixed", seconds=3.0), transcriber=None).load()
        assert [d.metadata["end"] for d in documents] == [3.0, 6.0]


def test_bad_files(color_video: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match="gone"):
        VideoLoader(tmp_path / "gone.mp4").load()
    with pytest.raises(MediaNotFoundError, match="pattern"):
        VideoLoader(str(tmp_path / "none" / "*.mp4")).load()
    broken = truncate(color_video, tmp_path / "broken.mp4", 0.1)
    loaded = VideoLoader([color_video, broken]).lazy_load()
    assert [next(loaded).metadata["video"] for _ in range(3)] == [color_video.name] * 3
    with pytest.raises(UnreadableMediaError, match="broken"):
        next(loaded)
    with pytest.raises(ValueError, match="content"):
        VideoLoader(color_video, content="pictures")  # type: ignore[arg-type]


async def test_async(film: Any) -> None:
    loader = VideoLoader(film.path, transcriber=None)
    assert [document async for document in loader.alazy_load()] == loader.load()


class TestSplitting:
    def test_documents_of_whole_videos_become_segments_with_their_metadata(self, color_video: Path) -> None:
        whole = [
            Document(str(color_video), metadata={"speaker": "Ann"}),
            Document("a talk", metadata={"source": color_video.as_uri(), "speaker": "Bob"}),
        ]
        segments = VideoSplitter(transcriber=None).split_documents(whole)
        assert [segment.metadata["speaker"] for segment in segments] == ["Ann"] * 3 + ["Bob"] * 3
        loaded = VideoLoader(color_video, transcriber=None).load()
        for part in (segments[:3], segments[3:]):
            assert [segment.id for segment in part] == [document.id for document in loaded]
            assert [segment.metadata["start"] for segment in part] == [d.metadata["start"] for d in loaded]

    async def test_async_and_options(self, color_video: Path) -> None:
        splitter = VideoSplitter(transcriber=None, segmenter=make_segmenter("fixed", seconds=3.0))
        made = await splitter.atransform_documents([Document(str(color_video))])
        assert [document.metadata["end"] for document in made] == [3.0, 6.0]

    def test_bad_input(self, tmp_path: Path) -> None:
        with pytest.raises(MediaNotFoundError, match="gone"):
            VideoSplitter().split_documents([Document(str(tmp_path / "gone.mp4"))])
        with pytest.raises(TypeError, match="seconds"):
            VideoSplitter(seconds=3)
