"""How far an add has come, in seconds of video and as a multiple of real time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

__all__ = ["AddProgress", "ProgressMeter"]


@dataclass(frozen=True, slots=True)
class AddProgress:
    """A moment of an add. ``stage`` is ``"segmenting"``, ``"transcribing"``, ``"watching"`` or ``"done"``."""

    video: str  # file name
    stage: str
    done: float  # seconds of video that are finished, over all files
    total: float  # seconds of video to do
    speed: float  # seconds of video a second, since the start of the add


class ProgressMeter:
    """Counts, and tells a callback or a bar on standard error. A context manager."""

    def __init__(self, total: float, show: bool | Callable[[AddProgress], object]) -> None:
        """Begin.

        Args:
            total: seconds of video to do.
            show: a function to call, true for a bar, false for nothing.
        """
        self.total = total
        self._finished = 0.0
        self._started = time.monotonic()
        self._tell = show if callable(show) else None
        self._bar: Any = None
        if show is True:
            from tqdm import tqdm

            self._bar = tqdm(
                total=round(total, 1),
                unit="s",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of video [{elapsed}{postfix}]",
            )

    def at(self, video: str, stage: str, seconds: float = 0.0) -> None:
        """A stage of one video is at ``seconds``."""
        done = min(self._finished + seconds, self.total)
        speed = done / max(time.monotonic() - self._started, 1e-3)
        if self._tell is not None:
            self._tell(AddProgress(video, stage, done, self.total, speed))
        if self._bar is not None:
            self._bar.set_description_str(f"{video}: {stage}", refresh=False)
            self._bar.set_postfix_str(f"{speed:.1f}x real time", refresh=False)
            self._bar.n = round(done, 1)
            self._bar.refresh()

    def finish(self, video: str, seconds: float, *, counted: bool) -> None:
        """A video is done; when it was skipped, its seconds are not ``counted``, so that the speed stays honest."""
        if counted:
            self._finished += seconds
        else:
            self.total = max(self.total - seconds, 0.0)
            if self._bar is not None:
                self._bar.total = round(self.total, 1)
        self.at(video, "done")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
