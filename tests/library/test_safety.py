"""What must not happen to a library: half a video, lost work, two writers, traces of bad input."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rendering import render, render_audio, tone, truncate

from videochat_tools.errors import (
    LibraryError,
    MediaError,
    MediaNotFoundError,
    ModelLoadError,
    NoVideoStreamError,
    UnreadableMediaError,
)
from videochat_tools.library import LibraryStore
from videochat_tools.media import VideoReader, frames_decoded_total
from videochat_tools.segmenting import make_segmenter
from videochat_tools.testing import COLORS, FakeClipWatcher, FakeTranscriber, FakeVideoEncoder
from videochat_tools.types import TimeSpan, Transcript

OpenStore = Callable[..., LibraryStore]
Snapshot = Callable[[Path], dict[str, bytes]]

CRASH = """
import os, sys
from videochat_tools.library import LibraryStore
from videochat_tools.segmenting import make_segmenter
from videochat_tools.testing import FakeClipWatcher, FakeVideoEncoder

class DyingWatcher(FakeClipWatcher):
    clips = 0
    def watch(self, clips):
        DyingWatcher.clips += len(clips)
        if DyingWatcher.clips > int(sys.argv[2]):
            os._exit(9)  # as if the power went: no handler, no clean-up
        return super().watch(clips)

watcher = DyingWatcher(num_frames=6, frame_size=24)
store = LibraryStore(sys.argv[1], encoder=FakeVideoEncoder(), watcher=watcher, transcriber=None,
                     segmenter=make_segmenter("shots"))
