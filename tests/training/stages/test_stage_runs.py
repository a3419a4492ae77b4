"""Every released stage at toy size: it learns, trains what it should and nothing else, and its model opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RUNS = (
    "videochat-7b-stage1",
    "videochat-7b-stage2",
    "videochat2-stage1",
    "videochat2-vicuna-stage2",
    "videochat2-vicuna-stage3",
    "videochat2-mistral-stage2",
    "videochat2-mistral-stage3",
    "videochat2-mistral-stage4",
    "videochat2-phi3-stage2",
    "videochat2-phi3-stage3",
)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_twenty_steps_lower_the_loss(stages: Any, name: str) -> None:
    values = losses(stages.run(name))
    assert len(values) == 20
    assert sum(values[-5:]) < 0.9 * sum(values[:5]), values
