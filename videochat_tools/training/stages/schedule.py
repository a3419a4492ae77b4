"""How the learning rate goes with the steps."""

from __future__ import annotations

import math

__all__ = ["rate_factor"]


def rate_factor(step: int, *, total: int, warm_up: float, floor: float) -> float:
    """What the highest rate is multiplied with: linear warm-up, then half a cosine; never below ``floor``.

    A function of the step alone, so that there is no state to be kept.

    Args:
        step: From 0.
        total: Steps of all epochs.
        warm_up: Steps of the warm-up.
        floor: Least factor.
    """
    if step < warm_up:
        return max(floor, step / warm_up)
    progress = (step - warm_up) / max(1.0, total - warm_up)
    return max(floor, 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))))
