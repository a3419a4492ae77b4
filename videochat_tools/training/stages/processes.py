"""What the processes of a run exchange."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["gather", "rank", "world_size"]


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Number of this one, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """Rows of all processes, in their order; the gradient of every process's loss flows back to whose the row is."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]


def gather(rows: Tensor) -> Tensor:
    """Rows [B, ...] of every process as [processes * B, ...]; B must be the same everywhere.

    Where every process takes the same loss of the gathered rows and gradients are then averaged over processes, the
    gradient is exactly that of one process with all rows.
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered
