"""Questions whose premise is false in one point."""

from __future__ import annotations

from random import Random

from videochat_tools.context import NOT_FOUND
from videochat_tools.training.world.changes import with_one_change
from videochat_tools.training.world.questions import ask
from videochat_tools.training.world.scene import DIRECTIONS, HELD_OUT, Event, Scene, Thing, sample_scene

RED, BLUE = Thing("red", "square", "small", "plain", 0.3, 0.3), Thing("blue", "star", "large", "dotted", 0.7, 0.7)


def scene(*events: Event) -> Scene:
    return Scene((RED, BLUE), events, 6.0, 0)


def asked(shown: Scene, tries: int = 400) -> set[str]:
    drawn = [ask(Random(seed), shown, "mistaken") for seed in range(tries)]
    assert all(question.answer == NOT_FOUND and not question.facts for question in drawn if question is not None)
    return {question.question for question in drawn if question is not None}


def test_one_thing_is_different_and_no_more() -> None:
    rng = Random(0)
    for _ in range(500):
        shown = sample_scene(rng)
        changed = with_one_change(rng, shown, HELD_OUT)
        if changed is None:
            continue
        assert changed != shown and changed.duration == shown.duration
        looks = sum(
            one != other
            for before, after in zip(shown.things, changed.things, strict=True)
            for one, other in zip(before.look, after.look, strict=True)
        )
        events = sum(one != other for one, other in zip(shown.events, changed.events, strict=True))
        assert looks + events == 1
        assert not {(thing.colour, thing.shape) for thing in changed.things} & HELD_OUT
        assert all(event.subject != event.target for event in changed.events)


def test_what_it_takes_for_granted_is_not_so() -> None:
    questions = asked(scene(Event("spin", 0, 1.0, 5.0)))
    assert "which object blinks?" in questions
    assert "which object spins?" not in questions
    assert "in which direction does the red square move?" in questions
    assert any(question.startswith("what shape is the blue object that ") for question in questions)


def test_another_way_is_no_false_premise_of_a_question_about_ways() -> None:
    moving = asked(scene(Event("left", 0, 1.0, 5.0)))
    assert not any(" the red square " in question and question.endswith("move?") for question in moving)
    assert {f"which object moves {way}?" for way in DIRECTIONS} & moving == {
        f"which object moves {way}?" for way in ("right", "up", "down")
    }


def test_what_is_pushed_moves_too() -> None:
    pushed = asked(scene(Event("bump", 0, 1.0, 5.0, target=1)))
    assert not any(question.endswith(("the blue star move?", "the blue star go?")) for question in pushed)
    assert any(question.startswith("what does the blue star bump into") for question in pushed)


def test_what_is_nearly_meant_has_to_be_looked_at() -> None:
    shown = scene(Event("spin", 0, 0.5, 2.5), Event("blink", 1, 3.0, 5.0))
    looks: dict[str, set[tuple[str, int] | None]] = {}
    for seed in range(2000):
        question = ask(Random(seed), shown, "mistaken")
        if question is not None:
            looks.setdefault(question.question, set()).add(question.source)
    for begin, event in (("what happens after", 0), ("what happens before", 1)):
        asked_so = [sources for words, sources in looks.items() if words.startswith(begin)]
        assert asked_so and all(sources == {("event", event)} for sources in asked_so)
    assert all(None not in sources for words, sources in looks.items() if not words.startswith("how many"))
