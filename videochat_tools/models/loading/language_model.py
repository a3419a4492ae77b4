"""The language model that a chat checkpoint belongs to: a folder in the Hugging Face layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from videochat_tools.errors import ModelLoadError

from .diagnosis import check_language_model
from .report import Layout, LoadReport, counted

__all__ = ["INDEX_BUFFERS", "language_model_config", "language_model_report", "load_language_model"]

INDEX_BUFFERS = re.compile(r"\.rotary_emb\.inv_freq$")
"""In files of old language models, but computed anew: rotation frequencies."""


def language_model_config(folder: str | Path) -> PreTrainedConfig:
    """The configuration of a language model.

    Raises:
        ModelLoadError: There is none in the folder.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(
            f"no language model at {folder} ({_reason(error)}); give its Hugging Face folder"
        ) from error
    return config


def load_language_model(
    folder: str | Path, family: str = "vicuna", weights: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """The language model of a folder, in the precision that it was saved with.

    Args:
        folder: In the Hugging Face layout.
        family: Prompt family of the checkpoint that it belongs to.
        weights: Take these in place of the folder's, of which only the configuration is used.

    Raises:
        ModelLoadError: There is none, it is a known wrong one, or its weights are not exactly those of the network.
    """
    config = language_model_config(folder)
    if weights is None:
        check_language_model(folder, config, family)
    try:
        if weights is None:
            model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
        else:
            network = AutoModelForCausalLM._model_mapping[type(config)]
            model, info = network.from_pretrained(
                None, config=config, state_dict=dict(weights), dtype="auto", output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelLoadError(
            f"no language model can be loaded from {folder} ({_reason(error)}); give its Hugging Face folder"
        ) from error
    missing = sorted(info["missing_keys"])
    surplus = sorted(name for name in info["unexpected_keys"] if not INDEX_BUFFERS.search(name))
    for names, what in ((missing, "missing"), (surplus, "not of its network")):
        if names:
            raise ModelLoadError(
                f"language model: {counted(len(names))} in {folder} {what}, first {names[0]}; "
                "give the whole folder of the language model that the checkpoint was trained on"
            )
    loaded: PreTrainedModel = model
    return loaded


def language_model_report(model: PreTrainedModel, layout: Layout, prefix: str, source: str) -> LoadReport:
    """The count of a language model that was loaded: all that it needs, or loading would have failed."""
    return LoadReport.count(layout, source, expected=[f"{prefix}{name}" for name in model.state_dict()])


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
