"""Ranked lists of different channels into one, and neighbours in time into one hit. Plain functions over values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from videochat_tools.types import TimeSpan

__all__ = [
    "RRF_K",
    "Found",
    "above_threshold",
    "fuse_lists",
    "fuse_ranks",
    "merge_neighbours",
    "most_per_video",
    "suppress_overlaps",
]

Key = TypeVar("Key", bound=Hashable)

RRF_K = 60  # of "Reciprocal rank fusion outperforms Condorcet", Cormack et al., SIGIR 2009


def above_threshold(probability: float, threshold: float) -> float:
    """A probability on a scale where 0.5 is the threshold of its channel (the difference of their log-odds).

    One channel may be sure from 0.95 on and another from 0.5; only on such a scale can they be weighed against
    each other. With a threshold of 0.5 nothing changes.
    """

    def odds(value: float) -> float:
        value = min(max(value, 1e-6), 1 - 1e-6)
        return value / (1 - value)

    ratio = odds(probability) / odds(threshold)
    return ratio / (1 + ratio)


def fuse_ranks(channels: Sequence[Mapping[Key, float]], *, k: int = RRF_K) -> dict[Key, float]:
    """Reciprocal rank fusion, each rank weighted by the channel's own belief in it.

    Plain fusion gives the first of every channel the same weight, so the best of a channel that found nothing of
    use would beat the second of one that is sure. The channels here give probabilities, so a place in a list counts
    ``probability / (k + rank)``.

    Args:
        channels: for each channel, the probability (0..1) of everything it found; its rank is its place by
            probability, ties in the order given.
        k: how slowly the weight falls with the rank.

    Returns:
        The fused score of everything found by any channel, best first.
    """
    fused: dict[Key, float] = {}
    for channel in channels:
        ranked = sorted(channel.items(), key=lambda item: -item[1])
        for rank, (key, probability) in enumerate(ranked, start=1):
            fused[key] = fused.get(key, 0.0) + probability / (k + rank)
    return dict(sorted(fused.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True)
class Found:
    """A stretch of a video that the channels found, on its way to a hit. Probabilities are 0..1."""

    video_id: str
    span: TimeSpan
    rank_score: float  # of fuse_ranks: orders the hits, means nothing by itself
    visual: float | None
    speech: float | None
    segments: tuple[int, ...]
    anchor: TimeSpan | None = None  # what it comes after or before, where that was asked

    @property
    def score(self) -> float:
        """The better of the two channels."""
        return max(self.visual or 0.0, self.speech or 0.0)

    def join(self, other: Found) -> Found:
        """Both stretches as one."""
        return Found(
            self.video_id,
            self.span.union(other.span),
            max(self.rank_score, other.rank_score),
            _larger(self.visual, other.visual),
            _larger(self.speech, other.speech),
            tuple(sorted({*self.segments, *other.segments})),
            self.anchor,
        )


def _larger(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def fuse_lists(lists: Sequence[Sequence[Found]], *, k: int = RRF_K) -> list[Found]:
    """What several wordings of one query found, as one list: the more of them find a stretch, the higher it comes.

    A stretch keeps its best probabilities. Best first.
    """
    best: dict[tuple[str, TimeSpan], Found] = {}
    for item in (item for found in lists for item in found):
        key = item.video_id, item.span
        best[key] = item if key not in best else best[key].join(item)
    ranks = fuse_ranks([{(item.video_id, item.span): item.score for item in found} for found in lists], k=k)
    return [replace(best[key], rank_score=rank) for key, rank in ranks.items()]


def merge_neighbours(
    found: Sequence[Found], *, good: Callable[[Found], bool], gap: float, tolerance: float, longest: float
) -> list[Found]:
    """Join touching stretches of one video which answer the query equally well.

    Args:
        found: any order.
        good: whether a stretch is a result at all; only such are joined.
        gap: seconds that may lie between two stretches that touch.
        tolerance: largest difference of their probabilities.
        longest: seconds that a joined stretch may have, so that a query that fits everything does not become the
            whole video.

    Returns:
        The stretches, best first.
    """

    def fit(one: Found, other: Found) -> bool:
        return (
            one.video_id == other.video_id
            and one.anchor is other.anchor is None  # what follows two anchors stays apart
            and other.span.start - one.span.end <= gap
            and good(one)
            and good(other)
            and abs(one.score - other.score) <= tolerance
            and one.span.union(other.span).duration <= longest
        )

    return _ranked(_joined(found, fit))


def _joined(found: Sequence[Found], fit: Callable[[Found, Found], bool]) -> list[Found]:
    merged: list[Found] = []
    for item in sorted(found, key=lambda item: (item.video_id, item.span)):
        if merged and fit(merged[-1], item):
            merged[-1] = merged[-1].join(item)
        else:
            merged.append(item)
    return merged


def suppress_overlaps(found: Sequence[Found], *, iou: float = 0.5) -> list[Found]:
    """Keep the best of stretches that show mostly the same time (non-maximum suppression), best first."""
    kept: list[Found] = []
    for item in _ranked(found):
        if all(item.video_id != other.video_id or item.span.iou(other.span) < iou for other in kept):
            kept.append(item)
    return kept


def most_per_video(found: Sequence[Found], most: int | None) -> list[Found]:
    """The first ``most`` stretches of each video (``None``: all), so that one video cannot fill the list."""
    if most is None:
        return list(found)
    seen: Counter[str] = Counter()
    kept = []
    for item in found:
        seen[item.video_id] += 1
        if seen[item.video_id] <= most:
            kept.append(item)
    return kept


def _ranked(found: Sequence[Found]) -> list[Found]:
    return sorted(found, key=lambda item: (-item.rank_score, item.video_id, item.span))
