"""The texts of a batch of clips in stage 1: true ones and nearly true ones, and which of their words are false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from videochat_tools.training.clips import draw_texts, match_matrix
from videochat_tools.training.world.language import Text
from videochat_tools.training.world.scene import Scene

__all__ = ["UNKNOWN", "BatchTexts", "draw_batch_texts"]

UNKNOWN = -1.0  # in place of 1 (false) or 0 (true)
_MOST_FAULTS = 4  # where more words differ from the truth, most of them are only worded otherwise


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


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
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
    ids, mask = _encode(tokenizer, [text.text for text in texts])
    faults = torch.full(ids.shape, UNKNOWN)
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
