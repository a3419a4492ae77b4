"""What needles are: scenes of short videos, and two questions about each that are true of nothing around it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import product
from random import Random

from videochat_tools.training.world.language import NUMBERS, caption, matches, name, verb
from videochat_tools.training.world.long_video import PlacedScene, VideoPlan, plan_video, stretch
from videochat_tools.training.world.questions import Question, holds
from videochat_tools.training.world.scene import (
    COLOURS,
    DIRECTIONS,
    HELD_OUT,
    SHAPES,
    Event,
    Fact,
    Look,
    Scene,
    Thing,
    sample_scene,
)
from videochat_tools.types import TimeSpan

__all__ = ["KINDS", "Needle", "draw_needles", "needle_pairs"]

Pair = tuple[str, str]  # colour and shape

DISTINCT = 6  # pairs, of 44, that only needles show
SEEN = ("direction", "count")  # not what it does: that is a part of the description, which would then lack it
KINDS = ("said", *SEEN)


@dataclass(frozen=True, slots=True)
class Needle:
    """A scene in a video of its own, and the questions about it."""

    number: int
    plan: VideoPlan
    place: PlacedScene
    look: Look  # of the object that the questions name
    questions: tuple[Question, ...]

    @property
    def video(self) -> str:
        """Name of its file."""
        return f"needle-{self.number:03d}.mp4"

    def is_meant_by_question(self, scene: Scene) -> bool:
        """Whether a question could be about another scene."""
        return any(matches(thing, self.look) for thing in scene.things) and any(
            holds(question, scene) for question in self.questions
        )

    @property
    def span(self) -> TimeSpan:
        """Where it lies in its video."""
        return TimeSpan(self.place.start, self.place.end)


def needle_pairs(seed: int) -> frozenset[Pair]:
    """Colours and shapes of the objects of needles; none that training never showed together."""
    pairs = sorted({*product(COLOURS, SHAPES)} - HELD_OUT)
    return frozenset(Random(f"{seed} pairs").sample(pairs, DISTINCT))


def draw_needles(count: int, seconds: float, seed: int) -> list[Needle]:
    """Needles, in turn over the kinds of question about what is seen; each is asked about by what is said, too."""
    pairs = needle_pairs(seed)
    return [_needle(Random(f"{seed} needle {number}"), number, seconds, pairs) for number in range(count)]


def _needle(rng: Random, number: int, seconds: float, pairs: Collection[Pair]) -> Needle:
    plan = _plan(rng, seconds, pairs)
    index = rng.choice([index for index, place in enumerate(plan.scenes) if place.spoken is not None])
    place = plan.scenes[index]
    beside = {pair for other in plan.scenes[max(index - 1, 0) : index + 2] for pair in _pairs(other.scene)}
    scene, thing, event = _scene(rng, pairs, beside, moves=SEEN[number % len(SEEN)] == "direction")
    look = thing.look if thing.texture != "plain" else (*thing.look[:3], None)
    assert place.spoken is not None
    questions = _questions(rng, SEEN[number % len(SEEN)], scene, look, event, place.spoken.text)
    words = caption(rng, scene, full=True).text
    place = replace(place, scene=stretch(scene, place.end - place.start), caption=words)
    scenes = (*plan.scenes[:index], place, *plan.scenes[index + 1 :])
    return Needle(number, replace(plan, scenes=scenes, questions=(), absent_questions=()), place, look, questions)


def _plan(rng: Random, seconds: float, pairs: Collection[Pair]) -> VideoPlan:
    """A video in which something is said and no object is like a needle."""
    while True:
        plan = plan_video(seconds / 60, rng.getrandbits(32))
        shown = {pair for place in plan.scenes for pair in _pairs(place.scene)}
        if not shown & set(pairs) and any(place.spoken is not None for place in plan.scenes):
            return plan


def _scene(
    rng: Random, pairs: Collection[Pair], beside: Collection[Pair], *, moves: bool
) -> tuple[Scene, Thing, Event]:
    """A scene with one object like a needle, which does one thing that no other object has a part in.

    Objects like those of the scenes beside it are left out, so that the cut can be seen.
    """
    while True:
        scene = sample_scene(rng)
        shown = _pairs(scene)
        alike = [index for index, pair in enumerate(shown) if pair in pairs]
        if len(alike) != 1 or set(shown) & set(beside):
            continue
        events = [event for event in scene.events if alike[0] in (event.subject, event.target)]
        if len(events) == 1 and events[0].target is None and (events[0].kind in DIRECTIONS or not moves):
            return scene, scene.things[alike[0]], events[0]


def _pairs(scene: Scene) -> list[Pair]:
    return [(thing.colour, thing.shape) for thing in scene.things]


def _questions(rng: Random, kind: str, scene: Scene, look: Look, event: Event, said: str) -> tuple[Question, ...]:
    """What is said, and what is seen, both in words that the nano was trained with."""
    this = f"the {name(look)}"
    it_is: Fact = ("is", look)
    doing = frozenset({it_is, ("does", event.kind, look)})
    about = Question("said", f"what is said when {this} {verb(rng, event.kind)}?", said, doing)
    if kind == "direction":
        moving = frozenset({it_is, ("does", "move", look)})
        return about, Question(kind, f"in which direction does {this} move?", event.kind, moving)
    words = f"how many objects are there when {this} {verb(rng, event.kind)}?"
    return about, Question(kind, words, NUMBERS[len(scene.things)], doing)
