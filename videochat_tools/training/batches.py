"""Conversations as tensors, and the loss on their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel, PreTrainedTokenizerBase

from videochat_tools.training.conversations import Conversation
from videochat_tools.training.slots import Held

__all__ = ["CAUSAL_MATMUL", "ConversationBatch", "LossSum", "answer_loss", "by_length", "encode_conversations"]

CAUSAL_MATMUL = "videochat_causal_matmul"
_QUADRATIC = 1500  # tokens; a row as long costs twice as much a token as a short one
_GROUP_COST = 200  # in tokens. Of what was tried (50, 100, 200), the fastest by a little for the nano on one core


def _causal_matmul(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Causal attention by explicit products, in the precision it is given; for right-padded rows.

    On CPU the backward of torch's fused attention is slow in bfloat16, and transformers' own "eager" turns the
    scores to float32, which takes longer than the products themselves.
    """
    length = query.shape[-2]
    scores = torch.matmul(query * kwargs["scaling"], key.transpose(-1, -2))
    hidden = torch.full((length, length), float("-inf"), dtype=scores.dtype).triu_(1)
    weights = torch.softmax(scores + hidden, dim=-1, dtype=scores.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(CAUSAL_MATMUL, _causal_matmul)


@dataclass(frozen=True, slots=True)
class ConversationBatch:
    """Right-padded rows.

    Attributes:
        input_ids: [B, L]; padding stands at visual places.
        visual_mask: bool [B, L].
        clips: Numbers of the clips in reading order over all rows.
        targets: [n] ids to be predicted, all answers of all rows one after another.
        places: [n, 2] row and position whose output predicts the target.
        answers: [n] number of the answer that the target belongs to.
        kinds: Kind of each answer.
        seen: Numbers of the frames whose times are the answer, or None, for each answer.
        shown: Place of the row of a clip that has to be looked at, or None, for each answer; or empty.
        compared: Where that is known, what the question named beside what the row holds, see
            :func:`~videochat_tools.training.claims.compared`; or empty.
    """

    input_ids: Tensor
    visual_mask: Tensor
    clips: tuple[int, ...]
    targets: Tensor
    places: Tensor
    answers: Tensor
    kinds: tuple[str, ...]
    seen: tuple[tuple[int, int] | None, ...]
    shown: tuple[int | None, ...] = ()
    compared: tuple[Mapping[str, str] | None, ...] = ()


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    tokens_per_clip: int,
    held: Sequence[Held] = (),
) -> ConversationBatch:
    """Tokenise; every answer is followed by ``###``, which belongs to what is to be predicted.

    Args:
        tokenizer: Of the language model.
        conversations: The rows.
        tokens_per_clip: How many stand for a clip.
        held: Of every clip by its number, which of its tokens holds each object and event; empty if that is not known.
    """
    texts = [piece.text for conversation in conversations for piece in conversation.pieces]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    rows: list[list[int]] = []
    masks: list[list[bool]] = []
    clips: list[int] = []
    targets: list[int] = []
    places: list[tuple[int, int]] = []
    answers: list[int] = []
    kinds: list[str] = []
    seen: list[tuple[int, int] | None] = []
    shown: list[int | None] = []
    compared: list[Mapping[str, str] | None] = []
    for number, conversation in enumerate(conversations):
        row, mask, asked = [tokenizer.bos_token_id], [False], 0
        open_answer, begins = False, dict[int, int]()
        for piece in conversation.pieces:
            ids = next(encoded)
            if piece.clip is not None:
                clips.append(piece.clip)
                begins[piece.clip] = len(row)
                ids = [tokenizer.pad_token_id] * tokens_per_clip
            learned = ids if piece.is_answer else ids[:1] if open_answer else []
            for offset, target in enumerate(learned):
                targets.append(target)
                places.append((number, len(row) + offset - 1))
                answers.append(len(kinds))
            if open_answer:
                kinds.append(conversation.kinds[asked])
                seen.append(conversation.seen[asked] if conversation.seen else None)
                source = conversation.sources[asked] if held and conversation.sources else None
                shown.append(None if source is None else begins[source[0]] + held[source[0]][source[1]])
                known = source is not None and conversation.compared
                compared.append(conversation.compared[asked] if known else None)
                asked += 1
            open_answer = piece.is_answer
            row.extend(ids)
            mask.extend([piece.clip is not None] * len(ids))
        rows.append(row)
        masks.append(mask)
    length = max(map(len, rows))
    pad = tokenizer.pad_token_id
    return ConversationBatch(
        torch.tensor([row + [pad] * (length - len(row)) for row in rows]),
        torch.tensor([mask + [False] * (length - len(mask)) for mask in masks]),
        tuple(clips),
        torch.tensor(targets),
        torch.tensor(places),
        torch.tensor(answers),
        tuple(kinds),
        tuple(seen),
        tuple(shown),
        tuple(compared),
    )


