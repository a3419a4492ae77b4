"""Questions in other words."""

from __future__ import annotations

from random import Random

import pytest

from videochat_tools.training.conversations import converse
from videochat_tools.training.world.language import VERBS
from videochat_tools.training.world.scene import sample_scene
from videochat_tools.training.world.wording import reworded


def wordings(question: str) -> set[str]:
    return {reworded(Random(seed), question) for seed in range(60)}


@pytest.mark.parametrize(
    ("question", "other"),
    [
        (
            "who bumps into the square?",
            {"who bumps the square?", "who bumped into the square?", "who bumped the square?"},
        ),
        ("what does the red ring do?", {"what did the red ring do?"}),
        ("which way does the star go?", {"which way did the star go?"}),
        ("what do they say?", {"what did they say?"}),
        ("is there a red ring?", {"was there a red ring?"}),
        ("how many objects can be seen?", {"how many objects could be seen?"}),
        (
            "which object gets bigger?",
            {"what object got bigger?", "which object got bigger?", "what object gets bigger?"},
        ),
    ],
)
def test_the_same_is_asked_in_other_words(question: str, other: set[str]) -> None:
    assert wordings(question) == {question, *other}


@pytest.mark.parametrize(
    "question",
    [
        "what did it do?",
        "what is said about the square that moves?",
        'who says "it is late"?',
        "which is it?\n(A) it moves",
    ],
)
def test_where_only_its_own_words_will_do_they_stay(question: str) -> None:
    assert wordings(question) == {question}


def test_every_verb_has_a_past() -> None:
    for verb, _ in (each for forms in VERBS.values() for each in forms):
        assert any(verb not in words for words in wordings(f"what {verb}?")), verb


def test_some_questions_of_training_are_in_other_words() -> None:
    texts = []
    for seed in range(300):
        rng = Random(seed)
        talk = converse(rng, [sample_scene(rng)], [0])
        texts += [before.text for before, piece in zip(talk.pieces, talk.pieces[1:], strict=False) if piece.is_answer]
    past = sum(" did " in text or " was " in text or " were " in text or "ed the" in text for text in texts)
    assert 0.05 < past / len(texts) < 0.4
