"""From a path to a reader: backends by name, and the checks that come before any decoder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from videochat_tools.errors import MediaNotFoundError, NoVideoStreamError, UnreadableMediaError

if TYPE_CHECKING:
    import av

    from videochat_tools.media.reader import VideoReader

__all__ = ["check_file", "open_container", "open_video", "picture_stream", "tick"]

BACKENDS = ("pyav", "decord")

# FFmpeg shows plain text as a film of a terminal; nobody means that.
_TEXT_ART_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})


def open_video(path: str | Path, *, backend: str = "pyav", size: tuple[int, int] | None = None) -> VideoReader:
    """Open a video file for reading frames.

    Args:
        path: the file.
        backend: ``"pyav"``, exact on every file, or ``"decord"``, opt-in and for well-behaved files only.
        size: width and height to scale to while decoding; default is the size as shown.

    Raises:
        MediaNotFoundError: no such file.
        UnreadableMediaError: empty, damaged before its first frame, or no media file.
        NoVideoStreamError: sound only.
        MediaError: the backend cannot be trusted with this file, or is not the right one.
        MissingDependencyError: the backend is not installed.
    """
    if backend == "pyav":
        from videochat_tools.media.pyav import PyAVReader

        return PyAVReader(path, size=size)
    if backend == "decord":
        from videochat_tools.media.decord import DecordReader

        return DecordReader(path, size=size)
    raise ValueError(f"no video backend {backend!r}; choose one of {', '.join(BACKENDS)}")


def check_file(path: str | Path) -> Path:
    """The path, if it names a file with something in it."""
    path = Path(path)
    try:
        if path.is_dir():
            raise UnreadableMediaError(f"{path} is a folder; give a video file, or a pattern such as '{path}/*.mp4'")
        if path.stat().st_size == 0:
            raise UnreadableMediaError(f"{path} is empty (0 bytes); copy or download it again")
    except FileNotFoundError:
        raise MediaNotFoundError(f"no such file: {path}; check the name and the folder") from None
    except OSError as error:
        raise UnreadableMediaError(f"{path} cannot be read: {error.strerror or error}") from error
    return path


def open_container(path: str | Path) -> av.container.InputContainer:
    """Open a media file with FFmpeg, local files only, and turn its errors into ours."""
    import av

    path = check_file(path)
    try:
        # "file:" keeps names such as "http:x.mp4" local; the whitelist keeps playlists from reaching the network.
        return av.open(f"file:{path.absolute()}", metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        reason = error.strerror or str(error)
        raise UnreadableMediaError(
            f"{path} is no readable media file ({reason}); it may be damaged, cut off or of another kind"
        ) from error


def picture_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The stream that holds the moving picture (a cover picture of a music file is none)."""
    import av

    streams = [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]
    # A stream without a decoder has no codec context.
    usable = [s for s in streams if s.codec_context is not None and s.codec_context.name not in _TEXT_ART_CODECS]
    if usable:
        best = container.streams.best("video")
        return best if isinstance(best, av.VideoStream) and best in usable else usable[0]
    if container.streams.audio and not streams:
        raise NoVideoStreamError(f"{path} holds sound but no picture; give a file with a video stream")
    raise UnreadableMediaError(f"{path} is no video file (it holds neither picture nor sound); give a video file")


def tick(stream: av.stream.Stream) -> Fraction:
    """Seconds that one step of the stream's time stamps stands for."""
    return stream.time_base or Fraction(1, 1_000_000)  # FFmpeg's own unit, for a stream that names none
