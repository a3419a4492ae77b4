"""LoRA weights as the original files store them: merged into the language model, or kept as a PEFT adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from videochat_tools.errors import MissingDependencyError, ModelLoadError

from .report import Layout, LoadReport

__all__ = [
    "LORA_SCALE",
    "Lora",
    "attach_lora",
    "enable_lora",
    "inject_lora",
    "load_adapter",
    "lora_names",
    "lora_pairs",
    "lora_report",
    "merge_lora",
    "read_lora",
    "require_peft",
    "save_adapter",
    "without_adapter",
]

LORA_SCALE = 2.0
"""LoRA alpha / rank of every released model: 32 / 16. The rank is read from the tensors."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # names that PEFT looks for
_LANGUAGE_MODEL = "language_model"  # our models' attribute

_WRAPPED = "base_model.model."
_INJECTED = re.compile(rf"^(.*\.)?{_LANGUAGE_MODEL}\.(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight$")
_NAME = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.default\.weight$")


@dataclass(frozen=True)
class Lora:
    """Low-rank changes of a language model: ``W + alpha / rank * B @ A``.

    Attributes:
        pairs: A [rank, in] and B [out, rank] by module of the language model: "model.layers.0.self_attn.q_proj".
        rank: The same for all modules.
        alpha: Of the training run.
        source: Name of the file.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float
    source: str

    @property
    def targets(self) -> frozenset[str]:
        """Last names of the modules that are changed: "q_proj", "v_proj"."""
        return frozenset(module.rpartition(".")[2] for module in self.pairs)


def read_lora(
    tensors: Mapping[str, Tensor], *, source: str, alpha: float | None = None
) -> tuple[Lora | None, dict[str, Tensor]]:
    """Take the LoRA pairs out of the language-model tensors of a file.

    Args:
        tensors: Names without the prefix of the language model: as peft 0.4 wrote them, such as
            ``base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight``.
        source: Name of the file, for errors.
        alpha: LoRA alpha of the training run; by default ``LORA_SCALE`` times the rank.

    Returns:
        The pairs, None if there are none, and the plain weights by their names in the language model.

    Raises:
        ModelLoadError: Doubled prefixes, the names of newer peft, or a pair that is none.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(_WRAPPED * 2):
            raise ModelLoadError(
                f"doubled LoRA prefix: {name} in {source}; the model was wrapped twice (use_lora in the configuration "
                f"and by hand), so that its weights cannot be matched; save it again with {_WRAPPED} once"
            )
        match = _NAME.match(name)
        if match is not None:
            halves.setdefault(match["module"], {})[match["half"]] = value
        elif ".base_layer." in name or ".lora_" in name:
            raise ModelLoadError(
                f"LoRA names of newer peft: {name} in {source}; the released files have the names of peft 0.4 "
                "(...lora_A.default.weight, no base_layer); give the released file, or save again with peft 0.4"
            )
        else:
            plain[name.removeprefix(_WRAPPED)] = value
    if not halves:
        return None, plain
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for module, pair in halves.items():
        if pair.keys() != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise ModelLoadError(f"LoRA: the two halves of {module} in {source} are no pair; download the file again")
        pairs[module] = pair["A"], pair["B"]
    ranks = {a.shape[0] for a, _ in pairs.values()}
    if len(ranks) != 1:
        raise ModelLoadError(f"LoRA: several ranks {sorted(ranks)} in {source}; the released files have one")
    (rank,) = ranks
    return Lora(pairs, rank, LORA_SCALE * rank if alpha is None else alpha, source), plain


def lora_names(module: str, prefix: str) -> tuple[str, str]:
    """Names of a pair in an original file: of module "lm_head" and prefix "llama_model."."""
    stem = f"{prefix}{_WRAPPED}{module}"
    return f"{stem}.lora_A.default.weight", f"{stem}.lora_B.default.weight"


def lora_report(language_model: nn.Module, lora: Lora, layout: Layout, prefix: str) -> LoadReport:
    """Count the pairs: one belongs to every module of the language model that is named like one that has a pair.

    Raises:
        ModelLoadError: A pair is missing, has no module, or another shape than the weight.
    """
    modules = {
        name: module
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in lora.targets
    }
    for name, (a, b) in lora.pairs.items():
        if name in modules and (b.shape[0], a.shape[1]) != modules[name].weight.shape:
            raise ModelLoadError(
                f"LoRA: {name} in {lora.source} is for a weight of {(b.shape[0], a.shape[1])}, the language model has "
                f"{tuple(modules[name].weight.shape)}; give the language model that this file was trained on"
            )
    report = LoadReport.count(
        layout,
        lora.source,
        expected=[original for name in modules for original in lora_names(name, prefix)],
        missing=[original for name in modules if name not in lora.pairs for original in lora_names(name, prefix)],
        unexpected=[original for name in lora.pairs if name not in modules for original in lora_names(name, prefix)],
    )
    report.check()
    return report


def require_peft(source: object) -> None:
    """Raise when a model folder holds an adapter and peft is not there: transformers would leave it out silently.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    if source is not None and (Path(str(source)) / ADAPTER_CONFIG).is_file() and find_spec("peft") is None:
        raise MissingDependencyError("peft", "lora", f"the LoRA adapter in {source}")


@torch.no_grad()
def merge_lora(language_model: nn.Module, lora: Lora) -> None:
    """Add the products to the weights of a language model, in float32, rounded to the precision of the weights."""
    for name, (a, b) in lora.pairs.items():
        weight = language_model.get_parameter(f"{name}.weight")
        weight.copy_(weight.float() + b.float() @ a.float() * (lora.alpha / lora.rank))


def attach_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Give a chat model the pairs as an active PEFT adapter; its own weights stay as they are.

    Raises:
        MissingDependencyError: peft is not installed.
        ModelLoadError: The language model has no such modules.
    """
    inject_lora(
        model, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, dropout=0.0, lora=lora, purpose="LoRA kept apart"
    )
    for name, parameter in model.named_parameters():
        if _INJECTED.match(name):
            parameter.requires_grad_(False)
    model.eval()


