"""Scenes of the procedural world: a few coloured shapes that move, change and meet.

A :class:`Scene` is a function of continuous time, so that the same scene can be rendered as an 8-frame clip or as
part of a long video. What is true of a scene is a set of :data:`Fact` tuples; a text is true of a scene if and only
if the text's facts are a subset of the scene's. Nothing here is used at inference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from random import Random

from videochat_tools.errors import ConfigurationError
from videochat_tools.training.world.config import STANDARD, WorldConfig
from videochat_tools.training.world.vocabulary import (
    ACTIONS,
    COLOURS,
    DIRECTIONS,
    HELD_OUT,
    INTERACTIONS,
    SHAPES,
    SIZES,
    SPINNABLE,
    STILL,
    TEXTURES,
)

__all__ = [
    "ACTIONS",
    "COLOURS",
    "DIRECTIONS",
    "FRAMES",
    "HELD_OUT",
    "INTERACTIONS",
    "SHAPES",
    "SIZES",
    "STILL",
    "TEXTURES",
    "Event",
    "Fact",
    "Scene",
    "State",
    "Thing",
    "sample_busy_scene",
    "sample_scene",
]

Fact = tuple  # ("is", look) | ("does", kind, look) | ("meets", kind, look, look) | ("then", …) | ("count", n)
Look = tuple  # (colour, shape, size, texture), each None where it is left open

FRAMES = 8  # that the nano sees of a clip, one from each eighth

_TRIES = 20_000  # scenes drawn in search of a held-out action


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. ``x`` and ``y`` are its resting centre in 0..1 of the middle square of the picture."""

    colour: str  # its name, or channels without one: see ``rgb``
    shape: str
    size: str
    texture: str
    x: float
    y: float
    angle: float = 0.0  # radians

    @property
    def look(self) -> Look:
        """What can be seen of it in a still picture."""
        return (self.colour, self.shape, self.size, self.texture)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that ``subject`` does (to ``target``, for interactions) from ``start`` to ``end`` seconds."""

    kind: str
    subject: int
    start: float
    end: float
    target: int | None = None
    amount: float = 0.4  # distance in picture sides, or turns, by kind
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """An object at one moment: centre, radius (picture sides), angle (radians), opacity and depth (higher: nearer)."""

    x: float
    y: float
    radius: float
    angle: float
    opacity: float
    depth: float
    action: str


@dataclass(frozen=True)
class Scene:
    """Objects, events in order of time, and a background, for ``duration`` seconds."""

    things: tuple[Thing, ...]
    events: tuple[Event, ...]
    duration: float
    seed: int  # of background and colour jitter

    def state(self, index: int, time: float) -> State:
        """Where the object is and how it looks at ``time`` seconds after the scene's start."""
        thing = self.things[index]
        x, y, radius, angle, opacity = thing.x, thing.y, SIZES[thing.size], thing.angle, 1.0
        depth, action = float(index), STILL
        for event in self.events:
            length = max(event.end - event.start, 1e-6)
            progress = min(max((time - event.start) / length, 0.0), 1.0)
            active = event.start <= time < event.end
            if event.target == index and event.kind == "bump":
                push = max(progress - 0.55, 0.0) / 0.45
                dx, dy = self._approach(event)
                x, y = x + dx * 0.16 * push, y + dy * 0.16 * push
                continue
            if event.subject != index:
                continue
            kind = event.kind
            if active:
                action = kind
            if kind in DIRECTIONS:
                dx, dy = DIRECTIONS[kind]
                x, y = x + dx * event.amount * progress, y + dy * event.amount * progress
            elif kind == "spin":
                angle += 2 * math.pi * event.amount * progress
            elif kind == "grow":
                radius *= 0.6 + 0.75 * progress
            elif kind == "shrink":
                radius *= 1.35 - 0.8 * progress
            elif kind == "blink" and active:
                cycle = (time - event.start) * 4.0 / self.duration + event.phase
                opacity = 1.0 if cycle % 1.0 < 0.5 else 0.0
            elif kind == "bounce" and active:
                y -= 0.22 * abs(math.sin(2 * math.pi * (progress + event.phase / 4)))
            elif kind == "appear":
                opacity = min(max((progress - 0.45) * 6.0, 0.0), 1.0)
            elif kind == "disappear":
                opacity = 1.0 - min(max((progress - 0.45) * 6.0, 0.0), 1.0)
            elif kind in INTERACTIONS and event.target is not None:
                x, y, depth = self._meeting(event, thing, progress, depth)
        return State(x, y, radius, angle, opacity, depth, action)

    def _approach(self, event: Event) -> tuple[float, float]:
        """Unit vector from the subject's resting place to the target's."""
        subject, target = self.things[event.subject], self.things[event.target or 0]
        dx, dy = target.x - subject.x, target.y - subject.y
        norm = math.hypot(dx, dy) or 1.0
        return dx / norm, dy / norm

    def _meeting(self, event: Event, thing: Thing, progress: float, depth: float) -> tuple[float, float, float]:
        target = self.things[event.target or 0]
        dx, dy = self._approach(event)
        if event.kind == "bump":  # goes until both touch, is thrown back a little
            reach = math.hypot(target.x - thing.x, target.y - thing.y) - 0.9 * (SIZES[thing.size] + SIZES[target.size])
            way = reach * progress / 0.55 if progress < 0.55 else reach - 0.10 * (progress - 0.55) / 0.45
            return thing.x + dx * way, thing.y + dy * way, depth
        way = 2.0 * math.hypot(target.x - thing.x, target.y - thing.y) * progress
        return thing.x + dx * way, thing.y + dy * way, -1.0 if event.kind == "behind" else 10.0

    def eighth(self, time: float) -> int:
        """The border between eighths of the scene that is nearest to a time in seconds, 0..8."""
        return round(FRAMES * time / self.duration)

    @cached_property
    def facts(self) -> frozenset[Fact]:
        """Everything a text may say about this scene."""
        facts: set[Fact] = {("count", len(self.things))}
        masked = [tuple(_masks(thing.look)) for thing in self.things]
        for looks in masked:
            facts.update(("is", look) for look in looks)
        moved = set()
        for event in self.events:
            moved.update({event.subject} if event.target is None else {event.subject, event.target})
            facts.update(("does", event.kind, look) for look in masked[event.subject])
            if event.kind in DIRECTIONS:  # that it moves, whichever way
                facts.update(("does", "move", look) for look in masked[event.subject])
            if event.target is not None:
                pairs = product(masked[event.subject], masked[event.target])
                facts.update(("meets", event.kind, one, other) for one, other in pairs)
        for index, looks in enumerate(masked):
            if index not in moved:
                facts.update(("does", STILL, look) for look in looks)
        for first, second in zip(self.events, self.events[1:], strict=False):
            pairs = product(_rough(self.things[first.subject]), _rough(self.things[second.subject]))
            facts.update(("then", first.kind, one, second.kind, other) for one, other in pairs)
        return frozenset(facts)


