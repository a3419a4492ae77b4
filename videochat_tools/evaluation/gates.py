"""What the nano was meant to reach beside what it reaches, and what is left of it under the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from videochat_tools.evaluation.statistics import Mean, Score

__all__ = ["GATES", "Gate", "control_table", "gate_table"]

Sections = Mapping[str, Sequence[Score | Mean]]

_HEADS = "retrieval, known pairs, video"
_ANSWERS = "answers, known pairs, video"
_NEW = "answers, new pairs, video"


@dataclass(frozen=True, slots=True)
class Gate:
    """A bound on one measured share.

    Attributes:
        name: As it is shown.
        section: Where the score is.
        score: Its name there.
        bound: Wanted value.
        at_most: Whether the bound is an upper one.
        against: Another section; the bound is then on how far the score lies below the same score there.
    """

    name: str
    section: str
    score: str
    bound: float
    at_most: bool = False
    against: str | None = None


def _answer_gates() -> list[Gate]:
    kinds = ("colour", "shape", "size", "texture", "direction", "motion", "count", "which", "order", "yesno", "choice")
    gates = [Gate(f"answers: {kind}", _ANSWERS, kind, 0.90) for kind in kinds]
    gates.append(Gate("answers: when", _ANSWERS, "when, within 1 s", 0.85))
    gates += [
        Gate(f"new pairs below known ones: {kind}", _NEW, kind, 0.05, at_most=True, against=_ANSWERS) for kind in kinds
    ]
    return gates


GATES: tuple[Gate, ...] = (
    Gate("recall@1 among 100", _HEADS, "recall similarity @1, pool 100", 0.97),
    Gate("recall@1 among 1,000", _HEADS, "recall similarity @1, pool 1000", 0.85),
    *(
        Gate(f"heads: {kind}", _HEADS, f"{kind} by both", 0.90)
        for kind in ("colour", "shape", "size", "texture", "motion", "direction", "order", "count", "swap", "roles")
    ),
    *_answer_gates(),
    *(
        Gate(f"transcript: {kind}", "transcripts", f"transcript, {kind}", 0.95)
        for kind in ("first", "last", "at", "after", "before", "who")
    ),
    Gate("dialogue: turns with a pronoun", "dialogues, video", "dialogue, turns with a pronoun", 0.85),
    Gate("not in the video: recognised", _ANSWERS, "absent, answered 'not found'", 0.90),
    Gate("not in the video: false premises recognised", _ANSWERS, "mistaken, answered 'not found'", 0.90),
    Gate("not in the video: false alarms", _ANSWERS, "present, answered 'not found'", 0.05, at_most=True),
)
"""In the order of the model card; "swap" and "roles" are the binding of two objects."""


def gate_table(sections: Sections, gates: Sequence[Gate] = GATES) -> str:
    """The gates as a Markdown table; those of sections that were not measured are left out."""
    lines = ["| gate | wanted | measured | 95 % interval | n | met |", "|---|---|---|---|---|---|"]
    for gate in gates:
        score = _find(sections, gate.section, gate.score)
        other = None if gate.against is None else _find(sections, gate.against, gate.score)
        if score is None or (gate.against is not None and other is None):
            continue
        value = score.value if other is None else other.value - score.value
        met = value <= gate.bound if gate.at_most else value >= gate.bound
        interval = f"{score.low:.3f}–{score.high:.3f}" if other is None else "–"
        wanted = f"{'≤' if gate.at_most else '≥'} {gate.bound:.2f}"
        lines.append(
            f"| {gate.name} | {wanted} | {value:.3f} | {interval} | {score.total} | {'yes' if met else 'no'} |"
        )
    return "\n".join(lines)


_VIEWS = (
    "known pairs, video",
    "new pairs, video",
    "known pairs, other words",
    "known pairs, shuffled",
    "known pairs, blank",
    "known pairs, text only",
)


def control_table(sections: Sections, part: str) -> str:
    """One row a measure: its share with the interval, new pairs of colour and shape, and every control beside it.

    Args:
        sections: As measured.
        part: "retrieval" or "answers".
    """
    views = [view for view in _VIEWS if f"{part}, {view}" in sections]
    if not views or views[0] != _VIEWS[0]:
        return ""
    names = [view.removeprefix("known pairs, ").removesuffix(", video") for view in views]
    lines = [f"| measure | {' | '.join(names)} | chance | n |", "|---" * (len(views) + 3) + "|"]
    for score in sections[f"{part}, {views[0]}"]:
        others = [_find(sections, f"{part}, {view}", score.name) for view in views[1:]]
        values = ["–" if other is None else f"{other.value:.3f}" for other in others]
        chance = "–" if score.chance is None else f"{score.chance:.3f}"
        first = f"{score.value:.3f} ({score.low:.3f}–{score.high:.3f})"
        lines.append(f"| {score.name} | {first} | {' | '.join([*values, chance])} | {score.total} |")
    return "\n".join(lines)


def _find(sections: Sections, section: str, name: str) -> Score | Mean | None:
    return next((score for score in sections.get(section, ()) if score.name == name), None)
