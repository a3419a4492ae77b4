"""What retrieval sees of a library: its catalog, its index and its kept features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import VideoEncoder
from videochat_tools.errors import LibraryError, UnknownVideoError
from videochat_tools.library.catalog import Catalog
from videochat_tools.library.ingest import FEATURES
from videochat_tools.library.token_cache import TokenCache, cache_key
from videochat_tools.library.vector_index import VectorIndex
from videochat_tools.retrievers.temporal import SpokenMatch, VisualCandidate
from videochat_tools.types import Segment, TimeSpan, Utterance, VideoRecord

__all__ = ["LibrarySource", "said_during", "words_within"]


class LibrarySource:
    """A :class:`~videochat_tools.retrievers.temporal.RetrievalSource` over the files of one library."""

    def __init__(self, catalog: Catalog, cache: TokenCache, index: VectorIndex, encoder: VideoEncoder) -> None:
        self._catalog = catalog
        self._cache = cache
        self._index = index
        self._encoder = encoder

    def similar_segments(
        self, vector: npt.NDArray[np.float32], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> list[VisualCandidate]:
        """The ``k`` segments that are most similar to the vector of a text, best first."""
        index, missing = self._index.current()
        lacking = [name for id, name in missing.items() if videos is None or id in videos]
        if lacking:
            raise LibraryError(
                f"not looked at by this video encoder ({self._encoder.fingerprint}): {_listed(lacking)}; add "
                f"{'them' if len(lacking) > 1 else 'it'} again, or open the library with the encoder it was made with"
            )
        fingerprint = self._encoder.fingerprint
        allowed = None if videos is None and span is None else self._catalog.vector_ids(fingerprint, videos, span)
        scores, ids = index.search(vector, k, allowed=allowed)
        segments = self._catalog.segments_of(ids.tolist())
        found = [(segments[id], float(score)) for id, score in zip(ids.tolist(), scores, strict=True) if id in segments]
        features = {video_id: self._features(video_id) for video_id in {segment.video_id for segment, _ in found}}
        candidates = []
        for segment, score in found:
            kept = features[segment.video_id]
            candidates.append(VisualCandidate(segment, score, None if kept is None else kept[segment.index]))
        return candidates

    def _features(self, video_id: str) -> npt.NDArray[np.float16] | None:
        if not self._encoder.keeps_features:
            return None
        spans = [segment.span for segment in self._catalog.segments(video_id)]
        kept = self._cache.read_array(video_id, FEATURES, cache_key(self._encoder.fingerprint, spans))
        if kept is None:
            record = self._catalog.video(video_id)
            raise LibraryError(
                f"the cache of {record.name if record else video_id} is gone from {self._cache.folder}; "
                "add the video again to make it"
            )
        return kept

    def spoken(
        self, words: Sequence[str], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> tuple[list[SpokenMatch], dict[str, float]]:
        """The ``k`` best utterances with any of the words, and the weight of each word."""
        return self._catalog.spoken(words, k, videos, span)

    def segments_during(self, video_id: str, span: TimeSpan) -> list[Segment]:
        """The segments of one video that overlap a span, in order of time."""
        return self._catalog.segments(video_id, span)

    def said_during(self, video_id: str, span: TimeSpan) -> str:
        """The utterances that lie in the span for the most part, or fill most of it."""
        return said_during(self._catalog, video_id, span)

    def record(self, video_id: str) -> VideoRecord:
        """The video with this id."""
        record = self._catalog.video(video_id)
        if record is None:
            raise UnknownVideoError(f"the video {video_id} was removed while it was searched; search again")
        return record


def said_during(catalog: Catalog, video_id: str, span: TimeSpan) -> str:
    """The utterances that lie in the span for the most part, or fill most of it."""
    return words_within(catalog.utterances(video_id, span), span)


def words_within(utterances: Iterable[Utterance], span: TimeSpan) -> str:
    """The words of those utterances, all of them near the span, that mostly lie in it or fill most of it."""
    said = []
    for item in utterances:
        shared = item.span.intersection(span)
        if 2 * shared >= item.span.duration or 2 * shared >= span.duration:
            said.append(item.text.strip())
    return " ".join(said)


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
