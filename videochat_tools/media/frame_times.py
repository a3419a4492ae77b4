"""When the frames of a video appear, without decoding one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from videochat_tools.media.opening import open_container, picture_stream

__all__ = ["FrameTimes", "frame_times"]


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When each frame of a video appears.

    Attributes:
        seconds: Counted from the first frame, ascending; at least one.
        fps: Average frames a second, as the file says.
        promised: Frames that the file says it holds; 0 where it names no number.
        present: Frames that are in it, those included that an edit list hides.
    """

    seconds: tuple[float, ...] = field(repr=False)
    fps: float
    promised: int
    present: int


def frame_times(path: str | Path) -> FrameTimes:
    """Read the time stamps of a video from its packets. A file that is cut off has those that are left.

    Raises:
        MediaNotFoundError: no such file.
        UnreadableMediaError: empty, or no media file.
        NoVideoStreamError: sound only.
    """
    import av

    path = Path(path)
    stamps: list[int | None] = []
    present = 0
    with open_container(path) as container:
        stream = picture_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        unit, promised = stream.time_base, stream.frames
        try:
            for packet in container.demux(stream):
                present += packet.size > 0
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts)
        except av.FFmpegError:  # damaged from here on
            pass
    times = [stamp for stamp in stamps if stamp is not None]
    if len(times) < len(stamps) or unit is None:  # AVI, raw streams: the frames are evenly spaced there
        seconds = [number / fps for number in range(len(stamps))]
    else:
        times.sort()
        seconds = [float((stamp - times[0]) * unit) for stamp in times]
    return FrameTimes(tuple(seconds) or (0.0,), fps, promised, present)
