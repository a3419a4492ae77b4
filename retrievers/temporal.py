"""Hybrid retrieval of stretches of time: what is seen and what is said, fused, neighbours joined."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import VideoEncoder
from videochat_tools.retrievers.fusion import (
    Found,
    above_threshold,
    fuse_lists,
    fuse_ranks,
    merge_neighbours,
    most_per_video,
    suppress_overlaps,
)
from videochat_tools.retrievers.options import RetrievalOptions
from videochat_tools.retrievers.query import Query, analyse
from videochat_tools.types import SearchHit, Segment, TimeSpan, VideoRecord

__all__ = [
    "CHANNELS",
    "HybridTemporalRetriever",
    "RetrievalSource",
    "SpokenMatch",
    "VisualCandidate",
    "speech_probability",
]

CHANNELS = ("visual", "speech")


@dataclass(frozen=True, slots=True)
class VisualCandidate:
    """A segment near the query. ``features``: float16 [tokens, width] for :meth:`VideoEncoder.match`, if kept."""

    segment: Segment
    similarity: float
    features: npt.NDArray[np.float16] | None


@dataclass(frozen=True, slots=True)
class SpokenMatch:
    """An utterance with at least one of the words. ``words``: which ones; ``bm25``: at least 0, higher is better."""

    video_id: str
    index: int  # number of the utterance in its video
    span: TimeSpan
    words: frozenset[str]
    bm25: float


class RetrievalSource(Protocol):
    """What retrieval needs of a library. ``videos`` are ids, ``None`` means all; ``span`` filters by overlap."""

    def similar_segments(
        self, vector: npt.NDArray[np.float32], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> list[VisualCandidate]:
        """The ``k`` segments that are most similar to the vector of a text, best first."""
        ...

    def spoken(
        self, words: Sequence[str], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> tuple[list[SpokenMatch], dict[str, float]]:
        """The ``k`` best utterances with any of the words, and the weight (inverse document frequency) of each."""
        ...

    def segments_during(self, video_id: str, span: TimeSpan) -> list[Segment]:
        """The segments of one video that overlap a span, in order of time."""
        ...

    def said_during(self, video_id: str, span: TimeSpan) -> str:
        """The words that belong to a span."""
        ...

    def record(self, video_id: str) -> VideoRecord:
        """The video with this id."""
        ...


_SHORTEST_PART = 1.0  # second of a segment beside an anchor that is worth looking at


@dataclass(frozen=True, slots=True)
class _Where:
    """Where to search, and for how much."""

    k: int
    videos: Collection[str] | None
    span: TimeSpan | None
    channels: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A stretch that the words were found in: one utterance, or two that make one sentence."""

    video_id: str
    span: TimeSpan
    probability: float


def speech_probability(coverage: float, bm25: float) -> float:
    """How much an utterance looks like the one asked for, 0..1.

    Mostly the share of the query's words that it holds, each weighted by how rare it is: that share means the same
    in a library of three utterances and of three million, which BM25 does not. BM25 decides between equals.
    """
    return coverage * (0.8 + 0.2 * bm25 / (bm25 + 2.0))


