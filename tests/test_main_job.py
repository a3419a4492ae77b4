"""The main job, end to end, with the bundled nano: add long videos, ask, get grounded answers. Nothing is faked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from spoken import lay_under, narration, say, whisper_folder, write_video_with_audio

from videochat_tools.embeddings import NANO_ENCODER
from videochat_tools.errors import MediaError
from videochat_tools.evaluation.answers import same_answer
from videochat_tools.media import frames_decoded_total, read_audio
from videochat_tools.speech import FasterWhisperTranscriber
from videochat_tools.training.world.long_video import plan_video
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.sample import render_sample
from videochat_tools.types import TimeSpan
from videochat_tools.video_library import VideoLibrary

pytestmark = pytest.mark.skipif(
    not (NANO_ENCODER / "model.safetensors").is_file(), reason="the weights of the nano are not in this checkout"
)

FOOTAGE = ("hitting_baseball.mp4", "jesse_dance.mp4", "making_cake.mp4", "playing_guitar.mp4", "yoga.mp4")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoLibrary, list[dict]]:
    """A library of one three-minute sample and its questions; the library never reads the timeline."""
    folder = tmp_path_factory.mktemp("sample")
    video = render_sample(folder / "sample.mp4", minutes=3, seed=11)
    questions = json.loads(video.with_suffix(".timeline.json").read_text(encoding="utf-8"))["questions"]
    video.with_suffix(".timeline.json").unlink()
    library = VideoLibrary(folder / "library")
    (result,) = library.add(video)
    assert result.status == "added"
    assert result.record is not None and result.record.transcript_source == "subtitles"
    return library, questions


def test_the_shots_of_the_sample_are_its_scenes(sample: tuple[VideoLibrary, list[dict]]) -> None:
    library, _ = sample
    (record,) = library.list()
    scenes = [(place.start, place.end) for place in plan_video(3, 11).scenes]
    segments = [segment.span for segment in library.segments_during("sample.mp4", TimeSpan(0, record.info.duration))]
    near = [
        any(abs(start - span.start) < 0.15 and abs(end - span.end) < 0.15 for span in segments) for start, end in scenes
    ]
    assert sum(near) / len(near) > 0.9


def test_most_questions_are_answered_with_the_right_moment(sample: tuple[VideoLibrary, list[dict]]) -> None:
    library, questions = sample
    asked = [question for question in questions if question["type"] in ("colour", "shape", "count", "said")]
    right = 0
    for question in asked:
        answer = library.ask(question["question"])
        truth = TimeSpan(question["start"], question["end"])
        right += (
            answer.found
            and same_answer(answer.text, question["answer"], question["type"])
            and any(evidence.span.overlaps(truth) for evidence in answer.evidence)
        )
    # The benchmark (python -m videochat_tools.evaluation.long_video) measures; this only tells seeing from guessing,
    # which is right on fewer than one in five.
    assert len(asked) >= 10
    assert right / len(asked) >= 0.5


def test_asking_twice_decodes_nothing(sample: tuple[VideoLibrary, list[dict]]) -> None:
    library, questions = sample
    before = frames_decoded_total()
    first = library.ask(questions[0]["question"])
    second = library.ask(questions[0]["question"])
    assert frames_decoded_total() == before
    assert first == second


def test_every_piece_of_evidence_was_retrieved(sample: tuple[VideoLibrary, list[dict]]) -> None:
    library, questions = sample
    for question in questions[:10]:
        answer = library.ask(question["question"])
        found = [clip.span for clip in library.clips(library.search(question["question"]))]
        assert all(evidence.span in found for evidence in answer.evidence)


def test_adding_again_changes_nothing_and_removing_removes(tmp_path: Path) -> None:
    video = render_sample(tmp_path / "short.mp4", minutes=0.3, seed=5)
    library = VideoLibrary(tmp_path / "library")
    assert library.add(video)[0].status == "added"
    assert library.add(video)[0].status == "unchanged"
    library.remove("short.mp4")
    assert library.list() == []
    assert library.search("a red circle") == []


# ------------------------------------------------------------------------------------------------------ real input


@pytest.fixture(scope="module")
def footage(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> VideoLibrary:
    """Real footage, and with it the speech of jfk.flac under the yoga video, from 2 s on."""
    folder = tmp_path_factory.mktemp("footage")
    spoken = lay_under(
        shared / "videos" / "yoga.mp4", read_audio(shared / "audio" / "jfk.flac"), folder / "speech.mp4", shift=2.0
    )
    whisper = FasterWhisperTranscriber(model=str(whisper_folder()))
    library = VideoLibrary(folder / "library", transcriber=whisper)
    results = library.add([*(shared / "videos" / name for name in FOOTAGE), spoken])
    assert [result.error for result in results] == [None] * len(results)
    return library


@pytest.mark.parametrize("name", FOOTAGE)
def test_real_footage_is_listed_searched_and_asked(footage: VideoLibrary, name: str) -> None:
    record = next(record for record in footage.list() if record.name == name)
    assert record.segments >= 1
    hits = footage.search("a red circle moves left", videos=[name])
    answer = footage.ask("what is the person in the video wearing?", videos=[name])
    for span in [hit.span for hit in hits] + [evidence.span for evidence in answer.evidence]:
        assert 0 <= span.start < span.end <= record.info.duration + 0.05
    # It has learned a world of circles and squares: it may not claim to know this.
    assert not answer.found
    assert answer.text.startswith("Not found in the video.")


def test_a_real_speech_is_found_by_what_is_said(footage: VideoLibrary) -> None:
    answer = footage.ask("what is said about your country?")
    assert answer.found
    (evidence,) = answer.evidence[:1]
    assert evidence.video == "speech.mp4"
    assert "what your country can do for you" in evidence.hit.text.lower()
    assert evidence.span.overlaps(TimeSpan(5.0, 12.0))  # the words stand at 3.3–10.2 s of the recording


def test_what_is_said_over_a_scene_is_transcribed_and_found(tmp_path: Path) -> None:
    lines = [(1.0, "The train to the mountains leaves in the morning."), (8.0, "The old map was under the floor.")]
    sound, truth = narration(lines, 14.0)
    plan = plan_video(0.4, 3)
    scenes = [place.scene for place in plan.scenes][:2]
    pictures = [render_clip(scene, [scene.duration * i / 70 for i in range(70)], 160, 120) for scene in scenes]
    video = write_video_with_audio(tmp_path / "talk.mp4", np.concatenate(pictures), sound, fps=10)
    library = VideoLibrary(tmp_path / "library", transcriber=FasterWhisperTranscriber(model=str(whisper_folder())))
    (result,) = library.add(video)
    assert result.record is not None and result.record.transcript_source == "whisper"
    for question, word, utterance in (
        ("what is said about the mountains?", "train", truth[0]),
        ("what do they say about the map?", "floor", truth[1]),
    ):
        answer = library.ask(question)
        assert answer.found, question
        assert word in answer.evidence[0].hit.text.lower()
        assert answer.evidence[0].span.overlaps(utterance.span)


def test_without_sound_or_subtitles_it_goes_on_with_the_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = render_sample(tmp_path / "silent.mp4", minutes=0.2, seed=2)
    video.with_suffix(".vtt").unlink()
    library = VideoLibrary(tmp_path / "library")
    with caplog.at_level("INFO"):
        (result,) = library.add(video)
    assert result.record is not None and result.record.transcript_source == "none"
    assert "silent.mp4" in caplog.text
    assert library.search("a circle")


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    import wave

    clip = say("hello")
    with wave.open(str(tmp_path / "hello.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate)
        file.writeframes((clip.samples * 32000).astype("<i2").tobytes())
    library = VideoLibrary(tmp_path / "library")
    (result,) = library.add(tmp_path / "hello.wav")
    assert isinstance(result.error, MediaError)
    assert not (tmp_path / "library").exists()
