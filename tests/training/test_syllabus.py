"""What a beginner is asked, and what comes later."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from videochat_tools.training.conversations import converse
from videochat_tools.training.instruct import language_conversations
from videochat_tools.training.syllabus import ALL, BEGINNING, Syllabus
from videochat_tools.training.world.questions import KINDS
from videochat_tools.training.world.scene import sample_scene


def _asked(syllabus: Syllabus) -> Counter[str]:
    """Kinds of the questions of some hundred conversations about one clip."""
    rng = Random(7)
    talks = (converse(rng, [sample_scene(rng)], [0], syllabus=syllabus) for _ in range(150))
    return Counter(kind for talk in talks for kind in talk.kinds)


@pytest.mark.parametrize("syllabus", [BEGINNING, ALL])
def test_every_kind_of_question_is_weighed(syllabus: Syllabus) -> None:
    assert set(syllabus.kinds) == set(KINDS)


def test_a_beginner_is_asked_less_of_what_is_not_there_and_more_of_what_is_seen() -> None:
    first, later = _asked(BEGINNING), _asked(ALL)
    assert 2 * first["mistaken"] < later["mistaken"]
    assert first["colour"] + first["shape"] > later["colour"] + later["shape"]
    assert first["choice"] < later["choice"]


def test_the_way_from_one_to_the_other() -> None:
    assert BEGINNING.towards(ALL, 0.0) == BEGINNING
    half = BEGINNING.towards(ALL, 0.5)
    assert half.kinds["mistaken"] == (BEGINNING.kinds["mistaken"] + ALL.kinds["mistaken"]) / 2
    assert half.drills["call"] == pytest.approx((BEGINNING.drills["call"] + ALL.drills["call"]) / 2)
    assert half.reworded == pytest.approx((BEGINNING.reworded + ALL.reworded) / 2)


def test_a_kind_of_text_that_weighs_nothing_is_not_drawn() -> None:
    calls = Syllabus(ALL.kinds, 0.0, 0.0, 0.0, 0.0, {drill: float(drill == "call") for drill in ALL.drills})
    assert {kind for row in language_conversations(Random(1), 12, calls) for kind in row.kinds} == {"call"}
