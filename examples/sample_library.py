"""What the examples look at: a library of one short sample video, made when it is first needed."""

from __future__ import annotations

from pathlib import Path

from videochat_tools import VideoLibrary
from videochat_tools.training.world.sample import render_sample

DEFAULT_FOLDER = Path("videochat-examples")


def open_sample_library(folder: Path = DEFAULT_FOLDER) -> VideoLibrary:
    """The library in a folder, with twelve seconds of the little world that the bundled nano understands."""
    video = folder / "world.mp4"
    if not video.exists():
        render_sample(video, minutes=0.2, seed=2)
    library = VideoLibrary(folder / "library")
    library.add(video)  # does nothing the second time
    return library
