"""Questions about a scene with their short answers.

Multiple choice, questions of time and dialogues are made out of these in :mod:`videochat_tools.training.world.choices`
and :mod:`videochat_tools.training.world.dialogues`.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from videochat_tools.context import NOT_FOUND
from videochat_tools.training.world.changes import with_one_change
from videochat_tools.training.world.language import (
    NUMBERS,
    VERBS,
    caption,
    clause,
    contradict,
    matches,
    name,
    pick_look,
    verb,
)
from videochat_tools.training.world.scene import (
    COLOURS,
    DIRECTIONS,
    HELD_OUT,
    INTERACTIONS,
    SHAPES,
    SIZES,
    STILL,
    TEXTURES,
    Event,
    Fact,
    Look,
    Scene,
)

__all__ = [
    "DENIED",
    "KINDS",
    "Question",
    "Source",
    "ask",
    "describe",
    "event_source",
    "full_look",
    "holds",
    "the",
]

DENIED = ("absent", "mistaken")  # kinds of question that a scene does not answer
KINDS = ("colour", "shape", "size", "texture", "direction", "motion", "count", "which", "order", "yesno", *DENIED)

# Of the kinds of question that take something for granted, how often each is asked in vain.
_MISTAKEN_WEIGHTS = {
    "which": 4,
    "direction": 3,
    "colour": 2,
    "shape": 2,
    "count": 1,
    "order": 1,
    "size": 1,
    "texture": 1,
}

# An object that does one of these is seen to move, so "in which direction does it move?" could mean it.
_MOVING = (*DIRECTIONS, *INTERACTIONS, "bounce")

Source = tuple[Literal["object", "event"], int]  # one of a scene's objects or events, by its number


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer, and the facts it takes for granted: it makes sense for the scenes that have them all."""

    kind: str
    question: str
    answer: str
    facts: frozenset[Fact]
    about: Look | None = None  # the object that a later "it" would mean
    seen: tuple[int, int] | None = None  # "when": number of the frame that it begins with, and of that after its end
    source: Source | None = None  # what has to be looked at: one object or event; where all is denied, the nearest


def ask(rng: Random, scene: Scene, kind: str, unspoken: frozenset[tuple[str, str]] = HELD_OUT) -> Question | None:
    """One question of a kind, or ``None`` where the scene does not allow it without doubt.

    Args:
        rng: Source of chance.
        scene: What is asked about.
        kind: One of :data:`KINDS`.
        unspoken: Pairs of colour and shape that no false claim names, see
            :func:`~videochat_tools.training.world.language.contradict`.
    """
    claims = {"yesno": _yesno, "absent": _absent, "mistaken": _mistaken}
    if kind in claims:
        return claims[kind](rng, scene, kind, unspoken)
    maker = {
        "colour": _attribute,
        "shape": _attribute,
        "size": _choice,
        "texture": _choice,
        "direction": _direction,
        "motion": _motion,
        "count": _count,
        "which": _which,
        "order": _order,
    }[kind]
    return maker(rng, scene, kind)


def the(look: Look) -> str:
    """A noun phrase with its article."""
    return f"the {name(look)}"


def full_look(scene: Scene, index: int) -> Look | None:
    """Colour and shape, with the size added where two objects share both; used in answers."""
    thing = scene.things[index]
    look = (thing.colour, thing.shape, None, None)
    return look if sum(matches(other, look) for other in scene.things) == 1 else None


def _does(scene: Scene, look: Look, event: Event, rng: Random) -> tuple[str, set[Fact]] | None:
    """``that bumps into the blue square``, with its facts."""
    words = verb(rng, event.kind)
    facts: set[Fact] = {("does", event.kind, look)}
    if event.target is not None:
        target = pick_look(rng, scene, event.target)
        if target is None:
            return None
        words += f" {the(target)}"
        facts |= {("is", target), ("meets", event.kind, look, target)}
    return f"that {words}", facts


def event_source(scene: Scene, event: Event) -> Source:
    """What has to be looked at for an event of the scene."""
    return "event", scene.events.index(event)


