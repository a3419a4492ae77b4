"""Needle in a haystack: questions about one scene of a short video, asked of hours of other scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.answers import majority_share, same_answer, same_place
from videochat_tools.evaluation.benchmarks.base import CONTROLS, Benchmark, Context, Record, Sections, share_of
from videochat_tools.evaluation.benchmarks.footage import Frames, frames_at
from videochat_tools.evaluation.benchmarks.haystack import Haystack, HaystackLibrary
from videochat_tools.evaluation.benchmarks.needles import KINDS, Needle, draw_needles, needle_pairs
from videochat_tools.evaluation.statistics import Score
from videochat_tools.training.world.sample import render_plan
from videochat_tools.training.world.scene import Scene
from videochat_tools.types import SearchHit

__all__ = ["NeedleInHaystack"]


@dataclass(frozen=True, slots=True)
class NeedleItem:
    """A question about a needle, in a haystack of so many hours; ``video`` is the needle's own."""

    id: str
    video: str
    question: str
    answer: str
    kind: str
    needle: Needle
    hours: float


class NeedleInHaystack(Benchmark[NeedleItem]):
    """Scenes of real video files that are searched for among hours of further scenes.

    A needle is a scene of a short video, with an object that is described in full: size, texture, colour, shape and
    what it does. Nothing in the haystack, and nothing else in its own video, has both its colour and its shape. The
    video is rendered, encoded, added to a library and decoded there, as any video. The haystack is made of rendered
    scenes whose vectors are kept (:mod:`.haystack`); one needle at a time lies in it.

    With ``near`` the haystack has objects of the needles' colours and shapes too. Then only the question's whole
    meaning is true of no other scene, and among many hours some scene differs from it in a single word.

    Search, thresholds, answer and check are those of :meth:`~videochat_tools.VideoLibrary.ask`. Of the controls,
    "blank" shows the model black clips in place of those that were found, "text-only" asks it without any clip, and
    "uniform" shows it as many frames, spread over all hours.
    """

    name: ClassVar[str] = "needle"
    uses: ClassVar[tuple[str, ...]] = ("chat", "encoder")
    controls: ClassVar[tuple[str, ...]] = CONTROLS
    senseless: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        data: Path | None = None,
        *,
        hours: float | Sequence[float] = (1.0,),
        needles: int = 50,
        seconds: float = 30.0,
        near: bool = False,
        seed: int = 0,
    ) -> None:
        """Plan the needles.

        Args:
            data: Not needed: everything is rendered.
            hours: Lengths of the haystack; 0 leaves the video of the needle alone. Every question is asked of each.
            needles: How many; two questions are asked about each.
            seconds: Length of the video of a needle.
            near: Let the haystack show objects like the needles.
            seed: Another one makes other scenes.
        """
        self.hours = tuple(dict.fromkeys(sorted([hours] if isinstance(hours, int | float) else hours)))
        if not self.hours or not min(self.hours) >= 0 or needles < 1 or not seconds >= 10:
            raise BenchmarkError(
                "a haystack needs hours of at least 0, a needle, and 10 seconds of video for it, got "
                f"{', '.join(map(str, self.hours)) or 'none'}; {needles}; {seconds}"
            )
        self.needles, self.seconds, self.near, self.seed = needles, seconds, near, seed
        if near:
            self.name = "needle-near"  # type: ignore[misc]  # as it is asked for

    @cached_property
    def _needles(self) -> list[Needle]:
        return draw_needles(self.needles, self.seconds, self.seed)

    @cached_property
    def items(self) -> Sequence[NeedleItem]:  # type: ignore[override]  # as a property, but planned once
        """All questions, of the shortest haystack first."""
        return [
            NeedleItem(
                f"{hours:g} h/{needle.number}/{question.kind}",
                needle.video,
                question.question,
                question.answer,
                question.kind,
                needle,
                hours,
            )
            for hours in self.hours
            for needle in self._needles
            for question in needle.questions
        ]

    @property
    def identity(self) -> Sequence[Any]:
        """The questions: a run of other hours in the same folder goes on from this one."""
        return [(needle.video, question.question) for needle in self._needles for question in needle.questions]

    @property
    def settings(self) -> dict[str, Any]:
        """What was rendered, but for the hours."""
        return {name: getattr(self, name) for name in ("needles", "seconds", "near", "seed")}

    def is_there(self, item: NeedleItem) -> bool:
        """Always: it is rendered."""
        return True

    def prepare(self, context: Context) -> None:
        """Render, add and embed what is not there yet."""
        models = context.models
        library = HaystackLibrary(context.place("library"), model=models.chat_folder, encoder=models.encoder)
        self._library = library
        library.blind = context.control == "blank"
        if context.control == "text-only":
            return
        self._videos = context.place("video")
        for needle in self._needles:
            if not (self._videos / needle.video).is_file():
                render_plan(self._videos / needle.video, needle.plan)
        if context.control != "uniform":  # which searches nothing
            failed = library.add_new([self._videos / needle.video for needle in self._needles])
            for error in failed.values():
                raise error
        library.haystack = Haystack(
            context.shared("haystack"),
            models.encoder,
            max(self.hours) * 3600,
            seed=self.seed,
            excluded=self._is_meant if self.near else self._shows_needle,
            name=f"near {self.identity}" if self.near else f"without {sorted(self._pairs)}",
        )

    @cached_property
    def _pairs(self) -> frozenset[tuple[str, str]]:
        return needle_pairs(self.seed)

    def _shows_needle(self, scene: Scene) -> bool:
        """Whether a scene holds an object of the colour and shape of a needle."""
        return any((thing.colour, thing.shape) in self._pairs for thing in scene.things)

    def _is_meant(self, scene: Scene) -> bool:
        """Whether a question is true of a scene."""
        return any(needle.is_meant_by_question(scene) for needle in self._needles)

    def measure(self, item: NeedleItem, context: Context) -> Record:
        """Search and ask; or only ask, for a control."""
        library, video = self._library, item.needle.video
        if context.control == "text-only":
            return {"truth": item.answer, "answer": library.ask_alone(item.question)}
        library.haystack.use(item.hours * 3600)
        if context.control == "uniform":
            seconds = item.needle.plan.duration + library.haystack.duration
            answer = library.ask_about(item.question, self._spread(item, seconds), self._videos / video, seconds)
            return {"truth": item.answer, "answer": answer}
        path = str((self._videos / video).absolute())
        clips = library.find_clips(item.question, videos=[path]).clips
        answered = library.ask(item.question, videos=[path])
        places = [self._is_needle(item, clip) for clip in clips]
        return {
            "question": item.question,
            "truth": item.answer,
            "answer": answered.text,
            "rank": places.index(True) + 1 if True in places else None,
            "best": str(clips[0]) if clips else None,
            "proved": any(self._is_needle(item, each.hit) for each in answered.evidence),
        }

    def _is_needle(self, item: NeedleItem, hit: SearchHit) -> bool:
        return hit.video == item.needle.video and same_place(hit.span, item.needle.span)

    def _spread(self, item: NeedleItem, seconds: float) -> Frames:
        """Frames at even distances over the needle's video and the haystack behind it."""
        engine, hay, own = self._library.engine, self._library.haystack, item.needle.plan.duration
        times = [seconds * (number + 0.5) / engine.num_frames for number in range(engine.num_frames)]
        inside = [time for time in times if time < own]
        path = self._videos / item.needle.video
        frames = list(frames_at(path, inside, engine.frame_size).frames) if inside else []
        for time in times[len(inside) :]:
            clip = hay.render(hay.scene_at(time - own), engine.num_frames, engine.frame_size)
            frames.append(clip[engine.num_frames // 2])
        return np.stack(frames)

    def score(self, items: Sequence[NeedleItem], records: Mapping[str, Record]) -> Sections:
        """One table of all lengths: whether the needle is found, and the question answered from it."""
        searched = any("rank" in record for record in records.values())

        def found(item: NeedleItem, k: int) -> bool:
            return (records[item.id].get("rank") or k + 1) <= k

        def right(item: NeedleItem) -> bool:
            return same_answer(str(records[item.id].get("answer", "")), item.answer, item.kind)

        def from_needle(item: NeedleItem) -> bool:
            return right(item) and bool(records[item.id].get("proved"))

        hours = {hours: [item for item in items if item.hours == hours] for hours in self.hours}
        hours = {length: asked for length, asked in hours.items() if asked}
        rows: list[Score] = []
        kinds: list[Score] = []
        for length, asked in hours.items():
            if searched:
                rows += [share_of(f"{length:g} h: found @{k}", asked, partial(found, k=k)) for k in (1, 5)]
            rows.append(share_of(f"{length:g} h: right words", asked, right, _guessing(asked)))
            if searched:
                rows.append(share_of(f"{length:g} h: found and answered", asked, from_needle))
            for kind in dict.fromkeys(item.kind for item in asked):
                some = [item for item in asked if item.kind == kind]
                kinds.append(share_of(f"{length:g} h: {kind}", some, from_needle if searched else right))
        return {"needles": rows, f"{'found and answered' if searched else 'right words'}, by kind": kinds}

    def facts(self, items: Sequence[NeedleItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """Which part was a video file, and which only vectors."""
        haystack: Haystack | None = getattr(self._library, "haystack", None)
        if haystack is None:
            return {}
        minutes = sum(needle.plan.duration for needle in self._needles) / 60
        haystack.use(max(item.hours for item in items) * 3600)
        return {
            "decoded": f"{minutes:.1f} minutes of H.264 video in {len(self._needles)} files with a needle each",
            "never encoded or decoded": f"{haystack.duration / 3600:.2f} hours in {haystack.count} rendered scenes, of "
            "which the search sees kept vectors; a shorter haystack is the beginning of this one",
            "only needles show": "each a scene that no question is true of elsewhere"
            if self.near
            else ", ".join(f"{colour} {shape}s" for colour, shape in sorted(self._pairs)),
        }


def _guessing(items: Sequence[NeedleItem]) -> float:
    """What always giving the most frequent answer of each kind would reach."""
    kinds = {kind: [item.answer for item in items if item.kind == kind] for kind in KINDS}
    return sum(len(given) * majority_share(given) for given in kinds.values()) / max(len(items), 1)
