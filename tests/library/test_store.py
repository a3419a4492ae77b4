from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rendering import render, tone

from videochat_tools.errors import LibraryError, LibraryNotFoundError, UnknownVideoError
from videochat_tools.library import AddProgress, LibraryStore
from videochat_tools.media import frames_decoded_total
from videochat_tools.testing import COLORS, FakeClipWatcher, FakeTranscriber, FakeVideoEncoder
from videochat_tools.types import TimeSpan, Transcript, Utterance

OpenStore = Callable[..., LibraryStore]
Snapshot = Callable[[Path], dict[str, bytes]]


# ------------------------------------------------------------------------------------------------------ add and list


def test_list_tells_what_was_added(store: LibraryStore, talk: Path) -> None:
    silent, record = store.list()
    assert (silent.name, silent.segments, silent.utterances) == ("silent.mp4", 4, 0)
    assert (record.name, record.segments, record.utterances) == ("talk.mp4", 3, 2)
    assert (silent.transcript_source, record.transcript_source) == ("none", "subtitles")
    assert record.path == talk
    assert record.info.duration == pytest.approx(9.0)
    assert record.info.path == talk
    assert len(record.video_id) == 16
    assert store.transcript("talk")[0] == Utterance(TimeSpan(0.5, 2.5), "The harbour opens at nine.")


def test_adding_again_changes_nothing(
    store: LibraryStore, snapshot: Snapshot, talk: Path, silent: Path, tmp_path: Path
) -> None:
    before = snapshot(store.path)
    copy = shutil.copy(talk, tmp_path / "films" / "copy.mp4")
    decoded = frames_decoded_total()
    assert [result.status for result in store.add([talk, silent, copy])] == ["unchanged"] * 3
    assert frames_decoded_total() - decoded <= 3  # only to probe them
    assert snapshot(store.path) == before
    assert [record.name for record in store.list()] == ["silent.mp4", "talk.mp4"]


def test_the_same_content_twice_in_one_go_is_one_video(open_store: OpenStore, talk: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(talk, tmp_path / "films" / "copy.mp4"))
    store = open_store()
    assert [result.status for result in store.add([talk, copy])] == ["added", "unchanged"]
    assert len(store.list()) == 1


def test_a_moved_file_is_followed(store: LibraryStore, talk: Path, tmp_path: Path) -> None:
    moved = talk.rename(tmp_path / "films" / "ein größerer Vortrag #1.mp4")
    (result,) = store.add(moved)
    assert result.status == "unchanged"
    assert store.get("ein größerer Vortrag #1.mp4").path == moved
    assert store.get(result.record.video_id).info.path == moved
    assert store.search("red")[0].uri == moved.as_uri()


def test_an_overwritten_file_replaces_what_was_known_of_it(
    store: LibraryStore, talk: Path, make_film: Callable[..., Path]
) -> None:
    old = store.get("talk")
    make_film(talk, "orange", "black")
    (result,) = store.add(talk)
    assert (result.status, result.replaced.video_id) == ("added", old.video_id)
    assert [record.name for record in store.list()] == ["silent.mp4", "talk.mp4"]
    assert store.search("orange")[0].video_id == store.get("talk").video_id
    assert store.search("red")[0].score < 0.5
    assert not (store.path / "cache" / old.video_id).exists()


def test_folders_and_patterns_name_their_videos(open_store: OpenStore, talk: Path, silent: Path) -> None:
    store = open_store()
    (talk.parent / "notes.txt").write_text("no video")
    names = [result.source.name for result in store.add([talk.parent, talk.parent / "t*.mp4"])]
    assert names == ["silent.mp4", "talk.mp4"]
    assert [result.status for result in store.add(f"{talk.parent}/*.mp4")] == ["unchanged", "unchanged"]
    assert store.add(talk.as_uri())[0].status == "unchanged"


def test_progress_counts_seconds_of_video(open_store: OpenStore, talk: Path, silent: Path) -> None:
    seen: list[AddProgress] = []
    open_store().add([talk, silent], progress=seen.append)
    assert [item.done for item in seen] == sorted(item.done for item in seen)
    assert (seen[-1].done, seen[-1].total) == (pytest.approx(21.0), pytest.approx(21.0))
    assert seen[-1].speed > 0
    assert {item.stage for item in seen} == {"segmenting", "transcribing", "watching", "done"}
    assert {item.video for item in seen} == {"talk.mp4", "silent.mp4"}


