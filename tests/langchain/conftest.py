"""A short film of the nano's world, its truth, and the bundled nano that looks at it; each made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from videochat_tools.embeddings import NANO_ENCODER, VideoEncoder, load_encoder
from videochat_tools.library import LibraryStore
from videochat_tools.training.world.sample import render_sample
from videochat_tools.types import TimeSpan, media_fragment
from videochat_tools.video_embeddings import VideoEmbeddings


@dataclass(frozen=True)
class Film:
    """A rendered film; ``captions`` say what is seen in each of ``spans``. Words are in subtitles beside it."""

    path: Path
    duration: float
    spans: tuple[TimeSpan, ...]
    captions: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [media_fragment(self.path.as_uri(), span) for span in self.spans]


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    path = tmp_path_factory.mktemp("film") / "a film #1.mp4"
    render_sample(path, minutes=0.6, seed=3)
    truth = json.loads(path.with_suffix(".timeline.json").read_text(encoding="utf-8"))
    return Film(
        path,
        truth["duration"],
        tuple(TimeSpan(scene["start"], scene["end"]) for scene in truth["scenes"]),
        tuple(scene["caption"] for scene in truth["scenes"]),
    )


@pytest.fixture(scope="session")
def encoder() -> VideoEncoder:
    if not (NANO_ENCODER / "config.json").is_file():
        pytest.skip("no nano weights in this tree")
    return load_encoder()


@pytest.fixture(scope="session")
def embeddings(encoder: VideoEncoder) -> VideoEmbeddings:
    return VideoEmbeddings(encoder=encoder)


@pytest.fixture(scope="session")
def library(film: Film, encoder: VideoEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryStore]:
    """A library that holds the film, which no test changes."""
    with LibraryStore(tmp_path_factory.mktemp("library"), encoder=encoder, transcriber=None) as store:
        assert store.add(film.path)[0].status == "added"
        yield store
