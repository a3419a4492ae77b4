"""One clip for training: from a video, a folder of pictures, or a picture."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError, VideoChatError
from videochat_tools.media import open_video
from videochat_tools.media.frame_times import frame_times
from videochat_tools.media.picture import read_picture
from videochat_tools.models.videochat2.image_processing import Frames
from videochat_tools.training.released.samples import MediaKind

from .corpora import FOLDER_FPS
from .sampling import ClipSampling, choose_frames, to_pixels

__all__ = ["Clip", "ClipRequest", "clip_seconds", "read_clip"]

_PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

_LOST_SECONDS = 1.0  # of a video without one frame that can be decoded, before it counts as damaged


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """What is to be shown. All that chance decides follows from ``draws``.

    Attributes:
        path: A video file, a folder of numbered pictures, or (an image) a picture file.
        kind: Which of them.
        span: Start and end in seconds of the part of a video; None is the whole.
        folder_fps: Pictures a second of a folder.
        draws: Seed of the choice of frames and of the augmentation.
    """

    path: Path
    kind: MediaKind
    span: tuple[float, float] | None = None
    folder_fps: float = FOLDER_FPS
    draws: str = ""


@dataclass(frozen=True, slots=True)
class Clip:
    """What was read: float32 [T, 3, H, W], and when its frames appear, in seconds from the start of the video."""

    pixels: Tensor
    times: tuple[float, ...] = ()


def read_clip(request: ClipRequest, sampling: ClipSampling) -> Clip:
    """Decode the chosen frames and turn them into pixels.

    Raises:
        MediaError: The file is missing, damaged, or not of this kind.
        UnsupportedContentError: The part of the video begins after its end.
    """
    try:
        return _read(request, sampling, random.Random(request.draws))
    except VideoChatError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever comes
        raise UnreadableMediaError(f"{request.path} cannot be read ({type(error).__name__}: {error})") from error


def _read(request: ClipRequest, sampling: ClipSampling, rng: random.Random) -> Clip:
    if request.kind == "image":
        return Clip(to_pixels(read_picture(request.path)[None], sampling, rng, image=True))
    frames, times = (_read_folder if request.path.is_dir() else _read_video)(request, sampling, rng)
    return Clip(to_pixels(frames, sampling, rng), times)


def clip_seconds(request: ClipRequest) -> float:
    """How long the whole video is, until its last frame leaves the screen."""
    if request.path.is_dir():
        return _folder_times(request)[0][-1] + 1 / request.folder_fps
    shown = frame_times(request.path)
    return shown.seconds[-1] + 1 / shown.fps


def _read_video(request: ClipRequest, sampling: ClipSampling, rng: random.Random) -> tuple[Frames, tuple[float, ...]]:
    shown = frame_times(request.path)
    if shown.cut_off:
        raise UnreadableMediaError(f"{request.path} is cut off after {shown.seconds[-1]:.1f} s; download it again")
    indices = choose_frames(shown.seconds, shown.fps, sampling, rng, request.span)
    wanted = [shown.seconds[index] for index in indices]
    with open_video(request.path) as reader:
        frames = list(reader.frames_at(wanted))  # a frame that is wanted twice comes twice
    lost = max(_LOST_SECONDS, 2 / shown.fps)
    for time, frame in zip(wanted, frames, strict=True):
        if time - frame.time > lost:
            raise UnreadableMediaError(
                f"{request.path} is damaged: no frame from {frame.time:.1f} s to {time:.1f} s; download it again"
            )
    return np.stack([frame.image for frame in frames]), tuple(wanted)


def _read_folder(request: ClipRequest, sampling: ClipSampling, rng: random.Random) -> tuple[Frames, tuple[float, ...]]:
    seconds, paths = _folder_times(request)
    indices = choose_frames(seconds, request.folder_fps, sampling, rng, request.span)
    frames = [read_picture(paths[index]) for index in indices]
    if len({frame.shape for frame in frames}) > 1:
        raise UnreadableMediaError(f"{request.path} holds pictures of different sizes; extract it again")
    return np.stack(frames), tuple(seconds[index] for index in indices)


def _folder_times(request: ClipRequest) -> tuple[list[float], list[Path]]:
    """When each picture of a folder appears, and where it lies; a gap in the numbers is time that passes."""
    pictures = _folder_pictures(request.path)
    first = min(1, pictures[0][0])  # files are counted from 0 or from 1
    return [(number - first) / request.folder_fps for number, _ in pictures], [path for _, path in pictures]


def _folder_pictures(folder: Path) -> list[tuple[int, Path]]:
    """The numbered pictures of a folder in order: ``00001.jpg``, ``frame_12.png``; the last number in a name counts.

    Raises:
        MediaNotFoundError: No such folder.
        UnreadableMediaError: There are none, or two have one number.
    """
    if not folder.is_dir():
        raise MediaNotFoundError(f"no such folder: {folder}; check the name and the data root")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        digits = re.findall(r"\d+", path.stem)
        if path.suffix.lower() not in _PICTURE_SUFFIXES or not digits:
            continue
        number = int(digits[-1])
        if number in found:
            raise UnreadableMediaError(
                f"{folder} holds two pictures numbered {number}, {found[number].name} and {path.name}; keep one"
            )
        found[number] = path
    if not found:
        raise UnreadableMediaError(f"{folder} holds no pictures 00001.jpg, 00002.jpg, …; extract them again")
    return sorted(found.items())
