"""The gates say what was reached, and the batched replies are those of the chat model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.evaluation.gates import GATES, Gate, control_table, gate_table
from videochat_tools.evaluation.generation import (
    about_clip,
    draw_questions,
    hit_of,
    reply_to_all,
    score_replies,
    watch_scenes,
    word_anew,
)
from videochat_tools.evaluation.held_out import held_out_scenes
from videochat_tools.evaluation.nano import evaluate_reading, main
from videochat_tools.evaluation.statistics import rate
from videochat_tools.types import media_fragment


def test_a_gate_is_met_from_its_bound_on() -> None:
    sections = {
        "answers, known pairs, video": [rate("colour", [True] * 9 + [False], chance=0.2), rate("false", [True, False])],
        "answers, new pairs, video": [rate("colour", [True] * 8 + [False] * 2)],
        "answers, known pairs, blank": [rate("colour", [False] * 10)],
    }
    here = "answers, known pairs, video"
    table = gate_table(
        sections,
        (
            Gate("reached", here, "colour", 0.9),
            Gate("missed", here, "colour", 0.91),
            Gate("too many", here, "false", 0.05, at_most=True),
            Gate("fall", "answers, new pairs, video", "colour", 0.05, at_most=True, against=here),
            Gate("not measured", "transcripts", "first", 0.95),
        ),
    )
    rows = {cells[1].strip(): cells[6].strip() for line in table.splitlines()[2:] if (cells := line.split("|"))}
    assert rows == {"reached": "yes", "missed": "no", "too many": "no", "fall": "no"}
    assert "| colour | 0.900 (0.596–0.982) | 0.800 | 0.000 | 0.200 | 10 |" in control_table(sections, "answers")
    assert len({gate.name for gate in GATES}) == len(GATES)


def test_replies_made_together_are_those_made_one_by_one() -> None:
    chat = ChatVideoChat(max_tokens=48)
    scenes = held_out_scenes(40, new_pairs=False)
    asked = draw_questions(scenes, 2)
    tokens = watch_scenes(chat, scenes, sorted({each.clip for each in asked}), "video")
    hits = {each.clip: hit_of(each.clip, scenes[each.clip]) for each in asked}
    named = {media_fragment(hit.uri, hit.span): tokens[clip] for clip, hit in hits.items()}
    alone = chat.model_copy(update={"clip_source": named.__getitem__})
    conversations = [about_clip(chat, each.clip, scenes[each.clip], each.question.question) for each in asked]
    together = reply_to_all(
        chat, [(talk, [tokens[each.clip]]) for talk, each in zip(conversations, asked, strict=True)]
    )
    one_by_one = [alone.invoke(talk).text for talk in conversations]
    same = sum(one == other for one, other in zip(together, one_by_one, strict=True))
    assert same >= len(asked) - 1  # the sums of a batch are rounded otherwise, and may turn a close call
    names = [score.name for score in score_replies(asked, together)]
    assert "when, within 1 s" in names and "choice" in names and "absent, answered 'not found'" in names


def test_the_same_questions_are_asked_in_other_words() -> None:
    asked = draw_questions(held_out_scenes(60, new_pairs=False), 5)
    worded = word_anew(asked)
    usual = {(each.clip, each.question.kind, each.question.answer): each.question.question for each in asked}
    assert {each.question.kind for each in worded} == {each.question.kind for each in asked} - {"choice"}
    for each in worded:
        assert each.question.question != usual[each.clip, each.question.kind, each.question.answer]
    assert any(" was " in each.question.question or " did " in each.question.question for each in worded)


def test_transcripts_and_dialogues_are_counted() -> None:
    sections = evaluate_reading(questions=3)
    assert [score.total for score in sections["transcripts"]] == [3] * 6
    for words, cited in zip(sections["transcripts"], sections["transcripts, with times"], strict=True):
        assert cited.name.startswith(words.name) and cited.total == 3 and cited.value <= words.value
    leaning, turns, whole = sections["dialogues, video"]
    assert 3 <= leaning.total <= 6 and turns.total == 9 and whole.total == 3


def test_the_whole_table_is_the_same_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--clips", "4", "--probes", "2", "--questions", "2", "--controls", "1", "--only", "chat"]
    tables = []
    for processes in ("1", "2"):
        file = tmp_path / f"{processes}.json"
        assert main([*few, "--processes", processes, "--json", str(file)]) == 0
        tables.append(json.loads(file.read_text(encoding="utf-8")))
        assert "## Gates" in capsys.readouterr().out
    assert tables[0] == tables[1] and "answers, known pairs, other words" in tables[0]["scores"]
