"""Training texts as token ids, with what is learned of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from videochat_tools.errors import UnsupportedContentError

from .recipes import EncodingRecipe
from .templates import Span, TrainingText

__all__ = ["IGNORED", "EncodedRow", "encode_spans", "encode_text", "padding_id"]

IGNORED = -100
"""Label of a place that no loss is taken of."""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row, beginning with the BOS token, of any length L.

    Attributes:
        input_ids: [L]; padding stands at visual places.
        labels: [L]; the id where it is learned, else ``IGNORED``.
        visual: [L]; which places are the clip's.
        instruction: What the Q-Former is told; None tells it nothing.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    visual: tuple[bool, ...]
    instruction: str | None = None


def padding_id(tokenizer: PreTrainedTokenizerBase, recipe: EncodingRecipe) -> int:
    """Id that the recipe pads with: the end-of-text token, but for the captions of vicuna the tokenizer's own."""
    own = tokenizer.pad_token_id if recipe.own_padding else None
    found = tokenizer.eos_token_id if own is None else own
    if found is None:
        raise UnsupportedContentError("the tokenizer has no end-of-text token to pad with; set its eos_token")
    return int(found)


def encode_text(
    tokenizer: PreTrainedTokenizerBase, text: TrainingText, recipe: EncodingRecipe, *, visual_tokens: int
) -> EncodedRow:
    """BOS, the pieces one by one, and the places of the clip.

    Args:
        tokenizer: Of the language model.
        text: From ``render_instruction`` or ``render_caption``.
        recipe: The one it was made with. Captions are cut to its ``max_text_length`` here, conversations in the batch.
        visual_tokens: Places of the clip: ``config.num_visual_tokens``, times the tiles with their global view (HD).
            Text without a clip has none, whatever is given.

    Raises:
        UnsupportedContentError: The tokenizer has no BOS token, or see :func:`encode_spans`.
    """
    if tokenizer.bos_token_id is None:
        raise UnsupportedContentError("the tokenizer has no BOS token, which every training row begins with")
    ids: list[int] = [int(tokenizer.bos_token_id)]
    labels, visual = [IGNORED], [False]
    for number, piece in enumerate(text.pieces):
        if piece is None:
            ids += [padding_id(tokenizer, recipe)] * visual_tokens
            labels += [IGNORED] * visual_tokens
            visual += [True] * visual_tokens
            continue
        piece_ids, piece_labels = encode_spans(tokenizer, piece)
        if recipe.captions is not None and number == len(text.pieces) - 1:
            piece_ids, piece_labels = piece_ids[: recipe.max_text_length], piece_labels[: recipe.max_text_length]
        ids += piece_ids
        labels += piece_labels
        visual += [False] * len(piece_ids)
    return EncodedRow(tuple(ids), tuple(labels), tuple(visual), text.instruction)


def encode_spans(tokenizer: PreTrainedTokenizerBase, spans: Sequence[Span]) -> tuple[list[int], list[int]]:
    """Ids of the spans as one text, and their labels.

    The text is tokenised as a whole. A border between learned and read text lies where the ids of the text before it
    end; where white space before the border is joined with what follows it ("What?  ###": two spaces are one LLaMA
    token), it counts to what follows.

    Raises:
        UnsupportedContentError: A token lies across a border, so that it is neither learned nor read.
    """
    whole = "".join(span.text for span in spans)
    ids: list[int] = tokenizer(whole, add_special_tokens=False)["input_ids"]
    labels: list[int] = []
    position = 0
    for number, span in enumerate(spans):
        position += len(span.text)
        if number < len(spans) - 1 and spans[number + 1].learned == span.learned:
            continue
        end = len(ids) if number == len(spans) - 1 else _border(tokenizer, whole, position, ids)
        labels += ids[len(labels) : end] if span.learned else [IGNORED] * (end - len(labels))
    return ids, labels


def _border(tokenizer: PreTrainedTokenizerBase, whole: str, position: int, ids: list[int]) -> int:
    """How many of ``ids`` belong to the text before ``position``."""
    before = whole[:position]
    for text in (before, before.rstrip()):
        prefix = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids[: len(prefix)] == prefix:
            return len(prefix)
    raise UnsupportedContentError(
        f"the tokenizer joins the end of {before[-20:]!r} with the start of {whole[position : position + 20]!r} in one "
        "token, so it cannot be told which of it is learned; put a space between them or leave the sample out"
    )
