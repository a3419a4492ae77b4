"""Videos and texts in one space, through any LangChain vector store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from rendering import render_audio, tone

from videochat_tools.embeddings import ClipEmbeddings, VideoEncoder, text_similarity
from videochat_tools.errors import (
    MediaNotFoundError,
    ModelLoadError,
    NoVideoStreamError,
    UnreadableMediaError,
    UnsupportedContentError,
)
from videochat_tools.library.clips import ClipShape, clip_batches
from videochat_tools.media import frames_decoded_total, probe
from videochat_tools.retrievers import FaissVideoStore
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.video_embeddings import VideoEmbeddings


@dataclass(frozen=True)
class TwoRows(FakeVideoEncoder):
    """Knows colours too, and keeps the first and the second half of a clip apart."""

    rows: int = 2

    def embed_clips(self, clips: np.ndarray) -> ClipEmbeddings:
        half = clips.shape[1] // 2
        halves = [FakeVideoEncoder.embed_clips(self, part).vectors for part in (clips[:, :half], clips[:, half:])]
        return ClipEmbeddings(np.concatenate(halves, axis=1), None)


@pytest.fixture(scope="module")
def vectors(film: Any, embeddings: VideoEmbeddings) -> np.ndarray:
    return np.array(embeddings.embed_documents(film.names))


def test_the_inner_product_is_the_encoder_s_own_similarity(
    film: Any, encoder: VideoEncoder, embeddings: VideoEmbeddings, vectors: np.ndarray
) -> None:
    shape = ClipShape.of(encoder)
    batches = list(clip_batches(probe(film.path), film.spans, [shape], batch_size=len(film.spans)))
    own = text_similarity(
        encoder.embed_texts(film.captions), encoder.embed_clips(batches[0].clips[shape]).vectors[list(batches[0].rows)]
    )
    queries = np.array([embeddings.embed_query(caption) for caption in film.captions])
    rows = embeddings.embed_document_rows(film.names)
    assert np.allclose(text_similarity(queries, rows), own, atol=1e-5)
    assert np.ptp(own) > 0.05
    for made in (queries, vectors):  # so that cosine, inner product and distance rank the same way
        assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
        assert made.shape[1] == embeddings.dimension


def test_any_vector_store_finds_the_moment_that_a_text_describes(film: Any, embeddings: VideoEmbeddings) -> None:
    store = InMemoryVectorStore(embeddings)  # of langchain-core
    store.add_texts(film.names, metadatas=[{"start": span.start} for span in film.spans])
    found = [store.similarity_search(caption, k=1)[0].page_content for caption in film.captions]
    assert sum(map(str.__eq__, found, film.names)) >= len(film.names) - 1


def test_each_video_is_decoded_once(
    film: Any, embeddings: VideoEmbeddings, color_video: Path, vectors: np.ndarray
) -> None:
    names = [
        name
        for number, name in enumerate(film.names)
        for name in (name, f"{color_video}#t={number / 2},{number / 2 + 1}")  # the two videos take turns
    ]
    names += film.names[:2]
    before = frames_decoded_total()
    made = np.array(embeddings.embed_documents(names))
    decoded = frames_decoded_total() - before
    frames = round(film.duration * probe(film.path).fps) + 60
    assert decoded <= frames + 2  # probing decodes the first frame of each
    assert np.allclose(made[:-2:2], vectors, atol=1e-5)
    assert np.array_equal(made[-2:], made[[0, 2]])


def test_a_video_goes_by_path_or_uri_whole_or_in_part(
    film: Any, embeddings: VideoEmbeddings, vectors: np.ndarray
) -> None:
    first = film.spans[0]
    by_path = embeddings.embed_documents([f"{film.path}#t={first.start},{first.end}"])  # its name holds a '#' itself
    assert np.allclose(by_path[0], vectors[0], atol=1e-6)
    whole = embeddings.embed_documents(
        [str(film.path), film.path.as_uri(), f"{film.path.as_uri()}#t=0,{film.duration}"]
    )
    assert np.allclose(whole[0], whole[1], atol=1e-6)
    assert np.allclose(whole[0], whole[2], atol=1e-4)


def test_plain_text_stands_beside_clips(film: Any, embeddings: VideoEmbeddings, vectors: np.ndarray) -> None:
    texts = ["the purple circle flashes", "see also: chapter 3\nintro.mp4"]
    made = embeddings.embed_documents([texts[0], film.names[1], texts[1]])
    assert made[0] == pytest.approx(embeddings.embed_query(texts[0]), abs=1e-5)
    assert made[1] == pytest.approx(vectors[1], abs=1e-5)
    assert made[2] == pytest.approx(embeddings.embed_query(texts[1]), abs=1e-5)
    assert embeddings.embed_documents([]) == []


async def test_async_is_the_same(film: Any, embeddings: VideoEmbeddings, vectors: np.ndarray) -> None:
    assert np.allclose(await embeddings.aembed_documents(film.names[:2]), vectors[:2], atol=1e-5)
    assert await embeddings.aembed_query("a ring") == pytest.approx(embeddings.embed_query("a ring"), abs=1e-5)


def test_relevance_is_the_calibrated_probability(encoder: VideoEncoder, embeddings: VideoEmbeddings) -> None:
    middle = -encoder.calibration.similarity_offset / encoder.calibration.similarity_scale
    assert embeddings.relevance(middle) == pytest.approx(0.5, abs=1e-4)
    assert 0 <= embeddings.relevance(-1) < embeddings.relevance(middle - 0.1) < embeddings.relevance(1) <= 1


class TestSeveralVectorsAClip:
    @pytest.fixture
    def names(self, color_video: Path) -> list[str]:
        """Red to green, and green to blue: in the second, green comes first."""
        return [f"{color_video}#t=0,4", f"{color_video}#t=2,6"]

    def test_our_store_goes_by_the_best(self, names: list[str]) -> None:
        store = FaissVideoStore.from_texts(names, VideoEmbeddings(encoder=TwoRows()))
        for color, scores in (("red", [1, 0]), ("green", [1, 1]), ("blue", [0, 1])):
            found = store.similarity_search_with_score(color, k=5)
            assert {document.page_content: score for document, score in found} == pytest.approx(
                dict(zip(names, scores, strict=True)), abs=1e-6
            )

    def test_an_ordinary_store_holds_the_mean(self, names: list[str]) -> None:
        store = InMemoryVectorStore(VideoEmbeddings(encoder=TwoRows()))
        store.add_texts(names)
        assert [score for _, score in store.similarity_search_with_score("green", k=2)] == pytest.approx([0.5**0.5] * 2)


class TestBadInput:
    @pytest.fixture
    def colors(self) -> VideoEmbeddings:
        return VideoEmbeddings(encoder=FakeVideoEncoder())

    def test_files_that_are_no_videos(self, colors: VideoEmbeddings, tmp_path: Path) -> None:
        (tmp_path / "broken.mp4").write_bytes(b"no film" * 100)
        render_audio(tmp_path / "sound.m4a", tone(1.0))
        for name, error in (
            ("gone.mp4", MediaNotFoundError),
            ("gone.mp4#t=0,1", MediaNotFoundError),
            ("broken.mp4#t=0,1", UnreadableMediaError),
            ("sound.m4a#t=0,1", NoVideoStreamError),
        ):
            with pytest.raises(error, match=name.split(".")[0]):
                colors.embed_documents([str(tmp_path / name)])
        with pytest.raises(MediaNotFoundError):
            colors.embed_documents([(tmp_path / "gone").as_uri()])

    @pytest.mark.parametrize(
        ("time", "message"),
        [
            ("t=6.5,7", r"6\.0 s long"),
            ("t=2,60", r"6\.0 s long"),
            ("t=4,2", "start"),
            ("t=3,3", "start < end"),
            ("t=3", "a start and an end"),
            ("t=soon,later", "a start and an end"),
        ],
    )
    def test_times_outside_the_video(self, colors: VideoEmbeddings, color_video: Path, time: str, message: str) -> None:
        with pytest.raises(UnsupportedContentError, match=message):
            colors.embed_documents([f"{color_video}#{time}"])

    def test_remote_files_are_not_fetched(self, colors: VideoEmbeddings) -> None:
        with pytest.raises(UnsupportedContentError, match="download"):
            colors.embed_documents(["https://example.com/talk.mp4#t=1,2"])

    def test_one_bad_name_is_told_before_anything_is_decoded(
        self, colors: VideoEmbeddings, color_video: Path, tmp_path: Path
    ) -> None:
        other = shutil.copy(color_video, tmp_path / "other.mp4")
        before = frames_decoded_total()
        with pytest.raises(UnsupportedContentError):
            colors.embed_documents([str(color_video), f"{other}#t=50,60"])
        assert frames_decoded_total() - before <= 2

    def test_options(self, encoder: VideoEncoder) -> None:
        for wrong in ({"encoder": encoder, "model": "folder"}, {"batch_size": 0}):
            with pytest.raises(ValueError, match="either|batch_size"):
                VideoEmbeddings(**wrong)
        with pytest.raises(ModelLoadError, match="no video encoder"):
            VideoEmbeddings("no such folder").embed_query("a")


def test_an_encoder_with_longer_vectors_is_refused(color_video: Path) -> None:
    @dataclass(frozen=True)
    class Long(FakeVideoEncoder):
        def embed_clips(self, clips: np.ndarray) -> ClipEmbeddings:
            return ClipEmbeddings(2 * FakeVideoEncoder.embed_clips(self, clips).vectors, None)

    with pytest.raises(ModelLoadError, match=r"length 2\.000"):
        VideoEmbeddings(encoder=Long()).embed_documents([str(color_video)])
