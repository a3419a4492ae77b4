"""Matching (ITM): whether a text is true of a clip, and at which of its words it is not.

One bit a text is a slow teacher for a small network: after two hours a caption that is false in one word was told from
a true one in 0.77 of all cases. So a head that is left behind when training ends asks every word, one layer before the
end, whether the clip contradicts it.
"""

from __future__ import annotations

from random import Random
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videochat_tools.models.videochat2.modeling_videochat2 import VideoChat2ForRetrieval
from videochat_tools.training.texts import UNKNOWN, BatchTexts

__all__ = ["matching_loss"]

_FAULT_WEIGHT = 4.0  # how much more a false word counts than a true one; there are about ten times as many true ones


def matching_loss(
    network: VideoChat2ForRetrieval,
    fault_head: nn.Module,
    rng: Random,
    vision: Tensor,
    texts: BatchTexts,
    scores: Tensor,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Every clip with a true text and two false ones: one nearly true, and another such, one alike or any.

    Args:
        network: The stage-1 network.
        fault_head: Linear, from a row of the Q-Former to one logit.
        rng: Source of chance.
        vision: What the tower sees [B, S, D].
        texts: Of these clips.
        scores: [B, texts] similarities over the temperature, from which hard negatives are drawn.
    """
    chosen: list[int] = list(texts.own_right)
    clips = list(range(len(texts.own_right)))
    own = [True] * len(clips)
    for clip, false in enumerate(texts.own_wrong):
        picked = rng.sample(false, min(len(false), 2))
        if len(picked) == 2 and rng.random() < 0.5:
            picked.pop()
        chosen += picked
        own += [True] * len(picked)
        while len(picked) < 2:
            # The text of another clip: any, which is where matching begins to be learned, or one that looks alike.
            weights = scores[clip].softmax(0) + 1e-4 if rng.random() < 0.6 else torch.ones_like(scores[clip])
            picked.append(int(torch.multinomial(weights.masked_fill(texts.matches[:, clip], 0.0), 1)))
            chosen.append(picked[-1])
            own.append(False)
        clips += [clip, clip]
    ids, mask = texts.ids[chosen], texts.mask[chosen]
    longest = int(mask.sum(dim=1).max())
    ids, mask = ids[:, :longest], mask[:, :longest]
    states = network.read_jointly(vision[clips], ids, mask, output_hidden_states=True).hidden_states
    assert states is not None
    labels = torch.zeros(len(clips), dtype=torch.long)
    labels[: len(texts.own_right)] = 1
    logits = cast(Tensor, network.itm_head(network.pool_matched(states[-1]))).float()
    right = logits.argmax(-1) == labels
    # True and false count alike, though there are two of the latter.
    loss = F.cross_entropy(logits, labels, torch.tensor([0.5, 1.0]))

    faults = texts.faults[chosen][:, :longest]
    asked = (faults != UNKNOWN) & mask.bool() & torch.tensor(own)[:, None]
    words = states[-2][:, network.query_tokens.shape[1] :][asked]
    told, target = fault_head(words).float().squeeze(-1), faults[asked]
    weight = 1.0 + (_FAULT_WEIGHT - 1.0) * target
    fault = F.binary_cross_entropy_with_logits(told, target, weight)
    near = torch.tensor(own) & (labels == 0)
    values: dict[str, float | Tensor] = {
        "itm": loss,
        "itm_hit": right.float().mean(),
        "itm_near": right[near].float().mean(),
        "itm_true": right[labels == 1].float().mean(),
        "fault": fault,
        "fault_hit": ((told > 0) == (target > 0))[target > 0].float().mean(),
    }
    return loss + 2.0 * fault, values
