"""A long video as a plan: scenes one after another, what is said over them, and questions with one true answer each.

Pixels come later (:mod:`videochat_tools.training.world.sample`); the plan alone decides what is true and when. A
question is asked only where what it presupposes holds in exactly one scene of the whole video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from videochat_tools.training.world.config import STANDARD, WorldConfig
from videochat_tools.training.world.language import caption, clause
from videochat_tools.training.world.narration import Sentence, narrate
from videochat_tools.training.world.questions import NOT_FOUND, Question, ask, holds
from videochat_tools.training.world.scene import Scene, sample_scene

__all__ = ["QUESTION_TYPES", "PlacedScene", "Spoken", "TimedQuestion", "VideoPlan", "plan_video", "stretch"]

QUESTION_TYPES = ("which", "colour", "direction", "count", "said", "shape")
QUESTIONS_PER_MINUTE = 1.2  # of each type
SPOKEN_SHARE = 0.6  # of the scenes
SECONDS_PER_WORD = 0.33


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence that is said over a scene; times in seconds of the video."""

    start: float
    end: float
    text: str
    topic: str


@dataclass(frozen=True, slots=True)
class PlacedScene:
    """A scene and its place in the video: ``[start, end)`` seconds, both on frame borders."""

    scene: Scene
    start: float
    end: float
    caption: str
    spoken: Spoken | None


@dataclass(frozen=True, slots=True)
class TimedQuestion:
    """A question about the whole video. ``span`` is where its answer is seen or heard; ``None``: nowhere."""

    kind: str
    question: str
    answer: str
    span: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """All that is true of a video, and what may be asked about it."""

    seed: int
    fps: int
    scenes: tuple[PlacedScene, ...]
    questions: tuple[TimedQuestion, ...]  # in rounds over the types
    absent_questions: tuple[TimedQuestion, ...]
    world: WorldConfig = STANDARD

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.scenes[-1].end


def plan_video(minutes: float = 10.0, seed: int = 0, *, fps: int = 10, world: WorldConfig = STANDARD) -> VideoPlan:
    """Draw a video of the world; the same arguments always give the same plan.

    Args:
        minutes: Length; the last scene ends with the last whole frame.
        seed: Source of chance.
        fps: Frames a second; scenes begin and end on frames.
        world: What there is and happens.

    Raises:
        ValueError: if not even one frame fits.
    """
    frames = round(minutes * 60 * fps)
    if frames < 1 or fps < 1:
        raise ValueError(f"a video needs at least one frame, got {minutes!r} minutes at {fps!r} frames a second")
    rng = Random(seed)
    scenes = _place_scenes(rng, frames, fps, world)
    wanted = max(2, round(QUESTIONS_PER_MINUTE * minutes))
    questions = _questions(Random(rng.getrandbits(64)), scenes, wanted)
    absent = _absent_questions(Random(rng.getrandbits(64)), scenes, wanted, world)
    return VideoPlan(seed, fps, tuple(scenes), tuple(questions), tuple(absent), world)


def _place_scenes(rng: Random, frames: int, fps: int, world: WorldConfig) -> list[PlacedScene]:
    placed: list[PlacedScene] = []
    topics: set[str] = set()
    done = 0
    while done < frames:
        scene = _next_scene(rng, placed[-1].scene if placed else None, world)
        length = _whole_frames(scene, frames - done, fps, world)
        scene = stretch(scene, length / fps)
        start = done / fps
        spoken = _narration(rng, topics, start, length / fps) if rng.random() < SPOKEN_SHARE else None
        done += length
        placed.append(PlacedScene(scene, start, done / fps, caption(rng, scene, full=True).text, spoken))
    return placed


def _next_scene(rng: Random, before: Scene | None, world: WorldConfig) -> Scene:
    """A scene without an object of the colour and shape of one in the scene before, so that the cut can be seen."""
    seen = {(thing.colour, thing.shape) for thing in before.things} if before is not None else set()
    while True:
        scene = sample_scene(rng, held_out=None, world=world)
        if not any((thing.colour, thing.shape) in seen for thing in scene.things):
            return scene


def _whole_frames(scene: Scene, left: int, fps: int, world: WorldConfig) -> int:
    """The scene's length in frames; what it would leave over must be long enough for the scenes after it."""
    shortest, longest = (round(seconds * fps) for seconds in world.duration)
    if left <= longest:
        return left
    return min(round(scene.duration * fps), left - shortest)


def stretch(scene: Scene, duration: float) -> Scene:
    """The same scene, its events and all, in as many seconds."""
    ratio = duration / scene.duration
    events = tuple(replace(event, start=event.start * ratio, end=event.end * ratio) for event in scene.events)
    return replace(scene, events=events, duration=duration)


