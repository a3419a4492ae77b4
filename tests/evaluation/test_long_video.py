"""The whole way on a short video: a stand-in that knows colours finds, a random model of real classes answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import make_tiny_chat_model

from videochat_tools.evaluation.generation import TEXT_ONLY, ask_about_clips, draw_questions, score_replies
from videochat_tools.evaluation.held_out import held_out_scenes
from videochat_tools.evaluation.long_video import MAIN_TYPES, Outcome, evaluate_long_video, pick_questions
from videochat_tools.evaluation.statistics import Score
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.training.world.long_video import TimedQuestion, plan_video
from videochat_tools.types import Answer, Evidence, SearchHit, TimeSpan


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_chat_model(tmp_path_factory.mktemp("chat"))


def hit(start: float, end: float) -> SearchHit:
    return SearchHit("0", "v.mp4", "file:///v.mp4", TimeSpan(start, end), 0.9)


def outcome(text: str, start: float, end: float, *, found: bool = True, wrong: str = "blue") -> Outcome:
    question = TimedQuestion("colour", "what colour is the ring that spins?", "red", (10.0, 16.0))
    evidence = (Evidence(hit(start, end), cited=True),) if found else ()
    answer = Answer(question.question, text, found, evidence)
    return Outcome(question, answer, hit(start, end), Answer(question.question, wrong, True))


def test_right_is_the_true_answer_with_the_true_moment() -> None:
    assert outcome("red [00:10–00:16]", 10, 16).right
    assert not outcome("blue [00:10–00:16]", 10, 16).right
    elsewhere = outcome("red [00:30–00:36]", 30, 36)
    assert elsewhere.right_words
    assert not elsewhere.right
    assert not outcome("red", 10, 16, found=False).right
    assert outcome("blue", 10, 16, wrong="red").guessed


def test_the_total_holds_the_main_types_in_equal_shares() -> None:
    plan = plan_video(10.0, 0)
    kinds = [question.kind for question in pick_questions(plan, 50)]
    assert {kind: kinds.count(kind) for kind in MAIN_TYPES} == dict.fromkeys(MAIN_TYPES, 10)
    assert kinds.count("shape") == 10
    assert len(pick_questions(plan, 7)) == 7 + 2


def test_a_video_is_rendered_added_and_asked(tmp_path: Path, chat_folder: Path) -> None:
    sections, outcomes, absent = evaluate_long_video(
        tmp_path, minutes=1.0, seed=2, questions=10, model=chat_folder, encoder=FakeVideoEncoder(), transcriber=None
    )
    assert not [path for name in ("right", "wrong") for path in (tmp_path / name).glob("*timeline*")]
    assert set(sections) == {"answers", "moments", "not found"}
    by_name = {score.name: score for scores in sections.values() for score in scores}
    total: Score = by_name[f"all of {', '.join(MAIN_TYPES)}: right, with evidence"]
    assert total.total == len([each for each in outcomes if each.question.kind in MAIN_TYPES])
    assert total.correct == 0, "a random model knows nothing"
    assert by_name["cuts found within 0.15 s"].value > 0.7
    about = [each for each in outcomes if each.question.question.startswith("what is said about the")]
    assert about
    assert all(each.best_place for each in about), "full-text search needs no model"
    assert absent
    assert all(not question.span for question, _ in absent)


def test_a_random_model_answers_questions_about_clips_at_random(chat_folder: Path) -> None:
    from videochat_tools.chat_model import ChatVideoChat

    scenes = held_out_scenes(40, new_pairs=False)
    asked = draw_questions(scenes, 3)
    assert asked == draw_questions(scenes, 3)
    chat = ChatVideoChat(model=str(chat_folder), device="cpu", max_tokens=6)
    replies = {view: ask_about_clips(chat, scenes, asked, view) for view in ("video", "blank", TEXT_ONLY)}
    assert replies["video"] == ask_about_clips(chat, scenes, asked, "video"), "greedy replies are reproducible"
    assert replies["video"] != replies["blank"], "the clip must reach the model"
    assert replies["video"] != replies[TEXT_ONLY]
    for score in score_replies(asked, replies["video"]):
        assert score.correct <= score.total
        assert score.total
    true = score_replies(asked, [each.question.answer for each in asked])
    assert all(score.value == 1 for score in true if not score.name.startswith("present"))
    assert true[-1].value == 0
