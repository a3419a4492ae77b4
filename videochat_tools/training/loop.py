"""What every stage needs: optimisers, a schedule over wall-clock time, checkpoints that survive an interruption."""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from argparse import ArgumentTypeError
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from videochat_tools.training.muon import Muon

__all__ = ["Loop", "LoopOptions", "existing_path", "half_precision", "join_processes", "read_state", "split_parameters"]

log = logging.getLogger(__name__)

# Left to AdamW: heads, whose outputs are no hidden state (vision_proj, text_proj), and all matrices of the language
# model (q_proj … down_proj): Muon at rates that suit the tower washes out the copying that they start with.
_ADAMW = "proj.weight"


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How long and how fast to train.

    The schedule follows the clock and not the step count, so that a slower machine trains less rather than longer.
    """

    minutes: float
    matrix_rate: float = 0.01  # Muon, scaled to the RMS of an AdamW update
    other_rate: float = 2e-3  # AdamW: embeddings, norms, biases, convolutions, heads
    warm_up: float = 0.02  # share of the time
    hold: float = 0.45  # share of the time at the full rate, then linear to `floor`
    floor: float = 0.02
    clip_norm: float = 2.0
    checkpoint_seconds: float = 240.0
    log_steps: int = 50

    def scaled(self, factor: float) -> LoopOptions:
        """The same with both rates multiplied."""
        return replace(self, matrix_rate=factor * self.matrix_rate, other_rate=factor * self.other_rate)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Hidden weight matrices and convolution kernels, for Muon, and everything else, for AdamW."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    heads = {id(p) for name, p in model.named_parameters() if _ADAMW in name or name.endswith("lm_head.weight")}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        hidden = parameter.ndim in (2, 4, 5) and id(parameter) not in embeddings and id(parameter) not in heads
        (matrices if hidden else others).append(parameter)
    return matrices, others


def _by_factor(
    model: nn.Module, parameters: Sequence[nn.Parameter], slower: Mapping[str, float]
) -> dict[float, list[nn.Parameter]]:
    """The parameters by the factor on their rate: 1, or the first of ``slower`` whose key their name contains."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[float, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        found[next((factor for part, factor in slower.items() if part in names[id(parameter)]), 1.0)].append(parameter)
    return found


def half_precision() -> torch.autocast:
    """Products in bfloat16, on the device where new tensors are made (``torch.set_default_device``)."""
    return torch.autocast(torch.get_default_device().type, torch.bfloat16)


def join_processes() -> int:
    """Take part in the run that ``torchrun`` started, if it did; the number of this process among them."""
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        return 0
    distributed.init_process_group("gloo")
    atexit.register(_leave_processes)
    return distributed.get_rank()


def _leave_processes() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Loop:
    """Iterate over steps until the time is up: ``for step in loop: loop.update(loss, {...})``.

    After :func:`join_processes`, every process gives the loss of its own share of a step; all take the same steps by
    the mean of their gradients and the clock of the first, which alone writes the log and the checkpoints. Nothing
    wraps the model (as DistributedDataParallel would): its parts are called one by one and many of its weights are
    left out of some steps.
    """

    def __init__(
        self, model: nn.Module, folder: Path, options: LoopOptions, slower: Mapping[str, float] | None = None
    ) -> None:
        """Take up a run where it was left, if ``folder`` holds its checkpoint.

        ``slower``: factors on the rate of AdamW, for the weights whose names contain a part.
        """
        self.model, self.folder, self.options = model, folder, options
        folder.mkdir(parents=True, exist_ok=True)
        matrices, others = split_parameters(model)
        groups = [
            {"params": members, "lr": factor * options.other_rate}
            for factor, members in _by_factor(model, others, slower or {}).items()
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        ]
        if matrices:
            self.optimizers.append(Muon(matrices, lr=options.matrix_rate))
        self.rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.step, self.elapsed = 0, 0.0
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._together = distributed.is_available() and distributed.is_initialized()
        self._writes = not self._together or distributed.get_rank() == 0
        self._resume()

    @property
    def progress(self) -> float:
        """Share of the time that is over, 0..1."""
        return min(self.elapsed / (60 * self.options.minutes), 1.0)

    def __iter__(self) -> Iterator[int]:
        """Yield step numbers while there is time."""
        last_save = last = time.monotonic()
        while self.progress < 1.0:
            yield self.step
            self.step += 1
            now = time.monotonic()
            self.elapsed, last = self._first_of(self.elapsed + now - last), now
            if self.step % self.options.log_steps == 0:
                self._report()
            if now - last_save > self.options.checkpoint_seconds:
                self.save()
                last_save = last = time.monotonic()
        self._report()
        self.save()
        if self._together:  # who leaves while another still listens to it makes that one fail
            distributed.barrier()

    def update(self, loss: Tensor, values: Mapping[str, float | Tensor]) -> None:
        """One optimiser step; ``values`` are averaged into the log."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._share_gradients()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        if not torch.isfinite(norm):
            log.warning("step %d: the gradient is not finite; the step is left out", self.step)
            return
        factor, place = self._factor(), 0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rates[place] * factor
                place += 1
            optimizer.step()
        for name, value in {"loss": loss, **values}.items():
            self._sums[name].append(float(value.detach()) if isinstance(value, Tensor) else value)

    def _factor(self) -> float:
        options, done = self.options, self.progress
        if done < options.warm_up:
            return max(done / options.warm_up, 0.05)
        if done < options.hold:
            return 1.0
        return options.floor + (1 - options.floor) * (1 - done) / (1 - options.hold)

    def _first_of(self, value: float) -> float:
        """The first process's value: were each to keep its own clock, one would wait for a step that none takes."""
        if not self._together:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device="cpu")
        distributed.broadcast(shared, 0)
        return float(shared)

    def _share_gradients(self) -> None:
        if not self._together:
            return
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        mean = torch.cat([gradient.flatten().cpu() for gradient in gradients])
        distributed.all_reduce(mean)
        mean /= distributed.get_world_size()
        for gradient, part in zip(gradients, mean.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _report(self) -> None:
        if not self._writes:
            return
        means = {name: round(sum(values) / len(values), 4) for name, values in self._sums.items() if values}
        self._sums.clear()
        row: dict[str, Any] = {"step": self.step, "minutes": round(self.elapsed / 60, 2), **means}
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        log.info("%s", row)

    def save(self) -> None:
        """Write a checkpoint; the old one stays whole until the new one is."""
        if not self._writes:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
        }
        partial = self.folder / "state.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "state.pt")

    def _resume(self) -> None:
        file = self.folder / "state.pt"
        if not file.exists():
            return
        state = torch.load(file, map_location=torch.get_default_device(), weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed = state["step"], state["elapsed"]
        log.info("taken up at step %d, %.1f minutes", self.step, self.elapsed / 60)


def read_state(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of the model in a checkpoint that :class:`Loop` wrote."""
    state: dict[str, Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    return state


def existing_path(text: str) -> Path:
    """Argument of a command line: a checkpoint or a folder of another run."""
    path = Path(text)
    if not path.exists():
        raise ArgumentTypeError(f"there is no {text}: name the state.pt or the folder that another stage has left")
    return path
