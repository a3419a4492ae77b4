"""The narrator's voice: eSpeak NG, a small free program that says English text, the same text always alike."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import ConfigurationError, MissingProgramError

__all__ = ["SAMPLE_RATE", "find_voice", "speak"]

SAMPLE_RATE = 22_050  # Hz, of all voices of eSpeak NG
_PROGRAM = "espeak-ng"
_USUAL, _FASTEST = 160, 450  # words a minute; the program knows no faster speech
_SILENCE = 160  # of 32 768: what is weaker at both ends of a sentence is not part of it

Samples = npt.NDArray[np.int16]


def find_voice() -> str:
    """Where eSpeak NG is.

    Raises:
        MissingProgramError: it is not on the PATH.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise MissingProgramError(
            f"speaking the narration needs the program {_PROGRAM}, which is not on the PATH; install it "
            f"('apt install {_PROGRAM}', 'brew install {_PROGRAM}') or make the video without speech: its narration is "
            "in the subtitles as well"
        )
    return program


def speak(text: str, room: float) -> Samples:
    """A sentence without silence around it, spoken as fast as it must be to fit.

    Args:
        text: English.
        room: Seconds that it may take at most.

    Returns:
        int16 [n], :data:`SAMPLE_RATE` to the second.

    Raises:
        MissingProgramError: eSpeak NG is not on the PATH.
        ConfigurationError: nobody can say so much in so little time.
    """
    program, rate = find_voice(), _USUAL
    while True:
        samples = _say(program, text, rate)
        seconds = len(samples) / SAMPLE_RATE
        if seconds <= room:
            return samples
        if rate == _FASTEST:
            raise ConfigurationError(
                f"{text!r} takes {seconds:.1f} s and there are {room:.1f} s of its scene left; make the scenes longer "
                "(the world's duration) or the video without speech"
            )
        rate = min(_FASTEST, round(1.1 * rate * seconds / room))


def _say(program: str, text: str, rate: int) -> Samples:
    command = [program, "-v", "en-us", "-s", str(rate), "--stdin", "--stdout"]
    spoken = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if spoken.returncode != 0 or not spoken.stdout:
        reason = spoken.stderr.decode(errors="replace").strip() or f"exit code {spoken.returncode}"
        raise MissingProgramError(f"{program} does not speak: {reason}; install it anew, with its voices")
    with wave.open(io.BytesIO(spoken.stdout)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _SILENCE)
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples
