"""Two processes, started by torchrun on this machine, learn what one with twice the batch learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from videochat_tools.training.stages import show_options
from videochat_tools.training.stages.trainer import train_stage

NAMES = ("videochat2-stage1", "videochat2-vicuna-stage3", "videochat2-mistral-stage4")
# Nothing is dropped: what is dropped in a row depends on which process the row is in. Frames and crops do not.
SAME = {
    "qformer_dropout": 0.0, "qformer_drop_path": 0.0, "lora_dropout": 0.0, "frame_sampling": "rand", "max_steps": 4,
    "learning_rate": 1e-3,
}  # fmt: skip
# All runs in one start of the processes: most of the time goes into importing torch.
SCRIPT = """
import sys
from videochat_tools.cli import app
for config in sys.argv[1:]:
    app(["train", "--config", config, "--output", config.removesuffix(".toml")], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def runs(stages: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Folders of the run in one process and of the run in two, by stage."""
    folder = tmp_path_factory.mktemp("processes")
    configs, made = [], {}
    for name in NAMES:
        changes = {**SAME, "augment": "stage4" not in name}
        train_stage(stages.options(name, batch_size=4, **changes), folder / f"{name}-one")
        config = folder / f"{name}-two.toml"
        config.write_text(show_options(stages.options(name, batch_size=2, **changes), name), encoding="utf-8")
        configs.append(str(config))
        made[name] = (folder / f"{name}-one", folder / f"{name}-two")
    script = folder / "run.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run(
        [*command, str(script), *configs],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("written") == len(NAMES)  # by the first process alone
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_with_twice_the_batch(runs: dict[str, tuple[Path, Path]], name: str) -> None:
    one, two = (load_file(run / "checkpoints" / "step-00000004" / "model.safetensors") for run in runs[name])
    assert one.keys() == two.keys()
    for key, value in one.items():  # a step of AdamW is 1e-3 long, however small the gradient: rounding shows
        torch.testing.assert_close(two[key], value, rtol=0, atol=5e-5, msg=lambda text, key=key: f"{key}: {text}")
    losses = [[row["loss"] for row in map(json.loads, (run / "log.jsonl").open())] for run in runs[name]]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
