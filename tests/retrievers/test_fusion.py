from __future__ import annotations

from typing import Any

import pytest

from videochat_tools.retrievers.fusion import Found, above_threshold, fuse_ranks, merge_neighbours, suppress_overlaps
from videochat_tools.types import TimeSpan


def found(start: float, end: float, score: float, *, video: str = "v", rank: float | None = None) -> Found:
    return Found(video, TimeSpan(start, end), score if rank is None else rank, score, None, (int(start),))


def test_what_both_channels_found_comes_first() -> None:
    fused = fuse_ranks([{"a": 0.9, "b": 0.88}, {"b": 0.9, "c": 0.89}])
    assert list(fused) == ["b", "a", "c"]


def test_the_first_of_a_channel_that_found_nothing_of_use_does_not_win() -> None:
    fused = fuse_ranks([{"a": 0.95, "b": 0.9}, {"c": 0.1}])
    assert list(fused) == ["a", "b", "c"]


def test_the_order_of_one_channel_is_kept() -> None:
    fused = fuse_ranks([{"a": 0.2, "b": 0.9, "c": 0.5}, {}])
    assert list(fused) == ["b", "c", "a"]


def test_channels_are_weighed_from_their_own_thresholds() -> None:
    assert above_threshold(0.3, 0.5) == pytest.approx(0.3)
    assert above_threshold(0.95, 0.95) == pytest.approx(0.5)
    assert above_threshold(0.9, 0.95) < 0.5 < above_threshold(0.6, 0.5) < above_threshold(0.99, 0.95)
    assert 0 < above_threshold(0.0, 0.9) < above_threshold(1.0, 0.9) < 1


def merged(*items: Found, **options: Any) -> list[tuple[float, float]]:
    settings = {"good": lambda item: item.score >= 0.5, "gap": 0.25, "tolerance": 0.05, "longest": 32.0, **options}
    return [(item.span.start, item.span.end) for item in merge_neighbours(items, **settings)]


def test_neighbours_that_answer_equally_well_become_one() -> None:
    assert merged(found(4, 8, 0.92), found(0, 4, 0.9), found(8, 12, 0.3)) == [(0, 12 - 4), (8, 12)]


def test_a_joined_hit_keeps_its_segments_and_its_best_score() -> None:
    (hit,) = merge_neighbours(
        [found(0, 4, 0.9), found(4, 8, 0.93)], good=lambda _: True, gap=0.25, tolerance=0.05, longest=32.0
    )
    assert hit.segments == (0, 4)
    assert hit.score == pytest.approx(0.93)


@pytest.mark.parametrize(
    "pair",
    [
        (found(0, 4, 0.9), found(4, 8, 0.6)),  # one is clearly better
        (found(0, 4, 0.3), found(4, 8, 0.3)),  # neither is good
        (found(0, 4, 0.9), found(5, 8, 0.9)),  # apart
        (found(0, 4, 0.9), found(4, 8, 0.9, video="w")),  # different videos
        (found(0, 20, 0.9), found(20, 40, 0.9)),  # would be too long
    ],
)
def test_others_stay_apart(pair: tuple[Found, Found]) -> None:
    assert len(merged(*pair)) == 2


def test_of_overlapping_windows_the_best_is_kept() -> None:
    kept = suppress_overlaps([found(0, 8, 0.7), found(2, 10, 0.9), found(8, 16, 0.8), found(2, 10, 0.6, video="w")])
    assert [(item.video_id, item.span.start) for item in kept] == [("v", 2), ("v", 8), ("w", 2)]
