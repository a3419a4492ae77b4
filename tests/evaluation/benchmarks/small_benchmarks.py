"""Small benchmarks in the published formats, about clips that are rendered here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from videochat_tools.evaluation.benchmarks.mvbench import TASKS
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import COLOURS, Scene, sample_scene

WriteVideo = Callable[..., Path]
FPS = 10


def clip(path: Path, write_video: WriteVideo, seed: int) -> Scene:
    """One scene of the world as a video of 96x64."""
    scene = sample_scene(Random(seed), held_out=None)
    times = [number / FPS for number in range(int(scene.duration * FPS))]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, render_clip(scene, times, 96, 64), FPS)
    return scene


def question(scene: Scene) -> dict[str, Any]:
    """The colour of the first thing, among four."""
    thing = scene.things[0]
    others = [colour for colour in COLOURS if colour not in {each.colour for each in scene.things}][:3]
    return {
        "question": f"What colour is the {thing.size} {thing.shape}?",
        "candidates": [*others[:1], thing.colour, *others[1:]],
        "answer": thing.colour,
    }


def mvbench(folder: Path, write_video: WriteVideo, *, each: int = 2) -> Path:
    """Four tasks: whole videos, bounded ones, and one of frame folders with bounds. A last video is not there."""
    (folder / "json").mkdir(parents=True)
    for number, task in enumerate(("action_count", "action_sequence", "moving_attribute")):
        entries = []
        for n in range(each):
            name = f"{task}_{n}.mp4"
            scene = clip(folder / "video" / TASKS[task] / name, write_video, 100 * number + n)
            bound = {"start": 0.5, "end": 3.0} if task == "action_sequence" else {}
            entries.append({"video": name, **question(scene), **bound})
        write(folder / "json" / f"{task}.json", entries)
    missing = {"video": "nowhere.mp4", "question": "What?", "candidates": ["this", "that"], "answer": "that"}
    path = folder / "json" / "moving_attribute.json"
    write(path, [*json.loads(path.read_text()), missing])
    frames = folder / "video" / TASKS["episodic_reasoning"] / "show_s01"
    frames.mkdir(parents=True)
    scene = sample_scene(Random(7), held_out=None)
    for number, picture in enumerate(render_clip(scene, [n / 3 for n in range(12)], 96, 64), 1):
        Image.fromarray(picture).save(frames / f"{number:05d}.jpg")
    entry = {"video": "show_s01", "start": 0.0, "end": 3.5, "fps": 3, "subtitle": "", "show_name": "Show"}
    write(folder / "json" / "episodic_reasoning.json", [{**entry, **question(scene)}])
    return folder


MVBENCH_TASKS = ("action_count", "action_sequence", "moving_attribute", "episodic_reasoning")


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
