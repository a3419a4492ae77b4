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

# The same network in shards: Accelerate shards over GPUs only, torch itself also here.
from pathlib import Path
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from videochat_tools.training.stages import load_options
from videochat_tools.training.stages.checkpoints import Progress, restore, save_checkpoint
from videochat_tools.training.stages.encoding import make_encoder
from videochat_tools.training.stages.parameters import decay_groups
from videochat_tools.training.stages.starting import start_network
from videochat_tools.training.stages.trainer import make_mixture, prepare_network

options = load_options(None, sys.argv[2])
start = start_network(options)
mixture = make_mixture(options, distributed.get_rank(), 2)
encoded = make_encoder(options, start.processor)(next(mixture.epoch(0)), "draws")
module = prepare_network(start, options)
total = torch.tensor(float(encoded.learned))
distributed.all_reduce(total)
arguments = {**encoded.inputs, "total": float(total), "share": 1.0}
plain = module(**arguments)["loss"].detach()
mesh = init_device_mesh("cpu", (2,))
for layer in reversed(list(module.modules())):
    if type(layer).__name__ in module._no_split_modules:
        fully_shard(layer, mesh=mesh)
fully_shard(module, mesh=mesh)


def weights():
    return {name: each.full_tensor() for name, each in module.named_parameters() if each.requires_grad}


optimizer = torch.optim.AdamW(decay_groups(module, 0.02))
loss = module(**arguments)["loss"]
torch.testing.assert_close(loss.detach(), plain, rtol=1e-6, atol=1e-6)
loss.backward()
optimizer.step()
optimizer.zero_grad()
at = Progress(step=1, processes=2)
folder = Path(sys.argv[2]).with_name("sharded")
save_checkpoint(folder, module, optimizer, at, options, writes=distributed.get_rank() == 0)
distributed.barrier()
saved = {name: each.clone() for name, each in weights().items()}
module(**arguments)["loss"].backward()
optimizer.step()
assert any(not torch.equal(saved[name], each) for name, each in weights().items())
fresh = torch.optim.AdamW(decay_groups(module, 0.02))
optimizer.zero_grad()
assert restore(folder / "step-00000001", module, fresh, options) == at
assert all(torch.equal(saved[name], each) for name, each in weights().items())
moments = fresh.state_dict()["state"]
assert len(moments) == len(saved) and all(each["step"] == 1 for each in moments.values())
print("sharded")
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
    assert run.stdout.count("sharded") == 2
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
