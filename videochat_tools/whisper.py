"""Speech to text through Whisper: faster-whisper and openai-whisper behind one pair of methods.

Both get the sound as samples from :mod:`videochat_tools.media`, in pieces of some minutes that are cut where it is
quiet, so that memory does not grow with the length of the video, and both time each word, so that an utterance begins
and ends with the voice. Nothing is downloaded unless ``download=True`` says so.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import MissingDependencyError, ModelLoadError, NoVideoStreamError
from videochat_tools.types import AudioClip, TimeSpan, Transcript, Utterance, VideoInfo

__all__ = [
    "DEFAULT_SIZE",
    "MODEL_VARIABLE",
    "FasterWhisperTranscriber",
    "OpenAIWhisperTranscriber",
    "audio_pieces",
    "probe_or_sound_only",
]

MODEL_VARIABLE = "VIDEOCHAT_WHISPER_MODEL"  # environment variable: a size name, a folder or a file
DEFAULT_SIZE = "tiny.en"
PIECE_SECONDS = 600.0  # longest piece of sound in memory: 38 MB of samples
_CUT_SECONDS = 30.0  # how far before the end of a piece a quiet place to cut is looked for
_QUIET_SECONDS = 0.3  # length of that quiet place

_LONG_PAUSE = 1.0  # seconds without a word after which a new utterance begins
_SENTENCE_PAUSE = 0.3  # seconds that are enough where a sentence ends
_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")


@dataclass(frozen=True)
class FasterWhisperTranscriber:
    """Whisper on CTranslate2, the default: about 40 times real time with tiny.en on one core.

    Args:
        model: size name (``"tiny.en"``, ``"small"`` …), hub id, or folder of a CTranslate2 model; ``None`` takes the
            environment variable VIDEOCHAT_WHISPER_MODEL, else tiny.en.
        language: code such as ``"en"``; ``None`` detects it from the first words.
        beam_size: 1 decodes greedily.
        vad_filter: leave out stretches without a voice (Whisper invents words for noise and silence).
        word_timestamps: time each word, so that utterances begin and end with the voice. Without it an utterance
            lasts until the next one begins, however long the pause; it costs next to nothing.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        compute_type: CTranslate2's; ``None`` is int8 on a CPU, float16 on a GPU.
        threads: CPU threads; 0 leaves it to OMP_NUM_THREADS, else 4.
        download: fetch a model that is not on this machine from the Hugging Face hub.
    """

    model: str | Path | None = None
    language: str | None = None
    beam_size: int = 1
    vad_filter: bool = True
    word_timestamps: bool = True
    device: str = "auto"
    compute_type: str | None = None
    threads: int = 0
    download: bool = False

    @property
    def name(self) -> str:
        """Identity for caches."""
        options = (self.language, self.beam_size, self.vad_filter, self.word_timestamps)
        return f"faster-whisper:{_identity(self.model)}:" + ":".join(str(option) for option in options)

    def locate(self) -> Path:
        """The folder of the model.

        Raises:
            MissingDependencyError: faster-whisper is not installed.
            ModelLoadError: the model is neither a folder nor (without ``download``) on this machine.
        """
        try:
            from faster_whisper import available_models, download_model
        except ImportError as error:
            raise MissingDependencyError("faster-whisper", "speech", "transcribing speech") from error

        model = _configured(self.model)
        folder = Path(model)
        if folder.is_dir():
            missing = [file for file in ("model.bin", "tokenizer.json") if not (folder / file).is_file()]
            if missing:
                raise ModelLoadError(
                    f"{folder} is no faster-whisper model, it lacks {' and '.join(missing)}; give a folder written by "
                    f"ct2-transformers-converter --copy_files tokenizer.json, or a size such as {DEFAULT_SIZE}"
                )
            return folder
        if model not in available_models() and (model.count("/") != 1 or folder.is_absolute() or folder.exists()):
            raise ModelLoadError(
                f"no faster-whisper model {model!r}: give a folder that holds one, a hub id, or a size: "
                + ", ".join(available_models())
            )
        try:
            return Path(download_model(model, local_files_only=not self.download))
        except Exception as error:  # the hub's client raises errors of many kinds: offline, not cached, no such model
            raise ModelLoadError(
                f"the Whisper model {model!r} is not on this machine; fetch it once with "
                f"FasterWhisperTranscriber({model!r}, download=True).locate(), or give the folder of a CTranslate2 "
                f"Whisper model (also by the environment variable {MODEL_VARIABLE})"
            ) from error

    def transcribe(self, path: Path) -> Transcript:
        """All that is said in a file, on its own clock."""
        whisper = _load_faster_whisper(str(self.locate()), self.device, self.compute_type, self.threads)

        def hear(samples: npt.NDArray[np.float32], language: str | None) -> tuple[list[_Word], str | None]:
            segments, info = whisper.transcribe(
                samples,
                language=language,
                beam_size=self.beam_size,
                vad_filter=self.vad_filter,
                word_timestamps=self.word_timestamps,
                condition_on_previous_text=False,  # one mistake must not repeat itself through the whole piece
            )
            words = [
                word
                for segment in segments
                for word in _as_words(
                    (segment.start, segment.end, segment.text), [(w.start, w.end, w.word) for w in segment.words or ()]
                )
            ]
            return words, info.language

        return _transcribe_pieces(path, self.language, hear)


@dataclass(frozen=True)
class OpenAIWhisperTranscriber:
    """The original openai-whisper, on PyTorch: slower, and it takes the original checkpoints.

    Args:
        model: size name (``"tiny.en"``, ``"small"`` …) or checkpoint file (.pt); ``None`` takes the environment
            variable VIDEOCHAT_WHISPER_MODEL, else tiny.en.
        language: code such as ``"en"``; ``None`` detects it from the first words.
        beam_size: 1 decodes greedily.
        word_timestamps: time each word, so that utterances begin and end with the voice.
        device: a device of PyTorch; ``None`` takes a GPU when there is one.
        download: fetch a model that is not on this machine.
    """

    model: str | Path | None = None
    language: str | None = None
    beam_size: int = 1
    word_timestamps: bool = True
    device: str | None = None
    download: bool = False

    @property
    def name(self) -> str:
        """Identity for caches."""
        options = (self.language, self.beam_size, self.word_timestamps)
        return f"openai-whisper:{_identity(self.model)}:" + ":".join(str(option) for option in options)

    def locate(self) -> str:
        """The checkpoint file, or the size name of a model that openai-whisper has (or may fetch).

        Raises:
            MissingDependencyError: openai-whisper is not installed.
            ModelLoadError: the model is neither a file nor (without ``download``) on this machine.
        """
        try:
            import whisper
        except ImportError as error:
            raise MissingDependencyError("openai-whisper", "speech-openai", "transcribing speech") from error

        model = _configured(self.model)
        if Path(model).is_file():
            return model
        if model not in whisper.available_models():
            raise ModelLoadError(
                f"no openai-whisper model {model!r}: give a checkpoint file (.pt) or a size: "
                + ", ".join(whisper.available_models())
            )
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
        if not self.download and not (cache / os.path.basename(whisper._MODELS[model])).is_file():
            raise ModelLoadError(
                f"the Whisper model {model!r} is not on this machine; fetch it once with "
                f"OpenAIWhisperTranscriber({model!r}, download=True).locate(), or give the path of a checkpoint "
                f"file (also by the environment variable {MODEL_VARIABLE})"
            )
        return model

    def transcribe(self, path: Path) -> Transcript:
        """All that is said in a file, on its own clock."""
        whisper = _load_openai_whisper(self.locate(), self.device)

        def hear(samples: npt.NDArray[np.float32], language: str | None) -> tuple[list[_Word], str | None]:
            result = whisper.transcribe(
                samples,  # never a path: for that it would start the ffmpeg program
                language=language,
                beam_size=None if self.beam_size == 1 else self.beam_size,
                word_timestamps=self.word_timestamps,
                condition_on_previous_text=False,
                fp16=whisper.device.type == "cuda",
                verbose=None,
            )
            words = [
                word
                for segment in result["segments"]
                for word in _as_words(
                    (segment["start"], segment["end"], segment["text"]),
                    [(w["start"], w["end"], w["word"]) for w in segment.get("words", ())],
                )
            ]
            return words, result["language"]

        return _transcribe_pieces(path, self.language, hear)


def _configured(model: str | Path | None) -> str:
    return str(model or os.environ.get(MODEL_VARIABLE) or DEFAULT_SIZE)


def _identity(model: str | Path | None) -> str:
    """A size name as it is; for files, the name and a digest of sizes and beginnings (the same wherever they lie)."""
    path = Path(_configured(model))
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        return str(path)
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as content:
                digest.update(content.read(1 << 20))
    return f"{path.name}-{digest.hexdigest()[:12]}"


@functools.lru_cache(maxsize=1)  # the model stays in memory for the next video
def _load_faster_whisper(folder: str, device: str, compute_type: str | None, threads: int) -> Any:
    import ctranslate2  # type: ignore[import-untyped]
    from faster_whisper import WhisperModel

    if device == "auto":
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    compute_type = compute_type or ("float16" if device == "cuda" else "int8")
    try:
        return WhisperModel(folder, device=device, compute_type=compute_type, cpu_threads=threads)
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelLoadError(
            f"faster-whisper cannot load {folder} on {device} as {compute_type}: {' '.join(str(error).split())}; "
            "fetch the model again, or choose another device or compute_type"
        ) from error


@functools.lru_cache(maxsize=1)
def _load_openai_whisper(model: str, device: str | None) -> Any:
    import pickle

    import whisper

    try:
        return whisper.load_model(model, device=device)
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ModelLoadError(
            f"openai-whisper cannot load {model!r}: {' '.join(str(error).split())[:200]}; give an original Whisper "
            "checkpoint (.pt) or a size name"
        ) from error


# ---------------------------------------------------------------------------------------- sound → words → utterances


class _Word(NamedTuple):
    """A word, or a whole Whisper segment where words are not timed; seconds from the beginning of the piece."""

    start: float
    end: float
    text: str
    begins_segment: bool


def _as_words(segment: tuple[float, float, str], words: Sequence[tuple[float, float, str]]) -> list[_Word]:
    # float(): both programs return numpy floats, which would not survive JSON.
    return [
        _Word(float(start), float(end), text, number == 0)
        for number, (start, end, text) in enumerate(words or [segment])
    ]


Hear = Callable[[npt.NDArray[np.float32], str | None], tuple[list[_Word], str | None]]


def _transcribe_pieces(path: Path, language: str | None, hear: Hear) -> Transcript:
    """Let ``hear`` (samples, language → words, language) have the sound piece by piece."""
    utterances: list[Utterance] = []
    for piece in audio_pieces(path):
        words, heard_language = hear(piece.samples, language)
        if words:
            language = heard_language  # detected once, in the first piece in which somebody speaks
            utterances += _to_utterances(words, piece)
    return Transcript(tuple(utterances), "whisper", language)


def _to_utterances(words: Sequence[_Word], piece: AudioClip) -> list[Utterance]:
    """Join words; a new utterance begins with a Whisper segment, after a long pause, or a short one after a sentence.

    Whisper joins sentences that lie many seconds apart, because the voice filter takes the silence out between them.
    """
    groups: list[list[_Word]] = []
    for word in words:
        last = groups[-1][-1] if groups else None
        sentence_ended = last is not None and last.text.rstrip().endswith(_SENTENCE_ENDS)
        pause = _SENTENCE_PAUSE if sentence_ended else _LONG_PAUSE
        if last is None or word.begins_segment or word.start - last.end >= pause:
            groups.append([])
        groups[-1].append(word)
    utterances = []
    for group in groups:
        text = " ".join("".join(word.text for word in group).split())
        # A segment's time may run on into the silence that Whisper pads the sound with.
        start = min(max(group[0].start, 0.0), piece.duration)
        end = min(max(group[-1].end, start), piece.duration)
        if text:
            utterances.append(Utterance(TimeSpan(piece.start + start, piece.start + end), text))
    return utterances


def probe_or_sound_only(path: Path) -> VideoInfo | None:
    """What the file holds; ``None`` for a file of sound only, which can be transcribed all the same."""
    from videochat_tools.media import probe

    try:
        return probe(path)
    except NoVideoStreamError:
        return None


def audio_pieces(path: Path, seconds: float = PIECE_SECONDS) -> Iterator[AudioClip]:
    """The sound of a file in pieces of at most ``seconds``, cut where it is quiet; together they are the whole."""
    from videochat_tools.media import read_audio

    info = probe_or_sound_only(path)
    if info is None:  # sound only: its length is not known before it is read
        yield read_audio(path)
        return
    start = 0.0
    while start < info.duration:
        end = min(start + seconds, info.duration)
        clip = read_audio(path, TimeSpan(start, end))
        if end < info.duration and len(clip.samples):
            kept = _quiet_place(clip)
            clip = AudioClip(clip.samples[:kept], clip.start, clip.sample_rate)
            end = clip.start + clip.duration
        if len(clip.samples):
            yield clip
        start = end


def _quiet_place(clip: AudioClip) -> int:
    """The number of samples up to the quietest moment in the last seconds of a clip (at most its second half)."""
    window = round(_QUIET_SECONDS * clip.sample_rate)
    first = max(len(clip.samples) // 2, len(clip.samples) - round(_CUT_SECONDS * clip.sample_rate))
    energy = np.concatenate([[0.0], np.cumsum(np.square(clip.samples[first:], dtype=np.float64))])
    if len(energy) <= window:
        return len(clip.samples)
    return first + int(np.argmin(energy[window:] - energy[:-window])) + window // 2
