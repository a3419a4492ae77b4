"""The pixels of a video or picture that a message points at."""

from __future__ import annotations

import hashlib
import io
import logging
import stat
import tempfile
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videochat_tools.content import Visual
from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError, UnsupportedContentError
from videochat_tools.media.picture import read_picture
from videochat_tools.remote_media import fetch
from videochat_tools.types import TimeSpan

logger = logging.getLogger(__name__)

END_TOLERANCE = 1.0  # seconds that a requested end may lie past the last frame: durations are often rounded up


def read_clip(
    visual: Visual, num_frames: int, frame_size: int | None
) -> tuple[npt.NDArray[np.uint8], tuple[float, ...]]:
    """Decode a visual: RGB pictures [T, height, width, 3] and the seconds at which they stand in their video.

    T is 1 for a picture, which stands nowhere.

    Args:
        visual: by path, by its bytes or by its address.
        num_frames: frames of a video where the visual does not ask for another number, spread evenly.
        frame_size: side of the square that the model sees, in pixels; videos come in this size already, cut out and
            scaled as a library does it, so that the same clip looks the same from either side. None leaves them as
            they are, for a model that cuts frames up itself.

    Raises:
        MediaError: the file is missing, damaged or of another kind.
        UnsupportedContentError: the asked-for part lies outside the video, or a remote file is too large.
    """
    if visual.url is not None:
        visual = replace(visual, url=None, data=fetch(visual.url, visual.hosts))
    if visual.kind == "image":
        return read_picture(visual.path or io.BytesIO(visual.data or b""))[None], ()
    if visual.path is not None:
        return _read_video(visual.path, visual, num_frames, frame_size)
    # Containers are read with seeking; a file keeps large videos out of memory while they are decoded.
    with tempfile.TemporaryDirectory(prefix="videochat-") as folder:
        path = Path(folder) / "inline"
        path.write_bytes(visual.data or b"")
        return _read_video(path, visual, num_frames, frame_size)


def visual_identity(visual: Visual) -> Hashable:
    """What tells a visual from others: equal only where the same pictures would be read again.

    A file that was written to is another one. A remote one is not asked again whether it has changed.

    Raises:
        MediaError: as of :func:`file_state`.
    """
    source: Hashable = visual.url
    if visual.data is not None:
        source = hashlib.blake2b(visual.data, digest_size=16).digest()
    elif visual.path is not None:
        source = (*file_state(visual.path), visual.path.resolve())
    return visual.kind, source, visual.start, visual.end, visual.num_frames


def file_state(path: Path) -> tuple[int, int, int]:
    """Number, bytes and last change (ns) of a file: not the same once it was written to or replaced.

    Raises:
        MediaNotFoundError: there is no such file.
        UnreadableMediaError: there is something of that name, but it is no file, or not to be had.
    """
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise MediaNotFoundError(f"no such file: {path!s:.200}; check the name and the folder") from None
    except OSError as error:
        raise UnreadableMediaError(f"{path!s:.200} cannot be read ({error.strerror}); check the name") from error
    if not stat.S_ISREG(state.st_mode):  # a pipe would keep its reader waiting, a device never ends
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe or device"
        raise UnreadableMediaError(f"{path} is {kind}; give a file")
    return state.st_ino, state.st_size, state.st_mtime_ns


def _read_video(
    path: Path, visual: Visual, num_frames: int, frame_size: int | None
) -> tuple[npt.NDArray[np.uint8], tuple[float, ...]]:
    from videochat_tools.library.clips import decode_size, fit_frame
    from videochat_tools.media import open_video, uniform_times

    with open_video(path) as whole:
        size = None if frame_size is None else decode_size(whole.info, frame_size)
        with whole.resized(size) as reader:
            span = part_of_video(visual.start, visual.end, reader.info.duration)
            times = uniform_times(span, visual.num_frames or num_frames)
            shown = list(reader.frames_at(times))
    frames = [frame.image if frame_size is None else fit_frame(frame.image, frame_size) for frame in shown]
    seconds = [frame.time for frame in shown]
    if not frames:
        raise UnreadableMediaError(f"{path} has no readable frames at [{span}]; ask for an earlier part")
    if len(frames) < len(times):  # as in a library: what is left of a damaged file is used
        logger.warning("%s ends before %.1f s: its last picture is used from there on", path, times[len(frames)])
        seconds += seconds[-1:] * (len(times) - len(frames))
        frames += frames[-1:] * (len(times) - len(frames))
    return np.stack(frames), tuple(seconds)


def part_of_video(start: float | None, end: float | None, duration: float) -> TimeSpan:
    """The asked-for part of a video of ``duration`` seconds; ``None`` stands for its first and its last frame.

    Raises:
        UnsupportedContentError: the part lies outside the video.
    """
    asked = " ".join(f"{name} {time:.1f} s" for name, time in (("from", start), ("to", end)) if time is not None)
    start = start or 0.0
    end = duration if end is None else end
    if start >= duration > 0 or end > duration + END_TOLERANCE:
        raise UnsupportedContentError(
            f"the video is {duration:.1f} s long, but the part {asked} was asked for; give start and end within it"
        )
    return TimeSpan(start, max(start, min(end, duration)))
