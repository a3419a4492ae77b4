"""Tiny test videos with the truth built in.

Every frame of :func:`render_numbered` carries its number as a barcode, so a test can ask any reader for a time
and see which frame really came back. :func:`render` takes any pictures, any presentation times, B-frames, a
rotation flag, sound on its own clock and any container PyAV can write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

__all__ = [
    "BARCODE_SIZE",
    "barcode",
    "cut_without_reencoding",
    "read_barcode",
    "render",
    "render_audio",
    "render_numbered",
    "tone",
    "truncate",
]

Image = npt.NDArray[np.uint8]

BARCODE_SIZE = (128, 96)  # width, height of a numbered frame
_ROWS, _COLUMNS = 6, 4  # 16 bits of number, then 8 bits of check pattern: no rotation of it is itself
_CHECK = (1, 1, 0, 1, 1, 0, 0, 0)
_TIME_BASE = Fraction(1, 90_000)  # seconds a tick: exact for every usual frame rate and for milliseconds


def barcode(number: int, size: tuple[int, int] = BARCODE_SIZE) -> Image:
    """Draw ``number`` (below 65 536) as black and white blocks; uint8 RGB [height, width, 3]."""
    bits = [number >> shift & 1 for shift in range(16)] + list(_CHECK)
    cells = np.array(bits, np.uint8).reshape(_ROWS, _COLUMNS) * 200 + 28
    width, height = size
    rows = np.arange(height) * _ROWS // height
    columns = np.arange(width) * _COLUMNS // width
    return np.repeat(cells[rows][:, columns, None], 3, axis=2)


def read_barcode(image: Image) -> int:
    """The number drawn by :func:`barcode`; ValueError when the picture is none (or lies on its side)."""
    height, width = image.shape[:2]
    rows = ((np.arange(_ROWS) + 0.5) * height / _ROWS).astype(int)
    columns = ((np.arange(_COLUMNS) + 0.5) * width / _COLUMNS).astype(int)
    bits = (image[rows][:, columns].mean(axis=2) > 128).astype(int).ravel()
    if tuple(bits[16:]) != _CHECK:
        raise ValueError("this picture is no upright barcode")
    return int(sum(bit << shift for shift, bit in enumerate(bits[:16])))


def tone(seconds: float, frequency: float = 440.0, rate: int = 48_000, level: float = 0.5) -> npt.NDArray[np.float32]:
    """A sine of ``frequency`` Hz; float32 [round(seconds * rate)]."""
    at = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * at)).astype(np.float32)


def render(
    path: Path | str,
    images: Iterable[Image],
    *,
    fps: float = 10.0,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 2,
    crf: int | None = 23,
    rotation: int = 0,
    start: float = 0.0,
    audio: npt.NDArray[np.float32] | None = None,
    audio_rate: int = 48_000,
    audio_start: float = 0.0,
    audio_codec: str = "aac",
    format: str | None = None,
    movflags: str = "+faststart",
) -> Path:
    """Write a video.

    Args:
        path: the file; its suffix names the container unless ``format`` does.
        images: uint8 RGB [height, width, 3], all of one size, as they are to be SHOWN.
        fps: frames a second where ``times`` is not given.
        times: presentation time of each image in seconds (variable frame rate).
        codec: a video encoder of FFmpeg.
        gop: frames from keyframe to keyframe.
        b_frames: B-frames between two others, so that decoding order is not presentation order.
        crf: quality for the encoders that know it.
        rotation: degrees clockwise (0, 90, 180, 270) that a player must turn the stored picture.
        start: seconds added to all times of picture and sound.
        audio: mono samples in [-1, 1], or none.
        audio_rate: their rate in Hz.
        audio_start: when the sound begins, in seconds after the first frame.
        audio_codec: an audio encoder of FFmpeg.
        format: container format, as FFmpeg calls it.
        movflags: of FFmpeg's MP4 writer; ``"+frag_keyframe+empty_moov"`` makes a fragmented file.
    """
    path = Path(path)
    options = {"movflags": movflags} if path.suffix in {".mp4", ".mov", ".m4v"} else {}
    with av.open(str(path), "w", format=format, options=options) as container:
        stream = None
        sound = container.add_stream(audio_codec, rate=audio_rate) if audio is not None else None
        if sound is not None:
            sound.layout = "mono"
        for number, shown in enumerate(images):
            image = np.ascontiguousarray(np.rot90(shown, rotation // 90))  # counter-clockwise: undone by the player
            if stream is None:
                # An encoder without a rate that divides by the tick would round the times away.
                stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = gop
                stream.codec_context.time_base = _TIME_BASE if times is not None else 1 / stream.codec_context.rate
                stream.options = _encoder_options(codec, gop, b_frames, crf)
                if rotation:
                    stream.set_display_rotation(-rotation)
            at = start + (number / fps if times is None else times[number])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = _TIME_BASE
            frame.pts = round(at / _TIME_BASE)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
        if sound is not None and audio is not None:
            _write_sound(container, sound, audio, audio_rate, start + audio_start)
    return path


def _encoder_options(codec: str, gop: int, b_frames: int, crf: int | None) -> dict[str, str]:
    if codec == "libx264":
        return {
            "preset": "veryfast", "crf": str(crf or 23), "bf": str(b_frames), "b-pyramid": "none",
            "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:b-adapt=0",
        }  # fmt: skip
    if codec == "libvpx-vp9":
        return {"deadline": "realtime", "cpu-used": "8", "crf": str(crf or 30), "b": "0"}
    if codec == "libsvtav1":
        return {"preset": "12", "crf": str(crf or 40)}
    if codec == "libx265":
        return {"preset": "ultrafast", "crf": str(crf or 23), "x265-params": "log-level=error"}
    return {"qscale": "3", "bf": str(b_frames)}


def _write_sound(
    container: av.container.OutputContainer,
    sound: av.AudioStream,
    samples: npt.NDArray[np.float32],
    rate: int,
    start: float,
) -> None:
    size = sound.codec_context.frame_size or 1024
    for first in range(0, len(samples), size):
        piece = np.ascontiguousarray(samples[None, first : first + size], np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = round(start * rate) + first
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def render_numbered(path: Path | str, count: int, size: tuple[int, int] = BARCODE_SIZE, **options: object) -> Path:
    """Write ``count`` frames that carry their number; ``options`` are those of :func:`render`."""
    return render(path, (barcode(number, size) for number in range(count)), **options)  # type: ignore[arg-type]


def render_audio(
    path: Path | str, samples: npt.NDArray[np.float32], rate: int = 48_000, codec: str | None = None
) -> Path:
    """Write a file with sound and no picture."""
    path = Path(path)
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec or {".wav": "pcm_s16le", ".flac": "flac"}.get(path.suffix, "aac"), rate=rate)
        sound.layout = "mono"
        _write_sound(container, sound, samples, rate, 0.0)
    return path


def cut_without_reencoding(source: Path | str, target: Path | str, start: float) -> Path:
    """Copy packets from the keyframe before ``start`` on, with the times shifted so that ``start`` becomes 0.

    In MP4 this leaves an edit list: the frames before ``start`` are in the file but must not be shown.
    """
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        shift = round(start / stream.time_base)
        given.seek(shift, stream=stream)
        for packet in given.demux(stream):
            if packet.dts is None:
                continue
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copy
            made.mux(packet)
    return Path(target)


def truncate(source: Path | str, target: Path | str, share: float) -> Path:
    """Copy the first ``share`` (0..1) of a file's bytes."""
    data = Path(source).read_bytes()
    Path(target).write_bytes(data[: int(len(data) * share)])
    return Path(target)
