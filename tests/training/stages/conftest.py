"""Every stage at toy size: the small files of the goldens to begin from, and a few rendered videos to learn from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

Make = Callable[..., Any]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "white": (240, 240, 240)}
LORA = {
    "vicuna": ["q_proj", "v_proj"],
    "mistral": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
    "phi3": ["o_proj", "qkv_proj", "gate_up_proj", "down_proj", "lm_head"],
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Data:
    """Annotation files over one folder of media."""

    root: Path

    def corpora(self, *names: str) -> list[dict[str, Any]]:
        media = {"captions": "video", "talks": "video", "pictures": "image", "picture_talks": "image", "words": "text"}
        return [
            {"annotation": str(self.root / f"{name}.json"), "root": str(self.root), "medium": media[name]}
            for name in names
        ]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Data:
    """Four videos and pictures, each of one colour, with captions and conversations; and talk without either."""
    root = tmp_path_factory.mktemp("stage-data")
    captions, talks, pictures, picture_talks = [], [], [], []
    for name, colour in COLOURS.items():
        frames = [np.full((64, 64, 3), colour, np.uint8) for _ in range(8)]
        write_video(root / f"{name}.mp4", frames)
        Image.fromarray(frames[0]).save(root / f"{name}.png")
        captions.append({"video": f"{name}.mp4", "caption": f"a {name} video"})
        pictures.append({"image": f"{name}.png", "caption": f"a {name} image"})
        turns = [{"i": "Answer the question.", "q": "What is the object?", "a": name}, {"q": "Why?", "a": "the video"}]
        talks.append({"video": f"{name}.mp4", "QA": turns})
        picture_talks.append({"image": f"{name}.png", "QA": turns[:1]})
    words = [{"QA": [{"q": "What is the ball?", "a": name}]} for name in COLOURS]
    contents = {
        "captions": captions, "talks": talks, "pictures": pictures, "picture_talks": picture_talks, "words": words,
    }  # fmt: skip
    for name, entries in contents.items():
        (root / f"{name}.json").write_text(json.dumps(entries), encoding="utf-8")
    return Data(root)


GOLDENS = Path(__file__).resolve().parents[2] / "goldens"


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the first stages begin from, as their options; random weights of a few thousand parameters."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("stage-sources")
    bert = folder / "bert"
    config = BertConfig(
        vocab_size=643, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(bert)
    for path in (GOLDENS / "bert").iterdir():
        shutil.copy(path, bert)
    qformer: dict[str, Any] = {
        "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
        "num_query_tokens": 6, "num_extra_query_tokens": 10,
    }  # fmt: skip
    networks = {
        "retrieval": {
            "vision_config": {
                "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256,
                "image_size": 64, "patch_size": 16, "position_image_size": 64,
            },
            "qformer_config": {**qformer, "vocab_size": 644, "max_position_embeddings": 64},
            "projection_dim": 24,
        },
        "videochat": {
            "vision_config": {
                "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 279,
                "image_size": 56, "patch_size": 14, "num_global_layers": 3, "global_dropout": 0.0,
            },
            "qformer_config": qformer,
        },
    }  # fmt: skip
    for name, fields in networks.items():
        (folder / f"{name}.json").write_text(json.dumps(fields), encoding="utf-8")
    return {
        "retrieval": {
            "tower": str(GOLDENS / "vc2_stage1" / "umt_qformer.pth"), "bert": str(bert),
            "network": str(folder / "retrieval.json"), "image_size": 64,
        },
        "videochat": {
            "tower": str(GOLDENS / "v1" / "eva_vit.pth"), "blip2": str(GOLDENS / "v1" / "blip2_qformer.pth"),
            "language_model": str(GOLDENS / "v1" / "llm"), "network": str(folder / "videochat.json"), "image_size": 56,
        },
    }  # fmt: skip


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``language_model("mistral")``: the folder of a tiny one of this family."""
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM

    made = {"vicuna": GOLDENS / "v1" / "llm"}

    def make(family: str) -> str:
        if family not in made:
            tokenizer = AutoTokenizer.from_pretrained(made["vicuna"])
            sizes: dict[str, Any] = {
                "vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 4, "intermediate_size": 128, "max_position_embeddings": 512, "bos_token_id": 1,
                "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2,
            }  # fmt: skip
            kinds = {"mistral": (MistralConfig, MistralForCausalLM), "phi3": (Phi3Config, Phi3ForCausalLM)}
            config, network = kinds[family]
            folder = tmp_path_factory.mktemp(family)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network(config(**sizes)).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[family] = folder
        return str(made[family])

    return make


TOY: dict[str, Any] = {
    "batch_size": 4, "workers": 0, "mixed_precision": "no", "device": "cpu", "language_model_dtype": "float32",
    "augment": False, "frame_sampling": "middle", "num_frames": 2, "epochs": 20, "warmup_epochs": 2,
    "learning_rate": 3e-3, "log_steps": 1, "tensorboard": False, "checkpoint_steps": 1000, "max_text_length": 32,
}  # fmt: skip


@dataclass
class Stages:
    """Runs of the stages, each of which is made once and goes on from the one before."""

    data: Data
    sources: dict[str, Any]
    language_model: Callable[[str], str]
    folder: Path
    made: dict[str, Path]

    def options(self, name: str, **changes: Any) -> Any:
        """Toy options of a released stage."""
        from videochat_tools.training.stages import load_options

        family, number = parts(name)
        values = dict(TOY)
        if family == "retrieval" or (family == "videochat" and number == 1):
            values |= self.sources[family]
            values["corpora"] = self.data.corpora("captions", "pictures")
        elif family == "videochat":
            values |= {"model": str(self.model("videochat-7b-stage1")), "image_size": 56}
            values["corpora"] = self.data.corpora("talks", "picture_talks")
        elif number == 2:
            values |= {"model": str(self.model("videochat2-stage1")), "language_model": self.language_model(family)}
            values |= {"image_size": 64, "corpora": self.data.corpora("captions", "pictures")}
        else:
            values |= {"model": str(self.model(f"videochat2-{family}-stage{number - 1}")), "image_size": 64}
            values |= {"lora_rank": 4, "lora_alpha": 8.0, "corpora": self.data.corpora("talks", "picture_talks")}
        if number == (2 if family == "videochat" else 3) or number == 4:
            values["max_text_length"] = 160
        if family != "videochat" and number == 3:
            values["retrieval_model"] = str(self.model("videochat2-stage1"))
        if number == 4:
            values |= {"max_tiles": 2, "corpora": self.data.corpora("talks", "picture_talks", "words")}
            values |= {"epochs": 10}
        return load_options(name, **(values | changes))

    def run(self, name: str) -> Path:
        """The folder of a run of at least 20 steps."""
        from videochat_tools.training.stages.trainer import train_stage

        if name not in self.made:
            output = self.folder / name
            train_stage(self.options(name, max_steps=20), output)
            self.made[name] = output
        return self.made[name]

    def model(self, name: str) -> Path:
        return self.run(name) / "model"


def parts(name: str) -> tuple[str, int]:
    """Family and number of a released stage."""
    start, _, number = name.rpartition("-stage")
    family = "videochat" if start.startswith("videochat-") else start.partition("-")[2] or "retrieval"
    return family, int(number)


@pytest.fixture(scope="session")
def stages(
    data: Data,
    sources: dict[str, Any],
    language_model: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Stages:
    return Stages(data, sources, language_model, tmp_path_factory.mktemp("stage-runs"), {})
