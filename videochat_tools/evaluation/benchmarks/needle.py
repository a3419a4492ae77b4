"""Needle in a haystack: a question about one scene, asked of hours of scenes that all look alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np

from videochat_tools.context import clip_messages
from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.answers import majority_share, same_answer, same_place
from videochat_tools.evaluation.benchmarks.base import Benchmark, Context, Record, Sections, share_of
from videochat_tools.evaluation.benchmarks.footage import frames_at
from videochat_tools.evaluation.benchmarks.haystack import Haystack, HaystackLibrary
from videochat_tools.training.world.long_video import PlacedScene, VideoPlan, holds, plan_video
from videochat_tools.training.world.questions import Question, ask
from videochat_tools.training.world.sample import render_plan
from videochat_tools.training.world.scene import COLOURS, HELD_OUT, SHAPES, Scene
from videochat_tools.types import SearchHit, TimeSpan

__all__ = ["NeedleInHaystack"]

KINDS = ("which", "colour", "direction", "count", "shape")
DISTINCT = 6  # pairs of colour and shape, of 44, that only needles show
TRIES = 40  # wordings tried for one scene
VIDEO = "needles.mp4"


@dataclass(frozen=True, slots=True)
class NeedleItem:
    """A question that is true of one scene; ``video`` names the scene, since several questions may be about it."""

    id: str
    video: str
    question: str
    answer: str
    kind: str
    span: TimeSpan


class NeedleInHaystack(Benchmark[NeedleItem]):
    """Questions about the scenes of a real video file, searched for together with hours of further scenes.

    The video with the needles is rendered, encoded, added to a library and decoded there, as any video. The haystack
    is made of rendered scenes whose vectors are kept (:mod:`.haystack`); no scene of it could be meant by a question.
    A needle is told from all hay by the colour and shape of what it is about: no scene of the haystack shows an object
    like it. With ``near`` it is not: then only the question's whole meaning is true of no other scene, and among many
    hours some scene differs from it in a single word.

    Search, answer and check are those of the library. Controls: "text-only" asks the model without any clip,
    "uniform" shows it as many frames, spread over all hours.
    """

    name: ClassVar[str] = "needle"
    uses: ClassVar[tuple[str, ...]] = ("chat", "encoder")
    controls: ClassVar[tuple[str, ...]] = ("text-only", "uniform")

    def __init__(
        self,
        data: Path | None = None,
        *,
        hours: float = 1.0,
        minutes: float = 10.0,
        needles: int = 50,
        near: bool = False,
        seed: int = 0,
    ) -> None:
        """Plan the needles.

        Args:
            data: Not needed: everything is rendered.
            hours: Length of the haystack; 0 leaves the video with the needles alone.
            minutes: Length of the video with the needles.
            needles: Questions, at most.
            near: Let the haystack show objects like those of the needles.
            seed: Another one makes other scenes.
        """
        if not hours >= 0 or not minutes > 0 or needles < 1:
            raise BenchmarkError(
                f"a haystack needs hours of at least 0, minutes above 0 and a needle, got {hours}, {minutes}, {needles}"
            )
        self.hours, self.minutes, self.needles, self.near, self.seed = hours, minutes, needles, near, seed
        pairs = sorted({*product(COLOURS, SHAPES)} - HELD_OUT)  # those of HELD_OUT were never seen in training
        self._pairs = frozenset(Random(f"{seed} pairs").sample(pairs, DISTINCT))

    @cached_property
    def _plan(self) -> VideoPlan:
        return plan_video(self.minutes, self.seed)

    @cached_property
    def _asked(self) -> list[tuple[PlacedScene, Question]]:
        """Questions in rounds over the kinds, each about a scene of its own as long as there are any."""
        rng = Random(f"{self.seed} needles")
        places = rng.sample(self._plan.scenes, len(self._plan.scenes))
        asked: list[tuple[PlacedScene, Question]] = []
        for turn in range(len(KINDS)):
            for number, place in enumerate(places):
                question = _only_there(
                    rng, self._plan, place, KINDS[(number + turn) % len(KINDS)], self._is_needle_like
                )
                if question is not None and len(asked) < self.needles:
                    asked.append((place, question))
        if not asked:
            raise BenchmarkError(f"{self.minutes:g} minutes with seed {self.seed} hold no needle; render more minutes")
        return asked

    def _is_needle_like(self, question: Question) -> bool:
        """Whether a question names an object that no hay shows."""
        looks = [part for fact in question.facts for part in fact if isinstance(part, tuple)]
        return self.near or any(look[:2] in self._pairs for look in looks)

    @cached_property
    def items(self) -> Sequence[NeedleItem]:  # type: ignore[override]  # as a property, but planned once
        """All questions."""
        return [
            NeedleItem(
                f"{number}",
                f"scene at {place.start:.1f} s",
                question.question,
                question.answer,
                question.kind,
                TimeSpan(place.start, place.end),
            )
            for number, (place, question) in enumerate(self._asked)
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """What was rendered."""
        names = ("hours", "minutes", "needles", "near", "seed")
        return {name: getattr(self, name) for name in names}

    def is_there(self, item: NeedleItem) -> bool:
        """Always: it is rendered."""
        return True

    def prepare(self, context: Context) -> None:
        """Render, add and embed what is not there yet."""
        models, folder = context.models, context.place("haystack")
        self._video = context.place("video") / VIDEO
        if not self._video.is_file():
            render_plan(self._video, self._plan)
        self._library = HaystackLibrary(context.place("library"), model=models.chat_folder, encoder=models.encoder)
        if not self._library.list():
            (result,) = self._library.add(self._video)
            if result.error is not None:
                raise result.error
        meant = [question for _, question in self._asked]
        self._library.haystack = Haystack(
            folder,
            models.encoder,
            self.hours * 3600,
            seed=self.seed,
            excluded=lambda scene: self._shows_needle(scene) or any(holds(question, scene) for question in meant),
        )

    def _shows_needle(self, scene: Scene) -> bool:
        """Whether a scene holds an object like that of a needle."""
        return not self.near and any((thing.colour, thing.shape) in self._pairs for thing in scene.things)

    def measure(self, item: NeedleItem, context: Context) -> Record:
        """Search and ask; or only ask, for a control."""
        if context.control != "none":
            return {"truth": item.answer, "answer": self._control(item, context.control)}
        hits = self._library.search(item.question, k=5)
        answer = self._library.ask(item.question)
        places = [self._is_needle(item, hit) for hit in hits]
        return {
            "truth": item.answer,
            "answer": answer.text,
            "rank": places.index(True) + 1 if True in places else None,
            "best": str(hits[0]) if hits else None,
            "proved": any(self._is_needle(item, each.hit) for each in answer.evidence),
        }

    def _is_needle(self, item: NeedleItem, hit: SearchHit) -> bool:
        return hit.video == VIDEO and same_place(hit.span, item.span)

    def _control(self, item: NeedleItem, control: str) -> str:
        chat = self._library.chat_model
        if control == "text-only":
            return chat.invoke(item.question).text
        tokens = self._uniform
        hit = SearchHit("all", VIDEO, self._video.as_uri(), TimeSpan(0.0, self._plan.duration), 1.0)
        shown = chat.model_copy(update={"clip_source": lambda name: tokens})
        return shown.invoke(clip_messages([hit], item.question)).text

    @cached_property
    def _uniform(self) -> Any:
        """Clip tokens of frames that are spread over the needles' video and the haystack behind it."""
        from videochat_tools.engine import load_engine

        engine, hay = load_engine(self._library.chat_model.model), self._library.haystack  # type: ignore[attr-defined]
        total = self._plan.duration + hay.duration
        times = [total * (number + 0.5) / engine.num_frames for number in range(engine.num_frames)]
        inside = [time for time in times if time < self._plan.duration]
        frames = list(frames_at(self._video, inside, engine.frame_size).frames) if inside else []
        for time in times[len(inside) :]:
            number = hay.scene_at(time - self._plan.duration)
            frames.append(hay.render(number, engine.num_frames, engine.frame_size)[engine.num_frames // 2])
        return engine.watch(np.stack(frames)[None])[0]

    def score(self, items: Sequence[NeedleItem], records: Mapping[str, Record]) -> Sections:
        """Whether the needle is found, and the question answered from it."""

        def right(item: NeedleItem) -> bool:
            return same_answer(str(records[item.id].get("answer", "")), item.answer, item.kind)

        kinds = {kind: [item.answer for item in items if item.kind == kind] for kind in KINDS}
        guessing = sum(len(given) * majority_share(given) for given in kinds.values()) / max(len(items), 1)
        answers = [share_of("right words", items, right, guessing)]
        if not any("rank" in record for record in records.values()):
            return {"answers": answers}

        def from_needle(item: NeedleItem) -> bool:
            return right(item) and bool(records[item.id].get("proved"))

        def found(item: NeedleItem, k: int) -> bool:
            return (records[item.id].get("rank") or k + 1) <= k

        return {
            "needles": [share_of(f"found @{k}", items, partial(found, k=k)) for k in (1, 5)],
            "answers": [*answers, share_of("right words, from the needle", items, from_needle)],
        }

    def facts(self, items: Sequence[NeedleItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """Which part was a video file, and which only vectors."""
        hay = self._library.haystack
        return {
            "decoded": f"{self._plan.duration / 60:.1f} minutes of H.264 video, which hold all needles",
            "never encoded or decoded": f"{hay.duration / 3600:.2f} hours in {len(hay.scenes)} rendered scenes, of "
            "which the search sees kept vectors",
        }


def _only_there(
    rng: Random, plan: VideoPlan, place: PlacedScene, kind: str, fits: Callable[[Question], bool]
) -> Question | None:
    """A question that fits, names an action, and is true of this scene of the plan alone."""
    for _ in range(TRIES):
        question = ask(rng, place.scene, kind)
        if question is None or not fits(question) or not any(fact[0] in ("does", "meets") for fact in question.facts):
            continue
        if not any(holds(question, other.scene) for other in plan.scenes if other is not place):
            return question
    return None
