"""Which parameters a stage trains, and how the optimiser treats them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from .options import StageOptions

__all__ = [
    "COMPONENTS",
    "ComponentCount",
    "component_of",
    "count_components",
    "decay_groups",
    "freeze",
    "set_modes",
    "silence_key_biases",
    "trained_components",
]

COMPONENTS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        name: re.compile(pattern)
        for name, pattern in (
            ("LoRA", r"\.lora_[AB]\."),
            ("language model", r"^language_model\."),
            ("GMHRA", r"^vision_encoder\.global_(token$|layers\.)"),
            ("vision tower", r"^vision_encoder\."),
            ("temporal embedding", r"^vision_temp_embed$"),
            ("vision norm", r"^vision_layernorm\."),
            ("queries", r"^query_tokens$"),
            ("extra queries", r"^extra_query_tokens$"),
            ("Q-Former, text", r"^qformer\.(embeddings\.(word|position)_|layers\.\d+\.text_feed_forward\.)"),
            ("Q-Former", r"^qformer\."),
            ("projection", r"^projection\."),
            ("retrieval heads", r"^(temp$|(vision_proj|text_proj|itm_head|caption_head)\.)"),
        )
    }
)
"""Parts of the networks; the first pattern that finds a parameter's name decides."""

_BRIDGE = ("vision tower", "vision norm", "queries", "extra queries", "Q-Former", "projection")
_KEY_BIAS = re.compile(r"\.key\.bias$")
_FUSED_BIAS = re.compile(r"\.qkv\.bias$")


def component_of(name: str) -> str:
    """The component that a parameter belongs to."""
    return next(component for component, pattern in COMPONENTS.items() if pattern.search(name))


def trained_components(options: StageOptions) -> frozenset[str]:
    """What the released recipe of this stage trains; the rest is frozen."""
    if options.family == "videochat":
        return frozenset({"GMHRA", "vision norm", "extra queries", "projection"})
    if options.family == "retrieval":
        return frozenset(COMPONENTS) - {"vision tower"}
    return frozenset(_BRIDGE) if options.stage == 2 else frozenset({*_BRIDGE, "Q-Former, text", "LoRA"})


def freeze(model: nn.Module, options: StageOptions) -> None:
    """Let the parameters of the stage have gradients, and no others."""
    trained = trained_components(options)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(component_of(name) in trained)


def set_modes(model: Any, options: StageOptions) -> None:
    """Training mode, in which things are dropped at random, for what is trained; frozen parts compute as they do later.

    The language model is in training mode where its layers are computed twice: only then transformers does so. It drops
    nothing in it but what the configuration of the language model says, which is nothing in the released ones.
    """
    trained = trained_components(options)
    model.train()
    for child, component in (("vision_encoder", "vision tower"), ("qformer", "Q-Former")):
        if component not in trained:
            getattr(model, child).eval()
    if options.family == "videochat":
        model.vision_encoder.global_layers.train()
    if hasattr(model, "language_model"):
        model.language_model.train(options.gradient_checkpointing or options.lora_rank > 0)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trained parameters for AdamW: those with weight decay, and vectors and biases, which have none."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[parameter.ndim != 1 and not name.endswith("bias")].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0}
        for decays, parameters in groups.items()
        if parameters
    ]


def silence_key_biases(model: nn.Module) -> None:
    """Give biases of attention keys a gradient of exactly zero.

    A key bias shifts all scores of a query alike, which the softmax does not see: what is left of its gradient is
    rounding, and AdamW would turn that into steps of full length. The released towers have no key biases at all; ours
    are loaded as zeros, and stay so.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and _KEY_BIAS.search(name):
            parameter.register_hook(torch.zeros_like)
        elif parameter.requires_grad and _FUSED_BIAS.search(name):
            parameter.register_hook(_without_keys)


def _without_keys(gradient: Tensor) -> Tensor:
    """Gradient of the fused bias [3 * D] of queries, keys and values, with zeros for the keys."""
    query, key, value = gradient.chunk(3)
    return torch.cat([query, torch.zeros_like(key), value])


@dataclass(frozen=True, slots=True)
class ComponentCount:
    """Parameters of one component.

    Attributes:
        name: Of the component.
        trained: How many have gradients.
        frozen: How many have none.
        frozen_bytes: What the frozen ones take.
        trained_bytes: What the trained ones take, without gradients and states of the optimiser.
    """

    name: str
    trained: int
    frozen: int
    trained_bytes: int
    frozen_bytes: int


def count_components(model: nn.Module, widths: Mapping[str, int] | None = None) -> list[ComponentCount]:
    """Parameters by component, on whatever device; components without any are left out.

    Args:
        model: Frozen by :func:`freeze`.
        widths: Bytes a parameter by component, where they are not those of the parameters at hand.
    """
    return list(_counts(model, widths or {}))


def _counts(model: nn.Module, widths: Mapping[str, int]) -> Iterator[ComponentCount]:
    sums = {name: [0, 0, 0, 0] for name in COMPONENTS}
    for name, parameter in model.named_parameters():
        component = component_of(name)
        number = parameter.numel()
        size = number * widths.get(component, parameter.element_size())
        offset = 0 if parameter.requires_grad else 1
        sums[component][offset] += number
        sums[component][offset + 2] += size
    for name, (trained, frozen, trained_bytes, frozen_bytes) in sums.items():
        if trained or frozen:
            yield ComponentCount(name, trained, frozen, trained_bytes, frozen_bytes)
