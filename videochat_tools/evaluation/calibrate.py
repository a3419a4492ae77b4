"""How sure is sure enough: ``python -m videochat_tools.evaluation.calibrate --retrieval DIR``.

Fits, on videos that no training saw, how the numbers of a video encoder are read: from which probability on a moment
counts as found, from which on a chat model is shown it and may refuse, and how a similarity becomes a probability.
Questions about what the video shows are set against questions of the same forms about what it does not show. The result
goes into the encoder's folder, where :class:`videochat_tools.embeddings.Calibration` reads it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import (
    CALIBRATION_FILE,
    NANO_ENCODER,
    Calibration,
    VideoEncoder,
    load_encoder,
    text_similarity,
)
from videochat_tools.evaluation.held_out import FIRST_SEED, SPACING
from videochat_tools.evaluation.retrieval import embed
from videochat_tools.evaluation.statistics import Score, rate
from videochat_tools.retrievers.options import RetrievalOptions
from videochat_tools.retrievers.query import analyse
from videochat_tools.training.tokenizers import seen_words
from videochat_tools.training.world.long_video import TimedQuestion, VideoPlan, plan_video

__all__ = ["Looked", "fit", "look", "main", "measure", "measure_looks", "probabilities"]

FALSE_ALARMS = 0.06  # wanted share of present questions of which the search is not sure; the promise is 0.07
NEVER_SHOWN = 0.01  # wanted share of present questions about which a chat model is shown nothing; it refuses some too
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0)  # of the similarity in the final probability
_FIRST_VIDEO = FIRST_SEED + 5 * SPACING

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Looked:
    """What the encoder made of one question in a video: the candidates that the retriever would judge.

    ``similarity`` and ``matching`` (log-odds of the matching head) are float64 [candidates], best similarity first;
    ``right`` is the place of the true scene among them, ``None`` where it is missing or there is none.
    """

    present: bool
    similarity: Floats
    matching: Floats
    right: int | None


def look(encoder: VideoEncoder, plan: VideoPlan) -> list[Looked]:
    """Search a planned video for its questions, and for those that have no answer in it, by the picture alone."""
    embeddings = embed(encoder, [place.scene for place in plan.scenes], "video")
    if embeddings.features is None:
        raise ValueError("calibration needs an encoder that keeps features for its matching head")
    looked = []
    for question in (*plan.questions, *plan.absent_questions):
        wanted = analyse(question.question).visual
        if not wanted:  # only the transcript is asked
            continue
        similarity = text_similarity(encoder.embed_texts([wanted]), embeddings.vectors)[0].astype(np.float64)
        best = np.argsort(-similarity, kind="stable")[: RetrievalOptions().candidates]
        matched = np.clip(encoder.match(wanted, embeddings.features[best]), 1e-6, 1 - 1e-6).astype(np.float64)
        right = _scene(plan, question)
        places = np.flatnonzero(best == right) if right is not None else np.zeros(0, int)
        looked.append(
            Looked(
                question.span is not None,
                similarity[best],
                np.log(matched / (1 - matched)),
                int(places[0]) if len(places) else None,
            )
        )
    return looked


def _scene(plan: VideoPlan, question: TimedQuestion) -> int | None:
    if question.span is None:
        return None
    return next(number for number, place in enumerate(plan.scenes) if place.start == question.span[0])


def fit(looked: Sequence[Looked]) -> Calibration:
    """Choose the numbers that find most and recognise most, with the false alarms kept in bounds."""
    scale, offset = _logistic(
        np.array([each.similarity[0] for each in looked]), np.array([float(each.present) for each in looked])
    )
    candidates = [
        _with_thresholds(
            looked, Calibration(0.5, similarity_scale=scale, similarity_offset=offset, similarity_weight=weight)
        )
        for weight in WEIGHTS
    ]
    return max(candidates, key=lambda each: _gain(looked, each))


def _with_thresholds(looked: Sequence[Looked], values: Calibration) -> Calibration:
    """The highest thresholds that keep the false alarms in bounds: they recognise as much as possible."""
    present = [probabilities(each, values).max() for each in looked if each.present]
    sure, worth_a_look = np.quantile(present, [FALSE_ALARMS, NEVER_SHOWN])
    return replace(values, match_threshold=float(sure), look_threshold=float(worth_a_look))


def _gain(looked: Sequence[Looked], values: Calibration) -> float:
    _, recognised, found = measure(looked, values)
    return recognised.value + found.value


def measure(looked: Sequence[Looked], values: Calibration) -> tuple[Score, Score, Score]:
    """False alarms, absent questions recognised, and present ones whose best hit is the true scene."""
    best = [(each, probabilities(each, values)) for each in looked]
    return (
        rate("present questions declared not found", _not_accepted(best, values.accepts, present=True)),
        rate("absent questions recognised as such", _not_accepted(best, values.accepts, present=False)),
        rate("best hit is the true scene", (int(p.argmax()) == each.right for each, p in best if each.present)),
    )


def measure_looks(looked: Sequence[Looked], values: Calibration) -> tuple[Score, Score]:
    """Present and absent questions about which a chat model is shown nothing, for it could only guess."""
    best = [(each, probabilities(each, values)) for each in looked]
    return (
        rate("present questions without a look", _not_accepted(best, values.is_worth_a_look, present=True)),
        rate("absent questions without a look", _not_accepted(best, values.is_worth_a_look, present=False)),
    )


def _not_accepted(
    best: Sequence[tuple[Looked, Floats]], accepts: Callable[[float, None], bool], *, present: bool
) -> list[bool]:
    return [not accepts(float(p.max()), None) for each, p in best if each.present == present]


def probabilities(looked: Looked, values: Calibration) -> Floats:
    """As :class:`~videochat_tools.retrievers.temporal.HybridTemporalRetriever` weighs them."""
    by_similarity = values.similarity_logit(looked.similarity.astype(np.float32))
    weight = values.similarity_weight
    return np.asarray(1 / (1 + np.exp(-((1 - weight) * looked.matching + weight * by_similarity))))


def _logistic(inputs: Floats, labels: Floats, steps: int = 50) -> tuple[float, float]:
    """Slope and offset of a logistic regression on one number, by Newton's method on a standardised input."""
    middle, spread = inputs.mean(), inputs.std() + 1e-9
    design = np.stack([(inputs - middle) / spread, np.ones_like(inputs)], axis=1)
    weights = np.zeros(2)
    for _ in range(steps):
        predicted = 1 / (1 + np.exp(-design @ weights))
        # A little ridge: where present and absent are apart, the slope would grow without end.
        gradient = design.T @ (predicted - labels) + 1e-2 * weights
        curvature = (design * (predicted * (1 - predicted))[:, None]).T @ design + 1e-2 * np.eye(2)
        weights = weights - np.linalg.solve(curvature, gradient)
    return float(weights[0] / spread), float(weights[1] - weights[0] * middle / spread)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit on half of the videos, measure on the other half, and write the calibration of an encoder."""
    parser = argparse.ArgumentParser(prog="python -m videochat_tools.evaluation.calibrate", description=main.__doc__)
    parser.add_argument("--retrieval", type=Path, default=NANO_ENCODER, help="folder of the video encoder")
    parser.add_argument("--videos", type=int, default=12, help="planned videos, at least 2 (default: 12)")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of each (default: 10)")
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    options = parser.parse_args(arguments)
    if options.videos < 2:
        parser.error("--videos must be at least 2: one to fit on, one to measure on")
    encoder = load_encoder(options.retrieval, device=options.device)
    fitted: list[Looked] = []
    held_out: list[Looked] = []
    for number in range(options.videos):
        looked = look(encoder, plan_video(options.minutes, _FIRST_VIDEO + number))
        (held_out if number % 2 else fitted).extend(looked)
    values = fit(fitted)
    alarms, recognised, found = measure(held_out, values)
    unseen = measure_looks(held_out, values)
    entries = {
        **asdict(values),
        "known_words": sorted(seen_words()),
        "false_alarm_rate": alarms.value,
        "recognised_rate": recognised.value,
        "recall_at_1": found.value,
        "without_a_look_rate": unseen[0].value,
        "samples": len(fitted),
    }
    path = options.retrieval / CALIBRATION_FILE
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    for score in (alarms, recognised, found, *unseen):
        sys.stdout.write(f"{score}\n")
    sys.stdout.write(f"sure from {values.match_threshold:.4f} on, worth a look from {values.look_threshold:.4f} on, ")
    sys.stdout.write(f"written to {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
