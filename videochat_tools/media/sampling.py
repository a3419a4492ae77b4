"""Which times to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from videochat_tools.types import TimeSpan

__all__ = ["TIME_TOLERANCE", "check_times", "fps_times", "uniform_times"]

TIME_TOLERANCE = 1e-6  # seconds; far below one tick of any common container (1/90 000 s), above float rounding


def uniform_times(span: TimeSpan, count: int) -> list[float]:
    """The centres of ``count`` equal parts of ``span``, in seconds."""
    if count < 1:
        raise ValueError(f"the number of times must be at least 1, got {count}")
    return [span.start + span.duration * (number + 0.5) / count for number in range(count)]


def fps_times(span: TimeSpan, fps: float) -> list[float]:
    """The times ``start + i / fps`` that lie inside ``span``, in seconds; at least the start itself."""
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a positive number, got {fps!r}")
    count = max(1, math.ceil((span.duration - TIME_TOLERANCE) * fps))
    return [span.start + number / fps for number in range(count)]


def check_times(times: Sequence[float]) -> list[float]:
    """The times as floats; ValueError unless they are finite and ascending."""
    checked = [float(time) for time in times]
    for number, time in enumerate(checked):
        if not math.isfinite(time):
            raise ValueError(f"times must be finite, got {time!r} at position {number}")
        if number and time < checked[number - 1]:
            raise ValueError(f"times must ascend, got {time!r} s after {checked[number - 1]!r} s; sort them first")
    return checked
