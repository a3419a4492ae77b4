"""Full-size networks against the lists of tensors of the released files: every name and shape, in both directions.

Run with a folder of ``inventory_*.json``: ``python -m videochat_tools.evaluation.inventories FOLDER``; with
``--memory`` for the folder, the sizes of the networks are printed. They are built on the meta device, so that nothing
is allocated.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, MistralConfig, Phi3Config

from videochat_tools.errors import ModelLoadError
from videochat_tools.models import (
    VideoChat2Config,
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
    VideoChat2RetrievalConfig,
    VideoChatConfig,
    VideoChatForConditionalGeneration,
)
from videochat_tools.models.loading.kinds import FAMILY_PREFIXES
from videochat_tools.models.loading.lora import lora_names
from videochat_tools.models.videochat import conversion as videochat
from videochat_tools.models.videochat2 import conversion as videochat2

__all__ = ["NETWORKS", "InventoryResult", "compare", "compare_all", "memory", "memory_table"]

Shape = tuple[int, ...]
_LANGUAGE_MODEL = "language_model."


@dataclass(frozen=True)
class _Network:
    """A model on the meta device, and how the original files name its tensors."""

    model: nn.Module
    names: Callable[[str], tuple[str, ...]]
    derived: re.Pattern[str]
    prefix: str = ""  # of the language model in the files


@dataclass(frozen=True)
class InventoryResult:
    """A network beside the list of a released file.

    Attributes:
        name: Of the list.
        tensors: In the list, derived ones not counted.
        missing: In the list, not in the network.
        unexpected: In the network, not in the list.
        reshaped: In both, with another shape.
    """

    name: str
    tensors: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the two are the same."""
        return self.tensors > 0 and not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        verdict = "fits" if self.fits else "DIFFERS"
        counts = f"missing {len(self.missing)}, unexpected {len(self.unexpected)}, reshaped {len(self.reshaped)}"
        return f"{self.name:<22} {self.tensors:>5} tensors  {counts}  {verdict}"


def _videochat(inventory: Mapping[str, Any]) -> _Network:
    config = VideoChatConfig(text_config=LlamaConfig(**inventory["llm"]["config"]))
    return _Network(
        VideoChatForConditionalGeneration(config),
        videochat.original_names,
        videochat.IGNORED,
        inventory["llm"]["prefix_in_full_model"],
    )


def _retrieval(_: Mapping[str, Any]) -> _Network:
    return _Network(VideoChat2ForRetrieval(VideoChat2RetrievalConfig()), videochat2.original_names, videochat2.DERIVED)


def _chat(_: Mapping[str, Any], family: str, *, text_input: bool = True) -> _Network:
    text_config = {"vicuna": LlamaConfig, "mistral": MistralConfig, "phi3": Phi3Config}[family]()
    return _Network(
        _chat_model(text_config, family, text_input=text_input),
        partial(videochat2.original_names, family=family),
        videochat2.DERIVED,
        f"{FAMILY_PREFIXES[family]}_model.",
    )


NETWORKS: dict[str, Callable[[Mapping[str, Any]], _Network]] = {
    "v1_7b": _videochat,
    "v1_13b": _videochat,
    "vc2_stage1": _retrieval,
    "vc2_vicuna_stage2": partial(_chat, family="vicuna", text_input=False),
    "vc2_vicuna_stage3": partial(_chat, family="vicuna"),
    "vc2_mistral_stage3": partial(_chat, family="mistral"),
    "vc2_mistral_hd_stage4": partial(_chat, family="mistral"),
    "vc2_phi3_stage3": partial(_chat, family="phi3"),
}
"""Released models by the name of their inventory."""


