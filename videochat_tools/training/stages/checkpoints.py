"""Checkpoints of a run: trained tensors, states of the optimiser and where the run is; no pickle in them.

A checkpoint is a folder ``step-00001000`` of three files, which appears whole or not at all. The order of the data and
all that chance decides are functions of the seed and the step, so that there is no more to be kept.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.loading.staging import new_folder

from .options import StageOptions

__all__ = ["Progress", "latest_checkpoint", "read_trained", "restore", "save_checkpoint"]

log = logging.getLogger(__name__)

_MODEL, _OPTIMIZER, _PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"
_PREFIX = "model."  # of the network in its StageModule
# What may differ when a run is taken up: it decides how the work is done and shown, not what is learned.
_FREE = frozenset(
    """workers device fsdp gradient_checkpointing tower_checkpointing max_steps checkpoint_steps
    keep_checkpoints log_steps tensorboard lora_output text_config""".split()
)
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is.

    Attributes:
        step: Steps of the optimiser that are done.
        epoch: The running one, from 0.
        batch: Batches of it that are done.
        processes: How many trained together.
        scaler: State of the scaler of the loss (fp16), else empty.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    processes: int = 1
    scaler: dict[str, Any] | None = None


def latest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run; None before the first."""
    found = sorted(folder.glob("step-*"))
    return found[-1] if found else None


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    options: StageOptions,
    *,
    writes: bool,
) -> Path:
    """Write a checkpoint, and remove the oldest ones beyond ``options.keep_checkpoints``.

    To be called by all processes, since sharded tensors are put together; one ``writes``.
    """
    model_state, optimizer_state = get_state_dict(module, optimizer, options=_WHOLE)
    target = folder / f"step-{progress.step:08d}"
    if not writes:
        return target
    if target.exists():  # of a run that was stopped while it finished: the same step, the same contents
        shutil.rmtree(target)
    with new_folder(target) as partial:
        tensors = cast(dict[str, Tensor], model_state)
        moments = _flat(cast(dict[str, dict[str, Tensor]], optimizer_state["state"]))
        save_file(_plain({name.removeprefix(_PREFIX): value for name, value in tensors.items()}), partial / _MODEL)
        save_file(_plain(moments), partial / _OPTIMIZER)
        content = {**asdict(progress), "options": asdict(options)}
        (partial / _PROGRESS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for old in sorted(folder.glob("step-*"))[: -options.keep_checkpoints]:
        shutil.rmtree(old)
    return target


def restore(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, options: StageOptions) -> Progress:
    """Put a checkpoint into module and optimiser; where the run was.

    Raises:
        ModelLoadError: It cannot be read, is of other options, or of another network.
    """
    try:
        content = json.loads((path / _PROGRESS).read_text(encoding="utf-8"))
        saved = content.pop("options")
        progress = Progress(**content)
        moments = load_file(path / _OPTIMIZER)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelLoadError(
            f"the checkpoint {path} cannot be read ({error}); remove it, and the one before it is taken"
        ) from error
    _check_options(path, saved, options)
    trained = read_trained(path)
    _check_names(path, module, trained)
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in moments.items():
        parameter, _, moment = name.rpartition("|")
        states.setdefault(_PREFIX + parameter, {})[moment] = value
    set_state_dict(
        module,
        optimizer,
        model_state_dict={_PREFIX + name: value for name, value in trained.items()},
        optim_state_dict=cast(Any, {"state": states, "param_groups": _groups(module, optimizer)}),
        options=_WHOLE,
    )
    return progress


def read_trained(path: Path) -> dict[str, Tensor]:
    """The trained tensors of a checkpoint, by their names in the network.

    Raises:
        ModelLoadError: They cannot be read.
    """
    try:
        return load_file(path / _MODEL)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(
            f"the checkpoint {path} cannot be read ({error}); remove it, and the one before it is taken"
        ) from error


def _check_options(path: Path, saved: Mapping[str, Any], options: StageOptions) -> None:
    now = json.loads(json.dumps(asdict(options)))
    other = [name for name in now if name not in _FREE and saved.get(name) != now[name]]
    if other:
        name = other[0]
        raise ModelLoadError(
            f"{path} was made with other options ({', '.join(other)}; {name} was {saved.get(name)!r}, is "
            f"{now[name]!r}), so that going on from it would be another run; set them as they were, or give a new "
            "--output"
        )


def _check_names(path: Path, module: nn.Module, trained: Mapping[str, Tensor]) -> None:
    wanted = {
        _name(name).removeprefix(_PREFIX): parameter.shape
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    wrong = sorted(wanted.keys() ^ trained.keys()) or sorted(
        name for name, shape in wanted.items() if trained[name].shape != shape
    )
    if wrong:
        raise ModelLoadError(
            f"{path} is of another network: {len(wrong)} of its tensors do not fit, first {wrong[0]}; go on with the "
            "model that the run began with, or give a new --output"
        )


def _name(name: str) -> str:
    """A parameter's name without the wrapper of several processes."""
    return name.removeprefix("module.")


def _groups(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Groups of the optimiser with the names of their parameters, as ``set_state_dict`` wants them in every process."""
    names = {id(parameter): _name(name) for name, parameter in module.named_parameters()}
    return [{**group, "params": [names[id(each)] for each in group["params"]]} for group in optimizer.param_groups]


def _flat(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{name.removeprefix(_PREFIX)}|{moment}": value
        for name, moments in states.items()
        for moment, value in moments.items()
    }


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
