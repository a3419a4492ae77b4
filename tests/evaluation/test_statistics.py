from __future__ import annotations

import json
from random import Random

import pytest

from videochat_tools.evaluation.statistics import cluster_bootstrap, markdown_table, rate, to_json, wilson_interval


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Values of Wilson's formula as published: Newcombe 1998, Statistics in Medicine 17, table I (81/263, 15/148, 0/20,
    # 1/29), method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_the_literature(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-4)


def test_wilson_intervals_at_the_ends() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="21 of 20"):
        wilson_interval(21, 20)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = Random(0), 0
    for _ in range(1000):
        score = rate("", (rng.random() < 0.9 for _ in range(60)))
        held += score.low <= 0.9 <= score.high
    assert 0.93 < held / 1000 < 0.98


def test_answers_that_hang_together_are_less_certain() -> None:
    rng = Random(1)
    clusters = {f"video {n}": [rng.random() < share for _ in range(50)] for n, share in enumerate((0.2, 0.5, 0.8, 0.9))}
    together = cluster_bootstrap("by video", clusters)
    alone = rate("alone", [outcome for outcomes in clusters.values() for outcome in outcomes])
    assert (together.correct, together.total) == (alone.correct, alone.total)
    assert together.low < alone.low
    assert together.high > alone.high
    with pytest.raises(ValueError, match="two clusters"):
        cluster_bootstrap("one", {"video": [True, False]})


def test_tables_and_json_say_the_same() -> None:
    scores = [rate("colour", [True] * 9 + [False], chance=0.25), rate("nothing asked", [])]
    lines = markdown_table(scores).splitlines()
    assert lines[2] == "| colour | 0.900 | 0.596–0.982 | 0.250 | 10 |"
    assert lines[3].startswith("| nothing asked | – |")
    values = json.loads(to_json({"answers": scores}, seed=3))
    assert values["seed"] == 3
    assert values["scores"]["answers"]["colour"]["value"] == 0.9
    assert values["scores"]["answers"]["nothing asked"]["value"] is None
    assert "0.900" in str(scores[0])
