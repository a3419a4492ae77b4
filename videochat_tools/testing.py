"""Small deterministic stand-ins behind the package's own seams, for tests of what is built on it.

They are no mocks: they really look at the pixels, but know nothing except plain colours. A picture of red beside
blue is found by "something red", by "red and blue", and not by "green".

>>> from videochat_tools.library import LibraryStore
>>> from videochat_tools.testing import FakeClipWatcher, FakeVideoEncoder
>>> store = LibraryStore("lib", encoder=FakeVideoEncoder(), watcher=FakeClipWatcher())  # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import Calibration, ClipEmbeddings
from videochat_tools.types import Transcript

__all__ = ["COLORS", "FakeClipWatcher", "FakeTranscriber", "FakeVideoEncoder"]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 170, 50),
    "blue": (40, 60, 220),
    "yellow": (235, 215, 40),
    "purple": (140, 40, 170),
    "orange": (240, 140, 30),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
"""The colours that the stand-ins know, as RGB."""

_PALETTE = np.array(list(COLORS.values()), np.int32)


def _grid(clips: npt.NDArray[np.uint8], cells: int) -> npt.NDArray[np.float32]:
    """Mean colour in a grid over the frames: uint8 [n, T, H, W, 3] to float32 [n, T, cells * cells, 3]."""
    rows = np.array_split(np.arange(clips.shape[2]), cells)
    columns = np.array_split(np.arange(clips.shape[3]), cells)
    means = [clips[:, :, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(axis=(2, 3)) for r in rows for c in columns]
    return np.stack(means, axis=2).astype(np.float32)


@dataclass(frozen=True)
class FakeVideoEncoder:
    """A :class:`~videochat_tools.embeddings.VideoEncoder` that knows the named colours of :data:`COLORS`.

    The vector of a clip holds the share of each colour in it. ``version`` makes a different space of it.
    """

    num_frames: int = 4
    frame_size: int = 32
    version: str = "1"
    keeps_features: bool = True
    calibration: Calibration = field(default_factory=Calibration)
    dimension: int = len(COLORS)

    @property
    def rows(self) -> int:
        """Vectors of a clip."""
        return 1

    @property
    def fingerprint(self) -> str:
        """The name of the space."""
        return f"fake-encoder-{self.version}-{self.num_frames}x{self.frame_size}"

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The colours named in each text, equally weighted; a text that names none is near to nothing."""
        named = np.array([[color in _words(text) for color in COLORS] for text in texts], np.float32)
        return _unit(named.reshape(len(texts), self.dimension))

    def embed_clips(self, clips: npt.NDArray[np.uint8]) -> ClipEmbeddings:
        """Shares of the colours; the features are those of every cell: [n, num_frames * 16, 8]."""
        grid = _grid(clips, 4)
        nearest = ((grid[..., None, :] - _PALETTE) ** 2).sum(-1).argmin(-1)  # [n, T, cells]
        cells = np.eye(self.dimension, dtype=np.float32)[nearest.reshape(len(clips), -1)]
        vectors = _unit(cells.mean(axis=1, keepdims=True))
        return ClipEmbeddings(vectors, cells.astype(np.float16) if self.keeps_features else None)

    def match(self, text: str | Sequence[str], features: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
        """0.95 when every colour of the text covers a cell, less for each that does not; 0.05 when it names none."""
        if not isinstance(text, str):
            pairs = zip(text, features, strict=True)
            return np.concatenate([np.zeros(0, np.float32), *(self.match(each, one[None]) for each, one in pairs)])
        named = [index for index, color in enumerate(COLORS) if color in _words(text)]
        if not named:
            return np.full(len(features), 0.05, np.float32)
        present = features[:, :, named].max(axis=1).astype(np.float32)  # [n, colours named]
        return 0.05 + 0.9 * present.mean(axis=1) ** 2


@dataclass(frozen=True)
class FakeClipWatcher:
    """A :class:`~videochat_tools.embeddings.ClipWatcher` whose tokens are the mean colours in a grid, 0..1."""

    num_frames: int = 4
    frame_size: int = 32
    version: str = "1"

    @property
    def fingerprint(self) -> str:
        """The name of what the tokens mean."""
        return f"fake-watcher-{self.version}-{self.num_frames}x{self.frame_size}"

    def watch(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Tokens float16 [n, 16, 3]: one for each cell of a 4 x 4 grid, as RGB over 255."""
        return (_grid(clips, 4).mean(axis=1) / 255).astype(np.float16)


@dataclass(frozen=True)
class FakeTranscriber:
    """A :class:`~videochat_tools.speech.Transcriber` that hears what it was given, by file name."""

    transcripts: dict[str, Transcript]
    name: str = "fake"

    def transcribe(self, path: Path) -> Transcript:
        """The transcript of this file; of any other file an empty one."""
        return self.transcripts.get(Path(path).name, Transcript((), "whisper"))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-6)).astype(np.float32)
