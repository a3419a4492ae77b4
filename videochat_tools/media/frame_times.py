"""When the frames of a video appear, without decoding one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from videochat_tools.media.opening import open_container, picture_stream

__all__ = ["FrameTimes", "frame_times"]


_PRESENT = 0.95  # least share of the promised frames; encoders miscount by one or two
_LATE = 1.0  # seconds by which a container may promise too much


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When each frame of a video appears.

    Attributes:
        seconds: Counted from the first frame, ascending; at least one.
        fps: Average frames a second, as the file says.
        cut_off: The file promises more than is in it.
    """

    seconds: tuple[float, ...] = field(repr=False)
    fps: float
    cut_off: bool


def frame_times(path: str | Path) -> FrameTimes:
    """Read the time stamps of a video from its packets. A file that is cut off has those that are left.

    Raises:
        MediaNotFoundError: no such file.
        UnreadableMediaError: empty, or no media file.
        NoVideoStreamError: sound only.
    """
    import av

    path = Path(path)
    stamps: list[int | None] = []  # of frames that are shown: an edit list hides some
    present, end = 0, 0.0
    with open_container(path) as container:
        stream = picture_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        unit, promised = stream.time_base, stream.frames
        matroska = "matroska" in container.format.name  # promises no frames, but seconds
        try:
            for packet in container.demux() if matroska else container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream.index == stream.index:
                    present += 1
                    stamps += [] if packet.is_discard else [packet.pts]
        except av.FFmpegError:  # damaged from here on
            pass
        missing = (container.duration or 0) / av.time_base - end if matroska else 0.0
    times = [stamp for stamp in stamps if stamp is not None]
    if len(times) < len(stamps) or unit is None:  # AVI, raw streams: the frames are evenly spaced there
        seconds = [number / fps for number in range(len(stamps))]
    else:
        times.sort()
        seconds = [float((stamp - times[0]) * unit) for stamp in times]
    return FrameTimes(tuple(seconds) or (0.0,), fps, present < _PRESENT * promised or missing > _LATE)
