"""Samples that could not be shown: which, why, and how often."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Failures"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Failures:
    """What this process could not read, and showed other samples of the same corpus for.

    Attributes:
        counts: By path of the medium, or by annotation file and entry: how often.
        reasons: By the same: why, the first time.
    """

    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, reason: str) -> None:
        """Count one; the first of a place is told in the log."""
        self.counts[place] = self.counts.get(place, 0) + 1
        if place not in self.reasons:
            self.reasons[place] = reason
            _log.warning("left out and replaced by another sample: %s", reason)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def total(self) -> int:
        """Samples that were replaced, each time counted."""
        return sum(self.counts.values())

    def report(self) -> str:
        """All of them, one a line, the most frequent first; empty if all could be read."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        lines = [f"{count:>6} x  {self._told(place)}" for place, count in ordered]
        return "\n".join([f"{self.total} samples of {len(self)} media could not be read:", *lines]) if lines else ""

    def _told(self, place: str) -> str:
        reason = self.reasons[place]
        return reason if place in reason else f"{place}: {reason}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: a list of ``{path, reason, count}``."""
        return {
            "total": self.total,
            "media": [
                {"path": place, "reason": self.reasons[place], "count": count} for place, count in self.counts.items()
            ],
        }
