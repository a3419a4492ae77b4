"""What the examples look at: a library of one short film, drawn when it is first needed."""

from __future__ import annotations

from pathlib import Path

from videochat_tools import VideoLibrary
from videochat_tools.training.world.long_video import PlacedScene, Spoken, VideoPlan
from videochat_tools.training.world.sample import render_plan
from videochat_tools.training.world.scene import Event, Scene, Thing

DEFAULT_FOLDER = Path("videochat-examples")
SECONDS = 6.0  # of each shot

# The little world that the bundled nano understands: what is seen, what happens, and what is said meanwhile.
SHOTS = (
    ((("green", "ring", 0.5),), (), "the harbour opens at nine"),
    ((("red", "circle", 0.2), ("blue", "square", 0.7)), (("bump", 0, 1),), ""),
    ((("yellow", "star", 0.5),), (("up", 0, None),), "nina lost the old umbrella"),
)


def open_sample_library(folder: Path = DEFAULT_FOLDER) -> VideoLibrary:
    """The library in a folder, with eighteen seconds of film: three shots, two of them with somebody speaking."""
    video = folder / "film.mp4"
    if not video.exists():
        scenes = tuple(_shot(number, *shot) for number, shot in enumerate(SHOTS))
        render_plan(video, VideoPlan(seed=0, fps=10, scenes=scenes, questions=(), absent_questions=()))
    library = VideoLibrary(folder / "library")
    library.add(video)  # does nothing the second time
    return library


def _shot(
    number: int,
    seen: tuple[tuple[str, str, float], ...],
    done: tuple[tuple[str, int, int | None], ...],
    said: str,
) -> PlacedScene:
    things = tuple(Thing(colour, shape, "large", "plain", x, 0.5) for colour, shape, x in seen)
    events = tuple(Event(kind, subject, 0.6, 5.4, target) for kind, subject, target in done)
    start = SECONDS * number
    spoken = Spoken(start + 1.0, start + 4.0, said, said.split()[-1]) if said else None
    return PlacedScene(Scene(things, events, SECONDS, seed=number), start, start + SECONDS, "", spoken)
