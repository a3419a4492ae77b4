"""Original VideoChat2 checkpoints (``*.pth``) to the networks of this package.

A conversion either fills every tensor of the network or raises :class:`ModelLoadError`; nothing is left random, and
nothing in the file is passed over but what is listed in ``_DERIVED``.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from videochat_tools.errors import ModelLoadError

from .configuration_videochat2 import VideoChat2Config, VideoChat2QFormerConfig, VideoChat2RetrievalConfig
from .modeling_generation import VideoChat2ForConditionalGeneration
from .modeling_retrieval import VideoChat2ForRetrieval

__all__ = ["LORA_ALPHA", "convert_chat", "convert_retrieval", "merge_lora", "original_names", "read_checkpoint"]

LORA_ALPHA = 32.0
"""LoRA alpha of the released stage-3 and stage-4 models; the rank (16) is read from the tensors."""

_FAMILY_PREFIX = {"vicuna": "llama", "mistral": "mistral", "phi3": "phi"}

# Ours to original, applied in this order.
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^vision_encoder\.patch_embedding\.projection\.", r"vision_encoder.encoder.patch_embed.proj."),
        (r"^vision_encoder\.layers\.(\d+)\.", r"vision_encoder.encoder.blocks.\1."),
        (r"\.attention\.qkv\.", r".attn.qkv."),
        (r"\.attention\.projection\.", r".attn.proj."),
        (r"(blocks\.\d+)\.(fc[12])\.", r"\1.mlp.\2."),
        (r"^caption_head\.(dense|norm)\.", r"qformer.cls.predictions.transform.\1."),
        (r"^caption_head\.bias$", r"qformer.cls.predictions.decoder.bias"),
        (r"^qformer\.embeddings\.", r"qformer.bert.embeddings."),
        (r"^qformer\.layers\.(\d+)\.", r"qformer.bert.encoder.layer.\1."),
        (r"\.self_attention\.(query|key|value)\.", r".attention.self.\1."),
        (r"\.cross_attention\.(query|key|value)\.", r".crossattention.self.\1."),
        (r"\.self_attention\.output\.", r".attention.output."),
        (r"\.cross_attention\.output\.", r".crossattention.output."),
        (r"\.query_feed_forward\.dense\.", r".intermediate_query.dense."),
        (r"\.query_feed_forward\.output\.", r".output_query."),
        (r"\.text_feed_forward\.dense\.", r".intermediate.dense."),
        (r"\.text_feed_forward\.output\.", r".output."),
        (r"^(qformer\..*)\.norm\.", r"\1.LayerNorm."),
    )
)

# In the files, but not needed: index buffers, and the second name of tensors that are tied.
_DERIVED = re.compile(r"(\.position_ids|\.rotary_emb\.inv_freq|^qformer\.cls\.predictions\.(bias|decoder\.weight))$")
_LORA = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.default\.weight$")


def original_names(name: str, family: str = "vicuna") -> tuple[str, ...]:
    """Names in an original checkpoint of the tensors that make up our tensor ``name``, in order.

    Two names (bias of queries, bias of values) belong to a fused attention bias, else it is one.
    """
    if name.startswith("projection."):
        return (name.replace("projection.", f"{_FAMILY_PREFIX[family]}_proj.", 1),)
    original = name
    for pattern, replacement in _RENAMES:
        original = pattern.sub(replacement, original)
    if original.endswith(".attn.qkv.bias"):
        stem = original.removesuffix("qkv.bias")
        return (f"{stem}q_bias", f"{stem}v_bias")
    return (original,)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors of an original checkpoint, from its "model" or "module" level if there is one.

    Raises:
        ModelLoadError: There is no such file, or it is no checkpoint of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelLoadError(f"no checkpoint at {path}; give the path of the original .pth file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelLoadError(
            f"{path} cannot be read as a checkpoint of plain tensors ({str(error).splitlines()[0]}); "
            "download it again, or save only its state dict"
        ) from error
    for level in ("model", "module"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(level), Mapping):
            loaded = loaded[level]
            break
    tensors = {}
    if isinstance(loaded, Mapping):
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelLoadError(f"{path} holds no tensors by name; give an original VideoChat2 checkpoint")
    return tensors


def convert_retrieval(
    checkpoint: str | Path, config: VideoChat2RetrievalConfig | None = None
) -> VideoChat2ForRetrieval:
    """The stage-1 model of an original file (released: ``umt_l16_qformer.pth``), in float32 and evaluation mode.

    Args:
        checkpoint: The file.
        config: Sizes of the network; the released ones by default.

    Raises:
        ModelLoadError: The file cannot be read, or its tensors are not exactly those of the network.
    """
    tensors = read_checkpoint(checkpoint)
    with torch.device("meta"):
        model = VideoChat2ForRetrieval(config or VideoChat2RetrievalConfig())
    _fill(model, tensors, source=str(checkpoint))
    return model.eval()


def convert_chat(
    checkpoint: str | Path | Sequence[str | Path],
    language_model: str | Path,
    config: VideoChat2Config | None = None,
    *,
    family: str = "vicuna",
    lora_alpha: float = LORA_ALPHA,
) -> VideoChat2ForConditionalGeneration:
    """A chat model of stages 2-4 from an original file and the language model it was trained on.

    LoRA weights in the file are merged into the language model.

    Args:
        checkpoint: The file, or several of which later ones win (stage 2, then stage 3).
        language_model: Folder of the language model in the Hugging Face layout.
        config: Sizes of the network; by default the released ones with the configuration of ``language_model``.
            Whether the Q-Former reads text (stages 3 and 4) is then taken from the file.
        family: "vicuna", "mistral" or "phi3"; ``config.family`` wins.
        lora_alpha: LoRA alpha of the training run.

    Raises:
        ModelLoadError: A file cannot be read, or its tensors are not exactly those of the network.
    """
    paths = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors.update(read_checkpoint(path))
    source = ", ".join(map(str, paths))
    if config is None:
        config = VideoChat2Config(
            text_config=AutoConfig.from_pretrained(language_model),
            qformer_config=VideoChat2QFormerConfig(
                text_input="qformer.bert.embeddings.word_embeddings.weight" in tensors
            ),
            family=family,
        )
    prefix = f"{_FAMILY_PREFIX[config.family]}_model."
    language_tensors = {
        name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)
    }
    with torch.device("meta"):
        model = VideoChat2ForConditionalGeneration(config)
    _fill(model, tensors, source=source, family=config.family, skip="language_model.")
    model.language_model = _load_language_model(language_model)
    merge_lora(model.language_model, language_tensors, alpha=lora_alpha, source=source)
    return model.eval()


def _load_language_model(folder: str | Path) -> PreTrainedModel:
    try:
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"no language model at {folder} ({str(error).splitlines()[0]}); give its Hugging Face folder"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"language model: {len(missing)} tensors are missing in {folder}, first {missing[0]}; "
            "give a folder with all weights"
        )
    loaded: PreTrainedModel = model
    return loaded


def _fill(
    model: PreTrainedModel, tensors: dict[str, Tensor], *, source: str, family: str = "vicuna", skip: str = "\0"
) -> None:
    """Put original tensors into a model on the meta device; names that start with ``skip`` are filled elsewhere."""
    unused = {name for name in tensors if not _DERIVED.search(name)}
    state, missing = {}, []
    for name, expected in model.state_dict().items():
        if name.startswith(skip):
            continue
        originals = original_names(name, family)
        absent = [original for original in originals if original not in tensors]
        if absent:
            missing += absent
            continue
        unused.difference_update(originals)
        parts = [tensors[original].float() for original in originals]
        # UMT has no key bias: zeros between those of queries and values.
        value = parts[0] if len(parts) == 1 else torch.cat([parts[0], torch.zeros_like(parts[0]), parts[1]])
        if value.shape != expected.shape:
            raise ModelLoadError(
                f"{_component(originals[0])}: {originals[0]} in {source} has shape {tuple(value.shape)}, the "
                f"configuration asks for {tuple(expected.shape)}; give the configuration that this file was made with"
            )
        state[name] = value
    if missing:
        raise ModelLoadError(
            f"{_summary(missing)} missing in {source}, first {missing[0]}; give the file of the right stage, or the "
            "configuration that it was made with"
        )
    if unused:
        raise ModelLoadError(
            f"{_summary(sorted(unused))} in {source} that this network does not have, first {min(unused)}; give the "
            "file of the right stage, or the configuration that it was made with"
        )
    model.load_state_dict(state, strict=False, assign=True)


def merge_lora(language_model: PreTrainedModel, tensors: Mapping[str, Tensor], *, alpha: float, source: str) -> None:
    """Add LoRA products to the weights of a language model: ``W += alpha / rank * B @ A``.

    Args:
        language_model: Changed in place.
        tensors: peft 0.4 names without the prefix of the model, such as
            ``base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight``. May be empty.
        alpha: LoRA alpha of the training run.
        source: Name of the file, for errors.

    Raises:
        ModelLoadError: A tensor has no counterpart, or is no LoRA tensor.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = _LORA.match(name)
        if match is not None:
            halves.setdefault(match["module"], {})[match["half"]] = value
        elif not _DERIVED.search(name):
            raise ModelLoadError(f"language model: {name} in {source} is no LoRA tensor; give the released .pth file")
    weights = dict(language_model.named_parameters())
    with torch.no_grad():
        for module, pair in halves.items():
            weight = weights.get(f"{module}.weight")
            if weight is None or pair.keys() != {"A", "B"}:
                raise ModelLoadError(
                    f"language model: the LoRA tensors of {module} in {source} have no counterpart; give the language "
                    "model that this file was trained on"
                )
            rank = pair["A"].shape[0]
            product = pair["B"].float() @ pair["A"].float() * (alpha / rank)
            if product.shape != weight.shape:
                raise ModelLoadError(
                    f"language model: LoRA of {module} in {source} is {tuple(product.shape)}, the weight is "
                    f"{tuple(weight.shape)}; give the language model that this file was trained on"
                )
            weight.copy_(weight.float() + product)


def _component(name: str) -> str:
    return name.split(".")[0]


def _summary(names: Sequence[str]) -> str:
    """Names counted by component: "vision_encoder: 3 tensors, qformer: 1 tensor"."""
    counts = Counter(map(_component, names))
    return ", ".join(f"{name}: {count} tensor{'s' * (count != 1)}" for name, count in counts.items())
