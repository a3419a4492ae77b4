"""The settings of a search, with their ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass

from videochat_tools.retrievers.fusion import RRF_K

__all__ = ["RetrievalOptions"]


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """Settings of :class:`~videochat_tools.retrievers.temporal.HybridTemporalRetriever`.

    Raises:
        ValueError: one of them is out of its range.
    """

    candidates: int = 50  # segments that the matching head judges
    rerank: bool = True  # by the matching head of the encoder, where it has one; else by the similarity alone
    utterances: int = 200  # utterances that the words are compared with
    rrf_k: int = RRF_K
    merge_gap: float = 0.25  # seconds between two stretches that still touch
    merge_tolerance: float = 0.05  # difference of probability of neighbours that become one
    merge_longest: float = 32.0  # seconds of a joined stretch: twice the longest shot of the default segmenter
    sentence_gap: float = 2.0  # seconds between two utterances that may be one sentence
    overlap: float = 0.5  # intersection over union, 0..1, from which on the weaker of two stretches is left out
    per_video: int | None = None  # hits of one video at most; None: any number
    before: float = 0.0  # seconds of context that every hit begins earlier
    after: float = 0.0  # seconds of context that every hit ends later
    reach: float = 30.0  # seconds from the end of X within which "… after X" is looked for

    def __post_init__(self) -> None:
        if not 0 < self.overlap <= 1:
            raise ValueError(f"overlap must be above 0 and at most 1, got {self.overlap!r}")
        if self.per_video is not None and self.per_video < 1:
            raise ValueError(f"per_video must be at least 1, or None for any number, got {self.per_video!r}")
        for name in ("before", "after", "reach"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of seconds, 0 or more, got {value!r}")
