"""Several questions about one scene, with pronouns."""

from __future__ import annotations

from random import Random

from videochat_tools.training.world.language import VERBS, matches
from videochat_tools.training.world.questions import KINDS, Question, ask, event_source
from videochat_tools.training.world.scene import DIRECTIONS, HELD_OUT, Look, Scene

__all__ = ["dialogue"]


def dialogue(
    rng: Random,
    scene: Scene,
    count: int,
    kinds: tuple[str, ...] = KINDS,
    unspoken: frozenset[tuple[str, str]] = HELD_OUT,
) -> list[Question]:
    """Up to ``count`` different questions; some later ones speak of the object before as ``it``."""
    turns: list[Question] = []
    for _ in range(count * 3):
        if len(turns) == count:
            break
        if turns and turns[-1].about is not None and rng.random() < 0.45:
            follow = _follow_up(rng, scene, turns[-1].about)
            if follow is not None and all(follow.question != turn.question for turn in turns):
                turns.append(follow)
                continue
        question = ask(rng, scene, rng.choice(kinds), unspoken)
        if question is not None and all(question.question != turn.question for turn in turns):
            turns.append(question)
    return turns


def _follow_up(rng: Random, scene: Scene, about: Look) -> Question | None:
    index = next((i for i, thing in enumerate(scene.things) if matches(thing, about)), None)
    if index is None:
        return None
    kind = rng.choice(("colour", "shape", "direction", "motion", "texture"))
    events = [event for event in scene.events if event.subject == index]
    thing = scene.things[index]
    if kind in ("colour", "shape", "texture"):
        be = "is" if rng.random() < 0.7 else "was"
        words = f"what {kind} {be} it?" if kind != "texture" else f"{be} it plain, striped or dotted?"
        return Question(kind, words, getattr(thing, kind), frozenset(), about, source=("object", index))
    if len(events) != 1 or events[0].target is not None:
        return None
    if kind == "direction" and events[0].kind in DIRECTIONS:
        words = rng.choice(("in which direction does it move?", "in which direction did it move?"))
        return Question(kind, words, events[0].kind, frozenset(), about, source=event_source(scene, events[0]))
    return Question(
        "motion",
        rng.choice(("what does it do?", "what did it do?")),
        f"it {VERBS[events[0].kind][0][0]}",
        frozenset(),
        about,
        source=event_source(scene, events[0]),
    )
