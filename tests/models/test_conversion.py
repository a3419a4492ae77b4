"""Original checkpoints to models: LoRA merged and apart, several stages together, and the repackaged HD release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from altered_models import Tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.loading import read_checkpoint
from videochat_tools.models.loading.lora import merge_lora
from videochat_tools.models.videochat2.conversion import convert_chat, read_chat
from videochat_tools.models.videochat2.modeling_vision import sincos_position_table

LOGITS = 1e-3  # absolute tolerance, as for all goldens

Golden = tuple[Path, dict[str, Any], Any]


def close(ours: Tensor, golden: Tensor, tolerance: float = LOGITS) -> None:
    torch.testing.assert_close(ours, golden, rtol=0, atol=tolerance)


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Every tensor is the same, to the last bit."""
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        assert torch.equal(value, second[name]), name


@torch.no_grad()
def test_lora_apart_answers_as_lora_merged(chat_golden: Golden) -> None:
    pytest.importorskip("peft")
    folder, golden, config = chat_golden
    taps = load_file(folder / "golden_llm_lora.safetensors")
    alpha = golden["reference_dims"]["lora_alpha"]
    model = convert_chat(folder / golden["files"]["stage3"], folder / "llm", config, lora="adapter", lora_alpha=alpha)
    close(model(input_ids=taps["input_ids"]).logits, taps["logits_with_lora"])
    model.disable_adapters()
    close(model(input_ids=taps["input_ids"]).logits, taps["logits_without_lora"])
    adapted = {
        name.removeprefix("language_model.") for name, module in model.named_modules() if hasattr(module, "lora_A")
    }
    file = read_checkpoint(folder / golden["files"]["stage3"])
    stored = {name.partition("base_model.model.")[2].partition(".lora_A.")[0] for name in file if ".lora_A." in name}
    assert adapted == stored


@torch.no_grad()
def test_alpha_is_twice_the_rank_unless_said(vicuna_golden: Golden) -> None:
    folder, golden, config = vicuna_golden
    file, rank = folder / golden["files"]["stage3"], golden["reference_dims"]["lora_r"]
    parts = read_chat(file, folder / "llm", config)
    assert parts.lora is not None
    assert (parts.lora.rank, parts.lora.alpha) == (rank, 2 * rank)
    plain = parts.model.language_model.state_dict()
    before = {name: value.clone() for name, value in plain.items()}
    merge_lora(parts.model.language_model, parts.lora)
    other = convert_chat(file, folder / "llm", config, lora_alpha=rank)  # half of it
    name = next(iter(parts.lora.pairs)) + ".weight"
    whole, half = plain[name] - before[name], other.language_model.state_dict()[name] - before[name]
    assert whole.abs().max() > 0.001
    torch.testing.assert_close(whole, 2 * half, rtol=0, atol=1e-6)


def test_earlier_stages_may_be_given_too(vicuna_golden: Golden, retrieval_golden: Golden) -> None:
    folder, golden, config = vicuna_golden
    (stage_1,) = retrieval_golden[0].glob("*.pth")
    stage_2, stage_3 = (folder / golden["files"][name] for name in ("stage2", "stage3"))
    same(
        convert_chat([stage_1, stage_2, stage_3], folder / "llm", config),
        convert_chat(stage_3, folder / "llm", config),
    )


def test_the_model_does_not_hold_its_file(vicuna_golden: Golden, tmp_path: Path) -> None:
    folder, golden, config = vicuna_golden
    copy = tmp_path / "copy.pth"
    copy.write_bytes((folder / golden["files"]["stage3"]).read_bytes())
    model = convert_chat(copy, folder / "llm", config)
    with copy.open("r+b") as file:
        file.truncate(0)  # a mapped tensor would now end the process
    same(model, convert_chat(folder / golden["files"]["stage3"], folder / "llm", config))


# The repackaged HD release: other prefixes, safetensors, the language model inside, position tables


@pytest.fixture
def repackaged(hd_golden: tuple[Path, dict[str, Any], Any, Any]) -> tuple[Tensors, Any, Path]:
    """Tensors as its users describe them: no PEFT wrapping, LoRA merged, a table of positions."""
    folder, golden, model, _ = hd_golden
    tensors = {
        name: value
        for name, value in read_checkpoint(folder / golden["files"]["stage4"]).items()
        if not name.startswith("mistral_model.")
    }
    merged = model.language_model.state_dict()
    tensors |= {f"mistral_model.{name}": value.clone() for name, value in merged.items()}
    table = sincos_position_table(model.config.vision_config.hidden_size, (14, 14), 8)
    tensors["vision_encoder.encoder.pos_embed"] = table[None]
    return tensors, model, (folder / golden["files"]["llm"]).resolve()


def test_the_repackaged_release_is_matched_without_guessing(
    repackaged: tuple[Tensors, Any, Path], tmp_path: Path
) -> None:
    tensors, model, language_model = repackaged
    names = sorted(tensors)
    half = len(names) // 2
    for number, part in enumerate((names[:half], names[half:])):
        save_file(
            {f"model.{name}": tensors[name].contiguous() for name in part}, tmp_path / f"model-{number}.safetensors"
        )
    same(convert_chat(tmp_path, language_model, model.config), model)


def test_the_repackaged_release_is_refused_with_a_list(repackaged: tuple[Tensors, Any, Path], tmp_path: Path) -> None:
    tensors, model, language_model = repackaged
    tensors["vision_encoder.encoder.pos_embed"] = tensors["vision_encoder.encoder.pos_embed"] + 1
    tensors["vision_encoder.head.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError, match="vision tower: 2 tensors") as caught:
        convert_chat(tmp_path, language_model, model.config)
    assert caught.value.__notes__[0].splitlines()[-2:] == [
        "unexpected: vision_encoder.encoder.pos_embed",
        "unexpected: vision_encoder.head.weight",
    ]
    del tensors["vision_encoder.encoder.pos_embed"], tensors["vision_encoder.head.weight"]
    del tensors["mistral_model.model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"language model: 1 tensor .*missing, first model\.norm\.weight"):
        convert_chat(tmp_path, language_model, model.config)
