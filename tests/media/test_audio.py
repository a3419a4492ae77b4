"""Sound comes back at the right moment, pitch and loudness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rendering import render_audio, render_numbered, tone

from videochat_tools.media import read_audio
from videochat_tools.types import TimeSpan

RATE = 16_000


def _beeps(seconds: float, rate: int) -> npt.NDArray[np.float32]:
    """Silence with a beep of 0.1 s on every full second; the beep at second n has 400 + 100 n Hz."""
    samples = np.zeros(round(seconds * rate), np.float32)
    for second in range(int(seconds)):
        samples[second * rate : second * rate + rate // 10] = tone(0.1, 400 + 100 * second, rate)
    return samples


def _onsets(samples: npt.NDArray[np.float32]) -> list[float]:
    """Seconds at which a beep begins."""
    loud = np.abs(samples) > 0.1
    quiet_before = np.array([not loud[max(0, at - 400) : at].any() for at in range(len(loud))])
    return (np.flatnonzero(loud & quiet_before) / RATE).tolist()


def _pitch(samples: npt.NDArray[np.float32]) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples, RATE))))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("b.mkv", {}),
        ("c.ts", {"start": 2.0}),
        ("d.mp4", {"start": 2.0, "audio_rate": 44_100}),
    ],
)
def test_sound_is_on_the_clock_of_the_picture(name: str, options: dict[str, float], tmp_path: Path) -> None:
    rate = int(options.get("audio_rate", 48_000))
    path = render_numbered(tmp_path / name, 60, audio=_beeps(6.0, rate), **{"audio_rate": rate, **options})
    clip = read_audio(path)
    assert (clip.start, clip.sample_rate, clip.samples.dtype) == (0.0, RATE, np.float32)
    assert clip.duration == pytest.approx(6.0, abs=0.05)
    assert _onsets(clip.samples) == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.005)
    part = read_audio(path, TimeSpan(2.5, 4.25))
    assert (part.start, len(part.samples)) == (2.5, 1.75 * RATE)
    assert _onsets(part.samples) == pytest.approx([0.5, 1.5], abs=0.005)
    assert _pitch(part.samples[RATE // 2 : RATE]) == pytest.approx(700, abs=5)
    same = clip.samples[round(2.5 * RATE) :][: len(part.samples)]
    assert np.abs(same - part.samples).max() < 0.1  # up to half a sample apart


def test_sound_that_begins_late_is_padded_with_silence(tmp_path: Path) -> None:
    path = render_numbered(tmp_path / "late.mkv", 40, audio=tone(2.5), audio_start=1.5)
    clip = read_audio(path)
    assert np.abs(clip.samples[: round(1.45 * RATE)]).max() == 0
    assert _onsets(clip.samples) == pytest.approx([1.5], abs=0.01)
    part = read_audio(path, TimeSpan(1.0, 2.0))
    assert len(part.samples) == RATE
    assert _onsets(part.samples) == pytest.approx([0.5], abs=0.01)
    assert np.abs(read_audio(path, TimeSpan(0.2, 0.8)).samples).max(initial=0) == 0


def test_a_span_ends_with_the_sound(tmp_path: Path) -> None:
    path = render_numbered(tmp_path / "film.mp4", 30, audio=tone(3.0))
    assert read_audio(path, TimeSpan(2.0, 99.0)).duration == pytest.approx(1.0, abs=0.05)
    assert len(read_audio(path, TimeSpan(50.0, 60.0)).samples) == 0


def test_loudness_stays(tmp_path: Path) -> None:
    path = render_audio(tmp_path / "tone.wav", tone(1.0, level=0.5))
    assert np.abs(read_audio(path).samples).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["tone.wav", "tone.flac", "tone.m4a"])
def test_files_with_sound_only(name: str, tmp_path: Path) -> None:
    clip = read_audio(render_audio(tmp_path / name, _beeps(3.0, 44_100), rate=44_100))
    assert clip.duration == pytest.approx(3.0, abs=0.07)
    assert _onsets(clip.samples) == pytest.approx([0, 1, 2], abs=0.005)


def test_real_speech(shared: Path) -> None:
    clip = read_audio(shared / "audio" / "jfk.flac")
    assert 10 < clip.duration < 12
    assert 0.05 < np.abs(clip.samples).max() <= 1
