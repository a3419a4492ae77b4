from __future__ import annotations

import numpy as np
import pytest

from videochat_tools.evaluation.calibrate import (
    FALSE_ALARMS,
    NEVER_SHOWN,
    Looked,
    fit,
    look,
    measure,
    measure_looks,
    probabilities,
)
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.training.world.long_video import plan_video


def drawn(count: int, gap: float, seed: int) -> list[Looked]:
    """Questions whose true scene stands out by ``gap`` standard deviations of the matching head."""
    rng, looked = np.random.default_rng(seed), []
    for number in range(count):
        present = number % 2 == 0
        similarity, matching = np.sort(rng.normal(0.2, 0.05, 50))[::-1].copy(), rng.normal(-6, 1, 50)
        right = int(rng.integers(5)) if present else None
        if right is not None:
            similarity[0] += 0.02 * gap
            matching[right] += gap
        looked.append(Looked(present, similarity, matching, right))
    return looked


def test_a_clear_case_is_told_apart() -> None:
    values = fit(drawn(600, 10.0, 0))
    alarms, recognised, found = measure(drawn(600, 10.0, 1), values)
    assert alarms.value < 0.09
    assert recognised.value > 0.97
    assert found.value > 0.97
    assert values.similarity_scale > 0
    assert 0 < values.match_threshold < 1


def test_the_false_alarms_are_bounded_whatever_is_recognised() -> None:
    values = fit(drawn(600, 1.0, 2))
    alarms, recognised, _ = measure(drawn(600, 1.0, 3), values)
    assert alarms.low < 0.07
    assert recognised.value < 0.9


def test_a_chat_model_is_shown_more_than_the_search_is_sure_of() -> None:
    values = fit(drawn(8000, 3.0, 2))
    drawn_again = drawn(8000, 3.0, 3)
    alarms, recognised, _ = measure(drawn_again, values)
    unseen_present, unseen_absent = measure_looks(drawn_again, values)
    assert values.look_threshold is not None and values.look_threshold < values.match_threshold
    assert NEVER_SHOWN / 2 < unseen_present.low < unseen_present.high < 2 * NEVER_SHOWN < alarms.low
    assert FALSE_ALARMS / 2 < alarms.low < alarms.high < 2 * FALSE_ALARMS
    assert unseen_absent.value < recognised.value


def test_the_similarity_becomes_the_probability_that_the_best_hit_is_a_match() -> None:
    looked = drawn(2000, 10.0, 4)
    values = fit(looked)
    best = np.array([each.similarity[0] for each in looked], np.float32)
    probability = 1 / (1 + np.exp(-values.similarity_logit(best)))
    assert probability.mean() == pytest.approx(0.5, abs=0.02)
    assert probability[[each.present for each in looked]].mean() > 0.9


def test_probabilities_are_those_of_the_matching_head_where_it_alone_counts() -> None:
    (one,) = drawn(1, 5.0, 5)
    from videochat_tools.embeddings import Calibration

    assert probabilities(one, Calibration()) == pytest.approx(1 / (1 + np.exp(-one.matching)))


def test_questions_are_looked_for_among_the_scenes_of_their_video() -> None:
    plan = plan_video(1.0, 0)
    looked = look(FakeVideoEncoder(), plan)
    assert {each.present for each in looked} == {True, False}
    for each in looked:
        assert len(each.similarity) == len(each.matching) == len(plan.scenes)
        assert (each.right is not None) is each.present
        assert all(np.diff(each.similarity) <= 0)


def test_of_several_vectors_a_clip_the_best_counts(mirrored: FakeVideoEncoder) -> None:
    plan = plan_video(1.0, 0)
    for one, other in zip(look(mirrored, plan), look(FakeVideoEncoder(), plan), strict=True):
        assert one.similarity == pytest.approx(other.similarity)
        assert one.right == other.right
