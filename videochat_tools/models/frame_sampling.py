"""Which frames of a video the released models are shown, and how they are told when those were taken.

Every formula counts frames from 0 and returns indices in order. They are those of the released demos, training code
and MVBench notebooks; a library samples by time instead (:func:`videochat_tools.media.uniform_times`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

__all__ = [
    "bounded_frame_indices",
    "clip_frames",
    "demo_frame_indices",
    "timestamp_message",
    "training_frame_indices",
]

UNBOUNDED_SECONDS = 100_000.0  # MVBench: a clip without bounds reaches this far to either side


def demo_frame_indices(num_frames: int, segments: int) -> list[int]:
    """Indices in the chat demos: one of each of ``segments`` equal parts of a video of ``num_frames``."""
    step = (num_frames - 1) / segments
    return [int(step / 2) + round(step * number) for number in range(segments)]  # round: half to even


def bounded_frame_indices(
    segments: int,
    fps: float,
    last_index: int,
    *,
    bound: Sequence[float] | None = None,
    first_index: int = 0,
) -> list[int]:
    """Indices in the MVBench evaluation.

    Args:
        segments: How many.
        fps: Frames a second.
        last_index: Number of the last frame: frames - 1 of a video, the number of files of a frame folder.
        bound: Start and end of the clip in seconds; None is the whole video.
        first_index: Number of the first frame; 1 in a frame folder.
    """
    start, end = bound if bound is not None else (-UNBOUNDED_SECONDS, UNBOUNDED_SECONDS)
    first, last = max(first_index, round(start * fps)), min(round(end * fps), last_index)
    step = (last - first) / segments
    return [int(first + step / 2 + round(step * number)) for number in range(segments)]


def training_frame_indices(
    num_frames: int,
    count: int,
    sample: str = "rand",
    *,
    fix_start: int | None = None,
    fps: float = 1.0,
    max_frames: int | None = None,
    rng: random.Random | None = None,
) -> list[int]:
    """Indices in training.

    Args:
        num_frames: Frames of the video or clip, at least 1.
        count: How many; a shorter video repeats its last one. "fpsX" does not look at it.
        sample: "rand" draws one frame of each of ``count`` equal parts, "middle" takes the one in its middle, "fps2"
            (or any number) takes two frames a second.
        fix_start: With "middle": this frame of each part, counted from 0, in place of its middle.
        fps: With "fpsX": frames a second of the video.
        max_frames: With "fpsX": drop what comes after so many.
        rng: With "rand": source of the draws.

    Returns:
        ``count`` indices; with "fpsX" as many as fit, none in a video shorter than half a step.

    Raises:
        ValueError: Unknown ``sample``.
    """
    if sample.startswith("fps"):
        return _spaced(num_frames, float(sample.removeprefix("fps")), fps)[:max_frames]
    if sample not in ("rand", "middle"):
        raise ValueError(f"sample must be 'rand', 'middle' or 'fps' and a number, got {sample!r}")
    drawn = min(count, num_frames)
    edges = np.linspace(0, num_frames, drawn + 1).astype(int).tolist()  # cut off, not rounded
    parts = [(low, high - 1) for low, high in pairwise(edges)]
    if sample == "middle":
        indices = [(low + high) // 2 if fix_start is None else low + fix_start for low, high in parts]
    else:
        rng = rng or random.Random()
        if all(low < high for low, high in parts):
            indices = [rng.randrange(low, high) for low, high in parts]  # the last frame of a part is never drawn
        else:
            indices = sorted(rng.sample(range(num_frames), drawn))
    return indices + indices[-1:] * (count - drawn)


def _spaced(num_frames: int, per_second: float, fps: float) -> list[int]:
    """One frame every 1 / ``per_second`` seconds, the first after half of that."""
    step = 1 / per_second
    seconds = np.arange(step / 2, num_frames / fps + step / 2, step)
    indices: list[int] = np.around(seconds * fps).astype(int).tolist()
    return [index for index in indices if index < num_frames]


def clip_frames(start: float, end: float, fps: float) -> tuple[int, int]:
    """First frame and number of frames of the part of a video from ``start`` to ``end`` seconds, in training."""
    return int(start * fps), int((end - start) * fps)


def timestamp_message(seconds: Sequence[float]) -> str:
    """The sentence that tells the language model when the frames were taken; released: index / fps of each."""
    times = ", ".join(str(round(second, 1)) for second in seconds)
    return f"The video contains {len(seconds)} frames sampled at {times} seconds."
