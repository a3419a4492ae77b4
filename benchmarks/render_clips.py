"""How many clips of the little world one core draws in a second: ``python benchmarks/render_clips.py [CLIPS]``.

Every clip is a new scene of eight frames of 64 x 64 pixels. Beside it stands the least that any renderer in numpy must
do for such a clip: fill the frames with a finished background, add finished noise, round to bytes. One thread does it
all (numpy uses no other for such work). On a busy machine the time of the processor says what one core can do, and the
time on the clock what was left of it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from random import Random

import numpy as np

from videochat_tools.media import uniform_times
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import sample_scene
from videochat_tools.types import TimeSpan

FRAMES, SIDE = 8, 64
REPEATS = 7
WANTED = 300  # clips a second


def draw(rng: Random) -> None:
    """A new scene as a clip."""
    scene = sample_scene(rng)
    render_clip(scene, uniform_times(TimeSpan(0.0, scene.duration), FRAMES), SIDE, SIDE)


def fill(background: np.ndarray, noise: np.ndarray) -> None:
    """The floor: a clip without a scene."""
    frames = np.empty((FRAMES, SIDE, SIDE * 3), np.float32)
    frames[:] = background
    frames += noise
    np.clip(frames, 0, 255, out=frames)
    frames.astype(np.uint8)


def seconds_of(work: Callable[[], None], count: int) -> tuple[float, float]:
    """Seconds of processor and clock for doing something ``count`` times."""
    began = time.process_time(), time.perf_counter()
    for _ in range(count):
        work()
    return time.process_time() - began[0], time.perf_counter() - began[1]


def main() -> None:
    """Print medians over some repeats, each of new scenes."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    generator = np.random.default_rng(0)
    background = generator.uniform(25, 105, (SIDE, SIDE * 3)).astype(np.float32)
    noise = generator.normal(0, 4, (FRAMES, SIDE, SIDE * 3)).astype(np.float32)
    draw(Random(0))  # makes the pool of noise
    clips, floors = [], []
    for number in range(REPEATS):
        rng = Random(number)
        clips.append(seconds_of(lambda rng=rng: draw(rng), count))
        floors.append(seconds_of(lambda: fill(background, noise), count))
    for kind, name in enumerate(("processor", "clock")):
        rates = sorted(count / seconds[kind] for seconds in clips)
        clip, floor = (statistics.median(seconds[kind] / count for seconds in runs) for runs in (clips, floors))
        print(
            f"{name}: median {1 / clip:.0f} clips/s ({rates[0]:.0f} to {rates[-1]:.0f}, {REPEATS} x {count} clips of "
            f"{FRAMES} x {SIDE} x {SIDE}), {1 / clip / WANTED:.1f} x the {WANTED} wanted; "
            f"a clip takes {1000 * clip:.2f} ms, {clip / floor:.1f} x filling frames alone ({1000 * floor:.2f} ms)"
        )


if __name__ == "__main__":
    main()
