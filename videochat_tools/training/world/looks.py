"""Scenes with other colours and shapes than they were drawn with."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from videochat_tools.training.world.scene import Scene, Thing
from videochat_tools.training.world.vocabulary import COLOURS, HELD_OUT, SHAPES, SPINNABLE, rgb

__all__ = ["with_other_looks", "with_stray_colours"]

_WITHHELD = 0.5  # how often one pair at least is one that no clip shows
_TRIES = 200  # one in ten suits
_DARKEST = 150  # brightest channel of a stray colour, at least; backgrounds are darker


def with_other_looks(rng: Random, scene: Scene) -> Scene:
    """The scene with colours and shapes of any pair; what two objects share, they share still."""
    withheld = rng.random() < _WITHHELD
    spinning = {event.subject for event in scene.events if event.kind == "spin"}
    for _ in range(_TRIES):
        colours = dict(zip(COLOURS, rng.sample([*COLOURS], len(COLOURS)), strict=True))
        shapes = dict(zip(SHAPES, rng.sample(SHAPES, len(SHAPES)), strict=True))
        things = tuple(
            replace(thing, colour=colours[thing.colour], shape=shapes[thing.shape]) for thing in scene.things
        )
        spins = all(things[number].shape in SPINNABLE for number in spinning)
        if spins and (not withheld or any((thing.colour, thing.shape) in HELD_OUT for thing in things)):
            return replace(scene, things=things)
    return scene


def with_stray_colours(rng: Random, scene: Scene) -> Scene:
    """The scene in any colours, of which many have no name: what is a cross in all of them is one in yellow, too.

    A shape is never given a colour that is nearest to one in which it is held out.
    """
    return replace(scene, things=tuple(replace(thing, colour=_stray(rng, thing)) for thing in scene.things))


def _stray(rng: Random, thing: Thing) -> str:
    for _ in range(_TRIES):
        channels = [rng.randrange(256) for _ in range(3)]
        colour = f"#{channels[0]:02x}{channels[1]:02x}{channels[2]:02x}"
        if max(channels) >= _DARKEST and (_nearest(colour), thing.shape) not in HELD_OUT:
            return colour
    return thing.colour


def _nearest(colour: str) -> str:
    """The named colour that is nearest, by its channels."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(rgb(name), rgb(colour), strict=True)))
