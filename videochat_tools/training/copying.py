"""Starting weights under which a small LLaMA already copies: the induction circuit, laid out by hand.

Quoting what was said, citing a timecode and looking up what stands beside a word all rest on one circuit (Olsson et al.
2022, "In-context learning and induction heads", arXiv 2209.11895): heads that tell every token which ones stood before
it, and in a later layer heads that find the place after an earlier occurrence of the current token and copy what stands
there. Neither is rewarded before the other exists; left to chance, a model of this size had not found it after 1,500
steps. Heads of the layers above write what they look at, wherever that is. Everything here is a starting point that
training is free to change, those first layers at lower rates (:data:`SLOWER`): at the rates of the others the circuit
is washed out within some hundred steps.

One token is not enough to find the place by: times, names and foreign words repeat their letters and digits. So the
last few tokens are compared, not one (docs/experiments.md tells what that changed). The residual stream is parted for
it: channel 0 is the same for all tokens, the next ones carry "the token before", "the one before that" and so on, the
rest carry the token itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["SLOWER", "start_with_copying"]

_PARTS = {"embed_tokens.": 0.5, "layers.0.": 0.3, "layers.1.": 0.3}
SLOWER: Mapping[str, float] = MappingProxyType({f"language_model.model.{name}": by for name, by in _PARTS.items()})
"""Factors on the rates of what is laid out here, by parts of the names of weights."""

_MOST_BACK = 4  # tokens; a head of layer 0 for each
_CARRIED = 20  # channels that carry one of them
_FAR = 200  # tokens; rotary pairs that turn by less than _STILL radians over these can compare tokens far apart
_STILL = 0.7
_CONSTANT = 0.1  # channel 0 of the embeddings, whose other channels start at a standard deviation of 0.02
_SHARP = 2.4  # entries of queries and keys: attention that is nearly all on one place
_FINAL_NORM = 6.0  # copied tokens should win by some logits from the start


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Rows at right angles, [rows, columns]."""
    drawn = torch.randn(columns, rows, generator=generator, device="cpu")
    return torch.linalg.qr(drawn)[0].T.to(torch.get_default_device())


@torch.no_grad()
def start_with_copying(language_model: PreTrainedModel, seed: int = 0) -> None:
    """Set embeddings and the first two layers of a LLaMA with tied embeddings."""
    generator = torch.Generator("cpu").manual_seed(seed)
    config, layers = language_model.config, language_model.model.layers
    width = config.hidden_size // config.num_attention_heads
    back = min(_MOST_BACK, config.num_attention_heads - 2)
    content = slice(1 + back * _CARRIED, config.hidden_size)
    table = language_model.get_input_embeddings().weight
    table[:, 0] = _CONSTANT
    table[:, 1 : content.start] = 0.0
    language_model.model.norm.weight.fill_(_FINAL_NORM)
    for layer in layers:  # all else begins quietly
        layer.mlp.down_proj.weight.mul_(0.25)
        layer.self_attn.o_proj.weight.mul_(0.25)
    reading = _orthonormal(_CARRIED, config.hidden_size - content.start, generator)
    theta = config.rope_parameters["rope_theta"]
    for head in range(back):
        _look_back(layers[0].self_attn, head, width, theta, reading, content)
    slow = [pair for pair in range(width // 2) if _FAR * theta ** (-2 * pair / width) < _STILL]
    channels = [*slow, *(pair + width // 2 for pair in slow)]
    _copy_after_match(layers[1].self_attn, config.num_attention_heads, back, channels, reading, content, generator)
    for layer in layers[2:]:  # where to look is to be learned there; then what is seen is told at once
        _write_what_is_seen(layer.self_attn, range(config.num_attention_heads), 0.15, content, generator)


def _look_back(attention: Any, head: int, width: int, theta: float, reading: Tensor, content: slice) -> None:
    """A head that sees the token ``head + 1`` before: constant queries and keys, turned by as many steps."""
    rows = slice(head * width, (head + 1) * width)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[rows] = 0.0
    for pair in range(5):  # the fast pairs tell neighbours apart
        angle = (head + 1) * theta ** (-2 * pair / width)
        row = rows.start + pair
        attention.k_proj.weight[row, 0] = _SHARP
        attention.q_proj.weight[row, 0] = _SHARP * math.cos(angle)
        attention.q_proj.weight[row + width // 2, 0] = -_SHARP * math.sin(angle)
    carried = slice(rows.start, rows.start + _CARRIED)
    attention.v_proj.weight[carried, content] = reading
    attention.o_proj.weight[:, rows] = 0.0
    first = 1 + head * _CARRIED
    attention.o_proj.weight[first : first + _CARRIED, carried] = 0.03 * torch.eye(_CARRIED)


def _copy_after_match(
    attention: Any,
    heads: int,
    back: int,
    channels: Sequence[int],
    reading: Tensor,
    content: slice,
    generator: torch.Generator,
) -> None:
    """Heads that copy from where the tokens before are the current one and those before it.

    Args:
        attention: Of layer 1.
        heads: That it has; the last one is left as it is.
        back: How many tokens are compared.
        channels: Of a head, those that can compare tokens far apart.
        reading: What is carried of a token, [carried, content].
        content: Channels that carry the token itself.
        generator: Source of chance.
    """
    width = attention.head_dim
    share = len(channels) // back
    # The nearest token gets what is left over.
    cuts = [0, *(len(channels) - share * step for step in range(back - 1, -1, -1))]
    parts = [channels[first:last] for first, last in pairwise(cuts)]
    for head in range(heads - 1):
        rows = slice(head * width, (head + 1) * width)
        attention.q_proj.weight[rows] = attention.k_proj.weight[rows] = 0.0
        for step, compared in enumerate(parts):
            for number, channel in enumerate(compared):
                place = (head * len(compared) + number) % _CARRIED  # together the heads compare all that is carried
                attention.k_proj.weight[rows.start + channel, 1 + step * _CARRIED + place] = _SHARP
                if step:
                    attention.q_proj.weight[rows.start + channel, 1 + (step - 1) * _CARRIED + place] = _SHARP
                else:
                    attention.q_proj.weight[rows.start + channel, content] = _SHARP * reading[place]
    _write_what_is_seen(attention, range(heads - 1), 0.08, content, generator)


def _write_what_is_seen(
    attention: Any, heads: Sequence[int], strength: float, content: slice, generator: torch.Generator
) -> None:
    """Heads that write the token that they look at where they stand."""
    width, size = attention.head_dim, attention.v_proj.weight.shape[1] - content.start
    basis = _orthonormal(size, size, generator)
    for head in heads:
        rows = slice(head * width, (head + 1) * width)
        part = basis[[(head * width + row) % size for row in range(width)]]  # together the heads write all channels
        attention.v_proj.weight[rows] = 0.0
        attention.v_proj.weight[rows, content] = part
        attention.o_proj.weight[:, rows] = 0.0
        attention.o_proj.weight[content, rows] = strength * part.T