def inject_lora(
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    targets: Collection[str],
    dropout: float,
    lora: Lora | None = None,
    purpose: str = "LoRA",
) -> None:
    """Put LoRA layers of PEFT into the language model of a chat model, to be trained.

    They change nothing at first (B is zero), or what ``lora`` changes. This is done with PEFT itself: transformers' own
    way to it asks for one version of PEFT or another.

    Args:
        model: The chat model.
        rank: Of all pairs.
        alpha: The products are scaled with alpha / rank.
        targets: Last names of the modules that are changed.
        dropout: Before A, in training mode.
        lora: Go on with these pairs.
        purpose: What PEFT is needed for, if it is not there.

    Raises:
        MissingDependencyError: peft is not installed.
        ModelLoadError: The language model has no module of such a name, or ``lora`` is for other modules.
    """
    if find_spec("peft") is None:
        raise MissingDependencyError("peft", "lora", purpose)
    from peft import LoraConfig, inject_adapter_in_model

    wanted = Lora(dict.fromkeys(targets), rank, alpha, "")  # type: ignore[arg-type]  # only the names are used
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if lacking := sorted(set(targets) - linear):
        raise ModelLoadError(
            f"LoRA: the language model has no linear {', '.join(lacking)}; it has {', '.join(sorted(linear))}"
        )
    inject_adapter_in_model(LoraConfig(**{**_adapter_config(wanted), "lora_dropout": dropout}), model)
    for name, parameter in model.named_parameters():
        if _INJECTED.match(name):  # PEFT makes them in the precision of the language model, too coarse for small steps
            parameter.data = parameter.data.float()
    if lora is None:
        return
    places = {module: pair for module, pair in _injected(dict(model.named_parameters())).items() if len(pair) == 2}
    if places.keys() != lora.pairs.keys():
        other = min(places.keys() ^ lora.pairs.keys())
        raise ModelLoadError(
            f"LoRA: {lora.source} and the targets {', '.join(sorted(targets))} differ in {other}; set lora_targets to "
            f"{', '.join(sorted(lora.targets))}"
        )
    with torch.no_grad():
        for module, pair in lora.pairs.items():
            for half, value in zip("AB", pair, strict=True):
                places[module][half].copy_(value)


def enable_lora(model: nn.Module, enabled: bool) -> None:
    """Let LoRA layers that :func:`inject_lora` put in take part, or not."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(enabled)


def without_adapter(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a folder but for those of the adapter that :func:`save_adapter` wrote into it."""
    return {name: value for name, value in tensors.items() if not name.startswith(_WRAPPED)}


def lora_pairs(tensors: Mapping[str, Tensor], *, alpha: float, source: str) -> Lora | None:
    """The pairs among tensors of a chat model that :func:`inject_lora` changed, or of an adapter; None without any.

    Raises:
        ModelLoadError: A pair is none, or the ranks differ.
    """
    found = _injected(tensors)
    if not found:
        return None
    if not all(pair.keys() == {"A", "B"} for pair in found.values()):
        raise ModelLoadError(f"LoRA: some pairs in {source} have one half only; it is incomplete")
    pairs = {module: (pair["A"], pair["B"]) for module, pair in found.items()}
    ranks = {a.shape[0] for a, _ in pairs.values()}
    if len(ranks) != 1:
        raise ModelLoadError(f"LoRA: several ranks {sorted(ranks)} in {source}; one is expected")
    return Lora(pairs, ranks.pop(), alpha, source)


def _injected(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Halves by module of the language model."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if match := _INJECTED.match(name):
            found.setdefault(match["module"], {})[match["half"]] = value
    return found


def load_adapter(folder: str | Path) -> Lora | None:
    """The pairs that :func:`save_adapter` wrote into a folder; None if it has none.

    Raises:
        ModelLoadError: They cannot be read.
    """
    path = Path(folder) / ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        alpha = float(json.loads(path.read_text(encoding="utf-8"))["lora_alpha"])
        tensors = load_file(Path(folder) / ADAPTER_WEIGHTS)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelLoadError(f"the LoRA adapter in {folder} cannot be read ({error}); make the folder again") from error
    return lora_pairs(tensors, alpha=alpha, source=str(folder))


def save_adapter(folder: str | Path, lora: Lora) -> None:
    """Write the pairs into the folder of the model that they change.

    ``from_pretrained(folder)`` then loads both when peft is installed, and so does ``model.load_adapter(folder)``.
    """
    config = {"peft_type": "LORA", "base_model_name_or_path": None, "inference_mode": True, **_adapter_config(lora)}
    (Path(folder) / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(_adapter_tensors(lora), Path(folder) / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _adapter_config(lora: Lora) -> dict[str, Any]:
    # An expression, not a list of last names: it must not reach into tower or Q-Former.
    targets = "|".join(sorted(lora.targets))
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": rf"{_LANGUAGE_MODEL}\.(.+\.)?({targets})",
    }


def _adapter_tensors(lora: Lora) -> dict[str, Tensor]:
    return {
        f"{_WRAPPED}{_LANGUAGE_MODEL}.{module}.lora_{half}.weight": value.clone().contiguous()
        for module, pair in lora.pairs.items()
        for half, value in zip("AB", pair, strict=True)
    }
