"""What can be said about a scene: references, clauses, captions, and captions that are false in one point.

Every :class:`Text` carries the facts it asserts, so that whether it is true of any scene is decided by
``text.facts <= scene.facts`` and never guessed from words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from videochat_tools.training.world.scene import (
    ACTIONS,
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
    Thing,
)

__all__ = [
    "ASPECTS",
    "LOOKALIKES",
    "NUMBERS",
    "VERBS",
    "Text",
    "caption",
    "clause",
    "contradict",
    "counted",
    "name",
    "pick_look",
    "statement",
]

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# kind -> wordings as (finite, infinitive); the first is the plain one, used in answers.
VERBS: dict[str, tuple[tuple[str, str], ...]] = {
    **{way: ((f"moves {way}", f"move {way}"), (f"goes {way}", f"go {way}")) for way in DIRECTIONS},
    "spin": (("spins", "spin"), ("rotates", "rotate"), ("turns around", "turn around")),
    "grow": (("grows", "grow"), ("gets bigger", "get bigger")),
    "shrink": (("shrinks", "shrink"), ("gets smaller", "get smaller")),
    "blink": (("blinks", "blink"), ("flashes", "flash")),
    "bounce": (("bounces", "bounce"), ("jumps up and down", "jump up and down")),
    "appear": (("appears", "appear"), ("shows up", "show up")),
    "disappear": (("disappears", "disappear"), ("vanishes", "vanish")),
    "bump": (("bumps into", "bump into"), ("hits", "hit")),
    "behind": (("passes behind", "pass behind"), ("moves behind", "move behind")),
    "front": (("passes in front of", "pass in front of"), ("moves in front of", "move in front of")),
    STILL: (("stays still", "stay still"), ("does not move", "not move")),
}


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence and what it asserts.

    ``faults`` are the numbers of the words at which it leaves the truth, where it was made to be nearly true and that
    can be told from the same sentence about the scene as it is.
    """

    text: str
    facts: frozenset[Fact]
    faults: tuple[int, ...] | None = None


def name(look: Look) -> str:
    """A noun phrase without article: ``(red, None, small, None)`` -> ``small red object``."""
    colour, shape, size, texture = look
    return " ".join(word for word in (size, texture, colour, shape or "object") if word)


def verb(rng: Random, kind: str, *, infinitive: bool = False) -> str:
    """One wording of an action; the plain one most of the time."""
    wordings = VERBS[kind]
    wording = wordings[0] if len(wordings) == 1 or rng.random() < 0.7 else rng.choice(wordings[1:])
    return wording[infinitive]


def matches(thing: Thing, look: Look) -> bool:
    """Whether the object fits the look."""
    return all(want is None or want == have for want, have in zip(look, thing.look, strict=True))


_ORDER = ("colour", "shape", "size", "texture")


def pick_look(
    rng: Random, scene: Scene, index: int, *, omit: str | None = None, force: Iterable[str] = (), unique: bool = True
) -> Look | None:
    """Attributes that single the object out in its scene, or ``None`` where that is impossible without ``omit``."""
    thing = scene.things[index]
    wanted = {"colour": 0.92, "shape": 0.92, "size": 0.2, "texture": 0.2}
    keep = [attribute in force or rng.random() < wanted[attribute] for attribute in _ORDER]
    for position, attribute in enumerate(_ORDER):
        if attribute == omit:
            keep[position] = False
    if keep[3] and thing.texture == "plain" and "texture" not in force and rng.random() < 0.7:
        keep[3] = False
    for extra in (None, 0, 1, 2, 3):
        if extra is not None and _ORDER[extra] != omit:
            keep[extra] = True
        look = tuple(value if kept else None for value, kept in zip(thing.look, keep, strict=True))
        if not unique or sum(matches(other, look) for other in scene.things) == 1:
            return look
    return None


