"""The default backend: FFmpeg through PyAV. Exact on every file tried, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from videochat_tools.media.reader import VideoReader
from videochat_tools.media.sampling import TIME_TOLERANCE
from videochat_tools.media.source import VideoSource
from videochat_tools.types import Frame, TimeSpan

__all__ = ["PyAVReader"]


class PyAVReader(VideoReader):
    """Reads any file that FFmpeg knows. See :func:`open_video` for arguments and errors."""

    backend = "pyav"

    def __init__(
        self, path: str | Path, *, size: tuple[int, int] | None = None, like: VideoSource | None = None
    ) -> None:
        self.frames_decoded = 0  # opening decodes the first frame, before the base class can be told what it found
        self._pattern = VideoSource(path, on_decoded=self._count, like=like)
        self._idle: VideoSource | None = self._pattern
        opened = self.frames_decoded
        try:
            super().__init__(self._pattern.info, size)
        except BaseException:
            self._pattern.close()
            raise
        self.frames_decoded = opened
        self._closed = False
        self._scaler = VideoReformatter()  # keeps its tables from frame to frame

    def resized(self, size: tuple[int, int] | None) -> PyAVReader:  # noqa: D102 - as in VideoReader
        return PyAVReader(self.info.path, size=size, like=self._pattern)

    def close(self) -> None:  # noqa: D102 - as in VideoReader
        self._closed = True
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    @contextmanager
    def _source(self) -> Iterator[VideoSource]:
        """The opened file, wherever the last pass left it; a second one while another pass is under way."""
        if self._closed:
            raise ValueError(f"the reader of {self.info.path} is closed; open the video again")
        source, self._idle = self._idle, None
        if source is None:
            source = VideoSource(self.info.path, on_decoded=self._count, like=self._pattern)
        try:
            yield source
        except BaseException:
            source.close()
            raise
        self._put_back(source)

    def _put_back(self, source: VideoSource) -> None:
        if self._idle is None and not self._closed:
            self._idle = source
        else:
            source.close()

    def _frames_within(self, span: TimeSpan | None) -> Iterator[Frame]:
        with self._source() as source:
            source.move_to(span.start if span else 0.0)
            yield self._picture(source)
            while (span is None or source.ahead_time < span.end - TIME_TOLERANCE) and source.step():
                yield self._picture(source)

    def _frames_at(self, times: list[float]) -> Iterator[Frame]:
        if not times:
            return
        with self._source() as source:
            picture: Frame | None = None
            for time in times:
                source.move_to(time)
                if picture is None or picture.time != source.shown_time:
                    picture = self._picture(source)
                yield picture

    def _picture(self, source: VideoSource) -> Frame:
        """The shown frame as upright RGB of this reader's size."""
        frame = source.shown
        quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise
        width, height = self.size if quarter_turns % 2 == 0 else self.size[::-1]
        smaller = width <= frame.width and height <= frame.height
        method = Interpolation.AREA if smaller else Interpolation.BICUBIC
        # One thread: at these sizes handing out slices costs more than the scaling.
        scaled = self._scaler.reformat(frame, width, height, "rgb24", interpolation=method, threads=1)
        image: npt.NDArray[np.uint8] = np.asarray(scaled.to_ndarray(), np.uint8)
        if quarter_turns:
            image = np.ascontiguousarray(np.rot90(image, quarter_turns))
        return Frame(source.shown_time, image)