def compare(name: str, inventory: Mapping[str, Any]) -> InventoryResult:
    """The full-size network of ``NETWORKS[name]`` beside the tensors that ``inventory["keys"]`` lists.

    The language model is in no released file; where the inventory lists its names (with N for a layer), they are
    compared too.
    """
    with torch.device("meta"):
        network = NETWORKS[name](inventory)
    listed: dict[str, Shape | None] = {
        key: tuple(entry["shape"]) for key, entry in inventory["keys"].items() if not network.derived.search(key)
    }
    built: dict[str, Shape | None] = {**_tower_and_bridge(network), **_lora(network, listed)}
    for pattern in (patterns := inventory.get("not_in_checkpoint_frozen_llm_patterns", [])):
        listed[pattern] = None
    if patterns:
        wrapped = any(".base_model.model." in pattern for pattern in patterns)
        built |= dict.fromkeys(_language_model_patterns(network, "base_model.model." if wrapped else ""))
    return InventoryResult(
        name,
        len(listed),
        missing=tuple(sorted(listed.keys() - built.keys())),
        unexpected=tuple(sorted(built.keys() - listed.keys())),
        reshaped=tuple(sorted(key for key in listed.keys() & built.keys() if listed[key] != built[key])),
    )


def compare_all(folder: str | Path) -> list[InventoryResult]:
    """All of ``NETWORKS``, each beside ``inventory_<name>.json`` of a folder.

    Raises:
        ModelLoadError: One of the lists is not there.
    """
    results = []
    for name in NETWORKS:
        path = Path(folder) / f"inventory_{name}.json"
        if not path.is_file():
            raise ModelLoadError(f"no list of tensors at {path}; give the folder that holds the inventory_*.json")
        results.append(compare(name, json.loads(path.read_text(encoding="utf-8"))))
    return results


_VICUNA_7B = {"vocab_size": 32001}  # LLaMA-7B has the sizes that LlamaConfig has by default, and "[PAD]" is added
_STABLE_VICUNA_13B = {
    "vocab_size": 32001,
    "hidden_size": 5120,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "intermediate_size": 13824,
}
_FLOAT32, _FLOAT16 = 4, 2  # bytes
_ALL_PARTS = _SEES, _READS, _SPEAKS = "tower", "Q-Former and rest", "language model"
_PARTS = {"vision_encoder": _SEES, _LANGUAGE_MODEL.removesuffix("."): _SPEAKS}


def memory() -> dict[str, dict[str, int]]:
    """Parameters of the full-size networks, counted on the meta device.

    Returns:
        By model and then by part ("tower", "Q-Former and rest", "language model"). LoRA is merged, and so not counted;
        "Q-Former and rest" has the norm, the queries and the projection too, in stage 1 also the heads.
    """
    seven, thirteen = LlamaConfig(**_VICUNA_7B), LlamaConfig(**_STABLE_VICUNA_13B)
    builders: dict[str, Callable[[], nn.Module]] = {
        "VideoChat 7B": lambda: VideoChatForConditionalGeneration(VideoChatConfig(text_config=seven)),
        "VideoChat 13B": lambda: VideoChatForConditionalGeneration(VideoChatConfig(text_config=thirteen)),
        "VideoChat2 stage 1": lambda: VideoChat2ForRetrieval(VideoChat2RetrievalConfig()),
        "VideoChat2 Vicuna, stage 2": lambda: _chat_model(seven, "vicuna", text_input=False),
        "VideoChat2 Vicuna, stage 3": lambda: _chat_model(seven, "vicuna"),
        "VideoChat2 Mistral and HD": lambda: _chat_model(MistralConfig(), "mistral"),
        "VideoChat2 Phi-3": lambda: _chat_model(Phi3Config(), "phi3"),
    }
    counts = {}
    for name, build in builders.items():
        with torch.device("meta"):
            counts[name] = _parameters(build())
    return counts