def _masks(look: Look) -> Iterator[Look]:
    for mask in product((True, False), repeat=4):
        yield tuple(value if keep else None for value, keep in zip(look, mask, strict=True))


def _rough(thing: Thing) -> tuple[Look, ...]:
    """The looks that statements of order use: colour and shape, one of them, or neither."""
    colour, shape = thing.colour, thing.shape
    pairs = ((colour, shape), (colour, None), (None, shape), (None, None))
    return tuple((one, other, None, None) for one, other in pairs)


def sample_scene(rng: Random, *, held_out: bool | None = False, world: WorldConfig = STANDARD) -> Scene:
    """Draw one scene.

    Args:
        rng: Source of chance.
        held_out: ``False`` never shows what the world holds out (training), ``True`` shows at least one such pair (of
            colour and shape as the first object), ``None`` shows anything.
        world: What there is and happens.

    Raises:
        ConfigurationError: ``held_out`` is ``True`` and the world holds out nothing that it can show.
    """
    if held_out is not True:
        return _draw_scene(rng, held_out, world if held_out is False else world.with_all_actions)
    if not world.possible_pairs and not world.possible_actions:
        raise ConfigurationError(
            "the world holds out nothing that it can show: name pairs of what it has in held_out or held_out_actions"
        )
    # Half of the scenes for each sort, where there are both.
    by_look = not world.possible_actions or (bool(world.possible_pairs) and rng.random() < 0.5)
    for _ in range(1 if by_look else _TRIES):
        scene = _draw_scene(rng, True if by_look else None, world.with_all_actions)
        doing = ((scene.things[event.subject], event.kind) for event in scene.events)
        if by_look or any(world.withholds(thing.colour, thing.shape, kind) for thing, kind in doing):
            return scene
    raise ConfigurationError(
        f"none of {_TRIES} scenes shows one of the held-out actions {world.possible_actions}; name more frequent ones"
    )


