"""Starting weights under which a small LLaMA already copies: the induction circuit, laid out by hand.

Quoting what was said, citing a timecode and looking up what stands beside a word all rest on one circuit (Olsson et al.
2022, "In-context learning and induction heads", arXiv 2209.11895): a head that tells every token which one stood
before it, and in a later layer heads that find the place after an earlier occurrence of the current token and copy
what stands there. Neither is rewarded before the other exists; left to chance, a model of this size had not found it
after 1,500 steps. Everything here is a starting point that training is free to change.

The residual stream is parted for it: channel 0 is the same for all tokens, the next ones carry "the token before",
the rest carry the token itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["LOOK_BACK_LAYERS", "look_far_back", "start_with_copying"]

LOOK_BACK_LAYERS = (0, 1)
"""Layers whose heads see the tokens 2 to 7 and 8 to 13 places back, or as many as there are heads."""
_PREVIOUS_LAYER, _COPYING_LAYER = 2, 3

_PREVIOUS_HEADS = 2
_SLOW_PAIRS = 6  # rotary pairs that hardly turn over a prompt: only they can compare tokens far apart
_CONSTANT = 0.1  # channel 0 of the embeddings, whose other channels start at a standard deviation of 0.02


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Rows at right angles, [rows, columns]."""
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0].T


@torch.no_grad()
def start_with_copying(language_model: PreTrainedModel, seed: int = 0) -> None:
    """Set embeddings and the first layers of a LLaMA with tied embeddings."""
    generator = torch.Generator().manual_seed(seed)
    config, layers = language_model.config, language_model.model.layers
    width = config.hidden_size // config.num_attention_heads
    carried = _PREVIOUS_HEADS * width  # channels 1..carried: the token before
    content = slice(1 + carried, config.hidden_size)
    size = config.hidden_size - 1 - carried
    table = language_model.get_input_embeddings().weight
    table[:, 0] = _CONSTANT
    table[:, 1 : 1 + carried] = 0.0
    language_model.model.norm.weight.fill_(3.0)  # copied tokens should win by some logits from the start
    for number, layer in enumerate(layers):  # all else begins quietly, and what comes before copying silently
        loudness = 0.0 if number in LOOK_BACK_LAYERS else 0.25
        layer.mlp.down_proj.weight.mul_(loudness)
        layer.self_attn.o_proj.weight.mul_(loudness)
    reading = torch.cat([_orthonormal(width, size, generator) for _ in range(_PREVIOUS_HEADS)])  # [carried, size]
    _look_back(language_model, layers[_PREVIOUS_LAYER].self_attn, width, reading, content)
    _copy_after_match(layers[_COPYING_LAYER].self_attn, config.num_attention_heads, width, reading, content, generator)


def _look_back(language_model: PreTrainedModel, attention: Any, width: int, reading: Tensor, content: slice) -> None:
    """Heads that see the token before."""
    same = torch.zeros(language_model.config.hidden_size)
    same[0] = 2.4
    for head in range(_PREVIOUS_HEADS):
        rows = slice(head * width, (head + 1) * width)
        _look_at(
            attention, head, width, same, 1, _theta(language_model), pairs=5
        )  # the fast ones tell neighbours apart
        attention.v_proj.weight[rows] = 0.0
        attention.v_proj.weight[rows, content] = reading[rows]
        attention.o_proj.weight[:, rows] = 0.0
        attention.o_proj.weight[1 + head * width : 1 + (head + 1) * width, rows] = 0.03 * torch.eye(width)


def _look_at(attention: Any, head: int, width: int, same: Tensor, steps: int, theta: float, *, pairs: int) -> None:
    """Queries and keys, the same for all tokens, turned against each other by so many places.

    ``same`` is a row [hidden] whose product with any normalised state is about the same.
    """
    rows = slice(head * width, (head + 1) * width)
    attention.q_proj.weight[rows] = 0.0
    attention.k_proj.weight[rows] = 0.0
    for pair in range(pairs):
        angle = steps * theta ** (-2 * pair / width)
        row = head * width + pair
        attention.k_proj.weight[row] = same
        attention.q_proj.weight[row] = math.cos(angle) * same
        attention.q_proj.weight[row + width // 2] = -math.sin(angle) * same


def _copy_after_match(
    attention: Any, heads: int, width: int, reading: Tensor, content: slice, generator: torch.Generator
) -> None:
    """Heads whose keys are the token before and whose queries the token itself; they copy what stands there."""
    half = width // 2
    slow = [*range(half - _SLOW_PAIRS, half), *range(width - _SLOW_PAIRS, width)]
    size, carried = reading.shape[1], reading.shape[0]
    copying = min(heads - 1, carried // len(slow))
    basis = _orthonormal(size, size, generator)
    for head in range(copying):
        rows = slice(head * width, (head + 1) * width)
        compared = range(head * len(slow), (head + 1) * len(slow))  # these of the carried channels
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[rows] = 0.0
        for row, channel in zip(slow, compared, strict=True):
            attention.k_proj.weight[head * width + row, 1 + channel] = 2.4
            attention.q_proj.weight[head * width + row, content] = 2.4 * reading[channel]
        part = basis[[(head * width + i) % size for i in range(width)]]  # together the heads copy all channels
        attention.v_proj.weight[rows, content] = part
        attention.o_proj.weight[:, rows] = 0.0
        attention.o_proj.weight[content, rows] = 0.06 * part.T


@torch.no_grad()
def look_far_back(language_model: PreTrainedModel, input_ids: Tensor, seed: int = 0) -> None:
    """Lay out the heads of :data:`LOOK_BACK_LAYERS`, which so far change nothing and go on changing nothing.

    The letter of an option and the name of a speaker stand some places before the words that are matched. A head that
    looks so far back is of no use until another asks it, and the other way round: 4,000 steps had found neither. The
    heads write nothing yet; what they see is there to be taken up.

    Args:
        language_model: A LLaMA, trained or not; these layers must not write to the residual stream.
        input_ids: Some text [B, L], on which a direction is sought that is the same for all tokens.
        seed: Chooses what the heads carry.
    """
    generator = torch.Generator().manual_seed(seed)
    model, heads = language_model.model, language_model.config.num_attention_heads
    width = language_model.config.hidden_size // heads
    states = model(input_ids=input_ids, output_hidden_states=True, use_cache=False).hidden_states
    for place, layer in enumerate(LOOK_BACK_LAYERS):
        attention, norm = model.layers[layer].self_attn, model.layers[layer].input_layernorm
        seen = norm(states[layer]).flatten(0, 1).double()
        same = torch.linalg.lstsq(seen, torch.ones(len(seen), 1, dtype=torch.float64)).solution[:, 0].float()
        basis = _orthonormal(width * heads, width * heads, generator)
        for head in range(heads):
            rows = slice(head * width, (head + 1) * width)
            steps = 2 + place * heads + head
            _look_at(attention, head, width, _SHARP * same, steps, _theta(language_model), pairs=_FAR_PAIRS)
            attention.v_proj.weight[rows] = basis[rows]
            attention.o_proj.weight[:, rows] = 0.0


_FAR_PAIRS = 8  # rotary pairs; the slowest of these turns once in 350 places
_SHARP = 6.0


def _theta(language_model: PreTrainedModel) -> float:
    theta: float = language_model.config.rope_parameters["rope_theta"]
    return theta
