"""Finding the moment that a sentence describes: candidate windows of a video, and how good predicted ones are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import VideoEncoder, text_similarity
from videochat_tools.evaluation.benchmarks.base import Benchmark, Context, Record
from videochat_tools.evaluation.benchmarks.footage import frames_at
from videochat_tools.media import probe, uniform_times
from videochat_tools.types import TimeSpan

__all__ = [
    "IOU_THRESHOLDS",
    "MomentBenchmark",
    "MomentItem",
    "average_precisions",
    "candidate_windows",
    "overlaps",
    "without_overlaps",
]

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MOST_PREDICTIONS = 10  # windows of one query, as in the released QVHighlights evaluation
SHORTEST_WINDOW = 2.0  # seconds; the clips of QVHighlights

Windows = npt.NDArray[np.float64]
"""[n, 2]: start and end in seconds."""


@dataclass(frozen=True, slots=True)
class MomentItem:
    """A sentence, and where in its video it is true; ``duration`` of the video in seconds where annotations tell it."""

    id: str
    video: str
    path: Path
    question: str
    windows: tuple[TimeSpan, ...]
    duration: float | None = None


def overlaps(one: Windows, other: Windows) -> npt.NDArray[np.float64]:
    """Intersection over union of every window with every other, [n, m]; 0 where both have no length."""
    shared = np.minimum(one[:, None, 1], other[None, :, 1]) - np.maximum(one[:, None, 0], other[None, :, 0])
    shared = np.maximum(shared, 0.0)
    union = (one[:, 1] - one[:, 0])[:, None] + (other[:, 1] - other[:, 0])[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def average_precisions(truth: Windows, predicted: Windows, thresholds: Sequence[float]) -> list[float]:
    """Average precision of windows in order of confidence, interpolated at every recall that is reached.

    A prediction takes the free true window that it overlaps most; it is wrong when that overlap is below the
    threshold, or when all such windows are taken. One figure for each threshold.
    """
    shared = overlaps(predicted, truth)
    best_first = np.argsort(-shared, axis=1, kind="stable").tolist()
    return [_average_precision(shared.tolist(), best_first, threshold) for threshold in thresholds]


def _average_precision(shared: list[list[float]], best_first: list[list[int]], threshold: float) -> float:
    taken: set[int] = set()
    precisions = []  # at every prediction that is right
    for number, (row, order) in enumerate(zip(shared, best_first, strict=True), 1):
        place = next((place for place in order if place not in taken and row[place] >= threshold), None)
        if place is not None:
            taken.add(place)
            precisions.append(len(taken) / number)
    best, total = 0.0, 0.0
    for precision in reversed(precisions):
        best = max(best, precision)
        total += best
    return total / len(shared[0]) if shared else 0.0


def candidate_windows(duration: float, shortest: float = SHORTEST_WINDOW) -> list[TimeSpan]:
    """Windows of several lengths, each twice the one before, half a window apart; the whole video is the last."""
    windows, length = [], shortest
    while length < duration:
        step = length if length == shortest else length / 2
        count = int(np.ceil((duration - length) / step - 1e-9)) + 1
        starts = [min(number * step, duration - length) for number in range(count)]
        windows += [TimeSpan(start, start + length) for start in starts]
        length *= 2
    return [*windows, TimeSpan(0.0, duration)]


def without_overlaps(windows: Sequence[TimeSpan], most: int, iou: float = 0.5) -> list[int]:
    """Places of the first windows, best first, of which no two overlap by more."""
    kept: list[int] = []
    for place, window in enumerate(windows):
        if len(kept) < most and not any(window.iou(windows[other]) > iou for other in kept):
            kept.append(place)
    return kept


class MomentBenchmark(Benchmark[MomentItem]):
    """The encoder looks at windows of several lengths, and gives those that are most similar to the sentence."""

    uses: ClassVar[tuple[str, ...]] = ("encoder",)
    controls: ClassVar[tuple[str, ...]] = ("blank",)
    senseless: ClassVar[Mapping[str, str]] = {
        "text-only": "an encoder compares the sentence with windows of the video, and without a video there are none",
        "uniform": "every window of the video is looked at, so that there is no choice of frames to compare with",
    }

    def __init__(self, items: Sequence[MomentItem]) -> None:
        self._items = list(items)
        self._seen: tuple[Path, bool, list[TimeSpan], npt.NDArray[np.float32]] | None = None

    @property
    def items(self) -> Sequence[MomentItem]:
        """All sentences."""
        return self._items

    def is_there(self, item: MomentItem) -> bool:
        """Whether its video is on this machine."""
        return item.path.is_file()

    def measure(self, item: MomentItem, context: Context) -> Record:
        """Windows, best first, and the similarity of every shortest one in order of time."""
        encoder, blank = context.models.encoder, context.control == "blank"
        windows, vectors = self._look(item, encoder, blank)
        similarity = text_similarity(encoder.embed_texts([item.question]), vectors)[0]
        lengths = np.array([window.duration for window in windows])
        order = np.lexsort((-lengths, -similarity))  # of equal ones the longest, which holds the others
        ranked = [windows[place] for place in order]
        kept = without_overlaps(ranked, MOST_PREDICTIONS)
        clips = sum(1 for window in windows[:-1] if window.duration <= SHORTEST_WINDOW + 1e-9)
        scores = np.round(similarity[order].astype(float), 4).tolist()
        return {
            "predicted": [[round(ranked[n].start, 3), round(ranked[n].end, 3), scores[n]] for n in kept],
            "saliency": [round(float(value), 4) for value in similarity[:clips]],
        }

    def _look(
        self, item: MomentItem, encoder: VideoEncoder, blank: bool
    ) -> tuple[list[TimeSpan], npt.NDArray[np.float32]]:
        """Windows and vectors of a video; those of the last are kept, since many sentences are about one video."""
        if self._seen is None or self._seen[:2] != (item.path, blank):
            windows = candidate_windows(item.duration or probe(item.path).duration)
            self._seen = item.path, blank, windows, _embed(item.path, windows, encoder, blank)
        return self._seen[2:]


def _embed(path: Path, windows: Sequence[TimeSpan], encoder: VideoEncoder, blank: bool) -> npt.NDArray[np.float32]:
    """Vectors [n, rows, dimension] of windows; every frame is decoded once."""
    count, size = encoder.num_frames, encoder.frame_size
    if blank:
        one = encoder.embed_clips(np.zeros((1, count, size, size, 3), np.uint8)).vectors
        return one.repeat(len(windows), axis=0)
    wanted = [uniform_times(window, count) for window in windows]
    times = sorted({round(time, 3) for clip in wanted for time in clip})
    frames = dict(zip(times, frames_at(path, times, size).frames, strict=True))
    vectors = [
        encoder.embed_clips(np.stack([frames[round(time, 3)] for time in clip])[None]).vectors for clip in wanted
    ]
    return np.concatenate(vectors)


def predicted_windows(record: Mapping[str, Any]) -> Windows:
    """The windows of a record without their scores, best first."""
    return np.array([window[:2] for window in record.get("predicted", ())], np.float64).reshape(-1, 2)


def true_windows(item: MomentItem) -> Windows:
    """The windows of an item as an array."""
    return np.array([(window.start, window.end) for window in item.windows], np.float64).reshape(-1, 2)