def by_length(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], tokens_per_clip: int
) -> list[list[Conversation]]:
    """Rows of like length together, in the groups that cost least (:func:`_cheapest_cuts`).

    Args:
        tokenizer: Of the language model.
        conversations: The rows.
        tokens_per_clip: How many stand for a clip.
    """
    texts = [piece.text for conversation in conversations for piece in conversation.pieces]
    counts = iter(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
    lengths = [
        sum(next(counts) + (tokens_per_clip if piece.clip is not None else 0) for piece in conversation.pieces)
        for conversation in conversations
    ]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cuts = _cheapest_cuts([lengths[number] for number in order])
    return [[conversations[number] for number in order[first:last]] for first, last in pairwise(cuts)]


def _cheapest_cuts(lengths: Sequence[int]) -> list[int]:
    """Where to cut rows, sorted by their lengths, into groups that are padded to their longest: 0, …, count.

    The cost of a group is its padded tokens, more for long rows, since attention is quadratic in them, and a constant
    for the calls that it takes.
    """
    costs, begins = [0.0], [0]
    for last, longest in enumerate(lengths, start=1):
        each = longest * (1 + longest / _QUADRATIC)
        cost, first = min((costs[first] + (last - first) * each + _GROUP_COST, first) for first in range(last))
        costs.append(cost)
        begins.append(first)
    cuts = [len(lengths)]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    return cuts[::-1]


class LossSum:
    """The answers of several groups of rows as one loss."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._right: dict[str, list[float]] = {}

    def add(self, loss: Tensor, weight: Tensor, right: dict[str, list[float]]) -> None:
        """Take in what :func:`answer_loss` returns."""
        self._losses.append(loss)
        self._weights.append(weight)
        for kind, values in right.items():
            self._right.setdefault(kind, []).extend(values)

    def mean(self) -> Tensor:
        """Weighted mean loss."""
        return torch.stack(self._losses).sum() / torch.stack(self._weights).sum()

    def right(self) -> dict[str, float]:
        """Share of right answers of every kind."""
        return {kind: sum(values) / len(values) for kind, values in self._right.items()}


class FurtherQuestions(Protocol):
    """Asks hidden states more than the answers, see :class:`~videochat_tools.training.lines.LineHeads`."""

    def __call__(
        self,
        language_model: PreTrainedModel,
        states: Sequence[Tensor],
        attentions: Sequence[Tensor],
        batch: ConversationBatch,
    ) -> tuple[Tensor, dict[str, list[float]]]:
        """Loss, and for every question whether each of its answers is right.

        ``states`` [B, L, h] and ``attentions`` [B, heads, L, L] are those of every layer.
        """
        ...


def answer_loss(
    language_model: PreTrainedModel,
    inputs_embeds: Tensor,
    batch: ConversationBatch,
    further: FurtherQuestions | None = None,
) -> tuple[Tensor, Tensor, dict[str, list[float]]]:
    """Cross-entropy of the answers, each weighted by one over the root of its length.

    Long quotations would otherwise drown the single word that a colour is. The loss of ``further`` questions is added
    to the weighted mean.

    Raises:
        ValueError: ``further`` questions, and an attention that returns no weights.

    Returns:
        The weighted sum, the sum of weights, and for every kind whether each of its answers is right in all tokens.
    """
    asks = further is not None
    output = language_model.model(
        inputs_embeds=inputs_embeds, use_cache=False, output_hidden_states=asks, output_attentions=asks
    )
    hidden = output.last_hidden_state
    logits = language_model.lm_head(hidden[batch.places[:, 0], batch.places[:, 1]]).float()
    each = F.cross_entropy(logits, batch.targets, reduction="none")
    lengths = torch.bincount(batch.answers, minlength=len(batch.kinds))
    weights = lengths[batch.answers].float().rsqrt()
    wrong = torch.zeros(len(batch.kinds)).index_add_(0, batch.answers, (logits.argmax(-1) != batch.targets).float())
    right: dict[str, list[float]] = {}
    for kind, mistakes in zip(batch.kinds, wrong.tolist(), strict=True):
        right.setdefault(kind, []).append(float(mistakes == 0))
    loss = (each * weights).sum()
    if further is not None:
        if not output.attentions:
            raise ValueError(f"this attention keeps no weights: call set_attn_implementation({CAUSAL_MATMUL!r}) first")
        more, told = further(language_model, output.hidden_states, output.attentions, batch)
        loss, right = loss + weights.sum() * more, right | told
    return loss, weights.sum(), right