class HybridTemporalRetriever:
    """Finds stretches of video by picture and by words."""

    def __init__(self, source: RetrievalSource, encoder: VideoEncoder, options: RetrievalOptions | None = None) -> None:
        self.source = source
        self.encoder = encoder
        self.options = options or RetrievalOptions()

    def search(
        self,
        query: str | Query | Sequence[str | Query],
        *,
        k: int = 5,
        videos: Collection[str] | None = None,
        span: TimeSpan | None = None,
        channels: Collection[str] = CHANNELS,
    ) -> list[SearchHit]:
        """The stretches that a question or description is about, best first.

        Args:
            query: as a person writes it, or taken apart already; or several wordings of one query.
            k: how many at most.
            videos: ids of the videos to look in; ``None`` means all.
            span: window of time; hits are clipped to it.
            channels: what to go by: ``"visual"``, ``"speech"`` or both.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        unknown = sorted(set(channels) - set(CHANNELS))
        if unknown or not channels:
            raise ValueError(f"channels must be among {', '.join(CHANNELS)}, got {', '.join(unknown) or 'none'}")
        wordings = [query] if isinstance(query, str | Query) else list(query)
        if not wordings:
            raise ValueError("a search needs at least one wording of the query, got none")
        where = _Where(k, videos, span, frozenset(channels))
        lists = [self._find(analyse(each) if isinstance(each, str) else each, where) for each in wordings]
        options = self.options
        found = lists[0] if len(lists) == 1 else fuse_lists(lists, k=options.rrf_k)
        found = merge_neighbours(
            suppress_overlaps(found, iou=options.overlap),
            good=self._is_sure,
            gap=options.merge_gap,
            tolerance=options.merge_tolerance,
            longest=options.merge_longest,
        )
        return [self._hit(item, span) for item in most_per_video(found, options.per_video)[:k]]

    def _find(self, query: Query, where: _Where) -> list[Found]:
        """What one query finds, before neighbours are joined."""
        if query.anchor is not None:
            return self._find_beside(query, query.anchor, where)
        looked = query.visual if "speech" in where.channels else query.visual or query.text
        seen = self._look(looked, where) if "visual" in where.channels else []
        heard = self._listen(query.speech, where) if "speech" in where.channels else []
        return self._fuse(seen, heard)

    def _is_sure(self, found: Found) -> bool:
        return self.encoder.calibration.accepts(found.visual, found.speech)

    # -------------------------------------------------------------------------------------------- moving in time

    def _find_beside(self, query: Query, anchor: Query, where: _Where) -> list[Found]:
        """What comes after or before the anchors, wherever these are; the anchors themselves are not among it."""
        anchors = suppress_overlaps(self._find(anchor, replace(where, span=None)), iou=self.options.overlap)
        anchors = [item for item in anchors if self._is_sure(item)] or anchors[:1]
        return [moved for item in anchors[: where.k] for moved in self._moved(query, item, where)]

    def _moved(self, query: Query, anchor: Found, where: _Where) -> list[Found]:
        """What the query looks for beside one anchor; where it describes nothing, the part of the video beside it."""
        window = self._beside(anchor, query.relation == "after", where.span)
        if window is None:
            return []
        described = {"visual": query.visual, "speech": " ".join(query.speech)}
        if not any(described[channel] for channel in where.channels):
            return self._neighbour(query, anchor, window)
        target = replace(query, text=query.visual, anchor=None, relation=None)
        found = self._find(target, replace(where, videos=[anchor.video_id], span=window))
        return [
            replace(
                item,
                span=_clipped(item.span, window),
                rank_score=anchor.score * item.rank_score,
                visual=self._both(item.visual, anchor),
                speech=self._both(item.speech, anchor),
                anchor=anchor.span,
            )
            for item in found
        ]

    def _beside(self, anchor: Found, later: bool, span: TimeSpan | None) -> TimeSpan | None:
        """The part of the anchor's video to look in; ``None`` where there is none."""
        start, end = anchor.span.end, anchor.span.end + self.options.reach
        if not later:
            start, end = max(0.0, anchor.span.start - self.options.reach), anchor.span.start
        end = min(end, self.source.record(anchor.video_id).info.duration)
        if span is not None:
            start, end = max(start, span.start), min(end, span.end)
        return TimeSpan(start, end) if end > start else None

    def _neighbour(self, query: Query, anchor: Found, window: TimeSpan) -> list[Found]:
        """The segment next to the anchor; the next with words in it, where the answer is something said.

        What is left of the segment that the anchor lies in counts as one, unless that is next to nothing.
        """
        parts = [
            (segment, _clipped(segment.span, window))
            for segment in self.source.segments_during(anchor.video_id, window)
        ]
        if query.relation == "before":
            parts.reverse()
        if query.asks_speech:
            parts = [(segment, part) for segment, part in parts if self.source.said_during(anchor.video_id, part)]
        long = [(segment, part) for segment, part in parts if part.duration >= _SHORTEST_PART]
        for segment, part in (long or parts)[:1]:
            return [replace(anchor, span=part, segments=(segment.index,), anchor=anchor.span)]
        return []

    def _both(self, probability: float | None, anchor: Found) -> float | None:
        """That of a find and of its anchor: no more than the anchor's own, where that is unsure."""
        if probability is None or self._is_sure(anchor):
            return probability
        return min(probability, anchor.score)

    # ------------------------------------------------------------------------------------------------ the channels

    def _look(self, text: str, where: _Where) -> list[tuple[Segment, float]]:
        """Segments with their visual probability, best first."""
        if not text.strip():
            return []
        text = self.encoder.calibration.in_known_words(text)
        vector = self.encoder.embed_texts([text])[0]
        count = max(self.options.candidates, 4 * where.k)
        candidates = self.source.similar_segments(vector, count, where.videos, where.span)
        if not candidates:
            return []
        similarity = np.array([candidate.similarity for candidate in candidates], np.float32)
        logits = self.encoder.calibration.similarity_logit(similarity)
        features = [candidate.features for candidate in candidates if candidate.features is not None]
        if self.options.rerank and len(features) == len(candidates):
            logits = self.encoder.calibration.judged_logit(similarity, self.encoder.match(text, np.stack(features)))
        probabilities = 1 / (1 + np.exp(-logits))
        judged = zip(candidates, probabilities.tolist(), strict=True)

        def order(item: tuple[VisualCandidate, float]) -> tuple[float, float, str, int]:
            # A sure matching head rounds to the same probability for many; then the nearer segment goes first.
            candidate, probability = item
            return -probability, -candidate.similarity, candidate.segment.video_id, candidate.segment.index

        return [(candidate.segment, probability) for candidate, probability in sorted(judged, key=order)]

    def _listen(self, words: Sequence[str], where: _Where) -> list[_Spoken]:
        """Stretches in which the words are said, in order of time."""
        if not words:
            return []
        matches, weights = self.source.spoken(words, self.options.utterances, where.videos, where.span)
        total = sum(weights.values())

        def probability(*parts: SpokenMatch) -> float:
            said = frozenset[str]().union(*(part.words for part in parts))
            return speech_probability(sum(weights[word] for word in said) / total, max(p.bm25 for p in parts))

        found: list[_Spoken] = []
        last: SpokenMatch | None = None
        for match in sorted(matches, key=lambda match: (match.video_id, match.index)):
            if last is not None and self._one_sentence(last, match):
                found[-1] = _Spoken(match.video_id, last.span.union(match.span), probability(last, match))
                last = None  # two at most: a third has to stand for itself
                continue
            found.append(_Spoken(match.video_id, match.span, probability(match)))
            last = match
        return found

    def _one_sentence(self, one: SpokenMatch, other: SpokenMatch) -> bool:
        """Whether two utterances follow each other and hold more of the words together than each alone."""
        return (
            one.video_id == other.video_id
            and other.index == one.index + 1
            and other.span.start - one.span.end <= self.options.sentence_gap
            and not one.words <= other.words
            and not other.words <= one.words
        )

    # -------------------------------------------------------------------------------------------------- the fusion

    def _fuse(self, seen: Sequence[tuple[Segment, float]], heard: Sequence[_Spoken]) -> list[Found]:
        """Both channels on common ground: a stretch of speech counts for the segment that most of it lies in."""
        visual = {(segment.video_id, segment.index): probability for segment, probability in seen}
        segments = {(segment.video_id, segment.index): segment for segment, _ in seen}
        speech: dict[tuple[str, int], _Spoken] = {}
        touched: dict[tuple[str, int], set[int]] = {}
        for stretch in heard:
            around = self.source.segments_during(stretch.video_id, stretch.span)
            if not around:
                continue
            home = max(around, key=lambda segment: segment.span.intersection(stretch.span))
            key = (home.video_id, home.index)
            segments[key] = home
            touched.setdefault(key, set()).update(segment.index for segment in around)
            best = speech.get(key)
            if best is not None:
                stretch = _Spoken(
                    best.video_id, best.span.union(stretch.span), max(best.probability, stretch.probability)
                )
            speech[key] = stretch
        calibration = self.encoder.calibration
        ranks = fuse_ranks(
            [
                {key: above_threshold(value, calibration.match_threshold) for key, value in visual.items()},
                {key: above_threshold(item.probability, calibration.speech_threshold) for key, item in speech.items()},
            ],
            k=self.options.rrf_k,
        )
        return [
            self._found(segments[key], rank, visual.get(key), speech.get(key), touched.get(key, set()))
            for key, rank in ranks.items()
        ]

    def _found(
        self, segment: Segment, rank: float, visual: float | None, spoken: _Spoken | None, touched: Collection[int]
    ) -> Found:
        """One segment as found: its span is where the channels found something, not all that they looked at."""
        if spoken is None:
            return Found(segment.video_id, segment.span, rank, visual, None, (segment.index,))
        speech, calibration = spoken.probability, self.encoder.calibration
        is_seen, is_heard = calibration.accepts(visual, None), calibration.accepts(None, speech)
        indices = tuple(sorted({segment.index, *touched}))
        if is_seen and is_heard:
            return Found(segment.video_id, segment.span.union(spoken.span), rank, visual, speech, indices)
        if is_seen or (visual is not None and not is_heard and visual > speech):
            return Found(segment.video_id, segment.span, rank, visual, speech, (segment.index,))
        return Found(segment.video_id, spoken.span, rank, visual, speech, indices)

    def _hit(self, found: Found, window: TimeSpan | None) -> SearchHit:
        record = self.source.record(found.video_id)
        options, length = self.options, record.info.duration
        span = found.span
        if options.before or options.after:
            end = max(span.end, min(span.end + options.after, length))
            span = TimeSpan(max(0.0, span.start - options.before), end)
        if window is not None:
            span = _clipped(span, window)
        return SearchHit(
            video_id=found.video_id,
            video=record.name,
            uri=record.path.absolute().as_uri(),
            span=span,
            score=found.score,
            visual=found.visual,
            speech=found.speech,
            segments=found.segments,
            text=self.source.said_during(found.video_id, span),
            anchor=found.anchor,
        )


def _clipped(span: TimeSpan, window: TimeSpan) -> TimeSpan:
    """The part of a span that lies in the window."""
    start = min(max(span.start, window.start), window.end)
    return TimeSpan(start, max(start, min(span.end, window.end)))
