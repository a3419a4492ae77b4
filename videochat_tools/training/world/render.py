"""Scenes as pixels. The same code renders a training clip and a frame of a long video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from videochat_tools.training.world.scene import COLOURS, Scene, State, Thing

__all__ = ["render_clip"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[np.floating[Any]]  # float32 throughout

_SUPER = 1.25  # how far around an object pixels are computed, in radii


def render_clip(scene: Scene, times: Sequence[float], width: int, height: int, *, noise: float = 4.0) -> Image:
    """Render a scene at some times.

    Args:
        scene: What to show. Its unit square is the middle square of the picture, as a centre crop would see it.
        times: Seconds after the scene's start.
        width: Pixels.
        height: Pixels.
        noise: Standard deviation of the sensor noise, in 0..255.

    Returns:
        uint8 RGB of shape [len(times), height, width, 3].
    """
    rng = Random(scene.seed)
    background = _background(rng, width, height)
    tints = [_tint(rng, thing) for thing in scene.things]
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    frames = np.empty((len(times), height, width, 3), np.float32)
    for number, time in enumerate(times):
        frames[number] = background
        states = [scene.state(index, time) for index in range(len(scene.things))]
        for index in sorted(range(len(states)), key=lambda index: states[index].depth):
            if states[index].opacity > 0.02:
                _draw(frames[number], scene.things[index], states[index], tints[index], side, left, top)
    if noise:
        frames += _noise(rng, frames.shape) * noise
    return np.clip(frames, 0, 255).astype(np.uint8)


def _tint(rng: Random, thing: Thing) -> Array:
    return np.array([channel + rng.uniform(-14, 14) for channel in COLOURS[thing.colour]], np.float32)


@lru_cache(maxsize=4)
def _grid(width: int, height: int) -> tuple[Array, Array]:
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    return (xs + 0.5) / width, (ys + 0.5) / height


def _background(rng: Random, width: int, height: int) -> Array:
    """A muted gradient, stripes or a checkerboard, darker and greyer than any object."""
    xs, ys = _grid(width, height)
    base = np.array([rng.uniform(25, 105) for _ in range(3)], np.float32)
    base = base * 0.45 + base.mean() * 0.55
    other = np.clip(base + rng.choice((-1, 1)) * rng.uniform(12, 32), 8, 135)
    angle = rng.uniform(0, 2 * np.pi)
    along = xs * np.cos(angle) + ys * np.sin(angle)
    kind = rng.randrange(3)
    if kind == 0:
        mix = (along - along.min()) / (along.max() - along.min() + 1e-6)
    elif kind == 1:
        mix = (np.sin(along * rng.uniform(15, 40)) > 0).astype(np.float32)
    else:
        cells = rng.randint(3, 7)
        mix = ((np.floor(xs * cells) + np.floor(ys * cells)) % 2).astype(np.float32)
    return base + mix[..., None] * (other - base)


@lru_cache(maxsize=1)
def _noise_pool() -> Array:
    return np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def _noise(rng: Random, shape: tuple[int, ...]) -> Array:
    """Gaussian noise cut from a fixed pool: drawing it anew would take longer than the rendering."""
    pool, size = _noise_pool(), int(np.prod(shape))
    start = rng.randrange(len(pool))
    return (
        np.take(pool, np.arange(start, start + size), mode="wrap").reshape(shape)
        if size > len(pool) - start
        else (pool[start : start + size].reshape(shape))
    )


def _draw(frame: Array, thing: Thing, state: State, tint: Array, side: int, left: float, top: float) -> None:
    radius = state.radius * side
    cx, cy = state.x * side + left, state.y * side + top
    height, width, _ = frame.shape
    reach = radius * _SUPER + 2
    x0, x1 = max(int(cx - reach), 0), min(int(cx + reach) + 1, width)
    y0, y1 = max(int(cy - reach), 0), min(int(cy + reach) + 1, height)
    if x0 >= x1 or y0 >= y1:
        return
    xs = (np.arange(x0, x1, dtype=np.float32) + 0.5 - cx) / radius
    ys = ((np.arange(y0, y1, dtype=np.float32) + 0.5 - cy) / radius)[:, None]
    cos, sin = np.float32(np.cos(state.angle)), np.float32(np.sin(state.angle))
    u, v = xs * cos + ys * sin, ys * cos - xs * sin
    cover = np.clip(0.5 - _distance(thing.shape, u, v) * radius, 0.0, 1.0) * np.float32(state.opacity)
    patch = frame[y0:y1, x0:x1]
    paint = tint if thing.texture == "plain" else tint * _texture(thing.texture, u, v)[..., None]
    patch += cover[..., None] * (paint - patch)


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
