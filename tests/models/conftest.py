"""Reference goldens: tiny checkpoints in the original layouts with the outputs of the original code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

FAMILIES = {"vicuna": "vc2_vicuna", "mistral": "vc2_mistral", "phi3": "vc2_phi"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def goldens(request: pytest.FixtureRequest, repository: Path) -> Callable[[str], Path]:
    """``goldens("vc2_vicuna")``: it in VIDEOCHAT_GOLDENS, else in tests/goldens, else in the shared folder."""

    def find(name: str) -> Path:
        if chosen := os.environ.get("VIDEOCHAT_GOLDENS"):
            root = Path(chosen)
        else:
            root = repository / "tests" / "goldens"  # a part of what the shared folder has
            if not (root / name).exists():
                root = request.getfixturevalue("shared") / "reference" / "goldens"
        if not (root / name).exists():
            pytest.skip(f"no goldens {name} in {root}")
        return root / name

    return find


def golden_sizes(golden: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the tower's and the Q-Former's configuration from a golden.json."""
    dims = golden["reference_dims"]
    tower, bert = dims["vision_encoder"], dims["qformer"]
    vision = {
        "hidden_size": tower["encoder_embed_dim"],
        "num_hidden_layers": dims["executed_blocks"],
        "num_attention_heads": tower["encoder_num_heads"],
        "intermediate_size": 4 * tower["encoder_embed_dim"],
        "image_size": tower["img_size"],
        "patch_size": tower["patch_size"],
    }
    qformer = {
        "vocab_size": dims["qformer_vocab_after_resize"],
        "cross_attention_frequency": dims["cross_attention_freq"],
        "num_query_tokens": dims["num_query_token"],
        "num_extra_query_tokens": dims["extra_num_query_token"],
        **{
            name: bert[name]
            for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        },
    }
    return vision, qformer


@pytest.fixture(scope="session")
def retrieval_golden(goldens: Callable[[str], Path]) -> tuple[Path, dict[str, Any], Any]:
    """Folder, golden.json and configuration of stage 1."""
    from videochat_tools.models import VideoChat2RetrievalConfig

    folder = goldens("vc2_stage1")
    golden = json.loads((folder / "golden.json").read_text())
    vision, qformer = golden_sizes(golden)
    dims = golden["reference_dims"]
    config = VideoChat2RetrievalConfig(
        vision_config=vision,
        qformer_config=qformer,
        projection_dim=dims["embed_dim"],
        initial_temperature=dims["temp"],
        aggregation=dims["agg_method"],
        broadcast_single_frame=True,
    )
    return folder, golden, config


@pytest.fixture(scope="session", params=list(FAMILIES))
def chat_golden(request: pytest.FixtureRequest, goldens: Callable[[str], Path]) -> tuple[Path, dict[str, Any], Any]:
    """Folder, golden.json and configuration of a chat model, stage 3."""
    from transformers import AutoConfig

    from videochat_tools.models import VideoChat2Config

    folder = goldens(FAMILIES[request.param])
    golden = json.loads((folder / "golden.json").read_text())
    vision, qformer = golden_sizes(golden)
    config = VideoChat2Config(
        vision_config=vision, qformer_config=qformer, text_config=AutoConfig.from_pretrained(folder / "llm"),
        family=request.param,
    )  # fmt: skip
    return folder, golden, config


@pytest.fixture(scope="session")
def chat_processor(chat_golden: tuple[Path, dict[str, Any], Any], goldens: Callable[[str], Path]) -> Any:
    from transformers import AutoTokenizer, BertTokenizer

    from videochat_tools.models.videochat2 import ProcessorOptions, VideoChat2Processor

    folder, _, config = chat_golden
    options = ProcessorOptions(
        family=config.family,
        image_size=config.vision_config.image_size,
        num_visual_tokens=config.num_visual_tokens,
    )
    bert = BertTokenizer.from_pretrained(goldens("bert"))
    return VideoChat2Processor(AutoTokenizer.from_pretrained(folder / "llm"), bert, options)


@pytest.fixture(scope="session")
def chat_model(chat_golden: tuple[Path, dict[str, Any], Any]) -> Any:
    from videochat_tools.models.videochat2.conversion import convert_chat

    folder, golden, config = chat_golden
    (checkpoint,) = folder.glob("*stage3.pth")
    return convert_chat(checkpoint, folder / "llm", config, lora_alpha=golden["reference_dims"]["lora_alpha"])
