"""Clips of the world that no training run has seen, the captions to find them by, and captions that are nearly true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import numpy.typing as npt

from videochat_tools.media import uniform_times
from videochat_tools.training.world.language import Text, caption, counted
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import (
    ACTIONS,
    COLOURS,
    DIRECTIONS,
    INTERACTIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Fact,
    Scene,
    sample_scene,
)
from videochat_tools.types import TimeSpan

__all__ = [
    "PROBES",
    "VIEWS",
    "Probe",
    "draw_probe",
    "held_out_scenes",
    "render_views",
    "unique_captions",
]

FIRST_SEED = 10**12  # training draws its scenes from other seeds
SPACING = 10**9  # between the seeds of the two groups

VIEWS = ("video", "shuffled", "blank")  # as it is; its frames in another order; black

# What a probe changes, and how many captions it chooses from, the true one among them.
PROBES: dict[str, int] = {
    "colour": 4,
    "shape": 4,
    "motion": 4,
    "direction": 4,
    "size": 2,
    "texture": 3,
    "interaction": 3,
    "order": 2,
    "swap": 2,
    "roles": 2,
    "count": 3,
}
_VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES), "texture": TEXTURES}
_KINDS = {"motion": ACTIONS, "direction": tuple(DIRECTIONS), "interaction": INTERACTIONS}

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Probe:
    """Captions that differ in one point; the one at ``right`` is true of the scene, the others are not."""

    options: tuple[str, ...]
    right: int


def held_out_scenes(count: int, *, new_pairs: bool) -> list[Scene]:
    """Scenes from seeds that training does not use; the same ones every time.

    Args:
        count: How many.
        new_pairs: With an object whose colour and shape no training clip shows together, or only with known pairs.
    """
    first = FIRST_SEED + (SPACING if new_pairs else 0)
    return [sample_scene(Random(first + number), held_out=new_pairs) for number in range(count)]


def render_views(scenes: Sequence[Scene], view: str, num_frames: int, size: int) -> Frames:
    """The scenes as clips, uint8 [n, num_frames, size, size, 3], at the times a library would look at."""
    if view not in VIEWS:
        raise ValueError(f"a view is one of {', '.join(VIEWS)}, got {view!r}")
    clips = np.zeros((len(scenes), num_frames, size, size, 3), np.uint8)
    if view == "blank":
        return clips
    for number, scene in enumerate(scenes):
        times = uniform_times(TimeSpan(0.0, scene.duration), num_frames)
        clips[number] = render_clip(scene, times, size, size)
        if view == "shuffled":
            clips[number] = clips[number][_other_order(Random(scene.seed), num_frames)]
    return clips


def _other_order(rng: Random, count: int) -> list[int]:
    """A random order that is neither the given one nor, as for a film run backwards, its reverse."""
    given = list(range(count))
    while count > 2:
        order = rng.sample(given, count)
        if order not in (given, given[::-1]):
            return order
    return given[::-1]


def unique_captions(rng: Random, scenes: Sequence[Scene], tries: int = 20) -> list[str | None]:
    """A caption for every scene that is true of no other; ``None`` where none was found.

    A caption that fits another scene, too, is drawn again with more detail.
    """
    true_of: dict[Fact, set[int]] = defaultdict(set)
    for number, scene in enumerate(scenes):
        for fact in scene.facts:
            true_of[fact].add(number)
    captions: list[str | None] = []
    for scene in scenes:
        text: Text | None = caption(rng, scene)
        for turn in range(tries):
            if text is not None and len(set.intersection(*(true_of[fact] for fact in text.facts))) == 1:
                break
            force = ("colour", "shape", "size", "texture")[: 2 + turn * 3 // tries]
            text = caption(rng, scene, force=force, full=True) if turn < tries - 1 else None
        captions.append(None if text is None else text.text)
    return captions


def draw_probe(rng: Random, scene: Scene, kind: str, tries: int = 8) -> Probe | None:
    """Captions that differ in what ``kind`` names; ``None`` where the scene offers no such change."""
    if kind == "count":
        seed, right = rng.getrandbits(64), len(scene.things) - 1
        return Probe(tuple(counted(Random(seed), scene, number + 1).text for number in range(PROBES[kind])), right)
    for _ in range(tries):
        variants = _variants(rng, scene, kind)
        if len(variants) != PROBES[kind] - 1:
            continue
        seed = rng.getrandbits(64)  # one seed for all, so that they are worded alike
        force = ("colour", "shape", *((kind,) if kind in ("size", "texture") else ()))
        texts = [caption(Random(seed), each, force=force, full=True) for each in (scene, *variants)]
        if any(text.facts <= scene.facts for text in texts[1:]) or len({text.text for text in texts}) < len(texts):
            continue
        if kind in _VALUES and len({len(text.text.split()) for text in texts}) > 1:
            continue
        order = rng.sample(range(len(texts)), len(texts))
        return Probe(tuple(texts[place].text for place in order), order.index(0))
    return None


def _variants(rng: Random, scene: Scene, kind: str) -> list[Scene]:
    """Scenes like the given one but for one point, as many as the probe needs; fewer where there are not enough."""
    if kind in _VALUES:
        return _other_values(rng, scene, kind)
    if kind in _KINDS:
        return _other_kinds(rng, scene, kind)
    if kind == "order":
        return [replace(scene, events=scene.events[::-1])] if len(scene.events) == 2 else []
    if kind == "swap":
        return _exchanged_attribute(rng, scene)
    return _exchanged_roles(scene)


def _other_values(rng: Random, scene: Scene, kind: str) -> list[Scene]:
    index = rng.randrange(len(scene.things))
    thing = scene.things[index]
    if kind == "size" and any(e.subject == index and e.kind in ("grow", "shrink") for e in scene.events):
        return []
    changed = [
        replace(thing, **{kind: value})  # type: ignore[arg-type]
        for value in _VALUES[kind]
        if value != getattr(thing, kind)
    ]
    taken = {(other.colour, other.shape) for other in scene.things if other is not thing}
    changed = [each for each in changed if (each.colour, each.shape) not in taken]
    picked = rng.sample(changed, min(PROBES[kind] - 1, len(changed)))
    return [replace(scene, things=(*scene.things[:index], each, *scene.things[index + 1 :])) for each in picked]


def _other_kinds(rng: Random, scene: Scene, kind: str) -> list[Scene]:
    places = [place for place, event in enumerate(scene.events) if event.kind in _KINDS[kind]]
    if not places:
        return []
    place = rng.choice(places)
    event = scene.events[place]
    own = {other.kind for other in scene.events if other.subject == event.subject}
    others = [other for other in _KINDS[kind] if other not in own]
    picked = rng.sample(others, min(PROBES[kind] - 1, len(others)))
    return [
        replace(scene, events=(*scene.events[:place], replace(event, kind=each), *scene.events[place + 1 :]))
        for each in picked
    ]


def _exchanged_attribute(rng: Random, scene: Scene) -> list[Scene]:
    """Two objects exchange their colours: every word of the caption stays true of something."""
    if len(scene.things) < 2:
        return []
    one, other = rng.sample(range(len(scene.things)), 2)
    things = list(scene.things)
    if things[one].colour == things[other].colour or things[one].shape == things[other].shape:
        return []
    things[one], things[other] = (
        replace(things[one], colour=things[other].colour),
        replace(things[other], colour=things[one].colour),
    )
    if len({(thing.colour, thing.shape) for thing in things}) < len(things):
        return []
    return [replace(scene, things=tuple(things))]


def _exchanged_roles(scene: Scene) -> list[Scene]:
    """Who bumped into something is bumped into."""
    for place, event in enumerate(scene.events):
        if event.target is not None:
            changed = replace(event, subject=event.target, target=event.subject)
            return [replace(scene, events=(*scene.events[:place], changed, *scene.events[place + 1 :]))]
    return []
