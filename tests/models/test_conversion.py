"""Original checkpoints: names and sizes of the released files, and what a user is told about unusable ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Phi3Config, PretrainedConfig

from videochat_tools.errors import ModelLoadError
from videochat_tools.models import (
    VideoChat2Config,
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
    VideoChat2RetrievalConfig,
)
from videochat_tools.models.videochat2.conversion import convert_retrieval, original_names, read_checkpoint

DERIVED = ("position_ids", "inv_freq", "cls.predictions.bias", "cls.predictions.decoder.weight")


def _check(model: torch.nn.Module, inventory: dict[str, Any], family: str) -> None:
    """Every tensor of the model is in the released file with the same shape, and the file has nothing else."""
    left = {name: tuple(entry["shape"]) for name, entry in inventory["keys"].items()}
    for name, tensor in model.state_dict().items():
        if name.startswith("language_model."):
            continue
        originals = original_names(name, family)
        shapes = [left.pop(original) for original in originals]
        if len(shapes) == 2:  # biases of queries and values; keys have none
            assert tensor.shape == (3 * shapes[0][0],)
        else:
            assert tuple(tensor.shape) == shapes[0], name
    assert [name for name in left if "lora_" not in name and not name.endswith(DERIVED)] == []


def test_released_stage_1(shared: Path) -> None:
    inventory = json.loads((shared / "reference" / "inventory_vc2_stage1.json").read_text())
    with torch.device("meta"):
        model = VideoChat2ForRetrieval(VideoChat2RetrievalConfig())
    _check(model, inventory, "vicuna")


@pytest.mark.parametrize(
    ("name", "family", "text_config", "text_input"),
    [
        ("vicuna_stage2", "vicuna", LlamaConfig(), False),
        ("vicuna_stage3", "vicuna", LlamaConfig(), True),
        ("mistral_stage3", "mistral", MistralConfig(), True),
        ("mistral_hd_stage4", "mistral", MistralConfig(), True),
        ("phi3_stage3", "phi3", Phi3Config(), True),
    ],
)
def test_released_chat(shared: Path, name: str, family: str, text_config: PretrainedConfig, text_input: bool) -> None:
    inventory = json.loads((shared / "reference" / f"inventory_vc2_{name}.json").read_text())
    config = VideoChat2Config(text_config=text_config, family=family, qformer_config={"text_input": text_input})
    assert config.num_visual_tokens == 96
    with torch.device("meta"):
        model = VideoChat2ForConditionalGeneration(config)
    _check(model, inventory, family)
    modules = dict(model.language_model.named_modules())
    for key, entry in inventory["keys"].items():
        if ".lora_A." in key:
            module = modules[key.split(".base_model.model.")[1].split(".lora_A.")[0]]
            assert module.in_features == entry["shape"][1]


@pytest.fixture
def tensors(retrieval_golden: tuple[Path, dict[str, Any], Any]) -> dict[str, torch.Tensor]:
    return read_checkpoint(retrieval_golden[0] / "umt_qformer.pth")


def test_a_missing_tensor_is_an_error_that_names_it(
    tensors: dict[str, torch.Tensor], retrieval_golden: tuple[Path, dict[str, Any], Any], tmp_path: Path
) -> None:
    del tensors["qformer.bert.encoder.layer.0.intermediate_query.dense.weight"]
    del tensors["itm_head.bias"]
    torch.save({"model": tensors}, tmp_path / "cut.pth")
    with pytest.raises(ModelLoadError, match=r"qformer: 1 tensor.*itm_head: 1 tensor.*cut\.pth") as caught:
        convert_retrieval(tmp_path / "cut.pth", retrieval_golden[2])
    assert "\n" not in str(caught.value)


def test_a_file_of_another_network_is_refused(
    tensors: dict[str, torch.Tensor], retrieval_golden: tuple[Path, dict[str, Any], Any], tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match="the configuration asks for"):
        convert_retrieval(retrieval_golden[0] / "umt_qformer.pth", VideoChat2RetrievalConfig())
    tensors["vision_encoder.encoder.norm.weight"] = torch.zeros(1)
    torch.save(tensors, tmp_path / "more.pth")
    with pytest.raises(ModelLoadError, match=r"vision_encoder: 1 tensor .*vision_encoder\.encoder\.norm\.weight"):
        convert_retrieval(tmp_path / "more.pth", retrieval_golden[2])


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.pth")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        read_checkpoint(tmp_path / "page.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(ModelLoadError, match="no tensors"):
        read_checkpoint(tmp_path / "epoch.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (ran,))

    torch.save({"model": Payload()}, tmp_path / "bad.pth")
    with pytest.raises(ModelLoadError):
        read_checkpoint(tmp_path / "bad.pth")
    assert not ran.exists()
