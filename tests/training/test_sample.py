"""The sample video: exact cuts and times, subtitles, and questions that have one true answer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videochat_tools.errors import ConfigurationError, MediaError, MissingProgramError
from videochat_tools.media import open_video, probe, read_audio
from videochat_tools.subtitles import read_sidecar
from videochat_tools.training.world.config import WorldConfig
from videochat_tools.training.world.long_video import QUESTION_TYPES, VideoPlan, plan_video
from videochat_tools.training.world.questions import Question, holds
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.sample import render_sample
from videochat_tools.training.world.scene import COLOURS, DIRECTIONS, SHAPES, SIZES, TEXTURES
from videochat_tools.training.world.timeline import timeline
from videochat_tools.training.world.voice import speak

MINUTES, SEED = 0.5, 3


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_sample(tmp_path_factory.mktemp("a sample") / "out.mp4", MINUTES, SEED)


@pytest.fixture(scope="module")
def plan() -> VideoPlan:
    return plan_video(MINUTES, SEED)


@pytest.fixture(scope="module")
def long_plan() -> VideoPlan:
    return plan_video(10.0, 0)


def test_the_video_is_as_long_as_asked_for(sample: Path) -> None:
    info = probe(sample)
    assert info.duration == pytest.approx(30.0, abs=1e-3)
    assert (info.width, info.height, info.video_codec, info.has_audio) == (320, 240, "h264", False)


def test_every_frame_has_its_exact_time_and_scene(sample: Path, plan: VideoPlan) -> None:
    with open_video(sample) as reader:
        frames = list(reader.frames())
    assert [frame.time for frame in frames] == pytest.approx([number / 10 for number in range(300)], abs=1e-6)
    for place in plan.scenes:
        first, last = round(place.start * 10), round(place.end * 10) - 1
        for number in (first, (first + last) // 2, last):
            truth = render_clip(place.scene, [number / 10 - place.start], 320, 240, noise=0.0)[0].astype(int)
            assert np.abs(frames[number].image - truth).mean() < 8, f"frame {number}"


def test_cuts_are_hard(plan: VideoPlan, sample: Path) -> None:
    with open_video(sample) as reader:
        pictures = [frame.image.astype(int) for frame in reader.frames()]
    change = [np.abs(one - other).mean() for one, other in pairwise(pictures)]
    cuts = [round(place.start * 10) - 1 for place in plan.scenes[1:]]
    assert min(change[cut] for cut in cuts) > np.quantile([c for n, c in enumerate(change) if n not in cuts], 0.95)


def test_the_timeline_says_what_the_plan_says(sample: Path, plan: VideoPlan) -> None:
    timeline = json.loads(sample.with_suffix(".timeline.json").read_text(encoding="utf-8"))
    assert (timeline["video"], timeline["duration"], timeline["seed"]) == ("out.mp4", 30.0, SEED)
    assert [(scene["start"], scene["end"]) for scene in timeline["scenes"]] == [(p.start, p.end) for p in plan.scenes]
    assert [scene["caption"] for scene in timeline["scenes"]] == [place.caption for place in plan.scenes]
    for scene in timeline["scenes"]:
        for event in scene["events"]:
            assert scene["start"] <= event["start"] < event["end"] <= scene["end"]
            assert event["subject"] < len(scene["things"])
    keys = {"type", "question", "answer", "start", "end"}
    assert all(set(entry) == keys for entry in timeline["questions"] + timeline["absent_questions"])
    spans = {(scene["start"], scene["end"]) for scene in timeline["scenes"]}
    assert {(entry["start"], entry["end"]) for entry in timeline["questions"]} <= spans


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key != "world":
                yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


def test_the_timeline_is_described_key_by_key(sample: Path) -> None:
    written = json.loads(sample.with_suffix(".timeline.json").read_text(encoding="utf-8"))
    text = (Path(__file__).resolve().parents[2] / "docs" / "world.md").read_text(encoding="utf-8")
    table = "".join(line for line in text.splitlines() if line.startswith("| "))
    assert set(keys_of(written)) == set(re.findall(r"`(\w+)`", table))


def test_the_timeline_is_enough_to_draw_the_video_again(sample: Path) -> None:
    written = json.loads(sample.with_suffix(".timeline.json").read_text(encoding="utf-8"))
    world = WorldConfig.from_dict(written["world"])
    again = plan_video(written["duration"] / 60, written["seed"], fps=written["fps"], world=world)
    assert json.loads(json.dumps(timeline(written["video"], again))) == written


def test_objects_are_where_the_timeline_says(sample: Path) -> None:
    written = json.loads(sample.with_suffix(".timeline.json").read_text(encoding="utf-8"))
    resting = [
        (scene["start"], thing)
        for scene in written["scenes"]
        for index, thing in enumerate(scene["things"])
        if all(index not in (event["subject"], event["target"]) for event in scene["events"])
        and thing["shape"] != "ring"
    ]
    assert resting
    with open_video(sample) as reader:
        for time, thing in resting:
            (frame,) = reader.frames_at([time + 0.2])
            pixel = frame.image[round(240 * thing["y"]), round(40 + 240 * thing["x"])].astype(float)
            wanted = np.array(COLOURS[thing["colour"]], float)
            # A stripe is darker; the colour stays.
            assert np.dot(pixel, wanted) / np.linalg.norm(pixel) / np.linalg.norm(wanted) > 0.95, (time, thing)


with_voice = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="the narrator is espeak-ng, not on the PATH")


@with_voice
def test_the_narration_is_heard_when_the_timeline_says(tmp_path: Path, plan: VideoPlan) -> None:
    spoken = render_sample(tmp_path / "spoken.mp4", MINUTES, SEED, width=64, height=48, speech=True)
    info = probe(spoken)
    assert (info.audio_codec, info.video_codec) == ("aac", "h264")
    assert info.duration == pytest.approx(30.0, abs=0.05)
    sound = read_audio(spoken)
    loud = np.abs(sound.samples) > 0.02
    written = json.loads(spoken.with_suffix(".timeline.json").read_text(encoding="utf-8"))
    told = read_sidecar(spoken.with_suffix(".vtt")).utterances
    said = [scene["utterance"] for scene in written["scenes"] if scene["utterance"] is not None]
    assert [each["text"] for each in said] == [p.spoken.text for p in plan.scenes if p.spoken is not None]
    assert [(u.span.start, u.span.end, u.text) for u in told] == [(u["start"], u["end"], u["text"]) for u in said]
    for scene in written["scenes"]:
        first = round(scene["start"] * sound.sample_rate)
        heard = np.flatnonzero(loud[first : round(scene["end"] * sound.sample_rate)]) + first
        if scene["utterance"] is None:
            assert not heard.size
        else:
            assert heard[0] / sound.sample_rate == pytest.approx(scene["utterance"]["start"], abs=0.03)
            assert heard[-1] / sound.sample_rate == pytest.approx(scene["utterance"]["end"], abs=0.03)


@with_voice
def test_a_sentence_is_said_faster_where_there_is_little_room() -> None:
    text = "please bring the light suitcase on wednesday"
    usual, hurried = speak(text, 10.0), speak(text, 1.5)
    assert len(hurried) / 22_050 <= 1.5 < len(usual) / 22_050
    assert np.array_equal(usual, speak(text, 10.0))
    with pytest.raises(ConfigurationError, match="duration"):
        speak(text, 0.3)


def test_without_the_narrator_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match="apt install espeak-ng"):
        render_sample(tmp_path / "out.mp4", MINUTES, SEED, speech=True)
    assert not list(tmp_path.iterdir())


def test_the_subtitles_hold_what_is_said(sample: Path, plan: VideoPlan) -> None:
    spoken = [place.spoken for place in plan.scenes if place.spoken is not None]
    transcript = read_sidecar(sample.with_suffix(".vtt"))
    assert [utterance.text for utterance in transcript.utterances] == [each.text for each in spoken]
    for utterance, each in zip(transcript.utterances, spoken, strict=True):
        assert utterance.span.start == pytest.approx(each.start, abs=1e-3)
        assert utterance.span.end == pytest.approx(each.end, abs=1e-3)


def test_nothing_else_is_left_behind(sample: Path) -> None:
    assert sorted(path.name for path in sample.parent.iterdir()) == ["out.mp4", "out.timeline.json", "out.vtt"]


def test_the_same_seed_gives_the_same_files(sample: Path, tmp_path: Path) -> None:
    other = render_sample(tmp_path / "out.mp4", MINUTES, SEED)
    for suffix in (".mp4", ".vtt", ".timeline.json"):
        assert other.with_suffix(suffix).read_bytes() == sample.with_suffix(suffix).read_bytes()


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[float, float]] = []
    render_sample(tmp_path / "s.mp4", 0.2, 1, width=64, height=64, progress=lambda *seconds: told.append(seconds))
    assert told == sorted(told)
    assert told[-1] == (12.0, 12.0)


@pytest.mark.parametrize("name", ["out.txt", "out"])
def test_a_name_without_a_container_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=r"\.mp4"):
        render_sample(tmp_path / name, 0.1)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MediaError, match="cannot write"):
        render_sample(tmp_path / "file" / "out.mp4", 0.1)


def test_no_time_no_video(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        render_sample(tmp_path / "out.mp4", 0.0)


@pytest.mark.parametrize("minutes", [0.05, 0.1, 0.15, 0.31, 1.0])
def test_short_videos_end_where_they_should(minutes: float) -> None:
    plan = plan_video(minutes, 5)
    assert plan.duration == pytest.approx(minutes * 60, abs=0.05)
    lengths = [round(place.end - place.start, 6) for place in plan.scenes]
    assert max(lengths) <= 8
    assert min(lengths) >= (4 if minutes * 60 >= 4 else minutes * 60)


def test_scenes_follow_without_gaps_and_do_not_look_alike(long_plan: VideoPlan) -> None:
    scenes = long_plan.scenes
    assert scenes[0].start == 0
    assert long_plan.duration == 600
    for one, other in pairwise(scenes):
        assert one.end == other.start
        assert not {(t.colour, t.shape) for t in one.scene.things} & {(t.colour, t.shape) for t in other.scene.things}
    assert plan_video(10.0, 0) == long_plan != plan_video(10.0, 1)


def test_one_utterance_lies_within_its_scene(long_plan: VideoPlan) -> None:
    spoken = [(place, place.spoken) for place in long_plan.scenes if place.spoken is not None]
    assert 0.45 < len(spoken) / len(long_plan.scenes) < 0.75
    assert all(place.start < each.start < each.end < place.end for place, each in spoken)
    assert len({each.topic for _, each in spoken}) == len(spoken)


def test_there_are_enough_questions_of_every_type(long_plan: VideoPlan) -> None:
    kinds = [question.kind for question in long_plan.questions]
    assert len(kinds) >= 60
    assert {kind: kinds.count(kind) for kind in QUESTION_TYPES} == dict.fromkeys(QUESTION_TYPES, len(kinds) // 6)
    assert len({question.question for question in long_plan.questions}) == len(kinds)
    assert kinds[: len(QUESTION_TYPES)] == list(QUESTION_TYPES)
    absent = [question.question for question in long_plan.absent_questions]
    assert len(absent) >= 60
    assert not set(absent) & {question.question for question in long_plan.questions}


def test_a_question_fits_one_scene_alone() -> None:
    plan = plan_video(10.0, 11)
    for question in plan.questions:
        if question.kind != "said" or " about the " not in question.question:
            continue
        topic = question.question.removeprefix("what is said about the ").removesuffix("?")
        saying = [place for place in plan.scenes if place.spoken is not None and topic in place.spoken.text.split()]
        assert [(place.start, place.end) for place in saying] == [question.span]
        assert saying[0].spoken is not None
        assert question.answer == saying[0].spoken.text
    for question in plan.questions:
        if question.kind == "direction":
            words = question.question.rstrip("?").split()
            fitting = [
                place
                for place in plan.scenes
                for event in place.scene.events
                if event.kind in DIRECTIONS and wanted(words) <= set(place.scene.things[event.subject].look)
            ]
            assert [(place.start, place.end) for place in fitting] == [question.span], question


def wanted(words: list[str]) -> set[str]:
    return set(words) & {*COLOURS, *SHAPES, *SIZES, *TEXTURES}


def test_a_movement_of_another_way_fits_a_question_of_direction() -> None:
    scene = next(p.scene for p in plan_video(10.0, 0).scenes if any(e.kind == "left" for e in p.scene.events))
    subject = next(scene.things[event.subject] for event in scene.events if event.kind == "left")
    facts = frozenset({("is", subject.look), ("does", "right", subject.look)})
    assert holds(Question("direction", "which way does it go?", "right", facts), scene)
    assert not holds(Question("count", "how many are there when it goes right?", "one", facts), scene)
