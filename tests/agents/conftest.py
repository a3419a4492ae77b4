"""A library of the little world, with the bundled nano."""

from __future__ import annotations

import json
from typing import Any

import pytest

from videochat_tools.embeddings import NANO_ENCODER
from videochat_tools.training.world.long_video import PlacedScene, VideoPlan
from videochat_tools.training.world.sample import render_plan, render_sample
from videochat_tools.training.world.scene import Event, Scene, Thing
from videochat_tools.video_library import VideoLibrary


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoLibrary, list[dict[str, Any]]]:
    """A library of twelve seconds of the little world, looked at by the nano, and the questions with their answers."""
    if not (NANO_ENCODER / "model.safetensors").is_file():
        pytest.skip("the weights of the nano are not in this checkout")
    folder = tmp_path_factory.mktemp("world")
    video = render_sample(folder / "world.mp4", minutes=0.2, seed=2, width=160, height=120)
    timeline = video.with_suffix(".timeline.json")
    questions = json.loads(timeline.read_text(encoding="utf-8"))["questions"]
    timeline.unlink()
    library = VideoLibrary(folder / "library")
    (result,) = library.add(video)
    assert result.status == "added"
    return library, questions


@pytest.fixture(scope="session")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> VideoLibrary:
    """Three shots of five seconds: a green ring; a red circle that bumps into a blue square; a yellow star moves up."""
    if not (NANO_ENCODER / "model.safetensors").is_file():
        pytest.skip("the weights of the nano are not in this checkout")
    things = (
        (("green", "ring", 0.5),),
        (("red", "circle", 0.2), ("blue", "square", 0.7)),
        (("yellow", "star", 0.5),),
    )
    events = ((), (Event("bump", 0, 0.5, 4.5, 1),), (Event("up", 0, 0.5, 4.5, None, 0.4),))
    scenes = [
        Scene(tuple(Thing(colour, shape, "large", "plain", x, 0.5) for colour, shape, x in shown), done, 5.0, number)
        for number, (shown, done) in enumerate(zip(things, events, strict=True))
    ]
    placed = [PlacedScene(scene, 5.0 * number, 5.0 * number + 5.0, "", None) for number, scene in enumerate(scenes)]
    folder = tmp_path_factory.mktemp("meeting")
    plan = VideoPlan(seed=0, fps=10, scenes=tuple(placed), questions=(), absent_questions=())
    video = render_plan(folder / "meeting.mp4", plan, width=160, height=120)
    video.with_suffix(".vtt").unlink()
    library = VideoLibrary(folder / "library", transcriber=None)
    assert library.add(video)[0].status == "added"
    return library
