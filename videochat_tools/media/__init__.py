"""Video files in, timestamped pictures and sound out.

Times are seconds of presentation time, counted from the first frame of the file; sound is on the same clock.
"""

from __future__ import annotations

from videochat_tools.media.audio import read_audio
from videochat_tools.media.opening import open_video
from videochat_tools.media.probe import probe
from videochat_tools.media.reader import VideoReader, frames_decoded_total
from videochat_tools.media.sampling import fps_times, uniform_times

__all__ = [
    "VideoReader",
    "fps_times",
    "frames_decoded_total",
    "open_video",
    "probe",
    "read_audio",
    "uniform_times",
]
