"""A tiny stage-1 network of random weights, saved as the encoder reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_model(seed=0, hidden_size=32, aggregation="mean")``: a stage-1 folder, 4 frames of 32x32."""
    import torch
    from transformers import BertTokenizerFast

    from videochat_tools.models.videochat2 import (
        ProcessorOptions,
        VideoChat2ForRetrieval,
        VideoChat2Processor,
        VideoChat2RetrievalConfig,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a red ring spins the blue square".split(), "[DEC]"]

    def make(*, seed: int = 0, hidden_size: int = 32, aggregation: str = "mean", patch_size: int = 16) -> Path:
        folder = tmp_path_factory.mktemp("model") / f"stage 1 ({seed})"
        config = VideoChat2RetrievalConfig(
            vision_config={
                "hidden_size": hidden_size, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
                "image_size": 32, "patch_size": patch_size, "num_frames": 4, "position_image_size": 32,
            },
            qformer_config={
                "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 32, "max_position_embeddings": 32, "num_query_tokens": 4,
            },
            projection_dim=12,
            aggregation=aggregation,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = VideoChat2ForRetrieval(config)
            with torch.no_grad():  # large weights, so that different input gives different output
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        parameter.normal_(std=0.4)
        model.save_pretrained(folder)
        tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, bos_token="[DEC]")
        options = ProcessorOptions(image_size=32, max_text_length=16, truncation_side="right")
        VideoChat2Processor(None, tokenizer, options).save_pretrained(folder)
        return folder

    return make