def _narration(rng: Random, topics: set[str], start: float, length: float) -> Spoken | None:
    """A sentence on a topic of its own that fits into the scene; ``None`` when all topics are used up."""
    used = len(topics)
    sentence: Sentence = narrate(rng, topics)
    if len(topics) == used:
        return None
    seconds = min(SECONDS_PER_WORD * len(sentence.text.split()), 0.9 * length)
    begin = start + rng.uniform(0.05 * length, 0.95 * length - seconds)
    return Spoken(round(begin, 3), round(begin + seconds, 3), sentence.text, sentence.topic)


def _questions(rng: Random, scenes: Sequence[PlacedScene], wanted: int) -> list[TimedQuestion]:
    candidates = {kind: _candidates(rng, scenes, kind) for kind in QUESTION_TYPES}
    asked: list[TimedQuestion] = []
    use = [0] * len(scenes)
    for _ in range(wanted):
        for kind in QUESTION_TYPES:
            left = candidates[kind]
            if left:
                index = min(left, key=lambda index: use[index])  # scenes that were asked about least come first
                asked.append(left.pop(index))
                use[index] += 1
    return asked


def _candidates(rng: Random, scenes: Sequence[PlacedScene], kind: str) -> dict[int, TimedQuestion]:
    """One question of a kind for every scene that allows one, in random order of the scenes."""
    order = rng.sample(range(len(scenes)), len(scenes))
    draw = _ask_what_is_said if kind == "said" else _ask_what_is_seen
    found = {}
    for index in order:
        question = draw(rng, scenes, scenes[index], kind)
        if question is not None:
            place = scenes[index]
            found[index] = TimedQuestion(kind, question.question, question.answer, (place.start, place.end))
    return found


def _ask_what_is_seen(rng: Random, scenes: Sequence[PlacedScene], place: PlacedScene, kind: str) -> Question | None:
    return _only_here(scenes, place, lambda: ask(rng, place.scene, kind))


def _ask_what_is_said(rng: Random, scenes: Sequence[PlacedScene], place: PlacedScene, kind: str) -> Question | None:
    spoken = place.spoken
    if spoken is None:
        return None
    if rng.random() < 0.5:
        others = [other.spoken.text for other in scenes if other.spoken is not None and other is not place]
        if not any(spoken.topic in text.split() for text in others):
            return Question(kind, f"what is said about the {spoken.topic}?", spoken.text, frozenset())
    return _only_here(scenes, place, lambda: _said_when(rng, place.scene, spoken.text))


def _said_when(rng: Random, scene: Scene, answer: str) -> Question | None:
    if not scene.events:
        return None
    when = clause(rng, scene, rng.choice(scene.events))
    return Question("said", f"what is said when {when.text}?", answer, when.facts)


def _only_here(
    scenes: Sequence[PlacedScene], place: PlacedScene, draw: Callable[[], Question | None], tries: int = 12
) -> Question | None:
    """The first question drawn that names an action and fits this scene alone."""
    for _ in range(tries):
        question = draw()
        if (
            question is not None
            and any(fact[0] in ("does", "meets") for fact in question.facts)
            and not any(holds(question, other.scene) for other in scenes if other is not place)
        ):
            return question
    return None


def _absent_questions(
    rng: Random, scenes: Sequence[PlacedScene], wanted: int, world: WorldConfig
) -> list[TimedQuestion]:
    """Questions of the same forms about scenes that are not in the video, true of none that is."""
    asked: list[TimedQuestion] = []
    for _ in range(wanted):
        for kind in QUESTION_TYPES:
            for _ in range(40):
                scene = sample_scene(rng, held_out=None, world=world)
                question = _absent_said(rng, scenes, scene) if kind == "said" else ask(rng, scene, kind)
                if question is None or (kind != "said" and not any(f[0] in ("does", "meets") for f in question.facts)):
                    continue
                known = any(question.question == other.question for other in asked)
                if not known and not any(question.facts and holds(question, place.scene) for place in scenes):
                    asked.append(TimedQuestion(kind, question.question, NOT_FOUND, None))
                    break
    return asked


def _absent_said(rng: Random, scenes: Sequence[PlacedScene], scene: Scene) -> Question | None:
    if rng.random() < 0.5:
        said = {word for place in scenes if place.spoken is not None for word in place.spoken.text.split()}
        topic = narrate(rng).topic
        if topic not in said:
            return Question("said", f"what is said about the {topic}?", NOT_FOUND, frozenset())
    return _said_when(rng, scene, NOT_FOUND)
