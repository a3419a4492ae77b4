"""A run that was stopped and goes on ends exactly where one ends that was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from videochat_tools.errors import ConfigurationError, ModelLoadError
from videochat_tools.training.stages.trainer import StepReport, train_stage

# All that chance decides is on: frames, augmentation, dropout, drop-path, negatives.
CHANCE = {"augment": True, "frame_sampling": "rand", "checkpoint_steps": 2, "max_steps": 7}


class StopError(Exception):
    """In place of a power cut."""


def same(first: Path, second: Path) -> None:
    files = sorted(path.name for path in first.glob("*.safetensors"))
    assert files == sorted(path.name for path in second.glob("*.safetensors")) and files
    for name in files:
        left, right = load_file(first / name), load_file(second / name)
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), key


@pytest.mark.parametrize("name", ["videochat2-stage1", "videochat2-vicuna-stage3"])
def test_stop_and_resume_equal_an_uninterrupted_run(stages: Any, tmp_path: Path, name: str) -> None:
    options = stages.options(name, **CHANCE)
    whole = train_stage(options, tmp_path / "whole")

    def stop(at: StepReport) -> None:
        if at.step == 5:
            raise StopError

    with pytest.raises(StopError):
        train_stage(options, tmp_path / "stopped", stop)
    assert not (tmp_path / "stopped" / "model").exists()
    kept = sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004"]
    steps: list[int] = []
    resumed = train_stage(options, tmp_path / "stopped", lambda at: steps.append(at.step))
    assert steps == [5, 6, 7] and resumed.steps == whole.steps == 7
    same(whole.model, resumed.model)
    same(tmp_path / "whole" / "checkpoints" / "step-00000007", tmp_path / "stopped" / "checkpoints" / "step-00000007")
    logs = [
        [(row["step"], row["loss"]) for row in map(json.loads, (tmp_path / run / "log.jsonl").read_text().splitlines())]
        for run in ("whole", "stopped")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 7

    again = train_stage(options, tmp_path / "whole")  # nothing is left to do; the model is written once more
    assert again.steps == 7
    same(again.model, resumed.model)


@pytest.fixture(scope="module")
def stopped(stages: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Options and folder of a short run."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    options = stages.options("videochat2-vicuna-stage2", max_steps=2)
    train_stage(options, folder)
    return options, folder


def test_a_checkpoint_holds_only_what_is_trained_and_no_pickle(stopped: tuple[Any, Path]) -> None:
    (checkpoint,) = (stopped[1] / "checkpoints").iterdir()
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "model.safetensors", "optimizer.safetensors", "progress.json",
    ]  # fmt: skip
    names = load_file(checkpoint / "model.safetensors").keys()
    assert names and not any(name.startswith("language_model.") for name in names)
    moments = load_file(checkpoint / "optimizer.safetensors").keys()
    assert moments == {f"{name}|{moment}" for name in names for moment in ("step", "exp_avg", "exp_avg_sq")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 2}, r"made with other options \(batch_size; batch_size was 4, is 2\).*new --output"),
        ({"seed": 1}, r"made with other options \(seed; seed was 42, is 1\)"),
    ],
)
def test_other_options_are_refused(
    stages: Any, stopped: tuple[Any, Path], changes: dict[str, Any], message: str
) -> None:
    options = stages.options("videochat2-vicuna-stage2", max_steps=3, **changes)
    with pytest.raises(ModelLoadError, match=message) as caught:
        train_stage(options, stopped[1])
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_network_and_a_damaged_one_are_refused(
    stages: Any, stopped: tuple[Any, Path], tmp_path: Path
) -> None:
    shutil.copytree(stopped[1], tmp_path / "run")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    options = stages.options("videochat2-vicuna-stage2", max_steps=3)
    tensors = load_file(checkpoint / "model.safetensors")
    save_file({**tensors, "query_tokens": torch.zeros(1, 2, 48)}, checkpoint / "model.safetensors")
    with pytest.raises(ModelLoadError, match="another network: 1 of its tensors do not fit, first query_tokens"):
        train_stage(options, tmp_path / "run")
    (checkpoint / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelLoadError, match="cannot be read.*remove it, and the one before it is taken"):
        train_stage(options, tmp_path / "run")
    progress = json.loads((stopped[1] / "checkpoints" / "step-00000002" / "progress.json").read_text())
    assert progress["processes"] == 1


def test_another_number_of_processes_is_refused(stages: Any, stopped: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(stopped[1], tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "step-00000002" / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "processes": 2}))
    with pytest.raises(ConfigurationError, match="a run in 2 processes, this one has 1.*start 2"):
        train_stage(stages.options("videochat2-vicuna-stage2", max_steps=3), tmp_path / "run")