def _draw_scene(rng: Random, held_out: bool | None, world: WorldConfig) -> Scene:
    duration = rng.uniform(*world.duration)
    numbers = range(1, len(world.object_weights) + 1)
    things = _sample_things(rng, rng.choices(numbers, world.object_weights)[0], held_out, world)
    events: list[Event] = []
    taken: dict[int, set[str]] = {}
    for start, end in _sample_windows(rng, duration, world):
        event = None
        for _ in range(4):  # an event that does not fit is drawn again
            event, things = _sample_event(rng, things, taken, start, end, world)
            if event is not None:
                break
        if event is not None:
            events.append(event)
            taken.setdefault(event.subject, set()).add(event.kind)
            if event.target is not None:
                taken.setdefault(event.target, set()).add("target")
    return Scene(tuple(things), tuple(events), duration, rng.getrandbits(32))


def sample_busy_scene(rng: Random, world: WorldConfig = STANDARD) -> Scene:
    """As many objects as there can be, all doing something all the time, for learning to see motion.

    Nothing is ever said about such a scene.
    """
    duration = rng.uniform(*world.duration)
    things, events = _sample_things(rng, world.most_objects, False, world), []
    for index in range(len(things)):
        start, end = duration * rng.uniform(0.0, 0.1), duration * rng.uniform(0.9, 1.0)
        drawn, things = _act(rng, index, things, set(), start, end, world, clear=False)
        if drawn is not None:
            events.append(drawn)
    return Scene(tuple(things), tuple(events), duration, rng.getrandbits(32))


def _sample_windows(rng: Random, duration: float, world: WorldConfig) -> list[tuple[float, float]]:
    none, one, two = (weight / sum(world.event_weights) for weight in world.event_weights)
    if rng.random() <= none:
        return []
    if rng.random() * (one + two) < one:
        return [(duration * rng.uniform(0.05, 0.25), duration * rng.uniform(0.75, 0.97))]
    middle = rng.uniform(0.46, 0.54)
    return [
        (duration * rng.uniform(0.03, 0.10), duration * (middle - 0.03)),
        (duration * (middle + 0.03), duration * rng.uniform(0.90, 0.97)),
    ]


def _sample_things(rng: Random, count: int, held_out: bool | None, world: WorldConfig) -> list[Thing]:
    things: list[Thing] = []
    while len(things) < count:
        colour, shape = rng.choice(world.colours), rng.choice(world.shapes)
        if things and rng.random() < world.lookalike_share:  # names must bind colour and shape to tell them apart
            other = rng.choice(things)
            colour, shape = (other.colour, shape) if rng.random() < 0.5 else (colour, other.shape)
        if held_out and not things:
            colour, shape = rng.choice(world.possible_pairs)
        elif held_out is False and (colour, shape) in world.held_out:
            continue
        if any((thing.colour, thing.shape) == (colour, shape) for thing in things):
            continue
        size = rng.choice(world.sizes)
        place = _free_place(rng, things, SIZES[size])
        if place is None:
            things.clear()
            continue
        texture = rng.choices(world.textures, world.texture_weights)[0]
        angle = rng.uniform(-0.35, 0.35)
        things.append(Thing(colour, shape, size, texture, *place, angle))
    return things


def _free_place(rng: Random, things: list[Thing], radius: float) -> tuple[float, float] | None:
    for _ in range(30):
        x, y = rng.uniform(radius + 0.02, 0.98 - radius), rng.uniform(radius + 0.02, 0.98 - radius)
        if all(math.hypot(x - other.x, y - other.y) > radius + SIZES[other.size] + 0.06 for other in things):
            return x, y
    return None


def _sample_event(
    rng: Random, things: list[Thing], taken: dict[int, set[str]], start: float, end: float, world: WorldConfig
) -> tuple[Event | None, list[Thing]]:
    """One event that fits the objects as they stand; moves the subject's start so that it stays in the picture."""
    subject = rng.randrange(len(things))
    done = taken.get(subject, set())
    if len(things) > 1 and not taken and world.interactions and rng.random() < world.interaction_share:
        target = rng.choice([index for index in range(len(things)) if index != subject])
        one, other = things[subject], things[target]
        gap = math.hypot(one.x - other.x, one.y - other.y)
        kind = rng.choice(world.interactions)
        if kind != "bump" and not world.withholds(one.colour, one.shape, kind):
            place = _place_to_pass_from(rng, things, subject, target)
            if place is not None:
                passer = replace(one, x=place[0], y=place[1])
                moved = [passer if index == subject else thing for index, thing in enumerate(things)]
                return Event(kind, subject, start, end, target), moved
        kind = "bump"
        if gap > 0.32 and kind in world.interactions and not world.withholds(one.colour, one.shape, kind):
            return Event(kind, subject, start, end, target), things
    if done & {"disappear", "blink", "target", "appear", *INTERACTIONS}:
        return None, things
    return _act(rng, subject, things, done, start, end, world)


