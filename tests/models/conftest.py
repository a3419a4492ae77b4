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
    return _chat_golden(goldens, request.param)


@pytest.fixture(scope="session")
def vicuna_golden(goldens: Callable[[str], Path]) -> tuple[Path, dict[str, Any], Any]:
    """The chat model with Vicuna alone."""
    return _chat_golden(goldens, "vicuna")


def _chat_golden(goldens: Callable[[str], Path], family: str) -> tuple[Path, dict[str, Any], Any]:
    from transformers import AutoConfig

    from videochat_tools.models import VideoChat2Config

    folder = goldens(FAMILIES[family])
    golden = json.loads((folder / "golden.json").read_text())
    vision, qformer = golden_sizes(golden)
    config = VideoChat2Config(
        vision_config=vision, qformer_config=qformer, text_config=AutoConfig.from_pretrained(folder / "llm"),
        family=family,
    )  # fmt: skip
    return folder, golden, config


@pytest.fixture(scope="session")
def hd_golden(goldens: Callable[[str], Path]) -> tuple[Path, dict[str, Any], Any, Any]:
    """Folder, golden.json, model and processor of stage 4, whose language model lies in another golden's folder."""
    from transformers import AutoConfig, AutoTokenizer, BertTokenizer

    from videochat_tools.models import VideoChat2Config, VideoChat2Processor
    from videochat_tools.models.videochat2 import ProcessorOptions, TilingOptions
    from videochat_tools.models.videochat2.conversion import convert_chat

    folder = goldens("vc2_mistral_hd")
    golden = json.loads((folder / "golden.json").read_text())
    _, owner, *rest = Path(golden["files"]["llm"]).parts
    language_model = goldens(owner).joinpath(*rest)
    vision, qformer = golden_sizes(golden)
    text = AutoConfig.from_pretrained(language_model)
    config = VideoChat2Config(vision_config=vision, qformer_config=qformer, text_config=text, family="mistral")
    alpha = golden["reference_dims"]["lora_alpha"]
    model = convert_chat(folder / golden["files"]["stage4"], language_model, config, lora_alpha=alpha)
    cut = golden["dynamic_config"]
    options = ProcessorOptions.released(
        "mistral_hd",
        image_size=cut["local_size"],
        num_visual_tokens=config.num_visual_tokens,
        tiling=TilingOptions(max_tiles=cut["hd_num"], padding=cut["padding"], global_view=cut["add_global"]),
    )
    words, pieces = AutoTokenizer.from_pretrained(language_model), BertTokenizer.from_pretrained(goldens("bert"))
    return folder, golden, model, VideoChat2Processor(words, pieces, options)


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


@pytest.fixture(scope="session")
def videochat_golden(goldens: Callable[[str], Path]) -> tuple[Path, dict[str, Any], Any]:
    """Folder, golden.json and configuration of the first VideoChat."""
    from transformers import AutoConfig

    from videochat_tools.models import VideoChatConfig

    folder = goldens("v1")
    golden = json.loads((folder / "golden.json").read_text())
    dims = golden["reference_dims"]
    tower, bert = dims["vit"], dims["qformer"]
    config = VideoChatConfig(
        vision_config={
            "hidden_size": tower["embed_dim"],
            "num_hidden_layers": tower["depth"],
            "num_attention_heads": tower["num_heads"],
            "intermediate_size": int(tower["embed_dim"] * tower["mlp_ratio"]),
            "image_size": tower["img_size"],
            "patch_size": tower["patch_size"],
            "layer_norm_eps": tower["ln_eps"],
            "num_global_layers": tower["gmhra_layers"],
        },
        qformer_config={
            "cross_attention_frequency": dims["cross_attention_freq"],
            "num_query_tokens": dims["num_query_token"],
            "num_extra_query_tokens": dims["extra_num_query_token"],
            **{
                name: bert[name]
                for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
            },
        },
        text_config=AutoConfig.from_pretrained(folder / "llm"),
    )
    return folder, golden, config


@pytest.fixture(scope="session")
def videochat_sources(videochat_golden: tuple[Path, dict[str, Any], Any]) -> dict[str, Path]:
    """The four sources of the first VideoChat, as ``convert_videochat`` names them."""
    folder = videochat_golden[0]
    names = json.loads((folder / "config.json").read_text())["model"]
    arguments = {
        "eva": "vit_model_path",
        "blip2": "q_former_model_path",
        "language_model": "llama_model_path",
        "checkpoints": "videochat_model_path",
    }
    return {argument: folder / names[entry] for argument, entry in arguments.items()}


@pytest.fixture(scope="session")
def videochat_processor(videochat_golden: tuple[Path, dict[str, Any], Any]) -> Any:
    from transformers import AutoTokenizer

    from videochat_tools.models import VideoChatProcessor
    from videochat_tools.models.videochat2 import ProcessorOptions

    folder, _, config = videochat_golden
    options = ProcessorOptions.released(
        "videochat", image_size=config.vision_config.image_size, num_visual_tokens=config.num_visual_tokens
    )
    return VideoChatProcessor(AutoTokenizer.from_pretrained(folder / "llm"), None, options)


@pytest.fixture(scope="session")
def videochat_model(videochat_golden: tuple[Path, dict[str, Any], Any], videochat_sources: dict[str, Path]) -> Any:
    from videochat_tools.models.videochat.conversion import convert_videochat

    return convert_videochat(**videochat_sources, config=videochat_golden[2])
