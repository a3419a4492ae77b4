"""What the language model is asked, and how often: another mixture for a beginner than for one that knows most of it.

A model that cannot find a row yet learns little from a question that no row answers, or from words that it seldom
meets. What is hard was added run by run to what ships, and so it comes late in a run from nothing, too ("curriculum
learning", Bengio et al. 2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ALL", "BEGINNING", "Syllabus"]


@dataclass(frozen=True, slots=True)
class Syllabus:
    """Shares and weights of what is drawn.

    Attributes:
        kinds: Weight of each kind of question about a clip (:data:`~videochat_tools.training.world.questions.KINDS`).
        order: Further questions about the order of two events, where there are two, as a share of all others.
        choice: Share of multiple choice in the questions about one clip.
        when: Share of questions for times, where times are told.
        reworded: Share of questions put in other words, as far as they have another wording.
        drills: Share of each kind of row of text alone.
    """

    kinds: Mapping[str, float]
    order: float
    choice: float
    when: float
    reworded: float
    drills: Mapping[str, float]

    def towards(self, other: Syllabus, share: float) -> Syllabus:
        """The mixture that lies so far on the way from this one (0) to another (1)."""

        def between(one: float, two: float) -> float:
            return one + (two - one) * share

        return Syllabus(
            {kind: between(weight, other.kinds[kind]) for kind, weight in self.kinds.items()},
            between(self.order, other.order),
            between(self.choice, other.choice),
            between(self.when, other.when),
            between(self.reworded, other.reworded),
            {drill: between(weight, other.drills[drill]) for drill, weight in self.drills.items()},
        )


BEGINNING = Syllabus(
    kinds={
        "colour": 5.0,
        "shape": 5.0,
        "size": 3.0,
        "texture": 3.0,
        "direction": 8.0,  # few scenes allow it
        "motion": 7.0,
        "count": 4.0,
        "which": 6.0,
        "order": 5.0,
        "yesno": 4.0,
        "absent": 3.0,
        "mistaken": 3.0,
    },
    order=0.15,
    choice=0.12,
    when=0.25,
    reworded=0.1,
    drills={"copy": 0.18, "binding": 0.18, "options": 0.14, "call": 0.06, "transcript": 0.4, "scene": 0.04},
)
"""For a model that begins from nothing: what the rest is built on."""

ALL = Syllabus(
    kinds={
        "colour": 3.0,
        "shape": 3.0,
        "size": 1.0,
        "texture": 1.0,
        "direction": 3.0,
        "motion": 7.0,
        "count": 3.0,
        "which": 6.0,
        "order": 8.0,
        "yesno": 6.0,
        "absent": 4.0,
        "mistaken": 11.0,
    },
    order=0.5,
    choice=0.25,
    when=0.3,
    reworded=0.4,
    drills={"copy": 0.05, "binding": 0.04, "options": 0.06, "call": 0.42, "transcript": 0.33, "scene": 0.1},
)
"""For one that is gone on with: what is learned late more often."""
