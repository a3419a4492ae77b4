"""A library of the little world, with the bundled nano."""

from __future__ import annotations

import json
from typing import Any

import pytest

from videochat_tools.embeddings import NANO_ENCODER
from videochat_tools.training.world.sample import render_sample
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
