"""Original VideoChat files to the network of this package.

The released model is spread over four sources: EVA-CLIP-g, BLIP-2, a language model, and the file of VideoChat itself.
Every tensor of the network is filled from them, or a ``ModelLoadError`` names what is missing and where it belongs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from videochat_tools.models.loading import (
    Component,
    FileKind,
    Layout,
    attach_report,
    expect_kind,
    fill_model,
    language_model_config,
    language_model_report,
    load_language_model,
    read_checkpoint,
)
from videochat_tools.models.videochat2 import conversion as videochat2

from .configuration_videochat import VideoChatConfig, VideoChatVisionConfig
from .modeling_videochat import VideoChatForConditionalGeneration
from .modeling_vision import resize_position_embedding

__all__ = ["IGNORED", "LAYOUT", "convert_videochat", "original_names", "tower_and_bridge"]

# Ours to original, applied in this order; the blocks and the Q-Former are named as in VideoChat2, but for the start.
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^vision_encoder\.patch_embedding\.", r"visual_encoder.patch_embed.proj."),
        (r"^vision_encoder\.class_token$", r"visual_encoder.cls_token"),
        (r"^vision_encoder\.position_embedding$", r"visual_encoder.pos_embed"),
        (r"^vision_encoder\.global_token$", r"visual_encoder.gmhra_cls_token"),
        (r"^vision_encoder\.global_layers\.(\d+)\.", r"visual_encoder.gmhra.\1."),
        (r"(gmhra\.\d+)\.position\.", r"\1.dpe."),
        (r"(gmhra\.\d+)\.in_proj_", r"\1.attn.in_proj_"),
        (r"(gmhra\.\d+)\.projection\.", r"\1.attn.out_proj."),
        (r"(gmhra\.\d+)\.query_norm\.", r"\1.ln_1."),
        (r"(gmhra\.\d+)\.feed_forward_norm\.", r"\1.ln_2."),
        (r"(gmhra\.\d+)\.frame_norm\.", r"\1.ln_3."),
        (r"(gmhra\.\d+)\.fc1\.", r"\1.mlp.c_fc."),
        (r"(gmhra\.\d+)\.fc2\.", r"\1.mlp.c_proj."),
        (r"^vision_layernorm\.", r"ln_vision."),
        (r"^vision_encoder\.encoder\.", r"visual_encoder."),
        (r"^qformer\.", r"Qformer."),
    )
)
# In the files, but not needed: index buffers, and BLIP-2's way into its own language model.
IGNORED = re.compile(r"\.position_ids$|\.rotary_emb\.inv_freq$|^t5_proj\.")
# What EVA-CLIP-g has after its last block. BLIP-2, and VideoChat after it, take the output of the block before that.
_AFTER_THE_BLOCKS = re.compile(r"^(norm|fc_norm|head)\.")

_EVA_FILE, _BLIP2_FILE = "eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth"
_FILE = "videochat_7b.pth or videochat_13b.pth"
LAYOUT = Layout(
    tuple(
        Component(name, re.compile(pattern), file)
        for name, pattern, file in (
            ("GMHRA", r"^visual_encoder\.gmhra", _FILE),
            ("vision tower", r"^visual_encoder\.", _EVA_FILE),
            ("vision norm", r"^ln_vision\.", _FILE),
            ("queries", r"^query_tokens$", _BLIP2_FILE),
            ("extra queries", r"^extra_query_tokens$", _FILE),
            ("Q-Former", r"^Qformer\.", _BLIP2_FILE),
            ("projection", r"^llama_proj\.", _FILE),
            ("language model", r"^llama_model\.", "a folder of Vicuna-7B or StableVicuna-13B"),
        )
    ),
    f"videochat convert checkpoint {_EVA_FILE} {_BLIP2_FILE} {_FILE.split()[0]} --llm DIR --output DIR",
)
"""Parts of the original files."""


def original_names(name: str) -> tuple[str, ...]:
    """Names in the original files of the tensors that make up our tensor ``name``, in order.

    Two names (bias of queries, bias of values) belong to a fused attention bias, else it is one. Those of the tower
    have the prefix ``visual_encoder.``, which ``eva_vit_g.pth`` leaves out.
    """
    return tuple(_rename(part) for part in videochat2.original_names(name))


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def convert_videochat(
    eva: str | Path,
    blip2: str | Path,
    language_model: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    config: VideoChatConfig | None = None,
) -> VideoChatForConditionalGeneration:
    """VideoChat from its four sources, in evaluation mode: the language model as it is stored, the rest in float32.

    Args:
        eva: EVA-CLIP-g (released: ``eva_vit_g.pth``).
        blip2: BLIP-2 with its Q-Former (released: ``blip2_pretrained_flant5xxl.pth``).
        language_model: Folder of the language model in the Hugging Face layout, its delta applied.
        checkpoints: The file of VideoChat (released: ``videochat_7b.pth``, ``videochat_13b.pth``), or several of which
            later ones win. What it holds replaces what BLIP-2 has under the same name, such as the vision norm.
        config: Sizes of the network; by default the released ones with the configuration of ``language_model``.

    Returns:
        The model, with the count of its tensors as ``load_report``.

    Raises:
        ModelLoadError: A file cannot be read, is another one, or the tensors are not exactly those of the network.
    """
    paths = [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)
    if config is None:
        config = VideoChatConfig(text_config=language_model_config(language_model))
    tensors = tower_and_bridge(eva, blip2, config.vision_config)
    for path in paths:
        tensors.update(_read(path, FileKind.VIDEOCHAT, _FILE))
    with torch.device("meta"):
        model = VideoChatForConditionalGeneration(config)
    report = fill_model(
        model,
        tensors,
        names=original_names,
        layout=LAYOUT,
        source=", ".join(map(str, (eva, blip2, *paths))),
        ignore=IGNORED,
        skip="language_model.",
    )
    model.language_model = load_language_model(language_model)
    report += language_model_report(model.language_model, LAYOUT, "llama_model.", str(language_model))
    attach_report(model, report)
    return model.eval()


def tower_and_bridge(eva: str | Path, blip2: str | Path, config: VideoChatVisionConfig) -> dict[str, Tensor]:
    """What VideoChat takes from others, by its original names: EVA-CLIP-g, and BLIP-2's Q-Former.

    Raises:
        ModelLoadError: A file cannot be read, or is another one.
    """
    tensors = _tower_tensors(_read(eva, FileKind.EVA, _EVA_FILE), config)
    return {**tensors, **_read(blip2, FileKind.BLIP2, _BLIP2_FILE)}


def _read(path: str | Path, kind: FileKind, released: str) -> dict[str, Tensor]:
    tensors = read_checkpoint(path)
    expect_kind(tensors.keys(), (kind,), str(path), released)
    return tensors


def _tower_tensors(eva: Mapping[str, Tensor], config: VideoChatVisionConfig) -> dict[str, Tensor]:
    """Tensors of EVA-CLIP-g under their names in VideoChat, in the shapes that the video tower has."""
    tensors = {}
    side = config.image_size // config.patch_size
    extra_block = f"blocks.{config.num_hidden_layers}."
    for name, value in eva.items():
        if _AFTER_THE_BLOCKS.match(name) or name.startswith(extra_block):
            continue
        if name == "patch_embed.proj.weight" and value.ndim == 4:
            value = value[:, :, None]  # an image kernel: the only step in time of the video kernel
        elif name == "pos_embed" and value.shape[1] != 1 + side**2:
            value = resize_position_embedding(value.float(), (side, side))
        tensors[f"visual_encoder.{name}"] = value
    return tensors
