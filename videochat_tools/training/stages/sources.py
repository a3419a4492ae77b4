"""What the first stages begin from, files of others, as tensors of our networks by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.loading import Layout, join_parts, read_checkpoint
from videochat_tools.models.videochat import conversion as videochat
from videochat_tools.models.videochat.configuration_videochat import VideoChatVisionConfig
from videochat_tools.models.videochat2 import conversion as videochat2

from .parameters import component_of

__all__ = ["bert_parts", "released_parts", "umt_parts"]

_TOWER = "vision_encoder.encoder."
_QFORMER = ("qformer.", "caption_head.")
_NEW_IN_VIDEOCHAT = frozenset({"GMHRA", "extra queries", "projection"})
_CROSS_ATTENTION = ".cross_attention."  # BERT has none: drawn at random


def released_parts(eva: str, blip2: str, model: nn.Module, config: VideoChatVisionConfig) -> dict[str, Tensor]:
    """What the first VideoChat takes from EVA-CLIP-g and BLIP-2; all but what its stage 1 trains from nothing.

    Raises:
        ModelLoadError: A file cannot be read, is another one, or lacks something.
    """
    names = [
        name
        for name in model.state_dict()
        if component_of(name) not in _NEW_IN_VIDEOCHAT and not name.startswith("language_model.")
    ]
    tensors = videochat.tower_and_bridge(eva, blip2, config)
    return _parts(model, names, tensors, videochat.original_names, videochat.LAYOUT, f"{eva}, {blip2}")


def umt_parts(path: str, model: nn.Module) -> dict[str, Tensor]:
    """The vision tower out of a file of UMT (``l16_25m.pth``) or of VideoChat2's stage 1; the rest of it is left.

    Raises:
        ModelLoadError: It is no file of tensors, or lacks some of the tower.
    """
    tensors = {}
    for name, value in read_checkpoint(path).items():
        bare = name.removeprefix("vision_encoder.").removeprefix("encoder.")
        tensors[f"{_TOWER}{bare}"] = value
    names = [name for name in model.state_dict() if name.startswith("vision_encoder.")]
    return _parts(model, names, tensors, videochat2.original_names, videochat2.RETRIEVAL_LAYOUT, path)


def bert_parts(source: str, model: nn.Module) -> dict[str, Tensor]:
    """The Q-Former out of a BERT with its language-modelling head.

    Its queries begin with the feed-forward of the text. The vocabulary gets rows for ``[DEC]``, with BERT's spread;
    cross-attention is drawn at random, as the model already has it.

    Raises:
        ModelLoadError: There is no such model, or it has other sizes.
    """
    try:
        bert = AutoModelForMaskedLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"no BERT at {source} ({str(error).splitlines()[0]}); give its folder with bert"
        ) from error
    tensors = {f"qformer.{name}": value for name, value in bert.state_dict().items()}
    vocabulary, _ = model.get_parameter("qformer.embeddings.word_embeddings.weight").shape
    for name in ("qformer.bert.embeddings.word_embeddings.weight", "qformer.cls.predictions.decoder.bias"):
        if name not in tensors:  # tied to the other name of the same tensor
            tensors[name] = tensors[name.replace("decoder.bias", "bias")]
        given = tensors[name]
        if given.shape[0] < vocabulary:
            shape = (vocabulary - given.shape[0], *given.shape[1:])
            new = torch.zeros(shape) if given.ndim == 1 else torch.randn(shape) * bert.config.initializer_range
            tensors[name] = torch.cat([given, new])
    names = [name for name in model.state_dict() if name.startswith(_QFORMER) and _CROSS_ATTENTION not in name]
    return _parts(model, names, tensors, _bert_names, videochat2.RETRIEVAL_LAYOUT, source)


def _bert_names(name: str) -> tuple[str, ...]:
    (original,) = videochat2.original_names(name)
    return (re.sub(r"\.(intermediate|output)_query\.", r".\1.", original),)


def _parts(
    model: nn.Module,
    names: list[str],
    tensors: Mapping[str, Tensor],
    originals: Callable[[str], tuple[str, ...]],
    layout: Layout,
    source: str | Path,
) -> dict[str, Tensor]:
    """The named tensors of the model, out of the original ones.

    Raises:
        ModelLoadError: Some are missing, or of another shape.
    """
    missing = [original for name in names for original in originals(name) if original not in tensors]
    if missing:
        raise ModelLoadError(
            f"{source} lacks {len(missing)} tensors of the {component_of(names[0])}, first {missing[0]}; give the "
            "files that this stage begins from, or a network of their sizes"
        )
    places = model.state_dict()
    return {name: join_parts(originals(name), tensors, places[name], layout, str(source)) for name in names}
