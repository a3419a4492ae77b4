"""Training clips of the procedural world: pixels, the texts that are true or false of them, and what stands where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videochat_tools.retrievers.query import analyse
from videochat_tools.training.world.language import Text, caption, contradict, counted, statement
from videochat_tools.training.world.questions import DENIED, KINDS, ask
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import (
    ACTIONS,
    COLOURS,
    INTERACTIONS,
    SHAPES,
    SIZES,
    STILL,
    TEXTURES,
    Scene,
    State,
    sample_scene,
)

__all__ = [
    "ATTRIBUTES",
    "MOTION_VALUES",
    "UNNAMED",
    "Clip",
    "ClipFormat",
    "attribute_labels",
    "draw_clip",
    "draw_texts",
    "match_matrix",
    "to_pixels",
]

# What the tower's tokens are asked to know while it trains, with the possible values.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "texture": TEXTURES,
    "action": (STILL, *ACTIONS, *INTERACTIONS),
}
MOTION_VALUES = 7  # numbers that the tokens are asked for beside the attributes: place and change
UNNAMED = -100  # label of a colour without a name; cross-entropy leaves it out
_VALUE_INDEX = {name: {value: i for i, value in enumerate(values)} for name, values in ATTRIBUTES.items()}
_SEARCHABLE = tuple(kind for kind in KINDS if kind not in (*DENIED, "yesno"))
_SCENE_ATTRIBUTES = ("colour", "shape", "size", "texture")


@dataclass(frozen=True, slots=True)
class ClipFormat:
    """Size and statistics of a model's input."""

    num_frames: int
    image_size: int
    patch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """A rendered scene. ``own`` tells which frames show it: a spliced clip begins or ends with another scene."""

    scene: Scene
    times: tuple[float, ...]
    own: tuple[bool, ...]
    frames: npt.NDArray[np.uint8]  # [T, H, W, 3]


def draw_clip(rng: Random, form: ClipFormat, *, splice: float = 0.25, scene: Scene | None = None) -> Clip:
    """Draw a scene and look at it as a retrieval system would: bounds a little off, sometimes across a cut."""
    scene = scene or sample_scene(rng)
    count, size = form.num_frames, form.image_size
    times = _times(rng, scene.duration, count)
    frames = render_clip(scene, times, size, size, noise=rng.uniform(1.0, 9.0))
    own = [True] * count
    if rng.random() < splice:
        foreign = rng.randint(1, 2)
        places = range(foreign) if rng.random() < 0.5 else range(count - foreign, count)
        other = sample_scene(rng)
        shown = render_clip(other, [times[place] for place in places], size, size)
        frames[places.start : places.stop] = shown
        for place in places:
            own[place] = False
    return Clip(scene, tuple(times), tuple(own), _distort(rng, frames))


def _times(rng: Random, duration: float, count: int) -> list[float]:
    start, end = duration * rng.uniform(0.0, 0.05), duration * rng.uniform(0.95, 1.0)
    step = (end - start) / count
    return [start + step * (place + 0.5 + rng.uniform(-0.15, 0.15)) for place in range(count)]