def _alone(scene: Scene, event: Event) -> bool:
    """Whether no other object does the same."""
    return sum(other.kind == event.kind for other in scene.events) == 1


def _attribute(rng: Random, scene: Scene, kind: str) -> Question | None:
    what = kind if kind == "shape" or rng.random() < 0.85 else "color"
    source: Source
    if scene.events and rng.random() < 0.6:
        event = rng.choice(scene.events)
        if not _alone(scene, event):
            return None
        thing = scene.things[event.subject]
        look: Look = (
            None if kind == "colour" or rng.random() < 0.4 else thing.colour,
            None if kind == "shape" or rng.random() < 0.4 else thing.shape,
            None,
            None,
        )
        done = _does(scene, look, event, rng)
        if done is None:
            return None
        words, facts, index = f"{the(look)} {done[0]}", done[1] | {("is", look)}, event.subject
        source = event_source(scene, event)
    else:
        index = rng.randrange(len(scene.things))
        picked = pick_look(rng, scene, index, omit=kind)
        if picked is None:
            return None
        look, words, facts, source = picked, the(picked), {("is", picked)}, ("object", index)
    answer, about = getattr(scene.things[index], kind), full_look(scene, index)
    return Question(kind, f"what {what} is {words}?", answer, frozenset(facts), about, source=source)


def _choice(rng: Random, scene: Scene, kind: str) -> Question | None:
    index = rng.randrange(len(scene.things))
    if kind == "size" and any(e.subject == index and e.kind in ("grow", "shrink") for e in scene.events):
        return None
    look = pick_look(rng, scene, index, omit=kind)
    if look is None:
        return None
    options = list(SIZES if kind == "size" else TEXTURES)
    rng.shuffle(options)
    words = f"{', '.join(options[:-1])} or {options[-1]}"
    answer, about = getattr(scene.things[index], kind), full_look(scene, index)
    facts = frozenset({("is", look)})
    return Question(kind, f"is {the(look)} {words}?", answer, facts, about, source=("object", index))


def _direction(rng: Random, scene: Scene, kind: str) -> Question | None:
    moves = [event for event in scene.events if event.kind in DIRECTIONS]
    if not moves:
        return None
    event = rng.choice(moves)
    if sum(other.subject == event.subject for other in moves) > 1:
        return None
    look = pick_look(rng, scene, event.subject)
    if look is None:
        return None
    if len(moves) == 1 and rng.random() < 0.15:
        look = (None, None, None, None)
    words = rng.choice(
        ("in which direction does {} move?", "in what direction does {} move?", "which way does {} go?")
    ).format(the(look))
    facts = frozenset({("is", look), ("does", "move", look)})
    return Question(kind, words, event.kind, facts, full_look(scene, event.subject), source=event_source(scene, event))


def _motion(rng: Random, scene: Scene, kind: str) -> Question | None:
    index = rng.randrange(len(scene.things))
    events = [event for event in scene.events if index in (event.subject, event.target)]
    look = pick_look(rng, scene, index)
    if look is None or len(events) > 1 or any(event.target == index for event in events):
        return None
    answer = f"it {VERBS[STILL][0][0]}"
    facts: set[Fact] = {("is", look)}
    source: Source = ("object", index)
    if events:
        event = events[0]
        source = event_source(scene, event)
        answer = f"it {VERBS[event.kind][0][0]}"
        if event.target is not None:
            target = full_look(scene, event.target)
            if target is None:
                return None
            answer += f" {the(target)}"
    words = rng.choice(("what does {} do?", "what happens to {}?")).format(the(look))
    return Question(kind, words, answer, frozenset(facts), full_look(scene, index), source=source)


def _count(rng: Random, scene: Scene, kind: str) -> Question | None:
    words, facts = rng.choice(("how many objects are there", "how many objects can be seen")), frozenset[Fact]()
    if scene.events and rng.random() < 0.6:
        when = clause(rng, scene, rng.choice(scene.events))
        words, facts = f"{words} when {when.text}", when.facts
    return Question(kind, f"{words}?", NUMBERS[len(scene.things)], facts)


