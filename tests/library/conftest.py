"""Two small films of plain colours, three seconds each, one with subtitles; and a store that knows colours."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from videochat_tools.library import LibraryStore
from videochat_tools.segmenting import make_segmenter
from videochat_tools.testing import COLORS, FakeClipWatcher, FakeVideoEncoder

SUBTITLES = """WEBVTT

00:00.500 --> 00:02.500
The harbour opens at nine.

00:03.200 --> 00:05.800
Please bring the old lamp.
"""

MakeFilm = Callable[..., Path]


@pytest.fixture(scope="session")
def make_film(write_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> MakeFilm:
    """``make_film(path, "red", "green")``: three seconds of each colour at 10 frames a second, 96x64."""
    folder = tmp_path_factory.mktemp("made")

    def make(path: Path, *colors: str, seconds: float = 3.0) -> Path:
        made = folder / f"{'-'.join(colors)} {seconds}{path.suffix}"
        if not made.exists():
            pictures = (
                np.full((64, 96, 3), COLORS[color], np.uint8) for color in colors for _ in range(int(seconds * 10))
            )
            write_video(made, pictures, fps=10)
        return Path(shutil.copy(made, path))

    return make


@pytest.fixture
def talk(tmp_path: Path, make_film: MakeFilm) -> Path:
    """``talk.mp4``: red, green, blue, with subtitles beside it."""
    path = make_film(tmp_path / "films" / "talk.mp4", "red", "green", "blue")
    path.with_suffix(".vtt").write_text(SUBTITLES, encoding="utf-8")
    return path


@pytest.fixture
def silent(tmp_path: Path, make_film: MakeFilm) -> Path:
    """``silent.mp4``: yellow, white, black, purple."""
    return make_film(tmp_path / "films" / "silent.mp4", "yellow", "white", "black", "purple")


@pytest.fixture(autouse=True)
def _films_folder(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., LibraryStore]]:
    """``open_store(**options)``: the library ``lib`` of this test, with stand-ins for the models."""
    stores: list[LibraryStore] = []

    def open_(**options: object) -> LibraryStore:
        settings = {
            "encoder": FakeVideoEncoder(),
            "watcher": FakeClipWatcher(num_frames=6, frame_size=24),
            "transcriber": None,
            "segmenter": make_segmenter("shots"),
            **options,
        }
        stores.append(LibraryStore(tmp_path / "lib", **settings))  # type: ignore[arg-type]
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., LibraryStore], talk: Path, silent: Path) -> LibraryStore:
    """The library with both films in it."""
    made = open_store()
    assert [result.status for result in made.add([talk, silent])] == ["added", "added"]
    return made


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """``snapshot(folder)``: the content of a library, to compare before and after."""

    def take(folder: Path) -> dict[str, bytes]:
        """Everything a library consists of, apart from SQLite's own helper files."""
        tables = {}
        if (folder / "catalog.db").exists():
            with sqlite3.connect(folder / "catalog.db") as connection:
                tables = {f"line {number}": line.encode() for number, line in enumerate(connection.iterdump())}
            connection.close()
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(("catalog.db", "write.lock"))
        }
        return tables | files

    return take
