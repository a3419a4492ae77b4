"""The opt-in backend decord 0.6: by presentation time only, and kept away from what it gets wrong.

decord ignores edit lists, counts wrong after a seek into open groups of pictures (x265's default), hangs on the last
frame of MPEG-TS and cannot open AV1; the package decord2, which installs the same module, returned wrong frames
without a word. Such files and that package are refused by name.
"""

from __future__ import annotations

import functools
import queue
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt

from videochat_tools.errors import MediaError, MissingDependencyError, UnreadableMediaError
from videochat_tools.media.opening import open_container, picture_stream, tick
from videochat_tools.media.probe import probe
from videochat_tools.media.reader import VideoReader
from videochat_tools.media.sampling import TIME_TOLERANCE
from videochat_tools.types import Frame, TimeSpan, VideoInfo

__all__ = ["DecordReader"]

_T = TypeVar("_T")

_BATCH = 16  # frames decoded at once; more would only cost memory
_PATIENCE = 60.0  # seconds for one batch; decord has been seen to wait for ever
_HANGING = frozenset({"mpegts", "mpeg"})  # containers whose last frames decord waits for in vain
_TIME_ERROR = 2e-3  # seconds; Matroska rounds to 1 ms, decord to float32


class DecordReader(VideoReader):
    """Reads well-behaved files with decord. See :func:`open_video` for arguments and errors.

    ``frames_decoded`` counts the frames that decord hands out; what it decodes on the way there it does not tell.
    """

    backend = "decord"

    def __init__(self, path: str | Path, *, size: tuple[int, int] | None = None) -> None:
        decord = _import_decord()
        info = probe(path)
        super().__init__(info, size)
        times = _trusted_times(info)
        self._worker = _Worker()
        try:
            self._video = self._worker.call(
                lambda: decord.VideoReader(str(info.path), width=self.size[0], height=self.size[1], num_threads=0)
            )
            found = self._worker.call(lambda: np.asarray(self._video.get_frame_timestamp(range(len(self._video)))))
        except MediaError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise _failure(info.path, error) from error
        # decord rounds its times to float32; the container's own are exact.
        if len(found) != len(times) or len(found) == 0 or np.abs(found[:, 0] - found[0, 0] - times).max() > _TIME_ERROR:
            self.close()
            raise _refusal(info.path, "has frames that decord places at other times than the container")
        self._times = times  # [frames], seconds from the first frame, ascending

    def resized(self, size: tuple[int, int] | None) -> DecordReader:  # noqa: D102 - as in VideoReader
        return DecordReader(self.info.path, size=size)

    def close(self) -> None:  # noqa: D102 - as in VideoReader
        self._video = None
        self._worker.stop()

    def _frames_within(self, span: TimeSpan | None) -> Iterator[Frame]:
        first = 0 if span is None else self._numbers([span.start])[0]
        end = len(self._times)
        if span is not None:
            end = max(first + 1, int(np.searchsorted(self._times, span.end - TIME_TOLERANCE)))
        yield from self._pictures(list(range(first, end)))

    def _frames_at(self, times: list[float]) -> Iterator[Frame]:
        numbers = self._numbers(times)
        unique = sorted(set(numbers))
        pictures = self._pictures(unique)
        position = -1
        picture: Frame | None = None
        for number in numbers:
            if picture is None or unique[position] != number:
                picture = next(pictures)
                position += 1
            yield picture

    def _decode(self, numbers: list[int]) -> npt.NDArray[np.uint8]:
        """Pictures [n, height, width, 3]; runs on the worker."""
        return self._video.get_batch(numbers).asnumpy()  # type: ignore[no-any-return]

    def _numbers(self, times: list[float]) -> list[int]:
        """For each time the number of the frame on screen then."""
        after = np.searchsorted(self._times, np.asarray(times) + TIME_TOLERANCE, side="right")
        return [max(0, int(number) - 1) for number in after]

    def _pictures(self, numbers: list[int]) -> Iterator[Frame]:
        for first in range(0, len(numbers), _BATCH):
            if self._video is None:
                raise ValueError(f"the reader of {self.info.path} is closed; open the video again")
            batch = numbers[first : first + _BATCH]
            try:
                images = self._worker.call(functools.partial(self._decode, batch))
            except MediaError:
                raise
            except Exception as error:
                raise _failure(self.info.path, error) from error
            self._count(len(batch))
            for number, image in zip(batch, images, strict=True):
                yield Frame(float(self._times[number]), image)


class _Worker:
    """Runs calls on one thread of its own and gives up on those that never return."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="decord", daemon=True).start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, answer = call
            try:
                answer.put((function(), None))
            except Exception as error:  # handed to the caller, whoever that is
                answer.put((None, error))
            del call, function, answer

    def call(self, function: Callable[[], _T]) -> _T:
        """The result of ``function``; MediaError when it takes longer than ``_PATIENCE``."""
        answer: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._calls.put((function, answer))
        try:
            result, error = answer.get(timeout=_PATIENCE)
        except queue.Empty:
            raise MediaError(f"decord did not answer within {_PATIENCE:.0f} s; use backend='pyav'") from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._calls.put(None)


def _import_decord() -> Any:
    try:
        import decord
    except ImportError:
        raise MissingDependencyError("decord", "decord", "video backend 'decord'") from None
    version = str(decord.__version__)
    if int(version.split(".")[0]) >= 1:
        raise MediaError(
            f"the installed module 'decord' is decord2 {version}, which returns wrong frames; run: "
            "pip uninstall decord2, then pip install 'videochat-tools[decord]', or use backend='pyav'"
        )
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _refusal(path: Path, reason: str) -> MediaError:
    return MediaError(f"{path} {reason}; open it with backend='pyav'")


def _failure(path: Path, error: Exception) -> UnreadableMediaError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = re.sub(r"^\[[\d:]+\] \S+ ", "", lines[0])  # decord puts the clock and its source line first
    return UnreadableMediaError(f"decord cannot read {path} ({reason}); open it with backend='pyav'")


def _trusted_times(info: VideoInfo) -> npt.NDArray[np.float64]:
    """Presentation times of all frames by the container, in seconds; MediaError for what decord gets wrong."""
    if info.container in _HANGING:
        raise _refusal(info.path, f"is an {info.container} stream, on whose last frames decord waits for ever")
    if info.video_codec == "av1":
        raise _refusal(info.path, "is AV1 video, which decord 0.6 cannot decode")
    ticks: list[int] = []
    key: int | None = None
    with open_container(info.path) as container:
        stream = picture_stream(container, info.path)
        try:
            for packet in container.demux(stream):
                if packet.is_discard:
                    raise _refusal(info.path, "has an edit list, which decord ignores")
                if packet.pts is None:
                    continue
                if packet.is_keyframe:
                    key = packet.pts
                elif key is not None and packet.pts < key:
                    raise _refusal(info.path, "has open groups of pictures, in which decord counts wrong after a seek")
                ticks.append(packet.pts)
        except av.FFmpegError as error:
            raise _failure(info.path, error) from error
        step = tick(stream)
    ticks.sort()
    return np.array([(at - ticks[0]) * step.numerator / step.denominator for at in ticks])
