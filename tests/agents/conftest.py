"""The film of the examples, looked at by the bundled nano, and questions about it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from videochat_tools.embeddings import NANO_ENCODER
from videochat_tools.video_library import VideoLibrary

# By kind: what is asked, what is true, and in which seconds of the film it is seen.
QUESTIONS = {
    "which": ("which object bumps into the square?", "red circle", 6.0, 12.0),
    "colour": ("what colour is the star that moves up?", "yellow", 12.0, 18.0),
    "shape": ("what shape is the yellow object that moves up?", "star", 12.0, 18.0),
}


@pytest.fixture(scope="session")
def world(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoLibrary, dict[str, Any]]:
    """A library of the film, which no test changes, and the questions."""
    if not (NANO_ENCODER / "model.safetensors").is_file():
        pytest.skip("the weights of the nano are not in this checkout")
    names = runpy.run_path(str(repository / "examples" / "sample_library.py"))
    return names["open_sample_library"](tmp_path_factory.mktemp("world")), QUESTIONS
