"""When an answer counts as the right one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from videochat_tools.training.world.language import NUMBERS
from videochat_tools.types import TimeSpan

__all__ = ["SAME_WORDS", "majority_share", "normalise", "same_answer", "same_place", "word_overlap"]

SAME_WORDS = 0.8  # F1 of the words from which on two sentences count as the same one

_CITATION = re.compile(r"\[[^\]]*\]")
_LEFT_OUT = ("a", "an", "the")
_SAME_WORD = {str(number): word for number, word in enumerate(NUMBERS)} | {"color": "colour"}


def normalise(text: str) -> str:
    """Lower case; without citations, articles and punctuation; small numbers as words."""
    words = re.findall(r"[\w']+", _CITATION.sub(" ", text.lower()))
    return " ".join(_SAME_WORD.get(word, word) for word in words if word not in _LEFT_OUT)


def word_overlap(one: str, other: str) -> float:
    """F1 of the words of two texts, 0..1, each word counted as often as it stands there."""
    first, second = Counter(normalise(one).split()), Counter(normalise(other).split())
    shared = (first & second).total()
    return 2 * shared / (first.total() + second.total()) if shared else 0.0


def same_answer(answer: str, truth: str, kind: str) -> bool:
    """Whether an answer is right; one that repeats what was said may leave out or add a word."""
    given, wanted = normalise(answer), normalise(truth)
    if kind != "said":
        return given == wanted
    return word_overlap(answer, truth) >= SAME_WORDS or f" {wanted} " in f" {given} "


def same_place(found: TimeSpan, truth: TimeSpan) -> bool:
    """Whether two spans share at least half of the shorter one: neighbours that touch at a cut do not count."""
    shorter = min(found.duration, truth.duration)
    return found.overlaps(truth) and found.intersection(truth) >= 0.5 * shorter


def majority_share(answers: Iterable[str]) -> float:
    """What always giving the most frequent answer would reach."""
    counts = Counter(normalise(answer) for answer in answers)
    return max(counts.values()) / counts.total() if counts else 0.0
