"""The picture and the sound of a rendered video, on its way into a file."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

__all__ = ["PictureTrack", "SoundTrack"]

_AAC_FRAME = 1024  # samples; the encoder takes no other number but in its last frame
_AAC_BITS = 48_000  # a second: plenty for one voice


class PictureTrack:
    """H.264 with picture n at n / fps seconds."""

    def __init__(
        self, container: av.container.OutputContainer, width: int, height: int, fps: int, options: Mapping[str, str]
    ) -> None:
        self._container, self._tick, self._written = container, Fraction(1, fps), 0
        self._stream = container.add_stream("libx264", rate=fps, options=dict(options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = self._tick

    def write(self, pictures: npt.NDArray[np.uint8]) -> None:
        """Add the next pictures, uint8 RGB [n, height, width, 3]."""
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = self._written, self._tick
            self._written += 1
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder has kept back."""
        self._container.mux(self._stream.encode(None))


class SoundTrack:
    """AAC, mono, from the first moment of the file on."""

    def __init__(self, container: av.container.OutputContainer, sample_rate: int) -> None:
        self._container, self._rate, self._written = container, sample_rate, 0
        self._stream = container.add_stream("aac", rate=sample_rate, layout="mono", bit_rate=_AAC_BITS)
        self._waiting = np.zeros(0, np.int16)  # not a whole frame yet

    def write(self, samples: npt.NDArray[np.int16]) -> None:
        """Add the next samples, int16 [n]."""
        self._waiting = np.concatenate([self._waiting, samples])
        whole = len(self._waiting) // _AAC_FRAME * _AAC_FRAME
        for position in range(0, whole, _AAC_FRAME):
            self._encode(self._waiting[position : position + _AAC_FRAME])
        self._waiting = self._waiting[whole:]

    def close(self) -> None:
        """Write what is left."""
        if len(self._waiting):
            self._encode(self._waiting)
        self._container.mux(self._stream.encode(None))

    def _encode(self, samples: npt.NDArray[np.int16]) -> None:
        planes = np.ascontiguousarray(samples[None] / np.float32(32_768), np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._written
        self._written += len(samples)
        self._container.mux(self._stream.encode(frame))
