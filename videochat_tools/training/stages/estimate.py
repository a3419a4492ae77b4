"""What a stage trains and what memory it takes: the network is built on the meta device, no weights are loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .options import StageOptions
from .parameters import ComponentCount, count_components
from .starting import build_empty, network_config
from .trainer import add_lora_and_freeze, make_mixture, steps_of_epoch

__all__ = ["Estimate", "estimate"]

_GIB = 2**30
_FULL = 4  # bytes of a float32: gradients, and each of AdamW's two moments


@dataclass(frozen=True, slots=True)
class Estimate:
    """A stage before it is run; ``str()`` is a table.

    Attributes:
        name: Of the stage.
        components: Parameters of each component.
        steps: Steps of one epoch in so many ``processes``; None where no data is named.
        processes: As ``torchrun`` says, else 1.
        epochs: Of the stage.
        precision: Of the frozen language model, and of autocast.
        sharded: Whether memory is divided among the processes.
    """

    name: str
    components: tuple[ComponentCount, ...]
    steps: int | None
    processes: int
    epochs: int
    precision: tuple[str, str]
    sharded: bool

    @property
    def trained(self) -> int:
        """Trained parameters."""
        return sum(each.trained for each in self.components)

    @property
    def frozen(self) -> int:
        """Frozen parameters."""
        return sum(each.frozen for each in self.components)

    @property
    def weights(self) -> dict[str, int]:
        """Bytes of all weights by precision."""
        found: dict[str, int] = {}
        for each in self.components:
            for number, size in ((each.trained, each.trained_bytes), (each.frozen, each.frozen_bytes)):
                if number:
                    name = "float32" if size == _FULL * number else self.precision[0]
                    found[name] = found.get(name, 0) + size
        return found

    @property
    def gradients(self) -> int:
        """Bytes of the gradients, in float32."""
        return _FULL * self.trained

    @property
    def optimizer(self) -> int:
        """Bytes of AdamW's two moments, in float32."""
        return 2 * _FULL * self.trained

    @property
    def total(self) -> int:
        """Bytes of weights, gradients and moments."""
        return sum(self.weights.values()) + self.gradients + self.optimizer

    def __str__(self) -> str:
        rows = [("component", "trained", "frozen", "weights, GiB")]
        rows += [
            (each.name, f"{each.trained:,}", f"{each.frozen:,}", _gib(each.trained_bytes + each.frozen_bytes))
            for each in self.components
        ]
        rows.append(("all", f"{self.trained:,}", f"{self.frozen:,}", _gib(sum(self.weights.values()))))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [self.name, ""]
        lines += [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        ]
        lines.append("")
        lines += [f"weights in {name:<10} {_gib(size):>8} GiB" for name, size in self.weights.items()]
        lines += [
            f"gradients, float32    {_gib(self.gradients):>8} GiB",
            f"AdamW, float32        {_gib(self.optimizer):>8} GiB",
            f"together              {_gib(self.total):>8} GiB a process, and activations"
            + ("; fsdp divides it among the processes" if self.sharded else ""),
            f"autocast: {self.precision[1]}",
        ]
        if self.steps is None:
            lines.append("steps: unknown, no corpora are set")
        else:
            lines.append(
                f"steps: {self.steps:,} an epoch, {self.steps * self.epochs:,} in all, "
                f"in {self.processes} process{'es' * (self.processes > 1)}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes are bytes."""
        return {
            "name": self.name,
            "components": [
                {"name": each.name, "trained": each.trained, "frozen": each.frozen,
                 "weights": each.trained_bytes + each.frozen_bytes}
                for each in self.components
            ],
            "trained": self.trained,
            "frozen": self.frozen,
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "total": self.total,
            "steps": self.steps,
            "epochs": self.epochs,
            "processes": self.processes,
        }  # fmt: skip


def estimate(options: StageOptions) -> Estimate:
    """Count a stage. Of the models before it only ``config.json`` is read, where a folder is named.

    Raises:
        ConfigurationError: A folder holds another model than the stage goes on from.
        ModelLoadError: A folder holds no configuration.
        TrainingDataError: An annotation file cannot be used.
    """
    config: Any = network_config(options)
    model: nn.Module = build_empty(config, getattr(torch, options.language_model_dtype))
    with torch.device("meta"):
        add_lora_and_freeze(model, options)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps = None
    if options.corpora:
        with make_mixture(options, world_size=processes) as mixture:
            steps = steps_of_epoch(options, mixture)
    return Estimate(
        name=f"{options.family}, stage {options.stage}",
        components=tuple(count_components(model)),
        steps=steps,
        processes=processes,
        epochs=options.epochs,
        precision=(options.language_model_dtype, options.mixed_precision),
        sharded=bool(options.fsdp),
    )


def _gib(size: int) -> str:
    return f"{size / _GIB:,.2f}"