def memory_table() -> str:
    """:func:`memory` as a Markdown table.

    A cell is millions of parameters · GiB (2**30 bytes) in float32 · GiB in float16. The last column is what
    ``ChatVideoChat`` puts on a GPU: the language model in half precision, all else in float32.
    """
    header = ("", *_ALL_PARTS, "all", "on a GPU, GiB")
    rows = [header, ("---", *["---:"] * (len(header) - 1))]
    for name, counts in memory().items():
        columns = [counts[part] for part in _ALL_PARTS] + [sum(counts.values())]
        spoken = counts[_SPEAKS]
        on_gpu = (_FLOAT32 * (columns[-1] - spoken) + _FLOAT16 * spoken) / 2**30
        rows.append((name, *map(_size, columns), f"{on_gpu:.1f}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _size(count: int) -> str:
    if not count:
        return "–"
    return f"{count / 1e6:,.1f} · {_FLOAT32 * count / 2**30:.1f} · {_FLOAT16 * count / 2**30:.1f}"


def _chat_model(text_config: Any, family: str, *, text_input: bool = True) -> VideoChat2ForConditionalGeneration:
    config = VideoChat2Config(text_config=text_config, family=family, qformer_config={"text_input": text_input})
    return VideoChat2ForConditionalGeneration(config)


def _parameters(model: nn.Module) -> dict[str, int]:
    counts = dict.fromkeys(_ALL_PARTS, 0)
    for name, parameter in model.named_parameters():  # a tied one comes once
        counts[_PARTS.get(name.partition(".")[0], _READS)] += parameter.numel()
    return counts


def _tower_and_bridge(network: _Network) -> dict[str, Shape]:
    built: dict[str, Shape] = {}
    for name, tensor in network.model.state_dict().items():
        if name.startswith(_LANGUAGE_MODEL):
            continue
        originals = network.names(name)
        # Two originals: biases of queries and values, where ours has a third part of zeros between them.
        shape = tuple(tensor.shape) if len(originals) == 1 else (tensor.shape[0] // 3,)
        built |= dict.fromkeys(originals, shape)
    return built


def _lora(network: _Network, listed: Mapping[str, Shape | None]) -> dict[str, Shape]:
    """LoRA pairs of all modules of the language model whose last name has a pair in the list."""
    pairs = {key: shape for key, shape in listed.items() if ".lora_A." in key and shape is not None}
    targets = {key.split(".lora_A.")[0].rpartition(".")[2] for key in pairs}
    ranks = {shape[0] for shape in pairs.values()}
    built: dict[str, Shape] = {}
    for name, module in network.model.named_modules():
        module_name = name.removeprefix(_LANGUAGE_MODEL)
        if name.startswith(_LANGUAGE_MODEL) and isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets:
            a, b = lora_names(module_name, network.prefix)
            (rank,) = ranks
            built |= {a: (rank, module.in_features), b: (module.out_features, rank)}
    return built


def _language_model_patterns(network: _Network, wrapping: str) -> set[str]:
    return {
        network.prefix + wrapping + re.sub(r"\.\d+\.", ".N.", name.removeprefix(_LANGUAGE_MODEL))
        for name in network.model.state_dict()
        if name.startswith(_LANGUAGE_MODEL)
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all networks with the lists of a folder, or count their parameters, and print the outcome."""
    parser = argparse.ArgumentParser(prog="python -m videochat_tools.evaluation.inventories", description=main.__doc__)
    what_to_do = parser.add_mutually_exclusive_group(required=True)
    what_to_do.add_argument("folder", type=Path, nargs="?", help="holds inventory_*.json")
    what_to_do.add_argument("--memory", action="store_true", help="print a table of sizes")
    options = parser.parse_args(arguments)
    if options.memory:
        sys.stdout.write(f"{memory_table()}\n")
        return 0
    results = compare_all(options.folder)
    for result in results:
        sys.stdout.write(f"{result}\n")
        for what in ("missing", "unexpected", "reshaped"):
            sys.stdout.writelines(f"  {what}: {name}\n" for name in getattr(result, what))
    fitting = sum(result.fits for result in results)
    sys.stdout.write(f"{fitting} of {len(results)}\n")
    return 0 if fitting == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
