from __future__ import annotations

import json
from random import Random

import pytest

from videochat_tools.evaluation.statistics import (
    cluster_mean,
    cluster_rate,
    markdown_table,
    rate,
    to_json,
    wilson_interval,
)


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
    together = cluster_rate("by video", clusters)
    alone = rate("alone", [outcome for outcomes in clusters.values() for outcome in outcomes])
    assert (together.correct, together.total) == (alone.correct, alone.total)
    assert together.low < alone.low
    assert together.high > alone.high


def test_one_answer_a_cluster_gives_the_plain_interval() -> None:
    outcomes = [n % 3 == 0 for n in range(300)]
    apart = cluster_rate("apart", {str(n): [outcome] for n, outcome in enumerate(outcomes)})
    plain = rate("apart", outcomes)
    assert (apart.low, apart.high) == pytest.approx((plain.low, plain.high), abs=1e-3)


def test_answers_that_repeat_each_other_count_once_a_cluster() -> None:
    clusters = {str(n): [n % 2 == 0] * 20 for n in range(40)}
    once = rate("once", [n % 2 == 0 for n in range(40)])
    repeated = cluster_rate("repeated", clusters)
    assert (repeated.correct, repeated.total) == (400, 800)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.01)


@pytest.mark.parametrize(
    ("clusters", "trials"), [({"a": [True] * 50}, 1), ({str(n): [True] * 9 for n in range(12)}, 12)]
)
def test_where_all_are_right_every_cluster_is_one_trial(clusters: dict[str, list[bool]], trials: int) -> None:
    score = cluster_rate("all", clusters)
    assert (score.low, score.high) == pytest.approx(wilson_interval(trials, trials))
    assert score.value == 1.0


def test_nothing_asked_is_nothing_known() -> None:
    assert (cluster_rate("none", {}).low, cluster_rate("none", {}).high) == (0.0, 1.0)


def test_a_clustered_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Shares of videos differ (beta distribution with mean 0.7); the interval is for their mean."""
    rng, held, held_by_mean = Random(2), 0, 0
    for _ in range(500):
        clusters = {}
        for video in range(60):
            share = rng.betavariate(1.4, 0.6)
            clusters[str(video)] = [rng.random() < share for _ in range(rng.choice((3, 5, 10)))]
        score = cluster_rate("", clusters)
        held += score.low <= 0.7 <= score.high
        mean = cluster_mean("", {video: [float(right) for right in group] for video, group in clusters.items()})
        held_by_mean += mean.low <= 0.7 <= mean.high
    assert 0.92 < held / 500 < 0.98
    assert 0.91 < held_by_mean / 500 < 0.98


def test_means_of_clusters() -> None:
    score = cluster_mean("IoU", {"a": [0.2, 0.4], "b": [0.9]})
    assert score.value == pytest.approx(0.5)
    assert score.total == 3
    assert score.low < 0.5 < score.high
    lonely = cluster_mean("IoU", {"a": [0.2, 0.4]})
    assert json.loads(to_json({"x": [lonely]}))["scores"]["x"]["IoU"]["low"] is None
    assert "–" in markdown_table([lonely])


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
