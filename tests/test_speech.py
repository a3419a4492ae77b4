"""Real speech through real Whisper: who says what, when, on the clock of the picture."""

from __future__ import annotations

import difflib
import itertools
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ct2_to_whisper import convert
from spoken import lay_under, narration, say, whisper_folder, write_video_with_audio

from videochat_tools.errors import MediaNotFoundError, MissingDependencyError, ModelLoadError, UnreadableMediaError
from videochat_tools.media import read_audio
from videochat_tools.speech import (
    MODEL_VARIABLE,
    FasterWhisperTranscriber,
    OpenAIWhisperTranscriber,
    Transcriber,
    find_transcriber,
    transcribe,
)
from videochat_tools.types import AudioClip, Transcript, Utterance
from videochat_tools.whisper import audio_pieces

LINES = (
    (1.0, "The train to the mountains was late again."),
    (8.0, "We found an old map under the floor."),
    (10.8, "The doctor said the results were good."),
    (20.0, "My sister bought three loaves of bread."),
)
SECONDS = 24.0
CLOSE = 0.9  # seconds that an utterance may begin or end off the voice
FAMOUS = "ask not what your country can do for you"
FAMOUS_SPAN = (3.25, 7.6)  # of those words in jfk.flac, seconds: it is quiet before and after
FAMOUS_REST = "ask what you can do for your country"  # follows, in the same utterance or not
FAMOUS_REST_END = 10.5


def words_of(text: str) -> list[str]:
    return re.sub(r"[^\w\s']", "", text.lower()).split()


def likeness(one: str, other: str) -> float:
    """How much of the words is the same, in order, 0..1."""
    return difflib.SequenceMatcher(None, words_of(one), words_of(other)).ratio()


@pytest.fixture(scope="module")
def faster_whisper() -> Transcriber:
    pytest.importorskip("faster_whisper")
    return FasterWhisperTranscriber(model=whisper_folder(), threads=2)


@pytest.fixture(scope="module")
def openai_whisper(tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    pytest.importorskip("whisper", reason="openai-whisper is not installed")
    return OpenAIWhisperTranscriber(model=convert(whisper_folder(), tmp_path_factory.mktemp("whisper") / "tiny.en.pt"))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Utterance]]:
    """A grey video in which four sentences are said, and their true spans."""
    sound, truth = narration(LINES, SECONDS)
    return write_video_with_audio(tmp_path_factory.mktemp("spoken") / "talk.mp4", grey(SECONDS), sound), truth


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which no Whisper model was ever fetched."""
    from huggingface_hub import constants

    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_whisper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither program is installed."""
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    monkeypatch.setitem(sys.modules, "whisper", None)


def grey(seconds: float) -> list[np.ndarray]:
    return [np.full((64, 64, 3), 128, np.uint8)] * round(seconds * 10)


def assert_same_speech(transcript: Transcript, truth: list[Utterance], shift: float = 0.0) -> None:
    assert transcript.source == "whisper"
    assert transcript.language == "en"
    assert len(transcript.utterances) == len(truth)
    for heard, said in zip(transcript.utterances, truth, strict=True):
        assert likeness(heard.text, said.text) >= 0.75  # the smallest Whisper and a synthetic voice
        assert heard.span.start == pytest.approx(said.span.start + shift, abs=CLOSE)
        assert heard.span.end == pytest.approx(said.span.end + shift, abs=CLOSE)


# ---------------------------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_a_famous_sentence_is_heard_at_its_time(
    faster_whisper: Transcriber, shared: Path, tmp_path: Path, shift: float
) -> None:
    begin = 2.5  # the sound starts this much after the picture
    voice = replace(read_audio(shared / "audio" / "jfk.flac"), start=begin)
    video = lay_under(shared / "videos" / "yoga.mp4", voice, tmp_path / "speech.mp4", shift=shift)

    transcript = transcribe(video, transcriber=faster_whisper)

    holding = [item for item in transcript.utterances if FAMOUS in " ".join(words_of(item.text))]
    assert len(holding) == 1
    start, end = FAMOUS_SPAN
    if FAMOUS_REST in " ".join(words_of(holding[0].text)):  # int8 and float32 differ in this
        end = FAMOUS_REST_END
    assert begin - CLOSE < holding[0].span.start < begin + start + CLOSE
    assert holding[0].span.end == pytest.approx(begin + end, abs=CLOSE)


def test_sentences_are_heard_with_the_times_of_the_voice(
    faster_whisper: Transcriber, spoken: tuple[Path, list[Utterance]]
) -> None:
    video, truth = spoken

    assert_same_speech(transcribe(video, transcriber=faster_whisper), truth)


