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
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["start_with_copying"]

_PREVIOUS_HEADS = 2  # in layer 0
_FAR = 200  # tokens; rotary pairs that turn by less than _STILL radians over these can compare tokens far apart
_STILL = 0.7
_CONSTANT = 0.1  # channel 0 of the embeddings, whose other channels start at a standard deviation of 0.02


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Rows at right angles, [rows, columns]."""
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0].T


@torch.no_grad()
def start_with_copying(language_model: PreTrainedModel, seed: int = 0) -> None:
    """Set embeddings and the first two layers of a LLaMA with tied embeddings."""
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
    for layer in layers:  # all else begins quietly
        layer.mlp.down_proj.weight.mul_(0.25)
        layer.self_attn.o_proj.weight.mul_(0.25)
    reading = torch.cat([_orthonormal(width, size, generator) for _ in range(_PREVIOUS_HEADS)])  # [carried, size]
    _look_back(language_model, layers[0].self_attn, width, reading, content)
    theta = config.rope_parameters["rope_theta"]
    slow = [pair for pair in range(width // 2) if _FAR * theta ** (-2 * pair / width) < _STILL]
    _copy_after_match(layers[1].self_attn, config.num_attention_heads, width, slow, reading, content, generator)


def _look_back(language_model: PreTrainedModel, attention: Any, width: int, reading: Tensor, content: slice) -> None:
    """Heads that see the token before: constant queries and keys, turned against each other by one step."""
    theta = language_model.config.rope_parameters["rope_theta"]
    for head in range(_PREVIOUS_HEADS):
        rows = slice(head * width, (head + 1) * width)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[rows] = 0.0
        for pair in range(5):  # the fast pairs tell neighbours apart
            angle = theta ** (-2 * pair / width)
            row = head * width + pair
            attention.k_proj.weight[row, 0] = 2.4
            attention.q_proj.weight[row, 0] = 2.4 * math.cos(angle)
            attention.q_proj.weight[row + width // 2, 0] = -2.4 * math.sin(angle)
        attention.v_proj.weight[rows, content] = reading[rows]
        attention.o_proj.weight[:, rows] = 0.0
        attention.o_proj.weight[1 + head * width : 1 + (head + 1) * width, rows] = 0.03 * torch.eye(width)


def _copy_after_match(
    attention: Any,
    heads: int,
    width: int,
    pairs: Sequence[int],
    reading: Tensor,
    content: slice,
    generator: torch.Generator,
) -> None:
    """Heads whose keys are the token before and whose queries the token itself; they copy what stands there."""
    slow = [*pairs, *(pair + width // 2 for pair in pairs)]
    size, carried = reading.shape[1], reading.shape[0]
    basis = _orthonormal(size, size, generator)
    for head in range(heads - 1):
        rows = slice(head * width, (head + 1) * width)
        compared = [(head * len(slow) + row) % carried for row in range(len(slow))]  # these of the carried channels
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[rows] = 0.0
        for row, channel in zip(slow, compared, strict=True):
            attention.k_proj.weight[head * width + row, 1 + channel] = 2.4
            attention.q_proj.weight[head * width + row, content] = 2.4 * reading[channel]
        part = basis[[(head * width + i) % size for i in range(width)]]  # together the heads copy all channels
        attention.v_proj.weight[rows, content] = part
        attention.o_proj.weight[:, rows] = 0.0
        attention.o_proj.weight[content, rows] = 0.06 * part.T