def _which(rng: Random, scene: Scene, kind: str) -> Question | None:
    if not scene.events:
        return None
    event = rng.choice(scene.events)
    answer = full_look(scene, event.subject)
    if not _alone(scene, event) or answer is None:
        return None
    if event.target is not None:
        target = full_look(scene, event.target)
        other = pick_look(rng, scene, event.target)
        one = pick_look(rng, scene, event.subject)
        if target is None or other is None or one is None:
            return None
        if rng.random() < 0.4:  # asks for the other one
            words = f"what does {the(one)} {verb(rng, event.kind, infinitive=True)}?"
            facts = frozenset({("is", one), ("does", event.kind, one)})
            return Question(kind, words, the(target), facts, target, source=event_source(scene, event))
        look: Look = (None, None, None, None)
        facts = frozenset({("is", other), ("meets", event.kind, look, other)})
        words = f"{_who(rng)} {verb(rng, event.kind)} {the(other)}?"
    else:
        facts = frozenset({("does", event.kind, (None, None, None, None))})
        words = f"{_who(rng)} {verb(rng, event.kind)}?"
    return Question(kind, words, the(answer), facts, answer, source=event_source(scene, event))


def _who(rng: Random) -> str:
    return rng.choices(("which object", "what", "who"), (0.7, 0.15, 0.15))[0]


def _order(rng: Random, scene: Scene, kind: str) -> Question | None:
    if len(scene.events) != 2:
        return None
    parts: list[tuple[str, frozenset[Fact]]] = []
    for event in scene.events:
        look = full_look(scene, event.subject)
        target = None if event.target is None else full_look(scene, event.target)
        if look is None or (event.target is not None and target is None):
            return None
        words, facts = f"{the(look)} {VERBS[event.kind][0][0]}", {("is", look), ("does", event.kind, look)}
        if target is not None:
            words, facts = f"{words} {the(target)}", facts | {("meets", event.kind, look, target)}
        parts.append((words, frozenset(facts)))
    (first, first_facts), (last, last_facts) = parts
    form = rng.randrange(4)
    if form == 0:
        return Question(kind, "what happens first?", first, frozenset(), source=("event", 0))
    if form == 1:
        return Question(kind, "what happens last?", last, frozenset(), source=("event", 1))
    if form == 2:
        return Question(kind, f"what happens after {first}?", last, first_facts, source=("event", 1))
    return Question(kind, f"what happens before {last}?", first, last_facts, source=("event", 0))


def _yesno(rng: Random, scene: Scene, kind: str, unspoken: frozenset[tuple[str, str]] = HELD_OUT) -> Question | None:
    """Half of the answers are no; the false ones differ from the truth in one word or one role."""
    index = rng.randrange(len(scene.things))
    if rng.random() < 0.35 or not scene.events:
        thing = scene.things[index]
        look: Look = (thing.colour, thing.shape, None, None)
        true = rng.random() < 0.5
        if not true:
            colour = rng.choice([c for c in COLOURS if c != thing.colour])
            shape = rng.choice([s for s in SHAPES if s != thing.shape])
            look = rng.choice(((colour, thing.shape, None, None), (thing.colour, shape, None, None)))
            if any(matches(other, look) for other in scene.things) or look[:2] in unspoken:
                return None
        words = f"is there a {name(look)}?".replace("a orange", "an orange")
        claimed = frozenset({("is", look)} if true else ())
        return Question(kind, words, "yes" if true else "no", claimed, source=("object", index) if true else None)
    event = rng.choice(scene.events)
    one = full_look(scene, event.subject)
    other = None if event.target is None else full_look(scene, event.target)
    if one is None or (event.target is not None and other is None):
        return None
    facts = {("is", one)}
    true, doing = rng.random() < 0.5, event.kind
    if not true:
        change = rng.randrange(3)
        if change == 0 and event.target is not None and other is not None:
            one, other = other, one
        elif change <= 1 and len(scene.things) > 1:
            others = [i for i in range(len(scene.things)) if i not in (event.subject, event.target)]
            swapped = full_look(scene, rng.choice(others)) if others else None
            if swapped is None or any(e.kind == doing and e.subject in others for e in scene.events):
                return None
            one = swapped
        else:
            doing = rng.choice(
                [
                    k
                    for k in (INTERACTIONS if event.target is not None else tuple(VERBS)[:11])
                    if k != event.kind and not any(e.kind == k and e.subject == event.subject for e in scene.events)
                ]
            )
    words = f"does {the(one)} {verb(rng, doing, infinitive=True)}"
    if other is not None:
        words += f" {the(other)}"
    return Question(kind, f"{words}?", "yes" if true else "no", frozenset(facts), source=event_source(scene, event))


