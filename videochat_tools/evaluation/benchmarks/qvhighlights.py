"""QVHighlights (Lei et al. 2021, arXiv 2107.09609): windows and highlights of a sentence in videos of 150 s."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from videochat_tools.evaluation.benchmarks.base import Record, Sections, check_ids, mean_of, share_of
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_rows
from videochat_tools.evaluation.benchmarks.moments import (
    IOU_THRESHOLDS,
    MOST_PREDICTIONS,
    MomentBenchmark,
    MomentItem,
    average_precisions,
    overlaps,
    predicted_windows,
    true_windows,
)
from videochat_tools.evaluation.statistics import Mean, Score
from videochat_tools.types import TimeSpan

__all__ = ["QVHighlights", "read_predictions"]

CLIP = 2.0  # seconds
RANGES = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}  # lengths of true windows, seconds
GRADES = {"fair": 2, "good": 3, "very good": 4}  # least score by a rater for a clip to count


@dataclass(frozen=True, slots=True)
class _Highlights:
    """Scores [clips, raters] of all clips of a video; 0 where none was given."""

    scores: npt.NDArray[np.int64]


class QVHighlights(MomentBenchmark):
    """``highlight_val_release.jsonl`` (or ``highlight_test_with_gt.jsonl``) and ``videos/VID.mp4``.

    All metrics are those of the released evaluation, down to the way it interpolates.
    """

    name: ClassVar[str] = "qvhighlights"

    def __init__(self, data: Path) -> None:
        path = find_annotations(data, "highlight_val_release.jsonl", "highlight_test_with_gt.jsonl")
        rows = read_rows(path)
        self._highlights = {row.text("qid"): _highlights(row) for row in rows}
        super().__init__(check_ids([_item(row, data) for row in rows], path))

    def score(self, items: Sequence[MomentItem], records: Mapping[str, Record]) -> Sections:
        """Windows: R1 and mean average precision, also by length of the true windows; highlights: mAP and Hit@1."""
        sections: Sections = {"windows": _window_scores(items, records)}
        for name, (low, high) in RANGES.items():
            part = [_only(item, low, high) for item in items]
            sections[f"windows, {name}"] = _window_scores([item for item in part if item.windows], records)
        highlights: list[Score | Mean] = []
        for name, least in GRADES.items():
            precise = partial(self._highlight, records=records, least=least, measure=_highlight_precision)
            first = partial(self._highlight, records=records, least=least, measure=_highlight_hit)
            highlights += [
                mean_of(f"mAP, {name}", items, precise),
                share_of(f"Hit@1, {name}", items, partial(_is_one, measure=first)),
            ]
        return {**sections, "highlights": highlights}

    def _highlight(
        self,
        item: MomentItem,
        *,
        records: Mapping[str, Record],
        least: int,
        measure: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.float64]], float],
    ) -> float:
        given = np.array(records[item.id].get("saliency", ()), np.float64)
        return measure(self._highlights[item.id].scores >= least, given) if len(given) else 0.0


def read_predictions(path: Path) -> dict[str, Record]:
    """Records from a file in the released form of predictions, one JSON object a line."""
    return {
        row.text("qid"): {
            "id": row.text("qid"),
            "status": "answered",
            "predicted": row.items("pred_relevant_windows"),
            "saliency": row.fields.get("pred_saliency_scores", []),
        }
        for row in read_rows(path)
    }


def _window_scores(items: Sequence[MomentItem], records: Mapping[str, Record]) -> list[Score | Mean]:
    precisions = {
        item.id: average_precisions(
            true_windows(item), predicted_windows(records[item.id])[:MOST_PREDICTIONS], IOU_THRESHOLDS
        )
        for item in items
    }

    def reaches(item: MomentItem, level: float) -> bool:
        return _best(item, records[item.id]) >= level

    def precision(item: MomentItem, level: float) -> float:
        return precisions[item.id][IOU_THRESHOLDS.index(level)]

    return [
        *(share_of(f"R1@{level}", items, partial(reaches, level=level)) for level in (0.5, 0.7)),
        *(mean_of(f"mAP@{level}", items, partial(precision, level=level)) for level in (0.5, 0.75)),
        mean_of("mAP", items, lambda item: float(np.mean(precisions[item.id]))),
    ]


def _best(item: MomentItem, record: Record) -> float:
    """Overlap of the first prediction with the true window that it overlaps most."""
    first = predicted_windows(record)[:1]
    return float(overlaps(first, true_windows(item)).max()) if len(first) else 0.0


def _highlight_precision(truth: npt.NDArray[np.bool_], given: npt.NDArray[np.float64]) -> float:
    """Average precision of ranking the clips, mean over the raters; a rater without any highlight counts 0."""
    padded = np.zeros(len(truth))
    padded[: len(given)] = given[: len(truth)]
    return float(np.mean([_ranking_precision(truth[:, rater], padded) for rater in range(truth.shape[1])]))


def _ranking_precision(truth: npt.NDArray[np.bool_], given: npt.NDArray[np.float64]) -> float:
    if truth.all() or not truth.any():
        return float(truth.all())
    levels, inverse = np.unique(-given, return_inverse=True)  # equal scores stand or fall together
    right = np.cumsum(np.bincount(inverse, weights=truth, minlength=len(levels)))
    precision = right / np.cumsum(np.bincount(inverse, minlength=len(levels)))
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    gained = np.diff(right, prepend=0.0) > 0  # the mean is over the recalls that are reached, not over the clips
    return float(best_from_here[gained].mean())


def _highlight_hit(truth: npt.NDArray[np.bool_], given: npt.NDArray[np.float64]) -> float:
    """Whether any rater has the best clip among the highlights."""
    best = int(given.argmax())
    return float(best < len(truth) and truth[best].any())


def _is_one(item: MomentItem, *, measure: Callable[[MomentItem], float]) -> bool:
    return measure(item) == 1.0


def _only(item: MomentItem, low: float, high: float) -> MomentItem:
    kept = tuple(window for window in item.windows if low < window.duration <= high)
    return replace(item, windows=kept)


def _highlights(row: Row) -> _Highlights:
    clips = int(row.number_of("duration") / CLIP)
    ids, given = row.wholes("relevant_clip_ids"), row.items("saliency_scores")
    if len(ids) != len(given) or any(not isinstance(each, list) or len(each) != len(given[0]) for each in given):
        raise row.error("'saliency_scores' must hold as many scores for each of 'relevant_clip_ids'")
    if not all(isinstance(score, int) for raters in given for score in raters):
        raise row.error(f"'saliency_scores' must be whole numbers, got {given!r}")
    scores = np.zeros((clips, len(given[0])), np.int64)
    for clip, raters in zip(ids, given, strict=True):
        if not 0 <= clip < clips:
            raise row.error(f"'relevant_clip_ids' must be 0 to {clips - 1}, got {clip!r}")
        scores[clip] = raters
    return _Highlights(scores)


def _item(row: Row, data: Path) -> MomentItem:
    windows: list[TimeSpan] = []
    for window in row.items("relevant_windows"):
        if not isinstance(window, list) or len(window) != 2:
            raise row.error(f"'relevant_windows' must be pairs of seconds, got {window!r}")
        windows.append(row.span(*window))
    video = row.text("vid")
    path = find_file(data, f"videos/{video}.mp4", f"{video}.mp4")
    return MomentItem(row.text("qid"), video, path, row.text("query"), tuple(windows), row.number_of("duration"))
