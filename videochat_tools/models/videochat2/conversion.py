"""Original VideoChat2 checkpoints (``*.pth``) to the networks of this package.

A conversion either fills every tensor of the network or raises :class:`ModelLoadError`; nothing is left random, and
nothing in the file is passed over but what is listed in ``DERIVED``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.loading import (
    FAMILY_PREFIXES,
    Component,
    FileKind,
    Layout,
    Lora,
    attach_lora,
    attach_report,
    chat_family,
    expect_kind,
    file_kind,
    fill_model,
    language_model_config,
    language_model_report,
    load_language_model,
    lora_report,
    merge_lora,
    read_checkpoint,
    read_lora,
)

from .configuration_videochat2 import VideoChat2Config, VideoChat2RetrievalConfig
from .modeling_generation import VideoChat2ForConditionalGeneration
from .modeling_retrieval import VideoChat2ForRetrieval
from .modeling_vision import sincos_position_table

__all__ = [
    "DERIVED",
    "LAYOUTS",
    "RETRIEVAL_LAYOUT",
    "ChatParts",
    "convert_chat",
    "convert_retrieval",
    "original_names",
    "read_chat",
    "released_names",
]

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
DERIVED = re.compile(r"(\.position_ids|\.rotary_emb\.inv_freq|^qformer\.cls\.predictions\.(bias|decoder\.weight))$")
_TABLE = re.compile(r"^vision_encoder\.encoder\.(img_)?pos_embed$")
_GRID = 14  # patches a side of the released tower
_TABLE_ROUNDING = 0.01  # absolute, of values in -1..1 in bfloat16


def _layout(file: str, command: str) -> Layout:
    """The parts of a file of VideoChat2; every file holds all that its stage needs but the language model."""
    parts = {
        "LoRA": r"\.lora_",
        "language model": r"^(llama|mistral|phi)_model\.",
        "vision tower": r"^vision_encoder\.",
        "vision norm": r"^vision_layernorm\.",
        "queries": r"^(extra_)?query_tokens$",
        "Q-Former": r"^qformer\.",
        "projection": r"^(llama|mistral|phi)_proj\.",
        "retrieval heads": r"^(temp$|vision_temp_embed$|(vision_proj|text_proj|itm_head)\.)",
    }
    components = (Component(name, re.compile(pattern), file) for name, pattern in parts.items())
    return Layout(tuple(components), command)


_STAGE_1_FILE = "umt_l16_qformer.pth"
_CHAT_FILES = {
    "vicuna": "videochat2_7b_stage3.pth",
    "mistral": "videochat2_mistral_7b_stage3.pth or videochat2_hd_mistral_stage4.pth",
    "phi3": "videochat2_phi3_stage3.pth",
}

_ANY_CHAT_FILE = ", ".join(_CHAT_FILES.values())

RETRIEVAL_LAYOUT = _layout(_STAGE_1_FILE, f"videochat convert checkpoint {_STAGE_1_FILE} --output DIR")
LAYOUTS = {
    family: _layout(files, f"videochat convert checkpoint {files.split()[0]} --llm DIR --output DIR")
    for family, files in _CHAT_FILES.items()
}
"""Parts of the chat files, by prompt family."""


def original_names(name: str, family: str = "vicuna") -> tuple[str, ...]:
    """Names in an original checkpoint of the tensors that make up our tensor ``name``, in order.

    Two names (bias of queries, bias of values) belong to a fused attention bias, else it is one.
    """
    if name.startswith("projection."):
        return (name.replace("projection.", f"{FAMILY_PREFIXES[family]}_proj.", 1),)
    original = name
    for pattern, replacement in _RENAMES:
        original = pattern.sub(replacement, original)
    if original.endswith(".attn.qkv.bias"):
        stem = original.removesuffix("qkv.bias")
        return (f"{stem}q_bias", f"{stem}v_bias")
    return (original,)


def convert_retrieval(
    checkpoint: str | Path, config: VideoChat2RetrievalConfig | None = None
) -> VideoChat2ForRetrieval:
    """The stage-1 model of an original file (released: ``umt_l16_qformer.pth``), in float32 and evaluation mode.

    Args:
        checkpoint: The file.
        config: Sizes of the network; the released ones by default.

    Returns:
        The model, with the count of its tensors as ``load_report``.

    Raises:
        ModelLoadError: The file cannot be read, or its tensors are not exactly those of the network.
    """
    tensors, source = read_checkpoint(checkpoint), str(checkpoint)
    expect_kind(tensors, {FileKind.STAGE_1}, source, _STAGE_1_FILE)
    with torch.device("meta"):
        model = VideoChat2ForRetrieval(config or VideoChat2RetrievalConfig())
    report = fill_model(model, tensors, names=original_names, layout=RETRIEVAL_LAYOUT, source=source, ignore=DERIVED)
    attach_report(model, report)
    return model.eval()


@dataclass(frozen=True)
class ChatParts:
    """A chat model as its files store it.

    Attributes:
        model: With the plain language model, and the count of all tensors as ``load_report``.
        lora: What training changed in the language model; None in stage 2.
    """

    model: VideoChat2ForConditionalGeneration
    lora: Lora | None


def convert_chat(
    checkpoint: str | Path | Sequence[str | Path],
    language_model: str | Path,
    config: VideoChat2Config | None = None,
    *,
    family: str | None = None,
    stage: int | None = None,
    lora: Literal["merge", "adapter"] = "merge",
    lora_alpha: float | None = None,
) -> VideoChat2ForConditionalGeneration:
    """A chat model of stages 2-4 from an original file and the language model it was trained on.

    The language model is in the precision of its folder, the rest in float32; the model is in evaluation mode.

    Args:
        checkpoint: The file, or several of which later ones win (stage 2, then stage 3).
        language_model: Folder of the language model in the Hugging Face layout.
        config: Sizes of the network; by default the released ones with the configuration of ``language_model``.
            Whether the Q-Former reads text (stages 3 and 4) is then taken from the file.
        family: "vicuna", "mistral" or "phi3", where the file must be of this one; ``config.family`` wins.
        stage: 2, 3 or 4, where the file must be of this one.
        lora: "merge" adds LoRA weights to those of the language model, "adapter" keeps them apart as an active PEFT
            adapter (needs peft).
        lora_alpha: LoRA alpha of the training run; by default twice the rank, as in the released models.

    Returns:
        The model, with the count of its tensors as ``load_report``.

    Raises:
        ModelLoadError: A file cannot be read, is of another stage or family, or its tensors are not exactly those of
            the network.
        MissingDependencyError: ``lora="adapter"`` without peft.
    """
    parts = read_chat(checkpoint, language_model, config, family=family, stage=stage, lora_alpha=lora_alpha)
    if parts.lora is not None and lora == "merge":
        merge_lora(parts.model.language_model, parts.lora)
    elif parts.lora is not None:
        attach_lora(parts.model, parts.lora)
    return parts.model


def read_chat(
    checkpoint: str | Path | Sequence[str | Path],
    language_model: str | Path,
    config: VideoChat2Config | None = None,
    *,
    family: str | None = None,
    stage: int | None = None,
    lora_alpha: float | None = None,
) -> ChatParts:
    """As :func:`convert_chat`, with LoRA neither merged nor attached."""
    paths = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
    source = ", ".join(map(str, paths))
    tensors, last = _read(paths)
    family = _checked_family(tensors, source, family if config is None else config.family)
    layout = LAYOUTS[family]
    _check_stage(last, paths[-1], family, stage, config)
    if config is None:
        config = VideoChat2Config(
            text_config=language_model_config(language_model),
            qformer_config={"text_input": file_kind(last) is FileKind.STAGE_3},
            family=family,
        )
    prefix = f"{FAMILY_PREFIXES[family]}_model."
    language_tensors = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix) and not DERIVED.search(name)
    }
    lora, weights = read_lora(language_tensors, source=source, alpha=lora_alpha)
    if lora is None and not weights and config.qformer_config.text_input:
        raise ModelLoadError(
            f"LoRA missing in {source}: a file of stage 3 or 4 holds it; give {_CHAT_FILES[family]}; "
            f"run: {layout.command}"
        )
    with torch.device("meta"):
        model = VideoChat2ForConditionalGeneration(config)
    report = fill_model(
        model,
        {name: value for name, value in tensors.items() if not name.startswith(prefix)},
        names=partial(original_names, family=family),
        layout=layout,
        source=source,
        ignore=DERIVED,
        skip="language_model.",
        optional=tensors.keys() - last.keys(),
    )
    model.language_model = load_language_model(language_model, family, weights or None)
    llm_source = source if weights else str(language_model)
    report += language_model_report(model.language_model, layout, prefix, llm_source)
    if lora is not None:
        report += lora_report(model.language_model, lora, layout, prefix)
    attach_report(model, report)
    return ChatParts(model.eval(), lora)


def _read(paths: Sequence[str | Path]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of all files, of which later ones win, and of the last one alone."""
    tensors: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for path in paths:
        last = released_names(read_checkpoint(path))
        tensors.update(last)
    return tensors, last


