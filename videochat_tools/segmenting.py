"""Which stretches of a video belong together: shots between cuts, or windows of a fixed length.

A window that holds a cut mixes two scenes into one description, so shots are the default.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from videochat_tools.types import Frame, TimeSpan

if TYPE_CHECKING:
    from videochat_tools.media import VideoReader

__all__ = ["FixedSegmenter", "Segmenter", "ShotSegmenter", "SlidingSegmenter", "make_segmenter"]

Image = npt.NDArray[np.uint8]
Row = npt.NDArray[np.float64]
Cut = tuple[float, float]  # time in seconds, strength in levels

_SIZE = (64, 36)  # width, height of the pictures compared: noise and small objects fade, layout and colour stay
_BLOCK = 4  # pixels of that size a side of one pixel of a thumbnail
_QUANTILES = np.linspace(0.5, 0.8, 7)  # kept of the differences of all pixels; which one counts is known at the end
_ACTIVE_RANGE = 16  # levels of 256 that a pixel must vary by over the video; bars at the edges do not
_JOLT = [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-2, 0, 2)]  # shifts in pixels that a shaken camera may make
_NEAR = 3  # frames; a cut stands out from the frames right beside it, a fast pan does not
_NEAR_RATIO = 2.0
_AROUND = 0.5  # seconds on either side that say how much the picture changes anyway
_LASTING = 0.5  # share of a change that must still be there two frames later; a flash leaves nothing
_SOFT_REACH = 0.5  # seconds before and after a dissolve or a whip pan that are compared
_SOFT_CALM = 0.5  # the same comparison one second to either side may reach this share of it


class Segmenter(Protocol):
    """Divides a video. An implementation is a frozen dataclass, so that its repr() says all that it depends on."""

    name: ClassVar[str]

    def segment(self, reader: VideoReader) -> list[TimeSpan]:
        """The segments in order of time."""
        ...


@dataclass(frozen=True)
class ShotSegmenter:
    """Cuts where most of the picture changes at once, and far more than it did just before and after.

    One pass over all frames at 64x36 pixels. A change is the difference of most of the picture (a quantile over its
    pixels) after undoing small shifts, so objects that move, blink or appear do not count, nor does a shaken camera.

    Attributes:
        min_seconds: shorter shots join a neighbour, across the weaker cut.
        max_seconds: longer shots are split into equal parts.
        level: least change at a cut, in levels of 256.
        ratio: least change at a cut against the mean change around it.
        soft_level: least change, in levels of 256, within one second of a dissolve or a fast pan between two calm
            pictures; ``inf`` to cut at hard cuts only.
    """

    name: ClassVar[str] = "shots"

    min_seconds: float = 1.0
    max_seconds: float = 16.0
    level: float = 6.0
    ratio: float = 4.0
    soft_level: float = 45.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds <= self.max_seconds / 2 or self.max_seconds <= 0:
            raise ValueError(
                "shots need 0 <= min_seconds <= max_seconds / 2, "
                f"got min_seconds={self.min_seconds!r}, max_seconds={self.max_seconds!r}"
            )
        if min(self.level, self.ratio, self.soft_level) <= 0:
            raise ValueError(f"level, ratio and soft_level must be above 0, got {self!r}")

    def segment(self, reader: VideoReader) -> list[TimeSpan]:
        """Shots that cover the whole video without a gap."""
        with reader.resized(_SIZE) as small:
            changes = _measure(small.frames(), self.level)
        cuts = _hard_cuts(changes, self.level, self.ratio)
        cuts = sorted(cuts + _soft_cuts(changes, self.soft_level, cuts))
        end = reader.info.duration
        kept = _without_short([cut for cut in cuts if cut[0] < end], end, self.min_seconds)
        return _split_long([0.0, *kept, end], self.max_seconds)


@dataclass(frozen=True)
class FixedSegmenter:
    """Windows of one length from the start on; a rest of less than half a window joins the last one."""

    name: ClassVar[str] = "fixed"

    seconds: float = 8.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"the length of a window must be above 0 s, got {self.seconds!r}")

    def segment(self, reader: VideoReader) -> list[TimeSpan]:
        """Windows that cover the whole video without a gap."""
        end = reader.info.duration
        count = max(1, math.floor(end / self.seconds + 0.5))
        bounds = [number * self.seconds for number in range(count)] + [end]
        return [TimeSpan(*pair) for pair in pairwise(bounds)]


@dataclass(frozen=True)
class SlidingSegmenter:
    """Windows of one length that begin every ``stride`` seconds, so they overlap; the last ends with the video."""

    name: ClassVar[str] = "sliding"

    seconds: float = 8.0
    stride: float = 4.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and 0 < self.stride <= self.seconds):
            raise ValueError(
                f"sliding windows need 0 < stride <= seconds, got stride={self.stride!r}, seconds={self.seconds!r}"
            )

    def segment(self, reader: VideoReader) -> list[TimeSpan]:
        """Overlapping windows that leave out nothing."""
        end = reader.info.duration
        count = max(0, math.ceil((end - self.seconds) / self.stride - 1e-9))
        starts = [number * self.stride for number in range(count)] + [max(0.0, end - self.seconds)]
        return [TimeSpan(start, min(start + self.seconds, end)) for start in starts]


_SEGMENTERS: dict[str, type[ShotSegmenter] | type[FixedSegmenter] | type[SlidingSegmenter]] = {
    kind.name: kind for kind in (ShotSegmenter, FixedSegmenter, SlidingSegmenter)
}


def make_segmenter(name: str, **options: Any) -> Segmenter:
    """A segmenter by name (``"shots"``, ``"fixed"`` or ``"sliding"``) with its options; ValueError for others."""
    kind = _SEGMENTERS.get(name)
    if kind is None:
        raise ValueError(f"no segmenter {name!r}; choose one of {', '.join(_SEGMENTERS)}")
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            raise ValueError(f"the segmenter {name!r} has no option {option!r}; it has {', '.join(known)}")
    return kind(**options)


# --- finding cuts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Changes:
    """How the picture changes over a video of n + 1 frames; row ``i`` of a change is about frame ``i + 1``.

    Attributes:
        times: when each frame appears, in seconds; [n + 1].
        steps: change from the frame before, small shifts undone, in levels; [n].
        lasting: change from two frames before to the frame after, in levels; [n].
        thumbnails: 16x9 pictures; uint8 [n + 1, 9, 16, 3].
    """

    times: Row
    steps: Row
    lasting: Row
    thumbnails: Image


def _measure(frames: Iterable[Frame], level: float) -> _Changes:
    """One pass over frames of ``_SIZE``. Shifts are tried only where the change exceeds ``level``."""
    times: list[float] = []
    thumbnails: list[Image] = []
    steps: list[Row] = []
    lasting: list[Row] = []
    recent: list[Image] = []  # the last four frames at most
    low = high = np.zeros(0, np.uint8)
    for frame in frames:
        image = frame.image
        low, high = (np.minimum(low, image), np.maximum(high, image)) if times else (image, image)
        times.append(frame.time)
        thumbnails.append(_thumbnail(image))
        recent = [*recent[-3:], image]
        if len(recent) > 1:
            steps.append(_step(recent[-2], image, level))
        if len(recent) > 2:  # the frame before this one now has a frame after it
            lasting.append(_quantiles(_difference(recent[0], image)))
    if len(recent) > 1:
        lasting.append(_quantiles(_difference(recent[-min(3, len(recent))], recent[-1])))
    active = float((high.astype(np.int16) - low > _ACTIVE_RANGE).any(axis=2).mean())
    # The median over the pixels that change at all. At least 40 % of the picture count as such: otherwise a single
    # blinking object in front of a still background would be most of what changes.
    column = int(np.argmin(np.abs(_QUANTILES - (1 - max(active, 0.4) / 2))))
    rows = (len(times) - 1, len(_QUANTILES))
    return _Changes(
        np.array(times),
        np.array(steps, np.float64).reshape(rows)[:, column],
        np.array(lasting, np.float64).reshape(rows)[:, column],
        np.stack(thumbnails),
    )


def _difference(one: Image, other: Image) -> npt.NDArray[np.int16]:
    """Per pixel the difference of the channel that differs most; [height, width]."""
    difference: npt.NDArray[np.int16] = np.abs(one.astype(np.int16) - other.astype(np.int16)).max(axis=2)
    return difference


def _quantiles(difference: npt.NDArray[np.int16]) -> Row:
    flat = difference.ravel()
    places = (_QUANTILES * (flat.size - 1)).astype(int)
    row: Row = np.partition(flat, places)[places].astype(np.float64)
    return row


def _step(before: Image, after: Image, level: float) -> Row:
    change = _quantiles(_difference(before, after))
    if change[-1] < level:
        return change
    height, width = before.shape[:2]
    core = before[2:-2, 4:-4]
    shifted = (after[2 + y : height - 2 + y, 4 + x : width - 4 + x] for x, y in _JOLT)
    return np.minimum(change, min((_quantiles(_difference(core, part)) for part in shifted), key=lambda row: row[0]))


def _thumbnail(image: Image) -> Image:
    height, width, _ = image.shape
    blocks = image.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK, 3)
    thumbnail: Image = blocks.mean(axis=(1, 3)).astype(np.uint8)
    return thumbnail


def _hard_cuts(changes: _Changes, level: float, ratio: float) -> list[Cut]:
    times, steps = changes.times[1:], changes.steps
    cuts = []
    for number in np.flatnonzero((steps >= level) & (changes.lasting >= _LASTING * steps)):
        strength = steps[number]
        near = np.concatenate([steps[max(0, number - _NEAR) : number], steps[number + 1 : number + 1 + _NEAR]])
        first = np.searchsorted(times, times[number] - _AROUND)
        last = np.searchsorted(times, times[number] + _AROUND, side="right")
        around = np.concatenate([steps[first:number], steps[number + 1 : last]])
        if strength >= _NEAR_RATIO * near.max(initial=0) and strength >= ratio * (around.mean() if len(around) else 0):
            cuts.append((float(times[number]), float(strength)))
    return cuts


def _soft_cuts(changes: _Changes, level: float, hard: list[Cut]) -> list[Cut]:
    """Dissolves and whip pans: two calm pictures that differ, with one second of transition between them."""
    times = changes.times
    before = np.maximum(np.searchsorted(times, times - _SOFT_REACH, side="right") - 1, 0)
    after = np.searchsorted(times, times + _SOFT_REACH, side="right") - 1
    pairs = zip(changes.thumbnails[before], changes.thumbnails[after], strict=True)
    change = np.array([np.median(_difference(one, other)) for one, other in pairs])
    free = np.ones(len(times), bool)
    for time, _ in hard:
        free &= np.abs(times - time) > 2 * _SOFT_REACH
    cuts = []
    for number in np.argsort(-change, kind="stable"):
        if change[number] < level:
            break
        if not free[number]:
            continue
        time = times[number]
        sides = np.searchsorted(times, [time - 2 * _SOFT_REACH, time + 2 * _SOFT_REACH], side="right") - 1
        if (change[np.maximum(sides, 0)] <= _SOFT_CALM * change[number]).all():
            cuts.append((float(time), float(change[number])))
            free &= np.abs(times - time) > 2 * _SOFT_REACH
    return cuts


# --- from cuts to spans ------------------------------------------------------------------------------------------


def _without_short(cuts: list[Cut], end: float, least: float) -> list[float]:
    """The times of the cuts that remain when shots shorter than ``least`` seconds join a neighbour."""
    bounds = [(0.0, math.inf), *cuts, (end, math.inf)]
    while len(bounds) > 2:
        lengths = [second[0] - first[0] for first, second in pairwise(bounds)]
        shortest = int(np.argmin(lengths))
        if lengths[shortest] >= least:
            break
        weaker = shortest if bounds[shortest][1] < bounds[shortest + 1][1] else shortest + 1
        if math.isinf(bounds[weaker][1]):  # only the first shot begins, and the last ends, where the video does
            weaker = shortest if weaker == shortest + 1 else shortest + 1
        del bounds[weaker]
    return [time for time, _ in bounds[1:-1]]


def _split_long(bounds: list[float], most: float) -> list[TimeSpan]:
    spans = []
    for start, end in pairwise(bounds):
        parts = max(1, math.ceil((end - start) / most - 1e-9))
        edges = [start + (end - start) * part / parts for part in range(parts)] + [end]
        spans += [TimeSpan(*pair) for pair in pairwise(edges)]
    return spans
