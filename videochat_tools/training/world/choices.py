"""Questions built on others: multiple choice in the words of MVBench, and when something happens."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from videochat_tools.context import part_timecodes
from videochat_tools.models.videochat2.prompts import ChoicePrompt
from videochat_tools.training.world.language import NUMBERS, VERBS, clause, matches
from videochat_tools.training.world.questions import Question, ask, event_source, full_look, the
from videochat_tools.training.world.scene import (
    ACTIONS,
    COLOURS,
    DIRECTIONS,
    FRAMES,
    HELD_OUT,
    INTERACTIONS,
    SHAPES,
    SIZES,
    STILL,
    TEXTURES,
    Event,
    Scene,
)
from videochat_tools.types import TimeSpan

__all__ = ["CHOICE_KINDS", "ask_choice", "ask_when", "lettered"]

CHOICE_KINDS = ("colour", "shape", "size", "texture", "direction", "motion", "count", "which", "order")
_PROMPT = ChoicePrompt()
_VALUES = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "texture": TEXTURES,
    "direction": tuple(DIRECTIONS),
    "count": NUMBERS[1:6],
}
LETTERS = "ABCD"


def ask_choice(rng: Random, scene: Scene, kind: str | None = None) -> Question | None:
    """A question with two to four options, one of them right; ``None`` where the scene does not allow it.

    Args:
        rng: Source of chance.
        scene: What is asked about.
        kind: One of :data:`CHOICE_KINDS`; None draws one.
    """
    kind = kind or rng.choice(CHOICE_KINDS)
    asked = ask(rng, scene, kind)
    if asked is None:
        return None
    wrong = [option for option in _wrong(rng, scene, asked) if option != asked.answer]
    options = [asked.answer, *rng.sample(wrong, min(len(wrong), rng.randint(1, 3)))]
    if len(options) < 2:
        return None
    rng.shuffle(options)
    words, answer = lettered(rng, asked.question, options, asked.answer)
    return Question("choice", words, answer, asked.facts, source=asked.source)


def lettered(rng: Random, question: str, options: Sequence[str], right: str) -> tuple[str, str]:
    """Question and answer in the words of MVBench; often with the start of the answer that its notebooks give."""
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    words, answer = "\n".join([f"Question: {question}", "Options:", *lines]), lines[options.index(right)]
    if rng.random() < 0.6:
        return words + _PROMPT.question_end, _PROMPT.answer_start + answer.removeprefix("(")
    return words, answer


def _wrong(rng: Random, scene: Scene, asked: Question) -> list[str]:
    """False answers of the same form, without a doubt."""
    if asked.kind in _VALUES:
        return list(_VALUES[asked.kind])
    if asked.kind == "which":
        shown = [look for index in range(len(scene.things)) if (look := full_look(scene, index)) is not None]
        foreign = (rng.choice(tuple(COLOURS)), rng.choice(SHAPES), None, None)
        absent = foreign[:2] not in HELD_OUT and not any(matches(thing, foreign) for thing in scene.things)
        return [the(look) for look in ([*shown, foreign] if absent else shown)]
    if asked.kind == "motion":
        alone = tuple(kind for kind in (*ACTIONS, STILL))
        wrong = [f"it {VERBS[kind][0][0]}" for kind in rng.sample(alone, 4)]
        whom = [look for index in range(len(scene.things)) if (look := full_look(scene, index)) is not None]
        if whom and rng.random() < 0.5:
            wrong += [f"it {VERBS[kind][0][0]} {the(rng.choice(whom))}" for kind in rng.sample(INTERACTIONS, 2)]
        return wrong
    return _wrong_events(rng, scene)


def _wrong_events(rng: Random, scene: Scene) -> list[str]:
    """What else could have been first or last: the scene's own events, and objects that do something else."""
    said = []
    for event in scene.events:
        one = full_look(scene, event.subject)
        other = None if event.target is None else full_look(scene, event.target)
        if one is None or (event.target is not None and other is None):
            continue
        end = "" if other is None else f" {the(other)}"
        said.append(f"{the(one)} {VERBS[event.kind][0][0]}{end}")
    own = {event.kind for event in scene.events}
    for _ in range(3):
        look = full_look(scene, rng.randrange(len(scene.things)))
        kind = rng.choice([kind for kind in ACTIONS if kind not in own])
        if look is not None:
            said.append(f"{the(look)} {VERBS[kind][0][0]}")
    return list(dict.fromkeys(said))


def ask_when(rng: Random, scene: Scene, span: TimeSpan, event: Event) -> Question:
    """When an event of the scene happens, in a video that shows the scene at ``span``.

    It is told by the border between two frames that is nearest to its beginning, and to its end: nothing finer is seen.
    """
    happening = clause(rng, scene, event)
    words = rng.choice((f"when is it that {happening.text}?", f"at what time is it that {happening.text}?"))
    seen = min(scene.eighth(event.start), FRAMES - 1), scene.eighth(event.end)
    start, end = (part_timecodes(span, FRAMES)[number] for number in seen)
    source = event_source(scene, event)
    return Question("when", words, f"from {start} to {end}", happening.facts, seen=seen, source=source)