def test_the_bar_goes_to_standard_error(open_store: OpenStore, talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_store().add(talk, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "9/9 s of video" in err
    assert "x real time" in err


def test_frames_are_decoded_once_for_both_models(open_store: OpenStore, talk: Path) -> None:
    store = open_store(watcher=FakeClipWatcher(num_frames=9, frame_size=48))
    decoded = frames_decoded_total()
    store.add(talk)
    # 90 frames: once to find the shots, once to look at them, and a few to probe.
    assert frames_decoded_total() - decoded < 2 * 90 + 10


def test_a_whisper_transcript_is_kept(open_store: OpenStore, tmp_path: Path) -> None:
    red, green = (np.full((64, 96, 3), COLORS[color], np.uint8) for color in ("red", "green"))
    film = render(tmp_path / "films" / "spoken.mp4", [red] * 30 + [green] * 30, audio=tone(6.0))
    heard = Transcript((Utterance(TimeSpan(3.5, 5.0), "the ferry leaves"),), "whisper", "en")
    store = open_store(transcriber=FakeTranscriber({"spoken.mp4": heard}))
    (result,) = store.add(film)
    assert (result.record.transcript_source, result.record.utterances) == ("whisper", 1)
    (hit,) = store.search("when is the ferry mentioned?")
    assert (hit.span, hit.text, hit.segments) == (TimeSpan(3.5, 5.0), "the ferry leaves", (1,))


# -------------------------------------------------------------------------------------------------------------- open


def test_a_library_begins_with_its_first_video(open_store: OpenStore, talk: Path, tmp_path: Path) -> None:
    store = open_store()
    assert store.list() == []
    assert store.search("red") == []
    assert not (tmp_path / "lib").exists()
    store.add(talk)
    assert {"catalog.db", "index.faiss", "cache"} <= {path.name for path in (tmp_path / "lib").iterdir()}


def test_no_library_where_one_is_expected(open_store: OpenStore, tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFoundError, match=r"no library at .*lib"):
        open_store(create=False)
    assert not (tmp_path / "lib").exists()


def test_a_file_is_no_library(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "lib").write_text("a file")
    with pytest.raises(LibraryError, match="is a file"):
        open_store()


@pytest.mark.parametrize("content", ["text", "foreign", "newer"])
def test_a_strange_catalog_is_not_touched(open_store: OpenStore, tmp_path: Path, content: str) -> None:
    (tmp_path / "lib").mkdir()
    path = tmp_path / "lib" / "catalog.db"
    if content == "text":
        path.write_text("this is no database, whatever its name says" * 30)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE songs (name TEXT)")
            if content == "newer":
                connection.execute(f"PRAGMA application_id = {0x56434C42}")
                connection.execute("PRAGMA user_version = 99")
        connection.close()
    before = path.read_bytes()
    with pytest.raises(LibraryError, match={"newer": "schema 99.*update"}.get(content, "catalog")):
        open_store()
    assert path.read_bytes() == before


def test_a_closed_store_opens_again(store: LibraryStore, open_store: OpenStore) -> None:
    store.close()
    assert store.search("red")[0].video == "talk.mp4"
    assert open_store(create=False).search("red")[0].video == "talk.mp4"


# ------------------------------------------------------------------------------------------------------------ remove


def test_remove_leaves_nothing_behind(store: LibraryStore, open_store: OpenStore) -> None:
    removed = store.remove("talk.mp4")
    assert removed.path.exists()  # the film itself is the user's
    assert [record.name for record in store.list()] == ["silent.mp4"]
    assert all(hit.video == "silent.mp4" for hit in store.search("red or the harbour lamp", k=20))
    store.close()
    everything = b"".join(path.read_bytes() for path in store.path.rglob("*") if path.is_file())
    for trace in (b"harbour", b"lamp", b"talk.mp4", removed.video_id.encode()):
        assert trace not in everything
    assert removed.video_id not in {path.name for path in (store.path / "cache").iterdir()}
    assert all(hit.video == "silent.mp4" for hit in open_store().search("red", k=20))


def test_removed_and_added_again_is_as_before(store: LibraryStore, talk: Path) -> None:
    before = [(hit.span, hit.score, hit.text) for hit in store.search("red", k=3)]
    store.remove(store.get("talk").video_id[:6])
    assert store.add(talk)[0].status == "added"
    assert [(hit.span, hit.score, hit.text) for hit in store.search("red", k=3)] == before


def test_videos_go_by_id_prefix_name_stem_and_path(store: LibraryStore, talk: Path) -> None:
    record = store.get("talk.mp4")
    for name in (record.video_id, record.video_id[:5], "talk", str(talk), talk):
        assert store.get(name) == record


def test_an_unknown_video_is_named_with_what_is_there(store: LibraryStore, snapshot: Snapshot) -> None:
    before = snapshot(store.path)
    with pytest.raises(UnknownVideoError, match=r"no video 'nope'.*silent\.mp4.*talk\.mp4"):
        store.remove("nope")
    with pytest.raises(UnknownVideoError, match="'nope'"):
        store.search("red", videos=["talk", "nope"])
    assert snapshot(store.path) == before


def test_a_name_that_two_videos_have_needs_the_id(
    store: LibraryStore, make_film: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "films" / "more").mkdir()
    store.add(make_film(tmp_path / "films" / "more" / "talk.mp4", "white", "orange"))
    with pytest.raises(UnknownVideoError, match="more than one"):
        store.remove("talk.mp4")
    assert len(store.list()) == 3


# ------------------------------------------------------------------------------------------------------- other models


def test_vectors_of_two_encoders_are_never_compared(
    store: LibraryStore, open_store: OpenStore, talk: Path, silent: Path
) -> None:
    other = open_store(encoder=FakeVideoEncoder(version="2", num_frames=2))
    with pytest.raises(LibraryError, match=r"silent\.mp4, talk\.mp4; add them again"):
        other.search("red")
    assert other.search("what is said about the harbour?", channels=["speech"])[0].video == "talk.mp4"
    assert other.add(talk)[0].status == "updated"
    assert other.search("red", videos=["talk"])[0].score > 0.9
    with pytest.raises(LibraryError, match=r"silent\.mp4; add it again"):
        other.search("red")
    assert other.add([talk, silent])[1].status == "updated"
    assert other.search("yellow")[0].video == "silent.mp4"
    assert store.search("yellow")[0].video == "silent.mp4"  # the first encoder still has its own
    assert len(other.transcript("talk")) == 2


class Wider(FakeVideoEncoder):
    """Another encoder under the same name: two vectors a clip."""

    @property
    def rows(self) -> int:
        return 2


@pytest.mark.parametrize("index", ["there", "gone"])
def test_what_another_encoder_of_the_same_name_wrote_is_not_searched(
    store: LibraryStore, open_store: OpenStore, index: str
) -> None:
    if index == "gone":
        (store.path / "index.faiss").unlink()
    with pytest.raises(LibraryError, match=r"32 bytes .* 2 x 8 numbers \(64 bytes\).*new library") as raised:
        open_store(encoder=Wider()).search("red")
    assert "\n" not in str(raised.value)
    assert store.search("red")[0].video == "talk.mp4"


def test_tokens_of_another_watcher_are_made_by_adding_again(
    store: LibraryStore, open_store: OpenStore, talk: Path
) -> None:
    other = open_store(watcher=FakeClipWatcher(version="2"))
    hit = other.search("red")[0]
    with pytest.raises(LibraryError, match=r"talk\.mp4 has no clip tokens.*add the video again"):
        other.clip_tokens(hit)
    assert other.add(talk)[0].status == "updated"
    assert other.clip_tokens(hit).shape == (1, 16, 3)
    assert store.clip_tokens(hit).shape == (1, 16, 3)


def test_without_a_watcher_there_are_no_tokens(open_store: OpenStore, talk: Path) -> None:
    store = open_store(watcher=None)
    store.add(talk)
    with pytest.raises(LibraryError, match="watcher"):
        store.clip_tokens(store.search("red")[0])


def test_tokens_are_those_of_the_segments(store: LibraryStore) -> None:
    for color in ("red", "green", "white"):
        hit = store.search(color, k=1)[0]
        tokens = store.clip_tokens(hit)
        assert tokens.dtype == np.float16
        assert np.allclose(tokens.mean(axis=(0, 1)) * 255, COLORS[color], atol=12)  # H.264 shifts colours a little


def test_a_lost_cache_is_reported_and_made_again(store: LibraryStore, talk: Path) -> None:
    hit = store.search("red")[0]
    shutil.rmtree(store.path / "cache" / hit.video_id)
    with pytest.raises(LibraryError, match=r"talk\.mp4 is gone.*add the video again"):
        store.search("red")
    with pytest.raises(LibraryError, match="add the video again"):
        store.clip_tokens(hit)
    assert store.add(talk)[0].status == "updated"
    assert store.search("red")[0] == hit
    assert store.clip_tokens(hit).shape == (1, 16, 3)


@pytest.mark.parametrize("damage", ["missing", "text", "stale", "foreign"])
def test_the_index_is_made_again(store: LibraryStore, open_store: OpenStore, silent: Path, damage: str) -> None:
    expected = store.search("yellow", k=3)
    index = store.path / "index.faiss"
    if damage == "missing":
        index.unlink()
    elif damage == "text":
        index.write_text("no index")
    elif damage == "stale":
        old = index.read_bytes()
        store.remove("silent")
        store.add(silent)
        index.write_bytes(old)
    else:
        import faiss

        from videochat_tools.retrievers.faiss_index import FaissIndex

        ids = FaissIndex.load(index).ids
        other = FaissIndex(faiss.read_index(str(index)).d)
        other.add(ids, np.random.default_rng(0).normal(size=(len(ids), other.dimension)))
        other.save(index)
    assert open_store().search("yellow", k=3) == expected
    assert index.is_file()
