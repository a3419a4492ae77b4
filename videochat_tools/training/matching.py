"""Matching (ITM): whether a text is true of a clip, and at which of its words it is not.

One bit a text is a slow teacher for a small network: after two hours a caption that is false in one word was told from
a true one in 0.77 of all cases. So a head that is left behind when training ends asks every word, one layer before the
end, whether the clip contradicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from videochat_tools.models.videochat2.modeling_videochat2 import VideoChat2ForRetrieval
from videochat_tools.training.clips import draw_texts, match_matrix
from videochat_tools.training.world.language import Text
from videochat_tools.training.world.scene import Scene

__all__ = ["BatchTexts", "draw_batch_texts", "encode_texts", "matching_loss"]

_FAULT_WEIGHT = 4.0  # how much more a false word counts than a true one; there are about ten times as many true ones
_MOST_FAULTS = 4  # where more words differ from the truth, most of them are only worded otherwise
_UNKNOWN = -1.0


@dataclass(frozen=True, slots=True)
class BatchTexts:
    """The texts of a batch: for every clip true ones and false ones, and which are true of which clip.

    Attributes:
        ids: [texts, L] of the Q-Former.
        mask: [texts, L].
        matches: bool [texts, clips].
        faults: [texts, L] 1 where a piece is of a word that is false of the text's own clip, 0 where not, -1 unknown.
        texts: The words.
        own_right: One true text of each clip.
        own_wrong: Texts that are nearly true of each clip.
    """

    ids: Tensor
    mask: Tensor
    matches: Tensor
    faults: Tensor
    texts: list[Text]
    own_right: list[int]
    own_wrong: list[list[int]]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded on the right to the longest."""
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def draw_batch_texts(
    rng: Random, tokenizer: PreTrainedTokenizerBase, scenes: Sequence[Scene], wrong: int
) -> BatchTexts:
    """True texts, and ``wrong`` nearly true ones of each scene."""
    right: list[Text] = []
    false: list[Text] = []
    own_right: list[int] = []
    own_wrong: list[list[int]] = []
    for scene in scenes:
        true, untrue = draw_texts(rng, scene, wrong)
        own_right.append(len(right) + rng.randrange(len(true)))
        right.extend(true)
        own_wrong.append(list(range(len(false), len(false) + len(untrue))))
        false.extend(untrue)
    texts = [*right, *false]
    own_wrong = [[len(right) + number for number in numbers] for numbers in own_wrong]
    ids, mask = encode_texts(tokenizer, [text.text for text in texts])
    faults = torch.full(ids.shape, _UNKNOWN)
    faults[: len(right)] = 0.0
    for number, text in enumerate(false, len(right)):
        if text.faults is not None and 0 < len(text.faults) <= _MOST_FAULTS:
            faults[number] = _mark_pieces(tokenizer, text, ids[number].tolist())
    return BatchTexts(ids, mask, match_matrix(texts, scenes), faults, texts, own_right, own_wrong)


def _mark_pieces(tokenizer: PreTrainedTokenizerBase, text: Text, ids: Sequence[int]) -> Tensor:
    """1 at the pieces of words that are false. Words are told by the spaces between them."""
    words = text.text.split()
    counts = [len(pieces) for pieces in tokenizer(words, add_special_tokens=False)["input_ids"]]
    marks = torch.zeros(len(ids))
    for number in text.faults or ():
        start = 1 + sum(counts[:number])  # after [CLS]
        marks[start : start + counts[number]] = 1.0
    return marks


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
    asked = (faults != _UNKNOWN) & mask.bool() & torch.tensor(own)[:, None]
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
