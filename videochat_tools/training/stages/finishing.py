"""The finished model of a stage as a folder that the chat model, or the next stage, opens."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.loading import lora_pairs, merge_lora, save_adapter
from videochat_tools.models.loading.staging import new_folder

from .options import StageOptions
from .starting import start_network

__all__ = ["write_model"]


def write_model(folder: Path, trained: Mapping[str, Tensor], options: StageOptions) -> None:
    """Put what was trained into the network that the stage began with, and write that.

    It is made anew, on the CPU: this needs no GPU, and is the same however the training was spread.

    Args:
        folder: To write; what an earlier end of the same run left there is replaced.
        trained: Of the last checkpoint, by their names in the network.
        options: Of the run.

    Raises:
        ModelLoadError: The tensors are not those of this network.
    """
    start = start_network(options)
    model = start.model
    lora = lora_pairs(trained, alpha=options.lora_alpha, source="the checkpoint")
    plain = {name: value for name, value in trained.items() if ".lora_" not in name}
    places = model.state_dict()
    if unknown := sorted(plain.keys() - places.keys()):
        raise ModelLoadError(f"the checkpoint has {len(unknown)} tensors that the network has not, first {unknown[0]}")
    with torch.no_grad():
        for name, value in plain.items():
            places[name].copy_(value)
    if lora is not None and options.lora_output == "merge":
        merge_lora(model.language_model, lora)
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with new_folder(fresh) as partial:
        model.save_pretrained(partial)
        start.processor.save_pretrained(partial)
        if lora is not None and options.lora_output == "adapter":
            save_adapter(partial, lora)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
