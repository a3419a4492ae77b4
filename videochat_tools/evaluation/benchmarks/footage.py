"""The frames that a benchmark shows of a video or of a folder of pictures, chosen as its protocol chooses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError
from videochat_tools.library.clips import fit_frame
from videochat_tools.media import open_video
from videochat_tools.media.frame_times import frame_times
from videochat_tools.media.picture import read_picture
from videochat_tools.models.frame_sampling import bounded_frame_indices

__all__ = ["Footage", "Frames", "Shown", "blank_frames", "frames_at", "read_frames"]

Frames = npt.NDArray[np.uint8]
"""RGB pictures [T, height, width, 3]."""


@dataclass(frozen=True, slots=True)
class Footage:
    """What an item is about: all of a video, or a part of it.

    Attributes:
        path: A video file, or a folder of pictures ``00001.jpg``, ``00002.jpg``, …
        bound: Start and end in seconds; None is the whole.
        fps: Pictures a second of a folder; a video knows its own.
    """

    path: Path
    bound: tuple[float, float] | None = None
    fps: float | None = None

    @property
    def there(self) -> bool:
        """Whether the file or folder exists."""
        return self.path.exists()


@dataclass(frozen=True, slots=True)
class Shown:
    """Frames of one item, and the seconds of the video that they are from."""

    frames: Frames
    seconds: tuple[float, ...]


def read_frames(footage: Footage, count: int, size: int | None) -> Shown:
    """``count`` frames at the middles of as many equal parts, by the formula of the MVBench notebooks.

    Args:
        footage: What to show.
        count: How many.
        size: Side of the square that the shorter side is scaled to and the centre cut out of (bicubic); None leaves
            the pictures as they are.

    Raises:
        MediaError: The file or a picture of the folder is missing or damaged.
    """
    if footage.path.is_dir():
        return _read_folder(footage, count, size)
    shown = frame_times(footage.path)
    times = shown.seconds
    indices = bounded_frame_indices(count, shown.fps, len(times) - 1, bound=footage.bound)
    # A bound that begins after the end asks for frames that are not there; the notebooks' reader fails on it.
    seconds = [times[min(max(index, 0), len(times) - 1)] for index in indices]
    return frames_at(footage.path, sorted(seconds), size)


def frames_at(path: Path, seconds: Sequence[float], size: int | None) -> Shown:
    """The frames on screen at some times, ascending."""
    with open_video(path) as reader:
        shown = list(reader.frames_at(seconds))
    if len(shown) < len(seconds):
        raise UnreadableMediaError(f"{path} has no readable frame at {seconds[len(shown)]:.1f} s; download it again")
    return Shown(_stack([frame.image for frame in shown], size), tuple(frame.time for frame in shown))


def blank_frames(count: int, size: int | None) -> Shown:
    """Black frames, in place of a video; of a common size where the model takes any."""
    side = size or 224
    return Shown(np.zeros((count, side, side, 3), np.uint8), ())


def _read_folder(footage: Footage, count: int, size: int | None) -> Shown:
    last = sum(1 for _ in footage.path.glob("*.jpg"))
    if not last:
        raise UnreadableMediaError(f"{footage.path} holds no pictures 00001.jpg, 00002.jpg, …; extract them again")
    fps = footage.fps or 1.0
    pictures, seconds = [], []
    for index in bounded_frame_indices(count, fps, last, bound=footage.bound, first_index=1):
        path = footage.path / f"{min(max(index, 1), last):05d}.jpg"
        if not path.is_file():
            raise MediaNotFoundError(f"no picture {path}; the folder has gaps, extract it again")
        pictures.append(read_picture(path))
        seconds.append((index - 1) / fps)
    return Shown(_stack(pictures, size), tuple(seconds))


def _stack(pictures: Sequence[Frames], size: int | None) -> Frames:
    return np.stack([picture if size is None else fit_frame(picture, size) for picture in pictures])