def _act(
    rng: Random,
    subject: int,
    things: list[Thing],
    done: set[str],
    start: float,
    end: float,
    world: WorldConfig,
    *,
    clear: bool = True,
) -> tuple[Event | None, list[Thing]]:
    """An event of one object alone. ``clear``: it must not come near another one."""
    amount, thing = 0.4, things[subject]
    kinds = [
        kind
        for kind in world.actions
        if _possible(kind, thing, done) and not world.withholds(thing.colour, thing.shape, kind)
    ]
    if not kinds:
        return None, things
    kind = rng.choice(kinds)
    if kind in DIRECTIONS:
        amount = rng.uniform(*world.travel)
        dx, dy = DIRECTIONS[kind]
        if not done:
            radius = SIZES[thing.size]
            thing = replace(
                thing, x=_start_of_way(thing.x, dx * amount, radius), y=_start_of_way(thing.y, dy * amount, radius)
            )
        else:
            ends = thing.x + dx * amount, thing.y + dy * amount
            if not all(0.05 < value < 0.95 for value in ends):
                return None, things
        if clear and not _clear_way(
            thing, dx * amount, dy * amount, [other for other in things if other is not things[subject]]
        ):
            return None, things
    elif kind == "spin":
        amount = rng.choice((-1, 1)) * rng.uniform(0.35, 0.5) * (end - start) / 4.0
    elif kind == "bounce" and not done:
        thing = replace(thing, y=max(thing.y, 0.24 + SIZES[thing.size]))
    event = Event(kind, subject, start, end, None, amount, rng.random())
    return event, [thing if index == subject else other for index, other in enumerate(things)]


def _place_to_pass_from(rng: Random, things: list[Thing], subject: int, target: int) -> tuple[float, float] | None:
    """Where an object must start to pass the target and end as far behind it, both inside the picture."""
    one, other = things[subject], things[target]
    near = SIZES[one.size] + SIZES[other.size]
    for _ in range(20):
        distance, angle = rng.uniform(near + 0.02, max(near + 0.04, 0.42)), rng.uniform(0, 2 * math.pi)
        dx, dy = distance * math.cos(angle), distance * math.sin(angle)
        inside = all(0.08 < value < 0.92 for value in (other.x - dx, other.x + dx, other.y - dy, other.y + dy))
        passer = replace(one, x=other.x - dx, y=other.y - dy)
        rest = [thing for index, thing in enumerate(things) if index not in (subject, target)]
        if inside and _clear_way(passer, 2 * dx, 2 * dy, rest):
            return passer.x, passer.y
    return None


def _possible(kind: str, thing: Thing, done: set[str]) -> bool:
    if kind in done or (kind == "spin" and thing.shape not in SPINNABLE):
        return False
    if done:  # a second event of the same object: only such as combine without confusion
        return kind in ("spin", "blink", "disappear", *DIRECTIONS) and not done & set(DIRECTIONS)
    return True


def _clear_way(thing: Thing, dx: float, dy: float, others: list[Thing]) -> bool:
    """Whether a straight movement passes no other object so closely that it would look like an interaction."""
    for other in others:
        along = ((other.x - thing.x) * dx + (other.y - thing.y) * dy) / (dx * dx + dy * dy)
        along = min(max(along, 0.0), 1.0)
        gap = math.hypot(thing.x + along * dx - other.x, thing.y + along * dy - other.y)
        if gap < SIZES[thing.size] + SIZES[other.size]:
            return False
    return True


def _start_of_way(value: float, way: float, radius: float) -> float:
    """The start nearest to ``value`` from which a movement by ``way`` stays inside the picture."""
    margin = radius * 0.8
    low, high = margin - min(way, 0.0), 1.0 - margin - max(way, 0.0)
    return min(max(value, low), high) if low <= high else (1.0 - way) / 2
