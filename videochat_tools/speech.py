"""What is said in a video: its own subtitles, else its sound through Whisper.

A :class:`Transcriber` turns a file into utterances with absolute times; the two that come with the package are in
:mod:`videochat_tools.whisper`. Nothing is downloaded unless a transcriber is told to.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from videochat_tools.errors import MissingDependencyError, ModelLoadError
from videochat_tools.subtitles import read_subtitles
from videochat_tools.types import TimeSpan, Transcript, Utterance, VideoInfo
from videochat_tools.whisper import (
    MODEL_VARIABLE,
    FasterWhisperTranscriber,
    OpenAIWhisperTranscriber,
    probe_or_sound_only,
)

__all__ = [
    "MODEL_VARIABLE",
    "FasterWhisperTranscriber",
    "OpenAIWhisperTranscriber",
    "Transcriber",
    "find_transcriber",
    "read_subtitles",
    "transcribe",
]

logger = logging.getLogger(__name__)


@runtime_checkable
class Transcriber(Protocol):
    """Something that hears. ``name`` says which model and options: the same name, the same transcript."""

    @property
    def name(self) -> str:
        """Identity for caches: program, model, options."""

    def transcribe(self, path: Path) -> Transcript:
        """All that is said in a file, on its own clock."""


def transcribe(
    path: str | Path,
    *,
    transcriber: Transcriber | Literal["auto"] | None = "auto",
    language: str | None = None,
) -> Transcript:
    """What is said in a video: its subtitles where it has some, else Whisper.

    Args:
        path: the video.
        transcriber: ``"auto"`` takes the Whisper that is installed and whose model is on this machine
            (:func:`find_transcriber`), and goes on without speech where there is none, with a warning in the log;
            ``None`` uses subtitles only.
        language: code of the subtitles to prefer, such as ``"en"``.

    Raises:
        MediaError: the file, or its subtitles, cannot be read.
        ModelLoadError: the model that was named (by the transcriber or by VIDEOCHAT_WHISPER_MODEL) cannot be loaded.
    """
    if isinstance(transcriber, str) and transcriber != "auto":
        raise ValueError(f"transcriber is a Transcriber, 'auto' or None, got {transcriber!r}")
    path = Path(path)
    info = probe_or_sound_only(path)
    subtitles = read_subtitles(path, language=language)
    if subtitles is not None:
        return _within(subtitles, info, path)
    if info is not None and not info.has_audio:
        logger.info("%s has no sound: nothing to transcribe", path.name)
        return Transcript((), "none")
    if transcriber == "auto":
        try:
            transcriber = find_transcriber()
        except (MissingDependencyError, ModelLoadError) as error:
            if isinstance(error, ModelLoadError) and os.environ.get(MODEL_VARIABLE):
                raise  # somebody named this model: going on without it would hide the mistake
            logger.warning("%s: what is said in it is not transcribed, only its pictures count: %s", path.name, error)
    if transcriber is None or isinstance(transcriber, str):
        return Transcript((), "none")
    return _within(transcriber.transcribe(path), info, path)


def _within(transcript: Transcript, info: VideoInfo | None, path: Path) -> Transcript:
    """End every utterance with the video; leave out those after its end."""
    if info is None or info.duration <= 0:
        return transcript
    kept = [item for item in transcript.utterances if item.span.start < info.duration]
    if len(kept) < len(transcript.utterances):
        logger.warning(
            "%s: %d of %d utterances (%s) begin after the end of the video at %.1f s and are left out",
            path.name, len(transcript.utterances) - len(kept), len(transcript.utterances), transcript.source,
            info.duration,
        )  # fmt: skip
    fitted = tuple(Utterance(TimeSpan(i.span.start, min(i.span.end, info.duration)), i.text) for i in kept)
    return Transcript(fitted, transcript.source, transcript.language)


def find_transcriber() -> Transcriber:
    """The first Whisper that is installed and whose model is on this machine: faster-whisper, else openai-whisper.

    Raises:
        MissingDependencyError: neither is installed.
        ModelLoadError: the model is not on this machine; the message says how to get it.
    """
    named = os.environ.get(MODEL_VARIABLE)
    candidates: list[FasterWhisperTranscriber | OpenAIWhisperTranscriber]
    if named and Path(named).is_file():  # openai-whisper keeps a model in one file, faster-whisper in a folder
        candidates = [OpenAIWhisperTranscriber()]
    elif named and Path(named).is_dir():
        candidates = [FasterWhisperTranscriber()]
    else:
        candidates = [FasterWhisperTranscriber(), OpenAIWhisperTranscriber()]
    problems: list[MissingDependencyError | ModelLoadError] = []
    for candidate in candidates:
        try:
            candidate.locate()
        except (MissingDependencyError, ModelLoadError) as error:
            problems.append(error)
        else:
            return candidate
    # Installed but without its model is nearer to working than not installed.
    raise next((problem for problem in problems if isinstance(problem, ModelLoadError)), problems[0])