def test_openai_whisper_hears_the_same_without_the_ffmpeg_program(
    openai_whisper: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sound, truth = narration([(0.5, LINES[0][1]), (4.0, LINES[1][1])], 7.0)
    video = write_video_with_audio(tmp_path / "talk.mp4", grey(8.0), replace(sound, start=1.0))

    transcript = transcribe(video, transcriber=openai_whisper)

    assert_same_speech(transcript, truth, shift=1.0)


def test_sound_that_begins_after_the_picture_keeps_its_time(faster_whisper: Transcriber, tmp_path: Path) -> None:
    sound, truth = narration([(0.5, LINES[0][1])], 4.0)
    video = write_video_with_audio(tmp_path / "late.mp4", grey(20.0), replace(sound, start=13.0))

    (heard,) = transcribe(video, transcriber=faster_whisper).utterances

    assert heard.span.start == pytest.approx(truth[0].span.start + 13.0, abs=CLOSE)


def test_a_file_of_sound_only_is_transcribed(faster_whisper: Transcriber, shared: Path) -> None:
    transcript = transcribe(shared / "audio" / "jfk.flac", transcriber=faster_whisper)

    assert FAMOUS in " ".join(words_of(" ".join(item.text for item in transcript.utterances)))


def test_silence_holds_no_words(faster_whisper: Transcriber, tmp_path: Path) -> None:
    video = write_video_with_audio(tmp_path / "quiet.mp4", grey(5.0), AudioClip(np.zeros(5 * 16_000, np.float32)))

    assert transcribe(video, transcriber=faster_whisper) == Transcript((), "whisper")


def test_times_can_be_written_as_json(faster_whisper: Transcriber, spoken: tuple[Path, list[Utterance]]) -> None:
    transcript = transcribe(spoken[0], transcriber=faster_whisper)

    written = json.dumps([[item.span.start, item.span.end, item.text] for item in transcript.utterances])

    assert len(json.loads(written)) == len(LINES)


# ----------------------------------------------------------------------------------------------- where it comes from


def test_subtitles_come_before_whisper(
    faster_whisper: Transcriber, spoken: tuple[Path, list[Utterance]], tmp_path: Path
) -> None:
    video = Path(shutil.copy(spoken[0], tmp_path))
    video.with_suffix(".srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nWritten, not heard.\n", encoding="utf-8")

    transcript = transcribe(video, transcriber=faster_whisper)

    assert transcript.source == "subtitles"
    assert [item.text for item in transcript.utterances] == ["Written, not heard."]


def test_subtitles_end_with_the_video(
    spoken: tuple[Path, list[Utterance]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = Path(shutil.copy(spoken[0], tmp_path))
    video.with_suffix(".srt").write_text(
        "1\n00:00:20,000 --> 00:00:40,000\nfirst\n\n2\n00:00:50,000 --> 00:00:51,000\nsecond\n", encoding="utf-8"
    )

    (only,) = transcribe(video, transcriber=None).utterances

    assert only.text == "first"
    assert only.span.end == pytest.approx(SECONDS, abs=0.2)
    assert "1 of 2 utterances" in caplog.text


def test_no_transcriber_means_subtitles_only(spoken: tuple[Path, list[Utterance]]) -> None:
    assert transcribe(spoken[0], transcriber=None) == Transcript((), "none")


def test_a_video_without_sound(
    faster_whisper: Transcriber, color_video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="videochat_tools"):
        assert transcribe(color_video, transcriber=faster_whisper) == Transcript((), "none")

    assert "colours.mp4 has no sound" in caplog.text


def test_the_model_named_by_the_environment_is_used(
    spoken: tuple[Path, list[Utterance]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faster_whisper")
    monkeypatch.setenv(MODEL_VARIABLE, str(whisper_folder()))

    assert_same_speech(transcribe(spoken[0]), spoken[1])


def test_a_checkpoint_file_named_by_the_environment_goes_to_openai_whisper(
    openai_whisper: OpenAIWhisperTranscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(openai_whisper.model))

    assert find_transcriber() == OpenAIWhisperTranscriber()


def test_a_wrong_model_in_the_environment_is_an_error(
    spoken: tuple[Path, list[Utterance]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("faster_whisper")
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "gone"))

    with pytest.raises(ModelLoadError, match="gone"):
        transcribe(spoken[0])


@pytest.mark.usefixtures("no_model")
def test_without_a_model_the_log_says_how_to_get_one(
    spoken: tuple[Path, list[Utterance]], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("faster_whisper")
    assert transcribe(spoken[0]) == Transcript((), "none")

    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("videochat_tools"))
    assert "talk.mp4" in line
    assert "'tiny.en' is not on this machine" in line
    assert "download=True" in line
    assert MODEL_VARIABLE in line


@pytest.mark.usefixtures("no_whisper")
def test_without_whisper_the_log_says_what_to_install(
    spoken: tuple[Path, list[Utterance]], caplog: pytest.LogCaptureFixture
) -> None:
    assert transcribe(spoken[0]) == Transcript((), "none")

    (line,) = (record.getMessage() for record in caplog.records)
    assert "pip install 'videochat-tools[speech]'" in line
    assert "only its pictures" in line


@pytest.mark.usefixtures("no_whisper")
@pytest.mark.parametrize(
    ("make", "extra"), [(FasterWhisperTranscriber, "speech"), (OpenAIWhisperTranscriber, "speech-openai")]
)
def test_a_program_that_was_asked_for_must_be_there(
    make: Callable[[], Transcriber], extra: str, spoken: tuple[Path, list[Utterance]]
) -> None:
    with pytest.raises(MissingDependencyError, match=re.escape(f"[{extra}]")):
        transcribe(spoken[0], transcriber=make())


# ------------------------------------------------------------------------------------------------------- the models


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("transcriber", "hint"),
    [
        (FasterWhisperTranscriber("small"), "fetch it once"),
        (FasterWhisperTranscriber("somebody/whisper"), "fetch it once"),
        (FasterWhisperTranscriber("huge"), "tiny.en"),
        (OpenAIWhisperTranscriber("small"), "fetch it once"),
        (OpenAIWhisperTranscriber("huge"), "tiny.en"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__}-{value.model}",
)
def test_a_model_that_cannot_be_had(
    transcriber: FasterWhisperTranscriber | OpenAIWhisperTranscriber, hint: str
) -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("whisper")
    with pytest.raises(ModelLoadError, match=re.escape(hint)) as caught:
        transcriber.locate()

    assert str(transcriber.model) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper")
    with pytest.raises(ModelLoadError, match=r"model\.bin") as caught:
        FasterWhisperTranscriber(tmp_path).locate()

    assert str(tmp_path) in str(caught.value)


def test_damaged_weights_are_named(tmp_path: Path, spoken: tuple[Path, list[Utterance]]) -> None:
    pytest.importorskip("faster_whisper")
    folder = Path(shutil.copytree(whisper_folder(), tmp_path / "whisper"))
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:100_000])

    with pytest.raises(ModelLoadError, match=re.escape(str(folder))):
        transcribe(spoken[0], transcriber=FasterWhisperTranscriber(folder))


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, spoken: tuple[Path, list[Utterance]]) -> None:
    pytest.importorskip("whisper")
    file = tmp_path / "whisper.pt"
    file.write_text("no weights")

    with pytest.raises(ModelLoadError, match=re.escape(str(file))):
        transcribe(spoken[0], transcriber=OpenAIWhisperTranscriber(file))


def test_a_name_stands_for_model_and_options(tmp_path: Path) -> None:
    moved = Path(shutil.copytree(whisper_folder(), tmp_path / whisper_folder().name))

    assert FasterWhisperTranscriber(moved).name == FasterWhisperTranscriber(whisper_folder()).name
    names = [
        FasterWhisperTranscriber(moved).name,
        FasterWhisperTranscriber("tiny.en").name,
        FasterWhisperTranscriber("small").name,
        FasterWhisperTranscriber("small", beam_size=5).name,
        FasterWhisperTranscriber("small", language="de").name,
        OpenAIWhisperTranscriber("small").name,
    ]
    assert len(set(names)) == len(names)


# ----------------------------------------------------------------------------------------------------- long recordings


def test_long_sound_is_heard_in_pieces_cut_between_the_words(tmp_path: Path) -> None:
    sound, truth = narration([(second, LINES[second % 4][1]) for second in (1, 5, 9, 13, 17)], 20.5)
    video = write_video_with_audio(tmp_path / "long.mp4", grey(20.5), sound)

    pieces = list(audio_pieces(video, seconds=7.0))

    whole = read_audio(video)
    assert len(pieces) > 2
    assert all(piece.duration <= 7.0 for piece in pieces)
    assert pieces[0].start == 0.0
    for before, after in itertools.pairwise(pieces):
        assert after.start == pytest.approx(before.start + before.duration, abs=1e-3)
        assert not any(item.span.start < after.start < item.span.end for item in truth)
    joined = np.concatenate([piece.samples for piece in pieces])
    assert len(joined) == pytest.approx(len(whole.samples), abs=1_600)
    shared_length = min(len(joined), len(whole.samples))
    assert np.corrcoef(joined[:shared_length], whole.samples[:shared_length])[0, 1] > 0.99


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("content", "error"), [(None, MediaNotFoundError), (b"", UnreadableMediaError), (b"text\n", UnreadableMediaError)]
)
def test_bad_files(tmp_path: Path, content: bytes | None, error: type[Exception]) -> None:
    file = tmp_path / "bad.mp4"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(error, match=r"bad\.mp4"):
        transcribe(file)


def test_a_word_for_the_transcriber_must_be_auto(spoken: tuple[Path, list[Utterance]]) -> None:
    with pytest.raises(ValueError, match="'whisper'"):
        transcribe(spoken[0], transcriber="whisper")  # type: ignore[arg-type]


def test_both_programs_are_transcribers() -> None:
    assert isinstance(FasterWhisperTranscriber(), Transcriber)
    assert isinstance(OpenAIWhisperTranscriber(), Transcriber)


def test_the_voice_of_the_tests_says_the_same_twice() -> None:
    assert np.array_equal(say.__wrapped__("The ferry leaves.").samples, say("The ferry leaves.").samples)
