"""Rows to batches, and batches to what the model's own loss is taken of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from videochat_tools.errors import ContextTooLongError, UnsupportedContentError
from videochat_tools.models.modeling_chat import ClipChatModel

from .labels import IGNORED, EncodedRow, padding_id
from .recipes import EncodingRecipe

__all__ = ["TrainingBatch", "collate", "loss_inputs"]


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Rows padded on the right. Videos, images and text alone may stand side by side.

    Attributes:
        input_ids: [B, L]; padding also stands at visual places.
        attention_mask: 1 where a row is real [B, L].
        visual_mask: bool [B, L].
        labels: [B, L], -100 where no loss is taken.
        instructions: What the Q-Former is told about the clip of each row; None tells it nothing.
    """

    input_ids: Tensor
    attention_mask: Tensor
    visual_mask: Tensor
    labels: Tensor
    instructions: tuple[str | None, ...]

    def clip_instructions(self, tokens_per_clip: int) -> list[str]:
        """One text for each clip in reading order: a clip of several tiles (HD) has as many; text alone has none.

        Empty for recipes that tell the Q-Former nothing; ``get_clip_tokens`` then gets the pixels alone.

        Args:
            tokens_per_clip: ``config.num_visual_tokens``.
        """
        counts = (self.visual_mask.sum(dim=1) // tokens_per_clip).tolist()
        rows = zip(self.instructions, counts, strict=True)
        return [text for text, count in rows if text is not None for _ in range(count)]


def collate(rows: Sequence[EncodedRow], tokenizer: PreTrainedTokenizerBase, recipe: EncodingRecipe) -> TrainingBatch:
    """Pad on the right and cut on the right.

    A batch of conversations is as long as its longest row, but no longer than ``max_text_length`` plus the longest
    visual part of a row (for rows of text alone: plus nothing); the BOS token counts. Captions are as long as they are.

    Raises:
        ContextTooLongError: The cut would go through a clip, or would leave nothing to be learned.
        UnsupportedContentError: There are no rows.
    """
    if not rows:
        raise UnsupportedContentError("a batch needs at least one row")
    length = max(len(row.input_ids) for row in rows)
    if recipe.captions is None:
        length = min(length, recipe.max_text_length + max(sum(row.visual) for row in rows))
    for number, row in enumerate(rows):
        if any(row.visual[length:]):
            start = row.visual.index(True)
            raise ContextTooLongError(
                f"row {number} has {start} tokens before its clip, so that a cut at {length} goes through the clip; "
                "shorten its instruction or raise max_text_length"
            )
    if all(label == IGNORED for row in rows for label in row.labels[:length]):
        raise ContextTooLongError(
            f"nothing to learn is left of a batch that is cut at {length} tokens; raise max_text_length "
            "or leave out samples whose questions are this long"
        )
    pad = padding_id(tokenizer, recipe)
    shape = (len(rows), length)
    batch = TrainingBatch(
        torch.full(shape, pad),
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.bool),
        torch.full(shape, IGNORED),
        tuple(row.instruction for row in rows),
    )
    for number, row in enumerate(rows):
        end = min(length, len(row.input_ids))
        batch.input_ids[number, :end] = torch.tensor(row.input_ids[:end])
        batch.attention_mask[number, :end] = 1
        batch.visual_mask[number, :end] = torch.tensor(row.visual[:end])
        batch.labels[number, :end] = torch.tensor(row.labels[:end])
    return batch


def loss_inputs(
    model: ClipChatModel, batch: TrainingBatch, clip_tokens: Tensor | None, *, constant_bos: bool = False
) -> dict[str, Any]:
    """What ``model(**inputs).loss`` is taken of: ``inputs_embeds`` [B, L, H], ``attention_mask`` and ``labels``.

    Args:
        model: The chat model.
        batch: From :func:`collate`.
        clip_tokens: [clips, Q, h] of all rows in reading order, tiles of one clip (HD) one after another; None if no
            row shows anything.
        constant_bos: Repeat a mistake of the released conversation stages (not of their captioning stages): every
            component of the first embedding was the NUMBER of the BOS id, 1.0, in place of its embedding.

    Raises:
        UnsupportedContentError: There are more or fewer clip tokens than visual places.
    """
    embeds = model.embed_prompt(batch.input_ids, batch.visual_mask, clip_tokens)
    if constant_bos:
        number = batch.input_ids[:, :1, None].to(embeds.dtype).expand(-1, -1, embeds.shape[-1])
        embeds = torch.cat([number, embeds[:, 1:]], dim=1)
    return {"inputs_embeds": embeds, "attention_mask": batch.attention_mask, "labels": batch.labels}
