"""Multiple choice, questions of time, transcripts: what they say is true, and only one answer is right."""

from __future__ import annotations

import json
import re
from random import Random

import pytest

from videochat_tools.context import clip_caption
from videochat_tools.training.conversations import converse
from videochat_tools.training.drills import (
    TRANSCRIPT_KINDS,
    ask_transcript,
    draw_transcript,
    read_transcript,
    tool_drill,
)
from videochat_tools.training.world.choices import CHOICE_KINDS, ask_choice, ask_when
from videochat_tools.training.world.language import contradict, counted
from videochat_tools.training.world.questions import ask
from videochat_tools.training.world.scene import COLOURS, FRAMES, HELD_OUT, SHAPES, sample_scene
from videochat_tools.types import TimeSpan, parse_timecode


@pytest.mark.parametrize("kind", CHOICE_KINDS)
def test_one_option_is_the_answer_of_the_plain_question(kind: str) -> None:
    asked = 0
    for seed in range(400):
        scene = sample_scene(Random(seed))
        question = ask_choice(Random(seed), scene, kind)
        if question is None:
            continue
        asked += 1
        plain = ask(Random(seed), scene, kind)
        assert plain is not None
        options = dict(re.findall(r"^\((\w)\) (.+)$", question.question, re.M))
        assert 2 <= len(options) <= 4 and len(set(options.values())) == len(options)
        letter, answer = re.fullmatch(r"(?:Best option:)?\((\w)\) (.+)", question.answer).groups()
        assert options[letter] == answer == plain.answer
        assert question.answer.startswith("Best option:") == question.question.endswith("Only give the best option.")
    assert asked > 20


def test_the_right_option_stands_in_every_place() -> None:
    letters = [q.answer for seed in range(600) if (q := ask_choice(Random(seed), sample_scene(Random(seed)), "colour"))]
    first = sum("(A)" in letter for letter in letters) / len(letters)
    assert 0.25 < first < 0.45  # two to four options: a third


def test_when_is_told_in_the_time_of_the_video() -> None:
    scene = next(s for seed in range(99) if len((s := sample_scene(Random(seed))).events) == 2)
    later = scene.events[1]
    question = ask_when(Random(1), scene, TimeSpan(3599.0, 3599.0 + scene.duration), later)
    start, end = re.fullmatch(r"from (\S+) to (\S+)", question.answer).groups()
    assert start.startswith("1:00:0") and end.startswith("1:00:0") and start < end
    assert question.facts <= scene.facts


def test_when_is_told_by_times_that_stand_beside_the_clip_and_within_half_a_second_of_the_truth() -> None:
    for seed in range(200):
        rng = Random(seed)
        scene = sample_scene(rng)
        begin = rng.uniform(0.0, 5000.0)
        span = TimeSpan(begin, begin + scene.duration)
        beside = clip_caption(span, frames=FRAMES)
        for event in scene.events:
            told = re.fullmatch(r"from (\S+) to (\S+)", ask_when(rng, scene, span, event).answer).groups()
            assert all(time in beside for time in told)
            for time, truth in zip(told, (event.start, event.end), strict=True):
                assert abs(parse_timecode(time) - (span.start + truth)) <= 0.6


def test_every_answer_about_a_transcript_stands_in_it() -> None:
    for seed in range(60):
        rng = Random(seed)
        lines = draw_transcript(rng, rng.randint(2, 6))
        text = read_transcript(lines).splitlines()
        assert len(text) == len(lines)
        assert [span.start for span, _, _ in lines] == sorted(span.start for span, _, _ in lines)
        for kind in TRANSCRIPT_KINDS:
            question = ask_transcript(rng, lines, kind)
            answer, cited = question.answer.rsplit(" [", 1)
            row = next(number for number, line in enumerate(text) if cited in line)
            assert answer in text[row]
            quoted = re.search(r'"(.+)"', question.question)
            if kind in ("after", "before"):
                assert f'"{quoted[1]}"' in text[row - 1 if kind == "after" else row + 1]
            elif kind == "who":
                assert f'{answer}: "{quoted[1]}"' in text[row]
            elif kind == "at":
                assert text[row].startswith("[" + question.question.removeprefix("what is said at ").rstrip("?"))
            else:
                assert row == {"first": 0, "last": len(text) - 1}[kind]


def test_counts_are_true_or_false_as_they_are_said() -> None:
    for seed in range(50):
        scene = sample_scene(Random(seed))
        for count in (1, 2, 3):
            assert (counted(Random(seed), scene, count).facts <= scene.facts) == (count == len(scene.things))


def test_what_clips_never_show_is_not_denied_of_clips_either() -> None:
    """Else "red ring" would be a sign of a false text, and a model that has seen one would not say so."""

    def pairs(text: str) -> set[tuple[str, str]]:
        return set(re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b", text))

    denied, told = set[tuple[str, str]](), set[tuple[str, str]]()
    for seed in range(1500):
        rng = Random(seed)
        scene = sample_scene(rng)
        false = contradict(rng, scene)
        denied |= pairs(false.text) if false else set()
        denied |= pairs("".join(piece.text for piece in converse(rng, [scene], [0]).pieces))
        told |= pairs("".join(piece.text for piece in converse(rng, [scene], None).pieces))
    assert not denied & HELD_OUT
    assert told & HELD_OUT


def test_a_tool_is_called_with_what_the_question_says() -> None:
    numbers = scripts = 0
    for seed in range(200):
        conversation = tool_drill(Random(seed))
        told, *pieces = conversation.pieces
        asked = [piece.text for piece in pieces if not piece.is_answer and "Human" in piece.text]
        calls = [json.loads(piece.text) for piece in pieces if piece.is_answer]
        assert len(asked) == len(calls) == len(conversation.kinds)
        for question, call in zip(asked, calls, strict=True):
            assert call["name"] in told.text and call["arguments"]
            for name, value in call["arguments"].items():
                assert name in told.text and str(value) in question
                numbers += isinstance(value, int)
                scripts += not str(value).isascii()
    assert numbers > 20 and scripts > 20  # what a nano copies is not only what it has words for