store.add(sys.argv[3:])
"""


def crash(repository: Path, library: Path, after: int, *films: Path) -> None:
    arguments = [sys.executable, "-c", textwrap.dedent(CRASH), str(library), str(after), *map(str, films)]
    run = subprocess.run(arguments, cwd=repository, capture_output=True, text=True)
    assert run.returncode == 9, run.stderr


@pytest.fixture
def long_film(make_film: Callable[..., Path], tmp_path: Path) -> Path:
    """Twelve scenes: more than one batch."""
    colors = ("orange", "black", "white", "purple", "yellow", "green") * 2
    return make_film(tmp_path / "films" / "long.mp4", *colors, seconds=1.5)


def test_a_crash_loses_only_the_video_it_hits(
    repository: Path, open_store: OpenStore, talk: Path, long_film: Path, silent: Path, tmp_path: Path
) -> None:
    crash(repository, tmp_path / "lib", 3 + 8, talk, long_film, silent)  # in the second batch of the second film
    store = open_store()
    assert [record.name for record in store.list()] == ["talk.mp4"]
    assert store.search("green")[0].video == "talk.mp4"  # the index, which was never written, is made
    assert store.clip_tokens(store.search("green")[0]).shape == (1, 16, 3)

    decoded = frames_decoded_total()
    results = store.add([talk, long_film, silent])
    assert [result.status for result in results] == ["unchanged", "added", "added"]
    # 180 + 120 frames to look at, 120 to find the shots of the third; those of the second were found before.
    assert frames_decoded_total() - decoded < 180 + 2 * 120 + 20
    assert store.search("orange", videos=["long"])[0].span.start == pytest.approx(0, abs=0.1)
    leftovers = [path.name for path in (store.path / "cache").rglob("*.*") if not path.name.endswith(".npy")]
    assert leftovers == []
    assert {path.name.split("-")[0] for path in (store.path / "cache").rglob("*.npy")} == {"tokens", "features"}


@pytest.mark.parametrize("left_by", ["this version", "a version without rows"])
def test_everything_was_made_but_the_last_step(
    open_store: OpenStore, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_by: str
) -> None:
    from videochat_tools.library.catalog import Catalog

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Catalog, "add_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_store().add(talk)
    store = open_store()
    assert store.list() == []
    if left_by == "a version without rows":
        (vectors,) = (store.path / "cache").rglob("vectors-*.npy")
        np.save(vectors, np.load(vectors)[:, 0])
    decoded = frames_decoded_total()
    assert store.add(talk)[0].status == "added"
    assert frames_decoded_total() - decoded <= 2  # to probe it
    assert store.search("blue")[0].span == TimeSpan(6.0, 9.0)


def test_a_failed_transaction_leaves_the_catalog_as_it_was(
    store: LibraryStore, tmp_path: Path, snapshot: Snapshot
) -> None:
    from videochat_tools.library.catalog import NewVideo

    catalog = store._open()
    record = store.get("talk")
    before = snapshot(store.path)
    vectors = np.zeros((2, 1, 8), np.float32)  # one segment has no vector
    spans = [TimeSpan(0, 3), TimeSpan(3, 6), TimeSpan(6, 9)]
    new = NewVideo("feedfeedfeedfeed", tmp_path / "x.mp4", record.info, spans, Transcript((), "none"), "f", vectors)
    with pytest.raises(ValueError, match="zip"):
        catalog.add_video(new, replaces=[record.video_id])
    assert snapshot(store.path) == before


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing.mp4", MediaNotFoundError),
        ("empty.mp4", UnreadableMediaError),
        ("text.mp4", UnreadableMediaError),
        ("sound.m4a", NoVideoStreamError),
        ("cut.mp4", UnreadableMediaError),
        ("nothing*.mp4", MediaNotFoundError),
        ("folder", MediaNotFoundError),
    ],
)
def test_bad_input_is_reported_and_leaves_no_trace(
    store: LibraryStore,
    open_store: OpenStore,
    talk: Path,
    tmp_path: Path,
    name: str,
    error: type[MediaError],
    snapshot: Snapshot,
) -> None:
    bad = tmp_path / "films" / name
    if name == "empty.mp4":
        bad.touch()
    elif name == "text.mp4":
        bad.write_text("no video " * 100)
    elif name == "sound.m4a":
        render_audio(bad, tone(2.0))
    elif name == "cut.mp4":
        truncate(talk, bad, 0.02)
    elif name == "folder":
        bad.mkdir()
    before = snapshot(store.path)
    (result,) = store.add(bad)
    assert (result.status, result.record) == ("failed", None)
    assert type(result.error) is error
    assert name in str(result.error)
    assert "\n" not in str(result.error)
    assert snapshot(store.path) == before


def test_bad_files_make_no_library_and_stop_no_good_ones(open_store: OpenStore, talk: Path, tmp_path: Path) -> None:
    bad = tmp_path / "films" / "empty.mp4"
    bad.touch()
    store = open_store()
    assert store.add([bad, "missing.mp4"])[1].status == "failed"
    assert not (tmp_path / "lib").exists()
    assert [result.status for result in store.add([bad, talk, "missing.mp4"])] == ["failed", "added", "failed"]
    assert [record.name for record in store.list()] == ["talk.mp4"]


@dataclass(frozen=True)
class BrokenTranscriber(FakeTranscriber):
    transcripts: dict[str, Transcript] = field(default_factory=dict)
    error: Exception = field(default_factory=lambda: MediaError("the sound of talk.mp4 is damaged"))

    def transcribe(self, path: Path) -> Transcript:
        raise self.error


def test_a_failure_on_the_way_leaves_no_trace(
    store: LibraryStore, open_store: OpenStore, tmp_path: Path, snapshot: Snapshot
) -> None:
    film = render(tmp_path / "films" / "x.mp4", [np.full((64, 96, 3), 90, np.uint8)] * 30, audio=tone(3.0))
    before = snapshot(store.path)
    (result,) = open_store(transcriber=BrokenTranscriber()).add(film)
    assert (result.status, str(result.error)) == ("failed", "the sound of talk.mp4 is damaged")
    assert snapshot(store.path) == before
    with pytest.raises(ModelLoadError, match="no such model"):  # not the film's fault: the next would fail too
        open_store(transcriber=BrokenTranscriber(error=ModelLoadError("no such model"))).add(film)
    assert len(store.list()) == 2


def test_a_film_that_breaks_off_is_added_as_far_as_it_goes(open_store: OpenStore, tmp_path: Path) -> None:
    colors = np.repeat([COLORS["orange"], COLORS["black"]], 60, axis=0)
    noise = np.random.default_rng(0).integers(0, 30, (120, 64, 96, 1))  # so that every frame has its share of the bytes
    pictures = np.minimum(colors[:, None, None] + noise, 255).astype(np.uint8)
    film = render(tmp_path / "films" / "whole.mp4", pictures)
    store = open_store()
    (result,) = store.add(truncate(film, tmp_path / "films" / "cut.mp4", 0.7))
    assert result.status == "added"
    hit = store.search("orange")[0]
    assert hit.visual > 0.9
    assert 0 <= hit.span.start < hit.span.end <= result.record.info.duration + 0.01


@dataclass(frozen=True)
class WaitingSegmenter:
    """Stops in the middle of an add until it is told to go on."""

    name: ClassVar[str] = "waiting"
    started: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def segment(self, reader: VideoReader) -> list[TimeSpan]:
        self.started.set()
        assert self.go_on.wait(20)
        return make_segmenter("shots").segment(reader)


def test_one_writer_at_a_time_and_readers_go_on(store: LibraryStore, open_store: OpenStore, long_film: Path) -> None:
    segmenter = WaitingSegmenter()
    slow, other = open_store(segmenter=segmenter), open_store()
    adding = threading.Thread(target=slow.add, args=(long_film,))
    adding.start()
    try:
        assert segmenter.started.wait(20)
        with pytest.raises(LibraryError, match="another process is adding"):
            other.add(long_film)
        with pytest.raises(LibraryError, match="another process is adding"):
            other.remove("talk")
        assert other.search("red")[0].video == "talk.mp4"
        assert len(other.list()) == 2
    finally:
        segmenter.go_on.set()
        adding.join()
    assert len(other.list()) == 3
    assert other.search("orange")[0].video == "long.mp4"  # a store that was open before sees the new film
    assert other.remove("long").name == "long.mp4"
    assert slow.search("orange")[0].video != "long.mp4"


def test_another_process_sees_what_was_added_and_removed(store: LibraryStore, repository: Path) -> None:
    script = """