def released_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as in the released files, where all of them stand under one prefix; fixed position tables left out.

    The prefix is what stands before "query_tokens", which one tensor alone is named.
    """
    owners = [name for name in tensors if re.search(r"(^|\.)query_tokens$", name)]
    prefix = owners[0].removesuffix("query_tokens") if len(owners) == 1 else ""
    named = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return {name: value for name, value in named.items() if not (_TABLE.search(name) and _is_fixed_table(value))}


def _is_fixed_table(table: Tensor) -> bool:
    """Whether a position table [1, T * N, D] is the sin-cos one, which the network computes."""
    frames, grid = max(1, table.shape[1] // _GRID**2), (_GRID, _GRID)
    if table.shape[1] != frames * _GRID**2:
        return False
    fixed = sincos_position_table(table.shape[2], grid, frames, image=frames == 1)
    return torch.allclose(table.float(), fixed.view(1, -1, table.shape[2]), atol=_TABLE_ROUNDING)


def _checked_family(tensors: Mapping[str, Tensor], source: str, wanted: str | None) -> str:
    found = chat_family(tensors)
    if found is not None and wanted is not None and found != wanted:
        raise ModelLoadError(
            f"wrong family: {source} holds the {found} model, {wanted} is asked for; give {_CHAT_FILES[wanted]}"
        )
    family = found or wanted
    if family is None:
        expect_kind(tensors, {FileKind.STAGE_2, FileKind.STAGE_3}, source, _ANY_CHAT_FILE)
        raise ModelLoadError(f"projection missing in {source}, so that its family is unknown; give {_ANY_CHAT_FILE}")
    return family


def _check_stage(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    family: str,
    stage: int | None,
    config: VideoChat2Config | None,
) -> None:
    """Stages 2 and 3 are told apart by their tensors; 3 and 4 have the same ones, and only their names to go by."""
    wanted = stage
    if wanted is None and config is not None:
        wanted = 3 if config.qformer_config.text_input else 2
    kinds = {None: {FileKind.STAGE_2, FileKind.STAGE_3}, 2: {FileKind.STAGE_2}}.get(wanted, {FileKind.STAGE_3})
    files = _CHAT_FILES[family].replace("stage3", "stage2") if wanted == 2 else _CHAT_FILES[family]
    expect_kind(tensors, kinds, str(path), files)
    named = re.search(r"stage(\d)", Path(path).name)
    if stage is not None and named is not None and int(named[1]) != stage:
        raise ModelLoadError(f"wrong stage: {path} is named as stage {named[1]}, {stage} is asked for; give {files}")
