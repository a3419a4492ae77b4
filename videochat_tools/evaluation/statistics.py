"""Scores with their uncertainty, and tables of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "Mean",
    "Score",
    "cluster_mean",
    "cluster_rate",
    "markdown_table",
    "rate",
    "to_json",
    "wilson_interval",
]

Z_95 = 1.959964  # standard normal quantile of 0.975


@dataclass(frozen=True, slots=True)
class Score:
    """``correct`` of ``total`` answers are right; ``low`` and ``high`` bound the true share with 95 % confidence.

    ``chance`` is what guessing would reach, ``None`` where that is not defined.
    """

    name: str
    correct: int
    total: int
    low: float
    high: float
    chance: float | None = None

    @property
    def value(self) -> float:
        """Share of right answers; NaN where nothing was asked."""
        return self.correct / self.total if self.total else math.nan

    def __str__(self) -> str:
        chance = "" if self.chance is None else f", chance {self.chance:.2f}"
        return (
            f"{self.name}: {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.correct} of {self.total}{chance})"
        )


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of ``total`` values that are not just right or wrong; fields as those of :class:`Score`."""

    name: str
    value: float
    total: int
    low: float
    high: float
    chance: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (mean of {self.total})"


def wilson_interval(correct: float, total: float, z: float = Z_95) -> tuple[float, float]:
    """Bounds of a share that was seen as ``correct`` of ``total``.

    Wilson's score interval: it keeps its promise for small counts and shares near 0 and 1, where the usual
    ``p ± z·se`` does not. (0, 1) without any trial. Counts may be effective ones, and so no whole numbers.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"an interval needs 0 <= correct <= total, got {correct} of {total}")
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    # At the ends the bound is exactly 0 or 1, which rounding would miss by a little.
    return (0.0 if correct == 0 else max(0.0, middle - half)), (1.0 if correct == total else min(1.0, middle + half))


def rate(name: str, outcomes: Iterable[bool], chance: float | None = None) -> Score:
    """Score of independent right and wrong answers."""
    results = [bool(outcome) for outcome in outcomes]
    correct, total = sum(results), len(results)
    return Score(name, correct, total, *wilson_interval(correct, total), chance)


def cluster_rate(name: str, clusters: Mapping[str, Sequence[bool]], chance: float | None = None) -> Score:
    """Score of right and wrong answers that hang together, such as those about one video.

    Wilson's interval at the effective number of answers, which is their number over the design effect: the variance
    of the share between clusters (ratio estimator), divided by that of independent answers, and never below 1 (Korn
    and Graubard 1998, Survey Methodology 24; Dean and Pagano 2015, J. Survey Statistics and Methodology 3). Where all
    answers are right, or all wrong, every cluster counts once; a single cluster is a single trial.
    """
    groups = [(sum(map(bool, outcomes)), len(outcomes)) for outcomes in clusters.values() if outcomes]
    correct, total = sum(right for right, _ in groups), sum(count for _, count in groups)
    share = correct / total if total else 0.0
    effective = float(len(groups))
    if 0 < correct < total and len(groups) > 1:
        scatter = sum((right - share * count) ** 2 for right, count in groups)
        variance = scatter * len(groups) / (len(groups) - 1) / total**2
        effective = total / max(1.0, variance * total / (share * (1 - share)))
    low, high = wilson_interval(share * effective, effective)
    return Score(name, correct, total, low, high, chance)


def cluster_mean(name: str, clusters: Mapping[str, Sequence[float]], chance: float | None = None) -> Mean:
    """Mean of values that hang together, with the normal interval of the ratio estimator over the clusters.

    With fewer than two clusters nothing is known about how they differ; the interval is then (-inf, inf).
    """
    groups = [(math.fsum(values), len(values)) for values in clusters.values() if values]
    total = sum(count for _, count in groups)
    value = math.fsum(part for part, _ in groups) / total if total else math.nan
    if len(groups) < 2:
        return Mean(name, value, total, -math.inf, math.inf, chance)
    scatter = math.fsum((part - value * count) ** 2 for part, count in groups)
    half = Z_95 * math.sqrt(scatter * len(groups) / (len(groups) - 1)) / total
    return Mean(name, value, total, value - half, value + half, chance)


def markdown_table(scores: Iterable[Score | Mean], first: str = "measure") -> str:
    """The scores as a Markdown table, one a line."""
    lines = [f"| {first} | right | 95 % interval | chance | n |", "|---|---|---|---|---|"]
    for score in scores:
        chance = "–" if score.chance is None else f"{score.chance:.3f}"
        value = "–" if not score.total else f"{score.value:.3f}"
        interval = f"{score.low:.3f}–{score.high:.3f}" if math.isfinite(score.high - score.low) else "–"
        lines.append(f"| {score.name} | {value} | {interval} | {chance} | {score.total} |")
    return "\n".join(lines)


def to_json(sections: Mapping[str, Iterable[Score | Mean]], **facts: Any) -> str:
    """Scores by section as JSON, together with the facts that one needs to repeat the measurement.

    A number that is not known (no answers, no interval) is null.
    """
    values = {
        section: {score.name: _finite({**asdict(score), "value": score.value}) for score in scores}
        for section, scores in sections.items()
    }
    return json.dumps({**facts, "scores": values}, indent=1, allow_nan=False)


def _finite(entries: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in entries.items()
    }
