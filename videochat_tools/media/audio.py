"""Sound as Whisper wants it, on the clock of the picture."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import MediaError, UnreadableMediaError
from videochat_tools.media.opening import open_container, tick
from videochat_tools.media.reader import count_decoded
from videochat_tools.types import AudioClip, TimeSpan

if TYPE_CHECKING:
    import av

__all__ = ["SAMPLE_RATE", "read_audio"]

_log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000  # Hz
_LEAD = 0.5  # seconds decoded before a span: the first packet after a seek lacks its overlap with the one before
_GAP = 0.05  # seconds; smaller differences between time stamps are rounding, larger ones silence or a jump
_INEXACT_SEEK = frozenset({"mp3", "aac"})  # times after a seek are guessed from the bit rate there

Samples = npt.NDArray[np.int16]


def read_audio(path: str | Path, span: TimeSpan | None = None) -> AudioClip:
    """The first audio track as 16 kHz mono float32 in [-1, 1].

    Args:
        path: a video or a sound file.
        span: seconds on the clock of the picture (of the sound itself where there is none); default is from the
            first frame to the end of the sound. The clip begins exactly at ``span.start``, silent as long as the
            sound has not begun, and ends exactly at ``span.end`` or with the sound.

    Raises:
        MediaNotFoundError: no such file.
        UnreadableMediaError: no media file, or nothing of its sound can be decoded.
        MediaError: there is no sound.
    """
    path = Path(path)
    with open_container(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path} has no sound; give a file with an audio track")
        has_picture = bool(container.streams.video)
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise UnreadableMediaError(f"the sound of {path} is in a format that FFmpeg cannot decode")
        origin = _origin(path, stream, has_picture)
        begin = span.start if span else 0.0
        end = span.end if span else None
        seekable = container.format.name not in _INEXACT_SEEK and begin > _LEAD
        pieces = list(_pieces(container, stream, path, origin, begin if seekable else 0.0, end))
    if seekable and pieces and pieces[0][0] > begin:  # landed late, or the sound begins there
        with open_container(path) as container:
            pieces = list(_pieces(container, container.streams.audio[0], path, origin, 0.0, end))
    return AudioClip(_assemble(pieces, begin, end), start=begin, sample_rate=SAMPLE_RATE)


def _origin(path: Path, stream: av.AudioStream, has_picture: bool) -> float:
    """Where the clock of the picture starts, in the file's own time (seconds)."""
    if has_picture:
        try:
            from videochat_tools.media.source import VideoSource

            with VideoSource(path, on_decoded=count_decoded) as picture:
                return picture.start
        except MediaError:  # a cover picture, or a picture that cannot be decoded: the sound stands alone
            _log.debug("%s: no readable picture, the sound keeps its own clock", path)
    return float((stream.start_time or 0) * tick(stream))


def _pieces(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    path: Path,
    origin: float,
    begin: float,
    end: float | None,
) -> Iterator[tuple[float, Samples]]:
    """Unbroken stretches of sound as (start in seconds, samples at 16 kHz)."""
    from av.audio.resampler import AudioResampler

    if begin > 0:
        container.seek(round((begin - _LEAD + origin) / tick(stream)), stream=stream, backward=True)
    resampler: AudioResampler | None = None
    expected = 0.0  # where the next frame of the current stretch should come; seconds
    elapsed = 0.0  # length of the current stretch so far; seconds
    starts: list[float] = []  # of the stretch, as each of its frames would have it: Matroska rounds to 1 ms
    parts: list[Samples] = []
    for frame in _decoded(container, stream, path):
        time = expected if frame.pts is None else float(frame.pts * (frame.time_base or tick(stream))) - origin
        if resampler is not None and abs(time - expected) > _GAP:
            yield sum(starts) / len(starts), _joined(parts, resampler)
            resampler = None
        if end is not None and time >= end:
            break
        if resampler is None:
            # 16-bit output mixes stereo down as players do; "flt" comes out 3 dB louder.
            resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            elapsed, starts, parts = 0.0, [], []
        starts.append(time - elapsed)
        elapsed += frame.samples / frame.sample_rate
        expected = time + frame.samples / frame.sample_rate
        frame.pts = None  # the resampler shall neither stretch nor pad
        parts += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    if resampler is not None:
        yield sum(starts) / len(starts), _joined(parts, resampler)


def _joined(parts: list[Samples], resampler: av.AudioResampler) -> Samples:
    rest = [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return np.concatenate([*parts, *rest]) if parts or rest else np.zeros(0, np.int16)


def _decoded(container: av.container.InputContainer, stream: av.AudioStream, path: Path) -> Iterator[av.AudioFrame]:
    import av

    decoded, damage = 0, ""
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                damage = damage or str(error)
                continue
            for frame in frames:
                decoded += 1
                yield frame
    except av.FFmpegError as error:
        damage = str(error)
    if damage and not decoded:
        raise UnreadableMediaError(f"the sound of {path} cannot be decoded ({damage})")
    if damage:
        _log.warning("the sound of %s is damaged (%s); what can be decoded is kept", path, damage)


def _assemble(pieces: list[tuple[float, Samples]], begin: float, end: float | None) -> npt.NDArray[np.float32]:
    """Lay the stretches on the line from ``begin`` on; what lies outside falls away, gaps are silent."""
    places = [(round((start - begin) * SAMPLE_RATE), samples) for start, samples in pieces]
    length = max((place + len(samples) for place, samples in places), default=0)
    if end is not None:
        length = min(length, round((end - begin) * SAMPLE_RATE))
    out = np.zeros(max(0, length), np.float32)
    for place, samples in places:
        first, last = max(0, place), min(length, place + len(samples))
        if first < last:
            out[first:last] = samples[first - place : last - place].astype(np.float32) / 32_768
    return out
