"""The main job on a long video with known answers: ``python -m videochat_tools.evaluation.long_video``.

A sample is rendered and added to a library as a user would; of its three files the library gets the video and the
subtitles only. The same questions are then put to a library that holds another video, to see how far guessing goes.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videochat_tools.embeddings import load_encoder
from videochat_tools.evaluation.answers import majority_share, same_answer, same_place
from videochat_tools.evaluation.statistics import Score, markdown_table, rate, to_json
from videochat_tools.training.world.long_video import TimedQuestion, VideoPlan, plan_video
from videochat_tools.training.world.sample import render_plan
from videochat_tools.types import Answer, SearchHit, TimeSpan

if TYPE_CHECKING:
    from videochat_tools.video_library import VideoLibrary

__all__ = ["MAIN_TYPES", "Outcome", "evaluate_long_video", "main", "pick_questions"]

logger = logging.getLogger(__name__)

MAIN_TYPES = ("which", "colour", "direction", "count", "said")  # those that count for the total
OTHER_SEED = 1_000_003  # added to the seed for the wrong video


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question and what the libraries made of it."""

    question: TimedQuestion
    answer: Answer  # from the library that holds the video
    best: SearchHit | None  # its best search result
    wrong: Answer  # from the library that holds another video

    @property
    def right_words(self) -> bool:
        """Whether the answer is the true one."""
        return self.answer.found and same_answer(self.answer.text, self.question.answer, self.question.kind)

    @property
    def right_place(self) -> bool:
        """Whether a span of the evidence is the true one."""
        truth = _span(self.question)
        return truth is not None and any(same_place(evidence.span, truth) for evidence in self.answer.evidence)

    @property
    def right(self) -> bool:
        """Both."""
        return self.right_words and self.right_place

    @property
    def guessed(self) -> bool:
        """Whether the library with the wrong video gave the true answer."""
        return self.wrong.found and same_answer(self.wrong.text, self.question.answer, self.question.kind)

    @property
    def best_place(self) -> bool:
        """Whether the best search result lies where the answer is."""
        truth = _span(self.question)
        return truth is not None and self.best is not None and same_place(self.best.span, truth)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for reading what went wrong."""
        return {
            "type": self.question.kind,
            "question": self.question.question,
            "truth": self.question.answer,
            "span": self.question.span,
            "answer": self.answer.to_dict(),
            "best": None if self.best is None else self.best.to_dict(),
            "wrong_video": self.wrong.text,
            "right": self.right,
        }


def _span(question: TimedQuestion) -> TimeSpan | None:
    return None if question.span is None else TimeSpan(*question.span)


def pick_questions(plan: VideoPlan, count: int) -> list[TimedQuestion]:
    """``count`` questions of the main types in equal shares, and of every further type as many as of one of those."""
    each = -(-count // len(MAIN_TYPES))
    by_kind: dict[str, list[TimedQuestion]] = {}
    for question in plan.questions:
        by_kind.setdefault(question.kind, []).append(question)
    main = [by_kind[kind][turn] for turn in range(each) for kind in MAIN_TYPES if turn < len(by_kind.get(kind, []))]
    return main[:count] + [q for kind, group in by_kind.items() if kind not in MAIN_TYPES for q in group[:each]]


def evaluate_long_video(
    folder: Path, *, minutes: float = 10.0, seed: int = 0, questions: int = 50, **models: Any
) -> tuple[dict[str, list[Score]], list[Outcome], list[tuple[TimedQuestion, Answer]]]:
    """Render, add, ask, compare.

    Args:
        folder: Where the videos and libraries go; it must exist.
        minutes: Length of both videos.
        seed: Of the video.
        questions: Of the main types together.
        **models: Passed on to ``VideoLibrary``: ``encoder``, ``model``; default is the bundled nano.

    Returns:
        Scores by section, the outcomes they were counted from, and the absent questions with their answers.
    """
    plan, other = plan_video(minutes, seed), plan_video(minutes, seed + OTHER_SEED)
    library, wrong_library = (
        _library(folder, name, each, models) for name, each in (("right", plan), ("wrong", other))
    )
    began = time.perf_counter()
    asked = pick_questions(plan, questions)
    outcomes = [
        Outcome(
            question,
            library.ask(question.question),
            next(iter(library.search(question.question, k=1)), None),
            wrong_library.ask(question.question),
        )
        for question in asked
    ]
    logger.info("asked %d questions of both libraries: %.1f s", len(asked), time.perf_counter() - began)
    absent = [(question, library.ask(question.question)) for question in plan.absent_questions[: len(asked)]]
    sections = {
        "answers": _answer_scores(outcomes),
        "moments": _moment_scores(library, plan, outcomes),
        "not found": [
            rate("absent questions answered 'not found'", (not answer.found for _, answer in absent)),
            rate("present questions answered 'not found'", (not each.answer.found for each in outcomes)),
        ],
    }
    return sections, outcomes, absent


def _library(folder: Path, name: str, plan: VideoPlan, models: dict[str, Any]) -> VideoLibrary:
    """A library of one video, from which the file with the truth was kept away."""
    from videochat_tools.video_library import VideoLibrary

    rendered = render_plan(folder / "rendered" / f"{name}.mp4", plan)
    shown = folder / name
    shown.mkdir()
    for suffix in (".mp4", ".vtt"):
        shutil.move(rendered.with_suffix(suffix), shown / f"{name}{suffix}")
    began = time.perf_counter()
    library = VideoLibrary(folder / f"{name}-library", **models)
    for result in library.add(shown / f"{name}.mp4"):
        if result.error is not None:
            raise result.error
    logger.info("added %.0f s of video: %.1f s", plan.duration, time.perf_counter() - began)
    return library


def _answer_scores(outcomes: Sequence[Outcome]) -> list[Score]:
    """Right by type and in total; beside it the true words only, and what the wrong video gives."""
    main = [each for each in outcomes if each.question.kind in MAIN_TYPES]
    groups = {kind: [each for each in main if each.question.kind == kind] for kind in MAIN_TYPES}
    groups |= {f"all of {', '.join(MAIN_TYPES)}": main}
    for each in outcomes:
        if each.question.kind not in MAIN_TYPES:
            groups.setdefault(f"{each.question.kind} (beside the total)", []).append(each)
    scores: list[Score] = []
    for name, group in groups.items():
        chance = _chance(group)
        scores += [
            rate(f"{name}: right, with evidence", (each.right for each in group), chance),
            rate(f"{name}: right words", (each.right_words for each in group), chance),
            rate(f"{name}: right words, wrong video", (each.guessed for each in group), chance),
        ]
    return scores


def _chance(group: Sequence[Outcome]) -> float:
    """What the most frequent answer of each type would reach, knowing the types."""
    kinds = {each.question.kind for each in group}
    answers = {kind: [each.question.answer for each in group if each.question.kind == kind] for kind in kinds}
    return sum(len(given) * majority_share(given) for given in answers.values()) / max(len(group), 1)


def _moment_scores(library: VideoLibrary, plan: VideoPlan, outcomes: Sequence[Outcome]) -> list[Score]:
    chance = sum((place.end - place.start) ** 2 for place in plan.scenes) / plan.duration**2
    scores = [
        rate("best search result in the true scene", (each.best_place for each in outcomes), chance),
        rate("best evidence in the true scene", (_best_evidence(each) for each in outcomes), chance),
        rate("any evidence in the true scene", (each.right_place for each in outcomes)),
    ]
    found = [_captions_found(library, place.caption, TimeSpan(place.start, place.end)) for place in plan.scenes]
    scores.append(rate("caption finds its scene @1", (rank == 0 for rank in found), chance))
    scores.append(rate("caption finds its scene @5", (rank is not None for rank in found)))
    cuts = [place.start for place in plan.scenes[1:]]
    scores.append(rate("cuts found within 0.15 s", _near(cuts, _segment_starts(library))))
    return scores


def _best_evidence(outcome: Outcome) -> bool:
    truth, evidence = _span(outcome.question), outcome.answer.evidence
    return truth is not None and bool(evidence) and same_place(evidence[0].span, truth)


def _captions_found(library: VideoLibrary, caption: str, truth: TimeSpan) -> int | None:
    """Rank of the first of five results that is the scene, by the picture alone."""
    hits = library.search(caption, k=5, channels=("visual",))
    return next((rank for rank, hit in enumerate(hits) if same_place(hit.span, truth)), None)


def _segment_starts(library: VideoLibrary) -> list[float]:
    return [
        segment.span.start
        for record in library.list()
        for segment in library.segments_during(record.video_id, TimeSpan(0.0, record.info.duration))
    ]


def _near(times: Iterable[float], others: Sequence[float], tolerance: float = 0.15) -> list[bool]:
    return [any(abs(time - other) <= tolerance for other in others) for time in times]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print Markdown tables, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m videochat_tools.evaluation.long_video", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the video (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes another video (default: 0)")
    parser.add_argument("--questions", type=int, default=50, help="of the five main types together (default: 50)")
    parser.add_argument("--retrieval", type=Path, help="folder of a video encoder (default: the bundled nano)")
    parser.add_argument("--chat", type=Path, help="folder of a chat model (default: the bundled nano)")
    parser.add_argument("--json", type=Path, help="also write scores and every answer to this file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    models: dict[str, Any] = {"model": options.chat, "encoder": load_encoder(options.retrieval)}
    with tempfile.TemporaryDirectory(prefix="videochat-evaluation-") as folder:
        sections, outcomes, absent = evaluate_long_video(
            Path(folder), minutes=options.minutes, seed=options.seed, questions=options.questions, **models
        )
    for section, scores in sections.items():
        sys.stdout.write(f"\n## {section}\n\n{markdown_table(scores)}\n")
    if options.json is not None:
        facts = {
            "minutes": options.minutes,
            "seed": options.seed,
            "outcomes": [each.to_dict() for each in outcomes],
            "absent": [{"question": question.question, **answer.to_dict()} for question, answer in absent],
        }
        options.json.write_text(to_json(sections, **facts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