def clause(rng: Random, scene: Scene, event: Event, *, force: Iterable[str] = (), article: str = "the") -> Text:
    """A main clause about one event, such as ``the red circle bumps into the blue square``."""
    subject = _plain_look(rng, scene, event.subject, force)
    facts: set[Fact] = {("is", subject), ("does", event.kind, subject)}
    words = f"{article} {name(subject)} {verb(rng, event.kind)}"
    if event.target is not None:
        target = _plain_look(rng, scene, event.target, force)
        facts |= {("is", target), ("meets", event.kind, subject, target)}
        words += f" {article} {name(target)}"
    return Text(_articles(words), frozenset(facts))


def _plain_look(rng: Random, scene: Scene, index: int, force: Iterable[str]) -> Look:
    look = pick_look(rng, scene, index, force=force)
    return look if look is not None else scene.things[index].look


def _articles(words: str) -> str:
    return words.replace("a orange", "an orange")


def counted(rng: Random, scene: Scene, count: int) -> Text:
    """How many objects there are, said to be ``count``, often with one event."""
    facts: set[Fact] = {("count", count)}
    words = f"there {'is' if count == 1 else 'are'} {NUMBERS[count]} object{'' if count == 1 else 's'}"
    if scene.events and rng.random() < 0.5:
        happening = clause(rng, scene, rng.choice(scene.events))
        words, facts = f"{words} and {happening.text}", facts | happening.facts
    return Text(words, frozenset(facts))


def statement(rng: Random, scene: Scene) -> Text:
    """Something short and true: one event, one object, two objects side by side, or how many there are."""
    if rng.random() < 0.06:
        return counted(rng, scene, len(scene.things))
    if scene.events and rng.random() < 0.7:
        return clause(rng, scene, rng.choice(scene.events), article=rng.choice(("the", "a")))
    chosen = rng.sample(range(len(scene.things)), min(len(scene.things), rng.choice((1, 2))))
    looks = [_plain_look(rng, scene, index, ()) for index in chosen]
    words = " and ".join(f"a {name(look)}" for look in looks)
    return Text(_articles(words), frozenset(("is", look) for look in looks))


def caption(rng: Random, scene: Scene, *, force: Iterable[str] = (), full: bool = False) -> Text:
    """A description of the whole scene: its events in order, and most of the time the objects at rest."""
    article = rng.choice(("the", "a", "a"))
    parts = [clause(rng, scene, event, force=force, article=article) for event in scene.events]
    facts: set[Fact] = set().union(*(part.facts for part in parts)) if parts else set()
    words = parts[0].text if parts else ""
    if len(parts) == 2:
        first, second = (_subject_look(part) for part in parts)
        facts.add(("then", scene.events[0].kind, first, scene.events[1].kind, second))
        one, other = (part.text for part in parts)
        words = rng.choice((f"{one}, then {other}", f"first {one}, then {other}", f"{other} after {one}"))
    resting = [index for index in range(len(scene.things)) if all(index not in _players(e) for e in scene.events)]
    for index in resting:
        if parts and not full and rng.random() < 0.25:
            continue
        look = _plain_look(rng, scene, index, force)
        facts.add(("is", look))
        if not words:
            words = f"{article} {name(look)}"
        elif rng.random() < 0.3:
            words += f" while {article} {name(look)} stays still"
            facts.add(("does", STILL, look))
        else:
            words += f" and {article} {name(look)}"
    if rng.random() < 0.12:
        facts.add(("count", len(scene.things)))
        words = f"{NUMBERS[len(scene.things)]} object{'s' if len(scene.things) > 1 else ''}: {words}"
    return Text(_articles(words), frozenset(facts))


def _players(event: Event) -> tuple[int, ...]:
    return (event.subject,) if event.target is None else (event.subject, event.target)


def _subject_look(part: Text) -> Look:
    look = next(fact[2] for fact in part.facts if fact[0] == "does")
    return (look[0], look[1], None, None)


# Of what a text may be false in, with how often it is drawn.
_ASPECTS = {
    "action": 2.0,
    "direction": 2.0,
    "order": 5.0,
    "shape": 4.0,
    "lookalike": 3.0,
    "colour": 4.0,
    "size": 4.0,
    "texture": 4.0,
    "swap": 4.0,
    "roles": 2.0,
    "count": 2.5,
}
ASPECTS = tuple(_ASPECTS)
LOOKALIKES = {"circle": "square", "square": "circle"}  # of all pairs of shapes the one that is told apart last
MOST_THINGS = 3  # that a scene shows


