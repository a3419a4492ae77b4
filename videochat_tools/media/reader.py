"""What every video backend offers, and the count of frames decoded."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import ClassVar, Self

from videochat_tools.media.sampling import check_times, fps_times
from videochat_tools.types import Frame, TimeSpan, VideoInfo

__all__ = ["VideoReader", "frames_decoded_total"]

_lock = threading.Lock()
_total = 0


def frames_decoded_total() -> int:
    """Frames decoded by this process so far, over all readers and backends (probing decodes one)."""
    return _total


def count_decoded(frames: int) -> None:
    """Add to :func:`frames_decoded_total`."""
    global _total
    with _lock:
        _total += frames


class VideoReader(ABC):
    """One opened video. A context manager; not to be shared between threads.

    Attributes:
        backend: name of the backend, as :func:`open_video` takes it.
        info: what the file holds.
        size: width and height of the frames that this reader yields.
        frames_decoded: frames decoded by this reader so far, wanted or not.
    """

    backend: ClassVar[str]

    def __init__(self, info: VideoInfo, size: tuple[int, int] | None = None) -> None:
        if size is not None and min(size) < 1:
            raise ValueError(f"size must be (width, height) of at least 1 pixel each, got {size!r}")
        self.info = info
        self.size = size or (info.width, info.height)
        self.frames_decoded = 0

    def frames(self, span: TimeSpan | None = None, fps: float | None = None) -> Iterator[Frame]:
        """Frames in order of time.

        Args:
            span: only frames that are on screen within it; the first may have begun before it. Default: all.
            fps: instead of each frame once, the frame shown at every ``1 / fps`` seconds from the start of the span.
        """
        if fps is not None:
            return self.frames_at(fps_times(span or TimeSpan(0.0, self.info.duration), fps))
        return self._frames_within(span)

    def frames_at(self, times: Sequence[float]) -> Iterator[Frame]:
        """For each of the ascending ``times`` (seconds) the frame on screen then, in one forward pass.

        ``Frame.time`` is the frame's own presentation time, so it is at most the time asked for. Times before the
        first frame give the first, times after the last frame the last.
        """
        return self._frames_at(check_times(times))

    @abstractmethod
    def resized(self, size: tuple[int, int] | None) -> VideoReader:
        """Another reader of the same file and backend whose frames have ``size`` (width, height)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file. A closed reader yields nothing more."""

    @abstractmethod
    def _frames_within(self, span: TimeSpan | None) -> Iterator[Frame]: ...

    @abstractmethod
    def _frames_at(self, times: list[float]) -> Iterator[Frame]: ...

    def _count(self, frames: int) -> None:
        self.frames_decoded += frames
        count_decoded(frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
