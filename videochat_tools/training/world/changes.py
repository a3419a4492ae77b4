"""A scene with one thing different: what is true of it is nearly true of the scene, as false premises are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from random import Random

from videochat_tools.training.world.scene import Event, Scene
from videochat_tools.training.world.vocabulary import ACTIONS, COLOURS, INTERACTIONS, SHAPES, SIZES, TEXTURES

__all__ = ["with_one_change"]

_LOOKS = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES), "texture": TEXTURES}
_LOOK_WEIGHTS = (3, 3, 1, 1)
_LOOK_SHARE = 0.35  # of the changes, where something happens


def with_one_change(rng: Random, scene: Scene, unspoken: Collection[tuple[str, str]] = ()) -> Scene | None:
    """The scene with another look of one object, or with an event of another kind or of other objects.

    It serves to ask questions, not to be rendered: where an object goes is not looked at.

    Args:
        rng: Source of chance.
        scene: Stays as it is.
        unspoken: Pairs of colour and shape that are not given to an object.

    Returns:
        ``None`` where the change that was drawn is not possible.
    """
    if not scene.events or rng.random() < _LOOK_SHARE:
        return _with_another_look(rng, scene, unspoken)
    number = rng.randrange(len(scene.events))
    event = scene.events[number]
    changed = _of_another_kind(rng, event) if rng.choice((True, False)) else _of_others(rng, event, len(scene.things))
    if changed is None:
        return None
    return replace(scene, events=(*scene.events[:number], changed, *scene.events[number + 1 :]))


def _with_another_look(rng: Random, scene: Scene, unspoken: Collection[tuple[str, str]]) -> Scene | None:
    number = rng.randrange(len(scene.things))
    thing = scene.things[number]
    (aspect,) = rng.choices(tuple(_LOOKS), _LOOK_WEIGHTS)
    value = rng.choice([each for each in _LOOKS[aspect] if each != getattr(thing, aspect)])
    colour, shape, size, texture = (value if each == aspect else getattr(thing, each) for each in _LOOKS)
    changed = replace(thing, colour=colour, shape=shape, size=size, texture=texture)
    others = [(other.colour, other.shape) for other in scene.things if other is not thing]
    if (changed.colour, changed.shape) in {*others, *unspoken}:
        return None
    return replace(scene, things=(*scene.things[:number], changed, *scene.things[number + 1 :]))


def _of_another_kind(rng: Random, event: Event) -> Event:
    kinds = ACTIONS if event.target is None else INTERACTIONS
    return replace(event, kind=rng.choice([kind for kind in kinds if kind != event.kind]))


def _of_others(rng: Random, event: Event, count: int) -> Event | None:
    """Of the two objects of a meeting the other way round, or of another object."""
    if event.target is not None and rng.random() < 0.5:
        return replace(event, subject=event.target, target=event.subject)
    others = [number for number in range(count) if number not in (event.subject, event.target)]
    if not others:
        return None
    another = rng.choice(others)
    if event.target is None or rng.random() < 0.5:
        return replace(event, subject=another)
    return replace(event, target=another)
