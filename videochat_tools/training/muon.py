"""Muon for weight matrices and convolution kernels (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

``torch.optim.Muon`` takes two-dimensional weights only and orthogonalises them one by one; here kernels count as
matrices too (the stem learns shapes several times faster so), and equal shapes are done in one batch, which on CPU
halves the time of an update.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon"]

_QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the published Newton-Schulz iteration


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest orthogonal matrices of a batch [n, rows, columns], in bfloat16."""
    a, b, c = _QUINTIC
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; scaled so that an update has 0.2 times ``lr`` as root mean square, like AdamW's."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state: dict[str, Any] = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                by_shape[ahead.shape].append((parameter, ahead))
            for shape, members in by_shape.items():
                updates = orthogonalize(torch.stack([update for _, update in members]))
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                for (parameter, _), update in zip(members, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view_as(parameter).to(parameter.dtype), alpha=-scale)
