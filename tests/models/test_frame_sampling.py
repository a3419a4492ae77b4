"""Which frames the released models are shown: every recorded case of every formula."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from videochat_tools.models.frame_sampling import (
    bounded_frame_indices,
    clip_frames,
    demo_frame_indices,
    timestamp_message,
    training_frame_indices,
)


@pytest.fixture(scope="module")
def recorded(goldens: Callable[[str], Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(goldens("frame_indices.json").read_text())
    assert all(found.values())
    return found


def test_every_formula_is_compared(recorded: dict[str, Any]) -> None:
    assert set(recorded) == {"demo_get_index", "mvbench_get_index", "train_get_frame_indices", "timestamp_message"}


def test_demos(recorded: dict[str, Any]) -> None:
    for case in recorded["demo_get_index"]:
        assert demo_frame_indices(case["num_frames"], case["num_segments"]) == case["indices"], case


def test_mvbench(recorded: dict[str, Any]) -> None:
    for case in recorded["mvbench_get_index"]:
        indices = bounded_frame_indices(
            case["num_segments"],
            case["fps"],
            case["max_frame"],
            bound=case["bound"],
            first_index=case["first_idx"],
        )
        assert indices == case["indices"], case


def test_training(recorded: dict[str, Any]) -> None:
    for case in recorded["train_get_frame_indices"]:
        most = case.get("max_num_frames", -1)
        indices = training_frame_indices(
            case["vlen"],
            case["num_frames"],
            case["sample"],
            fix_start=case.get("fix_start"),
            fps=case.get("input_fps", 1.0),
            max_frames=most if most > 0 else None,
        )
        assert indices == case["indices"], case


def test_timestamps(recorded: dict[str, Any]) -> None:
    for case in recorded["timestamp_message"]:
        indices = demo_frame_indices(case["num_frames"], case["num_segments"])
        assert timestamp_message([index / case["fps"] for index in indices]) == case["msg"], case


def test_random_frames_are_drawn_from_equal_parts() -> None:
    draws = [training_frame_indices(40, 4, "rand", rng=random.Random(seed)) for seed in range(300)]
    assert draws[7] == training_frame_indices(40, 4, "rand", rng=random.Random(7))
    for part, drawn in enumerate(zip(*draws, strict=True)):
        assert set(drawn) == set(range(10 * part, 10 * part + 9))  # the last frame of a part is never drawn


def test_random_frames_of_short_videos() -> None:
    draws = [training_frame_indices(10, 8, "rand", rng=random.Random(seed)) for seed in range(50)]
    assert all(len(set(drawn)) == 8 and drawn == sorted(drawn) for drawn in draws)
    assert {index for drawn in draws for index in drawn} == set(range(10))
    assert training_frame_indices(3, 5, "rand", rng=random.Random(0)) == [0, 1, 2, 2, 2]


def test_an_unknown_way_to_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="'random'"):
        training_frame_indices(10, 4, "random")


def test_parts_of_videos() -> None:
    assert clip_frames(2.5, 7.2, 29.97) == (74, 140)