def _distort(rng: Random, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Another camera or codec: contrast, brightness and colour balance a little off, sometimes out of focus."""
    if rng.random() < 0.3:
        return frames
    gain = np.array([rng.uniform(0.86, 1.1) + rng.uniform(-0.04, 0.04) for _ in range(3)], np.float32)
    pixels = frames * gain + np.float32(rng.uniform(-10, 12))
    if rng.random() < 0.5:  # channels leak into one another: another white balance, a slight turn of the hue
        leak = np.array([[rng.uniform(-0.07, 0.07) for _ in range(3)] for _ in range(3)], np.float32)
        pixels += pixels @ (leak - np.diag(leak.sum(axis=0)))
    if rng.random() < 0.35:  # a box blur of 2x2, as scaling leaves it
        pixels[:, 1:] = (pixels[:, 1:] + pixels[:, :-1]) / 2
        pixels[:, :, 1:] = (pixels[:, :, 1:] + pixels[:, :, :-1]) / 2
    return np.clip(pixels, 0, 255).astype(np.uint8)


def to_pixels(clips: Sequence[Clip], form: ClipFormat) -> Tensor:
    """Normalised pixels, float32 [B, T, 3, H, W]."""
    frames = torch.from_numpy(np.stack([clip.frames for clip in clips])).to(torch.get_default_device())
    stacked = frames.permute(0, 1, 4, 2, 3)
    mean, std = torch.tensor(form.mean).view(3, 1, 1), torch.tensor(form.std).view(3, 1, 1)
    return ((stacked.float() / 255 - mean) / std).contiguous()


def draw_texts(rng: Random, scene: Scene, wrong: int) -> tuple[list[Text], list[Text]]:
    """True and nearly true texts of a scene.

    Returns:
        Something short (a question, what the retriever makes of a question, a statement), often a caption, and
        sometimes how many objects there are; and ``wrong`` texts that are false in one point, captions and statements.
    """
    right = [_searched(rng, scene) or statement(rng, scene)]
    if rng.random() < 0.4:
        right.append(statement(rng, scene))
    if rng.random() < 0.8:
        # As detailed as the false ones often enough: detail would otherwise be a sign that a text is false.
        detail = ("colour", "shape", rng.choice(("size", "texture", "colour")))
        same = rng.random() < 0.6
        right.append(caption(rng, scene, force=detail, full=True) if same else caption(rng, scene))
    if rng.random() < 0.2:
        right.append(counted(rng, scene, len(scene.things)))
    false: list[Text] = []
    for _ in range(wrong * 5):
        if len(false) == wrong:
            break
        text = contradict(rng, scene, short=rng.random() < 0.3)
        if text is not None:
            false.append(text)
    return right, false


def _searched(rng: Random, scene: Scene) -> Text | None:
    """A question as it is looked for: in its own words, or in those of the retriever's query analysis."""
    question = ask(rng, scene, rng.choice(_SEARCHABLE))
    if question is None or not question.facts:
        return None
    words = question.question if rng.random() < 0.35 else analyse(question.question).visual
    return Text(words, question.facts) if words else None


def match_matrix(texts: Sequence[Text], scenes: Sequence[Scene]) -> Tensor:
    """Whether each text is true of each scene, bool [texts, scenes]."""
    return torch.tensor([[text.facts <= scene.facts for scene in scenes] for text in texts])


def attribute_labels(clips: Sequence[Clip], form: ClipFormat) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Which tokens lie on the middle of an object, and what is there.

    Returns:
        Indices [n, 2] of (clip, token) with tokens counted frame by frame, for each attribute its value [n] (or
        :data:`UNNAMED`), and :data:`MOTION_VALUES` numbers [n, 7].
    """
    cells = form.image_size // form.patch_size
    places: list[tuple[int, int]] = []
    values: dict[str, list[int]] = {name: [] for name in ATTRIBUTES}
    motions: list[tuple[float, ...]] = []
    for number, clip in enumerate(clips):
        for frame, (time, own) in enumerate(zip(clip.times, clip.own, strict=True)):
            if not own:
                continue
            for index, thing in enumerate(clip.scene.things):
                state = clip.scene.state(index, time)
                if state.opacity < 0.5 or not (0 <= state.x < 1 and 0 <= state.y < 1):
                    continue
                places.append((number, (frame * cells + int(state.y * cells)) * cells + int(state.x * cells)))
                for name in _SCENE_ATTRIBUTES:
                    values[name].append(_VALUE_INDEX[name].get(getattr(thing, name), UNNAMED))
                values["action"].append(_VALUE_INDEX["action"][state.action])
                before, after = (clip.scene.state(index, clip.times[f]) for f in _neighbours(frame, clip.own))
                motions.append(_motion(state, before, after, cells))
    labels = {name: torch.tensor(value) for name, value in values.items()}
    return torch.tensor(places), labels, torch.tensor(motions)


def _neighbours(frame: int, own: Sequence[bool]) -> tuple[int, int]:
    """The frames before and after, as far as they show the same scene."""
    before = frame - 1 if frame > 0 and own[frame - 1] else frame
    after = frame + 1 if frame + 1 < len(own) and own[frame + 1] else frame
    return before, after


def _motion(state: State, before: State, after: State, cells: int) -> tuple[float, ...]:
    """Place within its cell, and change from the frame before to the one after, each scaled to about one."""
    return (
        state.x * cells % 1.0 - 0.5,
        state.y * cells % 1.0 - 0.5,
        (after.x - before.x) * 6.0,
        (after.y - before.y) * 6.0,
        (after.radius - before.radius) / state.radius * 2.0,
        abs(after.angle - before.angle),
        after.opacity - before.opacity,
    )