def contradict(
    rng: Random,
    scene: Scene,
    aspect: str | None = None,
    *,
    short: bool = False,
    unspoken: frozenset[tuple[str, str]] = HELD_OUT,
) -> Text | None:
    """A caption (or short statement) like the scene's own that is false in one aspect.

    ``None`` where the scene offers no such change, or the statement drawn does not mention it.

    Args:
        rng: Source of chance.
        scene: What it contradicts.
        aspect: One of :data:`ASPECTS`; None draws one.
        short: A statement instead of a caption.
        unspoken: Pairs of colour and shape that are not claimed. A pair that clips never show would otherwise be
            learned as a sign that a text is false.
    """
    aspect = aspect or rng.choices(ASPECTS, tuple(_ASPECTS.values()))[0]
    seed = rng.getrandbits(64)  # of the words, so that the truth can be told in the same ones
    if aspect == "count":
        others = [count for count in range(1, MOST_THINGS + 1) if count != len(scene.things)]
        return _with_faults(*(counted(Random(seed), scene, n) for n in (rng.choice(others), len(scene.things))))
    changed = _changed(rng, scene, aspect)
    if changed is None or any((thing.colour, thing.shape) in unspoken for thing in changed.things):
        return None
    force = ("colour", "shape", aspect) if aspect in ("size", "texture") else ("colour", "shape")
    false, true = (
        statement(Random(seed), shown) if short else caption(Random(seed), shown, force=force, full=True)
        for shown in (changed, scene)
    )
    return None if false.facts <= scene.facts else _with_faults(false, true)


def _with_faults(false: Text, true: Text) -> Text:
    words, truth = false.text.split(), true.text.split()
    if len(words) != len(truth):
        return false
    return replace(false, faults=tuple(n for n, word in enumerate(words) if word != truth[n]))


def _changed(rng: Random, scene: Scene, aspect: str) -> Scene | None:
    things, events = list(scene.things), list(scene.events)
    if aspect in ("colour", "shape", "size", "texture"):
        index = rng.randrange(len(things))
        values = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES), "texture": TEXTURES}[aspect]
        value = rng.choice([value for value in values if value != getattr(things[index], aspect)])
        things[index] = replace(things[index], **{aspect: value})  # type: ignore[arg-type]
    elif aspect == "lookalike":
        alike = [index for index, thing in enumerate(things) if thing.shape in LOOKALIKES]
        if not alike:
            return None
        index = rng.choice(alike)
        things[index] = replace(things[index], shape=LOOKALIKES[things[index].shape])
    elif aspect == "swap":  # two objects exchange colour or shape: only binding tells them apart
        if len(things) < 2:
            return None
        one, other = rng.sample(range(len(things)), 2)
        attribute = rng.choice(("colour", "shape"))
        a, b = getattr(things[one], attribute), getattr(things[other], attribute)
        things[one] = replace(things[one], **{attribute: b})
        things[other] = replace(things[other], **{attribute: a})
    elif not events:
        return None
    elif aspect == "order":
        if len(events) < 2:
            return None
        events.reverse()
    elif aspect == "roles":  # another object does it, or doer and target change places
        position = rng.randrange(len(events))
        event = events[position]
        if event.target is not None:
            events[position] = replace(event, subject=event.target, target=event.subject)
        elif len(things) > 1:
            other = rng.choice([index for index in range(len(things)) if index != event.subject])
            events[position] = replace(event, subject=other)
        else:
            return None
    else:
        position = rng.randrange(len(events))
        event = events[position]
        if aspect == "direction":
            if event.kind not in DIRECTIONS:
                return None
            pool: tuple[str, ...] = tuple(DIRECTIONS)
        else:
            pool = INTERACTIONS if event.target is not None else ACTIONS
        kind = rng.choice([kind for kind in pool if kind != event.kind])
        events[position] = replace(event, kind=kind)
    return replace(scene, things=tuple(things), events=tuple(events))