import sys
from videochat_tools.library import LibraryStore
from videochat_tools.testing import FakeVideoEncoder
with LibraryStore(sys.argv[1], encoder=FakeVideoEncoder(), create=False) as store:
    print(store.search("red")[0].video)
    print(store.remove("talk").name)
"""
    arguments = [sys.executable, "-c", script, str(store.path)]
    run = subprocess.run(arguments, cwd=repository, capture_output=True, text=True)
    assert run.stdout.split() == ["talk.mp4", "talk.mp4"], run.stderr
    assert [record.name for record in store.list()] == ["silent.mp4"]
    assert {hit.video for hit in store.search("red", k=9)} == {"silent.mp4"}


def test_threads_may_share_a_store(store: LibraryStore) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(str(store.search("red")[0]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_memory_holds_a_batch_and_not_the_film(open_store: OpenStore, long_film: Path) -> None:
    @dataclass(frozen=True)
    class Watching(FakeVideoEncoder):
        sizes: list[tuple[int, ...]] = field(default_factory=list)

        def embed_clips(self, clips: np.ndarray) -> Any:
            self.sizes.append(clips.shape)
            return super().embed_clips(clips)

    encoder = Watching()
    open_store(encoder=encoder).add(long_film)
    assert encoder.sizes == [(8, 4, 32, 32, 3), (4, 4, 32, 32, 3)]


def test_listing_and_removing_load_no_model(store: LibraryStore, repository: Path) -> None:
    script = """
import sys
from videochat_tools.library import LibraryStore
with LibraryStore(sys.argv[1]) as store:
    store.list(), store.remove("talk")
print(sorted({"torch", "transformers", "faster_whisper"} & set(sys.modules)))
"""
    arguments = [sys.executable, "-c", script, str(store.path)]
    run = subprocess.run(arguments, cwd=repository, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_no_pickle_in_the_library(store: LibraryStore) -> None:
    for path in (store.path / "cache").rglob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype == np.float16


def test_stand_ins_fit_the_seams() -> None:
    from videochat_tools.embeddings import ClipWatcher, VideoEncoder
    from videochat_tools.speech import Transcriber

    assert isinstance(FakeVideoEncoder(), VideoEncoder)
    assert isinstance(FakeClipWatcher(), ClipWatcher)
    assert isinstance(FakeTranscriber({}), Transcriber)