def _absent(rng: Random, scene: Scene, kind: str, unspoken: frozenset[tuple[str, str]] = HELD_OUT) -> Question | None:
    """A question about something that does not happen here."""
    for _ in range(4):
        text = contradict(
            rng, scene, rng.choice(("colour", "shape", "action", "roles", "direction")), unspoken=unspoken
        )
        if text is None:
            continue
        event_facts = [
            fact for fact in text.facts if fact[0] == "does" and fact not in scene.facts and fact[1] != STILL
        ]
        looks = [fact[1] for fact in text.facts if fact[0] == "is" and fact not in scene.facts]
        if event_facts:
            fact = rng.choice(event_facts)
            look, doing = fact[2], fact[1]
            if doing in INTERACTIONS:
                continue
            words = rng.choice(
                (
                    f"how many objects are there when {the(look)} {verb(rng, doing)}?",
                    f"what happens after {the(look)} {verb(rng, doing)}?",
                    f"what is said when {the(look)} {verb(rng, doing)}?",
                )
            )
            if doing in DIRECTIONS and not any(matches(thing, look) for thing in scene.things):
                words = f"in which direction does {the(look)} move?"
        elif looks:
            words = f"what does {the(rng.choice(looks))} do?"
        else:
            continue
        return Question(kind, words, NOT_FOUND, frozenset())
    return None


def _mistaken(rng: Random, scene: Scene, kind: str, unspoken: frozenset[tuple[str, str]] = HELD_OUT) -> Question | None:
    """A question that would have an answer if one thing were different, and has none: its premise is false."""
    for _ in range(4):
        other = with_one_change(rng, scene, unspoken)
        (asked,) = rng.choices(tuple(_MISTAKEN_WEIGHTS), tuple(_MISTAKEN_WEIGHTS.values()))
        question = None if other is None else ask(rng, other, asked)
        if question is None or holds(question, scene):
            continue
        if asked == "direction" and any(
            fact[:2] == ("meets", "bump") and ("is", fact[3]) in question.facts for fact in scene.facts
        ):
            continue  # who is pushed moves, too
        source = question.source
        if asked == "order" and source is not None:  # its premise is the other one of two events
            source = "event", 1 - source[1]
        return Question(kind, question.question, NOT_FOUND, frozenset(), source=source)
    return None


def holds(question: Question, scene: Scene) -> bool:
    """Whether the scene could be the one that the question speaks of, whatever the answer to it there would be."""
    return all(_could_mean(fact, scene, question.kind) for fact in question.facts)


def _could_mean(fact: Fact, scene: Scene, kind: str) -> bool:
    if fact[0] == "does" and fact[1] in DIRECTIONS:
        # The facts of a question of direction give its answer away: another way would fit its words as well. And what
        # passes behind something moves left, too, if one looks at it like that.
        ways = _MOVING if kind == "direction" else (fact[1], *INTERACTIONS)
        return any(("does", way, fact[2]) in scene.facts for way in ways)
    return fact in scene.facts


def describe(rng: Random, scene: Scene) -> Question:
    """The request for a caption."""
    words = rng.choice(("what happens in the video?", "describe the video.", "what can be seen?"))
    return Question("caption", words, caption(rng, scene, full=True).text, frozenset())
