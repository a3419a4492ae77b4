"""A trained network put into a larger recipe: more words, more queries, more layers, and what it knows kept.

Words are found by their spelling, since a new vocabulary numbers them anew. New layers begin as the identity, new
queries as noise of the old ones' size, new words as the mean of all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.videochat2.configuration_videochat2 import VideoChat2Config

__all__ = ["grow", "read_folder", "read_rope_theta", "read_vocabulary"]

_LAYER = re.compile(r"(?<=language_model\.model\.layers\.)\d+(?=\.)")
_WRITERS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")  # with these at zero a LLaMA layer changes nothing
_QUERIES = ("query_tokens", "extra_query_tokens")


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a network in the Hugging Face layout, in single precision."""
    return {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}


def read_vocabulary(folder: Path) -> dict[str, int]:
    """Word to number of a tokenizer folder."""
    vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    return vocabulary


def read_rope_theta(folder: Path) -> float:
    """The base of the rotary angles at which the heads of a chat model compare words, which hold for no others."""
    config: LlamaConfig = VideoChat2Config.from_pretrained(folder).text_config
    return float(config.rope_parameters["rope_theta"])


@torch.no_grad()
def grow(
    network: nn.Module,
    old: Mapping[str, Tensor],
    words: Sequence[tuple[Mapping[str, int], PreTrainedTokenizerBase]],
    *,
    layers: Sequence[int] = (),
) -> None:
    """Put the tensors of a smaller network into ``network``.

    Args:
        network: What is to be filled, with fresh weights.
        old: The smaller network's tensors.
        words: Its vocabularies, each with the tokenizer that takes its place.
        layers: For every old layer of the language model its new number; the layers between begin as the identity.

    Raises:
        ModelLoadError: A tensor fits neither as it is nor by one of these rules.
    """
    tables = {len(vocabulary): (vocabulary, tokenizer) for vocabulary, tokenizer in words}
    own = dict(network.state_dict())
    if layers:
        for name, value in own.items():
            if name.endswith(_WRITERS) and _LAYER.search(name):
                value.zero_()
        old = {_LAYER.sub(lambda number: str(layers[int(number[0])]), name): value for name, value in old.items()}
    for name, value in old.items():
        if name not in own:
            raise ModelLoadError(f"{name} has no place in the network that is to go on with it")
        place, rows = own[name], value.shape[0] if value.ndim else 0
        if place.shape == value.shape and rows not in tables:
            place.copy_(value)
        elif rows in tables and place.shape[1:] == value.shape[1:]:
            _move_words(place, value, *tables[rows])
        elif name.endswith(_QUERIES) and place.shape[1] >= value.shape[1]:
            place.normal_(std=float(value.std()))
            place[:, : value.shape[1]] = value
        else:
            raise ModelLoadError(f"{name} is {tuple(value.shape)}, its place {tuple(place.shape)}")


def _move_words(
    place: Tensor, value: Tensor, vocabulary: Mapping[str, int], tokenizer: PreTrainedTokenizerBase
) -> None:
    place.copy_(value.mean(dim=0).expand_as(place))
    for word, number in tokenizer.get_vocab().items():
        if word in vocabulary:
            place[number] = value[vocabulary[word]]
