"""Scenes as pixels. The same code renders a training clip and a frame of a long video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from videochat_tools.training.world.config import BRIGHTEST_BACKGROUND, STANDARD, WorldConfig
from videochat_tools.training.world.scene import Scene, State, Thing
from videochat_tools.training.world.vocabulary import rgb

__all__ = ["render_clip"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[np.floating[Any]]  # float32 throughout
_Stamp = tuple[slice, slice, Array, Array]  # rows, columns, cover, paint

_WORK = 1 << 19  # values worked on at once: they stay in the processor's cache, and large pictures take little memory
_SUPER = 1.25  # how far around an object pixels are computed, in radii


def render_clip(
    scene: Scene,
    times: Sequence[float],
    width: int,
    height: int,
    *,
    noise: float | None = None,
    world: WorldConfig = STANDARD,
) -> Image:
    """Render a scene at some times.

    Args:
        scene: What to show. Its unit square is the middle square of the picture, as a centre crop would see it.
        times: Seconds after the scene's start.
        width: Pixels.
        height: Pixels.
        noise: Standard deviation of the sensor noise, in 0..255; ``None`` is that of the world's clips.
        world: Whose backgrounds and noise are drawn.

    Returns:
        uint8 RGB of shape [len(times), height, width, 3].
    """
    rng = Random(scene.seed)
    background = _background(rng, width, height, world)
    pens = [_Pen(thing, _tint(rng, thing), width, height) for thing in scene.things]
    strength = np.float32(world.clip_noise if noise is None else noise)
    grain = rng.randrange(len(_noise_pool())) if strength else 0
    # Rows of interleaved channels, [T, height, width * 3]: numpy is slow where the last axis has only three elements.
    pictures = np.empty((len(times), height, width * 3), np.uint8)
    together = max(1, _WORK // background.size)
    frames = np.empty((min(together, len(times)), *background.shape), np.float32)
    for first in range(0, len(times), together):
        block = frames[: len(times) - first]
        block[:] = background
        for frame, time in zip(block, times[first:], strict=False):
            states = [scene.state(index, time) for index in range(len(scene.things))]
            for index in sorted(range(len(states)), key=lambda index: states[index].depth):
                if states[index].opacity > 0.02:
                    pens[index].draw(frame, states[index])
        if strength:
            block += _noise(grain + first * background.size, block.shape) * strength
        np.clip(block, 0, 255, out=block)
        pictures[first : first + together] = block
    return pictures.reshape(len(times), height, width, 3)


def _tint(rng: Random, thing: Thing) -> Array:
    return np.array([channel + rng.uniform(-14, 14) for channel in rgb(thing.colour)], np.float32)


@lru_cache(maxsize=4)
def _centres(count: int) -> Array:
    """Middles of ``count`` pixels of a side, as shares of it."""
    return (np.arange(count, dtype=np.float32) + 0.5) / count


def _background(rng: Random, width: int, height: int, world: WorldConfig) -> Array:
    """A muted gradient, stripes or a checkerboard, darker and greyer than any object; [height, width * 3]."""
    xs, ys = _centres(width), _centres(height)[:, None]
    base = np.array([rng.uniform(*world.background_levels) for _ in range(3)], np.float32)
    base = base * 0.45 + base.mean() * 0.55
    other = np.clip(base + rng.choice((-1, 1)) * rng.uniform(*world.background_contrast), 8, BRIGHTEST_BACKGROUND)
    angle = rng.uniform(0, 2 * np.pi)
    kind = rng.randrange(3)
    if kind == 2:
        cells = rng.randint(3, 7)
        mix = (np.floor(xs * cells) + np.floor(ys * cells)) % 2
    else:
        along = xs * np.cos(angle) + ys * np.sin(angle)
        if kind == 0:
            mix = (along - along.min()) / (along.max() - along.min() + 1e-6)
        else:
            mix = (np.sin(along * rng.uniform(15, 40)) > 0).astype(np.float32)
    return np.tile(base, width) + np.repeat(mix, 3, axis=1) * np.tile(other - base, width)


@lru_cache(maxsize=1)
def _noise_pool() -> Array:
    return np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def _noise(start: int, shape: tuple[int, ...]) -> Array:
    """Gaussian noise cut from a pool that repeats itself: drawing it anew would take longer than the rendering."""
    pool, left = _noise_pool(), math.prod(shape)
    pieces: list[Array] = []
    while left:
        start %= len(pool)
        pieces.append(pool[start : start + left])
        left -= len(pieces[-1])
        start += len(pieces[-1])
    return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces)).reshape(shape)


class _Pen:
    """Draws one object; keeps what it drew last, because most objects stand still most of the time."""

    def __init__(self, thing: Thing, tint: Array, width: int, height: int) -> None:
        self._thing, self._tint = thing, tint
        self._size = width, height
        self._side = min(width, height)
        self._left, self._top = (width - self._side) / 2, (height - self._side) / 2
        self._pose: tuple[float, ...] = ()
        self._stamp: _Stamp | None = None

    def draw(self, frame: Array, state: State) -> None:
        """Blend the object into ``frame`` [height, width * 3]."""
        pose = (state.x, state.y, state.radius, state.angle)
        if pose != self._pose:
            self._pose, self._stamp = pose, self._cut(state)
        if self._stamp is None:
            return
        rows, columns, cover, paint = self._stamp
        patch = frame[rows, columns]
        change = paint - patch
        change *= cover if state.opacity == 1.0 else cover * np.float32(state.opacity)
        patch += change

    def _cut(self, state: State) -> _Stamp | None:
        """Where the object covers the picture, how much (0..1) and with what; ``None`` outside of it."""
        width, height = self._size
        radius = state.radius * self._side
        cx, cy = state.x * self._side + self._left, state.y * self._side + self._top
        reach = radius * _SUPER + 2
        x0, x1 = max(int(cx - reach), 0), min(int(cx + reach) + 1, width)
        y0, y1 = max(int(cy - reach), 0), min(int(cy + reach) + 1, height)
        if x0 >= x1 or y0 >= y1:
            return None
        xs = (np.arange(x0, x1, dtype=np.float32) + 0.5 - cx) / radius
        ys = ((np.arange(y0, y1, dtype=np.float32) + 0.5 - cy) / radius)[:, None]
        cos, sin = np.float32(np.cos(state.angle)), np.float32(np.sin(state.angle))
        u, v = xs * cos + ys * sin, ys * cos - xs * sin
        cover = np.clip(0.5 - _distance(self._thing.shape, u, v) * radius, 0.0, 1.0)
        paint = np.tile(self._tint, x1 - x0)
        if self._thing.texture != "plain":
            paint = paint * np.repeat(_texture(self._thing.texture, u, v), 3, axis=1)
        return slice(y0, y1), slice(3 * x0, 3 * x1), np.repeat(cover, 3, axis=1), paint


def _texture(texture: str, u: Array, v: Array) -> Array:
    if texture == "striped":
        dark = np.sin(u * (2 * np.pi / 0.55)) > 0
    else:
        dark = (np.sin(u * (2 * np.pi / 0.7)) * np.sin(v * (2 * np.pi / 0.7))) > 0.25
    return np.where(dark, np.float32(0.42), np.float32(1.0))


def _distance(shape: str, u: Array, v: Array) -> Array:
    """Signed distance to the outline in radii; negative inside. Areas are made roughly equal across shapes."""
    if shape == "circle":
        return np.sqrt(u * u + v * v) - np.float32(0.95)
    if shape == "ring":
        return np.abs(np.sqrt(u * u + v * v) - np.float32(0.74)) - np.float32(0.26)
    a, b = np.abs(u), np.abs(v)
    if shape == "square":
        return np.maximum(a, b) - np.float32(0.84)
    if shape == "cross":
        return np.minimum(np.maximum(a - 1.0, b - 0.31), np.maximum(a - 0.31, b - 1.0))
    if shape == "triangle":
        return np.maximum(a * np.float32(0.866) + v * np.float32(-0.5) - np.float32(0.5), v - np.float32(0.55))
    angle = np.arctan2(u, -v)  # star with five points, one up
    sector = np.float32(2 * np.pi / 5)
    folded = np.abs((angle + sector / 2) % sector - sector / 2)
    length = np.sqrt(u * u + v * v)
    x, y = length * np.sin(folded), length * np.cos(folded)
    # The edge from the tip (0, 1.08) to the inner corner at 36 degrees, radius 0.5.
    return (x * np.float32(0.6755) + (y - np.float32(1.08)) * np.float32(0.2939)) / np.float32(0.7367)
