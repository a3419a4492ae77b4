"""Scenes as real H.264 files, in several sizes, rates, qualities and colours, and back as a library reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from videochat_tools.library.clips import ClipBatch, ClipShape, clip_batches
from videochat_tools.media import probe
from videochat_tools.training.world.config import STANDARD
from videochat_tools.training.world.long_video import stretch
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import Scene
from videochat_tools.training.world.tracks import PictureTrack
from videochat_tools.types import TimeSpan

__all__ = [
    "BASE",
    "COLOUR_SHIFTS",
    "CONDITIONS",
    "PRESET",
    "ColourShift",
    "Condition",
    "in_whole_frames",
    "places_of",
    "read_clips",
    "write_files",
]

PRESET = "veryfast"  # of x264: with B-frames, references and lookahead, as cameras and sites encode
_ENCODER = {"preset": PRESET, "x264-params": "threads=1"}
_GRID = 0.2  # seconds; a whole number of frames at each of the rates
_CHUNK = 16  # frames drawn at once
_BATCH = 8  # clips read at once
_WIDE_FROM = 720  # pixels of height from which on pictures are wide (16:9); smaller ones are 4:3

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ColourShift:
    """What another camera or white balance does to a picture: hue, then gains, then an offset.

    Attributes:
        gains: Of red, green and blue.
        offset: Added to all three, of 255.
        hue: Degrees by which colours turn about the axis of grey.
    """

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: float = 0.0
    hue: float = 0.0

    def apply(self, frames: Frames) -> Frames:
        """uint8 RGB [..., 3] with other colours."""
        if self == ColourShift():
            return frames
        angle = math.radians(self.hue)
        # Rotation about (1, 1, 1) by Rodrigues' formula.
        around = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        turn = math.cos(angle) * np.eye(3) + math.sin(angle) * around + (1 - math.cos(angle)) / 3 * np.ones((3, 3))
        matrix = (np.diag(self.gains) @ turn).astype(np.float32)
        shifted = frames.astype(np.float32) @ matrix.T + np.float32(self.offset)
        return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


# "Mild": what automatic exposure and white balance differ by from one camera to the next.
COLOUR_SHIFTS: dict[str, ColourShift] = {
    "as drawn": ColourShift(),
    "warm": ColourShift(gains=(1.06, 1.0, 0.94)),
    "cool": ColourShift(gains=(0.94, 1.0, 1.06)),
    "brighter": ColourShift(gains=(1.08, 1.08, 1.08), offset=8.0),
    "darker": ColourShift(gains=(0.88, 0.88, 0.88), offset=-6.0),
    "hue+8": ColourShift(hue=8.0),
    "hue-8": ColourShift(hue=-8.0),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a file is made. ``colour`` is one of :data:`COLOUR_SHIFTS`."""

    name: str
    crf: int = 26
    height: int = 240
    fps: int = 10
    colour: str = "as drawn"

    @property
    def width(self) -> int:
        """Pixels: of the usual format of this height."""
        return self.height * 16 // 9 if self.height >= _WIDE_FROM else self.height * 4 // 3


BASE = Condition("base")
CONDITIONS: tuple[Condition, ...] = (
    BASE,
    *(Condition(f"crf{crf}", crf=crf) for crf in (20, 32)),
    *(Condition(name, colour=name) for name in COLOUR_SHIFTS if name != BASE.colour),
    *(Condition(f"{fps}fps", fps=fps) for fps in (25, 30, 60)),
    *(Condition(f"{height}p", height=height) for height in (480, 720, 1080)),
)
"""The base, and everything else that differs from it in one point."""


def in_whole_frames(scenes: Sequence[Scene]) -> list[Scene]:
    """The scenes, a little longer or shorter, so that they begin and end on frames at every rate."""
    return [stretch(scene, max(1, round(scene.duration / _GRID)) * _GRID) for scene in scenes]


def places_of(scenes: Sequence[Scene]) -> list[TimeSpan]:
    """The spans of scenes that follow one another, in seconds of their file."""
    ends = [steps * _GRID for steps in accumulate(round(scene.duration / _GRID) for scene in scenes)]
    return [TimeSpan(start, end) for start, end in zip([0.0, *ends], ends, strict=False)]


def write_files(folder: Path, scenes: Sequence[Scene], conditions: Sequence[Condition]) -> list[Path]:
    """One file with all scenes for each condition; the pictures are drawn once.

    Args:
        folder: Where to.
        scenes: Out of :func:`in_whole_frames`.
        conditions: Of one size and rate.

    Raises:
        ValueError: the conditions differ in size or rate.
    """
    if len({(each.height, each.fps) for each in conditions}) != 1:
        raise ValueError(f"files that share their pictures have one height and one rate, got {list(conditions)}")
    width, height, fps = conditions[0].width, conditions[0].height, conditions[0].fps
    paths = [folder / f"{number}.mp4" for number in range(len(conditions))]
    with ExitStack() as files:
        containers = [files.enter_context(av.open(str(path), "w")) for path in paths]
        tracks = [
            PictureTrack(container, width, height, fps, {**_ENCODER, "crf": str(condition.crf)})
            for container, condition in zip(containers, conditions, strict=True)
        ]
        for pictures in _pictures(scenes, width, height, fps):
            for track, condition in zip(tracks, conditions, strict=True):
                track.write(COLOUR_SHIFTS[condition.colour].apply(pictures))
        for track in tracks:
            track.close()
    return paths


def _pictures(scenes: Sequence[Scene], width: int, height: int, fps: int) -> Iterator[Frames]:
    for scene in scenes:
        times = [number / fps for number in range(round(scene.duration * fps))]
        for first in range(0, len(times), _CHUNK):
            yield render_clip(scene, times[first : first + _CHUNK], width, height, noise=STANDARD.video_noise)


def read_clips(path: Path, spans: Sequence[TimeSpan], shapes: Sequence[ClipShape]) -> Iterator[ClipBatch]:
    """The scenes of a file as clips, decoded, scaled and cut out as by ``videochat add``."""
    return clip_batches(probe(path), spans, shapes, batch_size=_BATCH)
