"""What a question names beside what is true of the row that it is about."""

from __future__ import annotations

from random import Random

import pytest

from videochat_tools.context import NOT_FOUND
from videochat_tools.training.claims import compared
from videochat_tools.training.conversations import converse
from videochat_tools.training.slots import tell_source
from videochat_tools.training.tokenizers import build_llm_tokenizer
from videochat_tools.training.world.questions import DENIED, ask
from videochat_tools.training.world.scene import Scene, sample_scene
from videochat_tools.training.world.wording import reworded

_BUMP = {
    "kind": "bump",
    **{"who_colour": "cyan", "who_shape": "star", "who_size": "small", "who_texture": "plain"},
    **{"whom_colour": "red", "whom_shape": "ring", "whom_size": "large", "whom_texture": "dotted"},
    **{"place": "alone", "begin": "1", "end": "7"},
}
_LEFT = _BUMP | {"kind": "left", **dict.fromkeys(("whom_colour", "whom_shape", "whom_size", "whom_texture"), "none")}
_GROW = _LEFT | {"kind": "grow"}
_THING = {"colour": "green", "shape": "square", "size": "large", "texture": "striped"}


@pytest.mark.parametrize(
    ("question", "answer", "values", "asked", "not_true"),
    [
        ("what does the cyan star bump into?", "the red ring", _BUMP, ("cyan", "star", "bumps"), "yes"),
        ("what did the cyan ring hit?", NOT_FOUND, _BUMP, ("cyan", "ring", "bumps"), "ring"),  # to which it is done
        ("does the cyan square bump the red ring?", "no", _BUMP, ("cyan", "square", "bumps"), "square"),
        ("did the cyan star pass behind the red ring?", "no", _BUMP, ("cyan", "star", "behind"), "behind"),
        ("what colour was the star that went left?", "cyan", _LEFT, (None, "star", "left"), "yes"),
        ("which object went right?", NOT_FOUND, _LEFT, (None, None, "right"), "right"),
        ("does the cyan star move?", "yes", _LEFT, ("cyan", "star", None), "yes"),
        ("what colour is the circle that jumped up and down?", NOT_FOUND, _LEFT, (None, "circle", "bounces"), "circle"),
        ("which object hits the cyan star?", NOT_FOUND, _BUMP, (None, None, "bumps"), "cyan"),
        ("in which direction does the cyan star move?", NOT_FOUND, _GROW, ("cyan", "star", None), "move"),
        ("is there a green square?", "yes", _THING, ("green", "square", None), "yes"),
        ("is the green circle small or large?", NOT_FOUND, _THING, ("green", "circle", None), "circle"),
        ("is the small square plain, striped or dotted?", NOT_FOUND, _THING, (None, "square", None), None),
        ("what shape is the small green object?", NOT_FOUND, _THING, ("green", None, None), "small"),
        ("what happens after the red ring spins?", "the cyan star moves left", _LEFT, ("red", "ring", "spins"), None),
        ("Question: what is blue?\nOptions:\n(A) red star\n(B) star", "(B) star", _LEFT, ("blue", None, None), "yes"),
    ],
)
def test_what_a_question_names_is_found_and_what_of_it_does_not_fit(question, answer, values, asked, not_true) -> None:
    words = compared(question, answer, values)
    assert tuple(words.get(f"asked_{slot}") for slot in ("colour", "shape", "deed")) == asked
    assert words.get("not_true") == not_true
    assert words["seen_colour"] == values.get("colour", values.get("who_colour"))
    assert words.get("seen_deed") == {"bump": "bumps", "left": "left", "grow": "grows"}.get(values.get("kind", ""))


def test_sizes_and_textures_are_asked_for_too() -> None:
    words = compared("what colour is the large square?", "green", _THING)
    assert words["asked_size"] == words["seen_size"] == "large" and words["seen_texture"] == "striped"
    assert "asked_texture" not in words
    offered = compared("is the green square small or large?", "large", _THING)
    assert "asked_size" not in offered and offered["seen_size"] == "large"


def test_a_colour_without_a_name_is_not_told() -> None:
    words = compared("what shape is the small object?", "square", _THING | {"colour": "#a05c10", "size": "small"})
    assert "seen_colour" not in words and words["seen_shape"] == "square"


def _denied(rng: Random, scene: Scene, kind: str) -> tuple[bool, str | None] | None:
    question = ask(rng, scene, kind)
    if question is None or question.source is None or question.answer not in ("no", NOT_FOUND):
        return None
    asked = reworded(rng, question.question)
    words = compared(asked, question.answer, tell_source(scene, question.source))
    return " before " in asked or " after " in asked, words.get("not_true")


@pytest.mark.parametrize("kind", ["yesno", "mistaken"])
def test_most_of_what_is_denied_has_a_word_that_does_not_fit(kind: str) -> None:
    rng = Random(5)
    denied = [one for _ in range(600) if (one := _denied(rng, sample_scene(rng), kind)) is not None]
    found = [word for order, word in denied if not order]
    assert len(found) > 100 and "yes" not in found
    assert sum(word is not None for word in found) > 0.95 * len(found)


def test_all_words_are_tokens_and_the_questions_of_conversations_have_them() -> None:
    vocabulary, rng, kinds = build_llm_tokenizer().get_vocab(), Random(3), set()
    for _ in range(80):
        scene = sample_scene(rng)
        talk = converse(rng, [scene], [0])
        assert len(talk.compared) == len(talk.kinds)
        for kind, source, words in zip(talk.kinds, talk.sources, talk.compared, strict=True):
            assert (words is None) == (source is None)
            for word in (words or {}).values():
                assert f"▁{word}" in vocabulary
            if words and "not_true" in words:
                kinds.add((kind in DENIED, words["not_true"] == "yes"))
    assert kinds == {(True, False), (False, True), (False, False)}  # the last are answers of no
    assert converse(rng, [sample_scene(rng)], None).compared == ()
