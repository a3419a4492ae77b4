"""A language model that goes on learning at other rotary angles than it began with.

With a larger ``rope_theta`` more of a head's rotary pairs turn so little over a prompt that they can compare words far
apart (:data:`~videochat_tools.training.recipe.ROPE_THETA`). Weights that were learned at other angles are lost if these
change at once: cross-entropy on drills rises from 0.05 to 2. So every pair slides from the frequency that it was
learned at to the nearest of the new ones that is free, while the model trains. From 1e4 to 1e8, half of the pairs stay
where they are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["SlidingAngles"]


class SlidingAngles:
    """Puts the rotary pairs of a LLaMA in the order of their new frequencies, and slides them there.

    Args:
        language_model: Made for the new base, with weights that were learned at the old one. The order of its pairs is
            changed here, which changes nothing else.
        old: ``rope_theta`` of the weights.
    """

    def __init__(self, language_model: PreTrainedModel, old: float) -> None:
        self._rotary = language_model.model.rotary_emb
        self._new = self._rotary.inv_freq.clone()  # [pairs], in falling order
        known = old ** -(torch.arange(len(self._new)) / len(self._new))
        pairs = _nearest(known.log(), self._new.log())
        self._old = known[pairs].to(self._new)
        turned = torch.cat([pairs, pairs + len(pairs)])  # a pair is two channels, half a head apart
        for layer in language_model.model.layers:
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                weight = projection.weight.data.view(-1, len(turned), projection.in_features)  # [heads, width, h]
                weight.copy_(weight[:, turned])
        self.slide(0.0)

    def slide(self, share: float) -> None:
        """Set the frequencies; 0: those of the weights, 1: the new ones. Early steps, which cost most, are short."""
        between = self._old.log().lerp(self._new.log(), min(max(share, 0.0), 1.0) ** 2).exp()
        self._rotary.inv_freq.copy_(self._new if share >= 1.0 else between)


def _nearest(known: Tensor, wanted: Tensor) -> Tensor:
    """For each of the wanted values, in order, the number of the nearest known one that is left [n]."""
    left = known.clone()
    chosen = []
    for value in wanted:
        chosen.append(int((left - value).abs().argmin()))
        left[chosen[-1]] = torch.inf
    return torch.tensor(chosen)
