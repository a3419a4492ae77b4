"""The tiny chat model with another language model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from videochat_tools.models.videochat2 import VideoChat2Config, VideoChat2ForConditionalGeneration


def with_language_model(source: Path, folder: Path, *, std: float = 0.4, **text_config: Any) -> Path:
    """A copy whose language model has another configuration and random weights."""
    shutil.copytree(source, folder)
    config = VideoChat2Config.from_pretrained(source).to_dict()
    old = config["text_config"]
    sizes = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
    ids = "bos_token_id eos_token_id pad_token_id max_position_embeddings"
    config["text_config"] = {**{name: old[name] for name in (sizes + " " + ids).split()}, **text_config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VideoChat2ForConditionalGeneration(VideoChat2Config(**config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=std)
    model.save_pretrained(folder)
    return folder
