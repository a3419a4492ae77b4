"""A language model from LLaMA and a released difference, made from a golden's language model."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from altered_models import Tensors, altered_folder, without_last_row
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.loading import load_language_model
from videochat_tools.models.loading.delta import apply_delta

Golden = tuple[Path, dict[str, Any], Any]
Folders = tuple[Path, Path, Tensors]


def is_vocabulary(name: str) -> bool:
    return name.endswith(("embed_tokens.weight", "lm_head.weight"))


def is_buffer(name: str) -> bool:
    """Rotation frequencies, which old language models store and none needs."""
    return name.endswith(".rotary_emb.inv_freq")


@pytest.fixture(params=[torch.float32, torch.float16])
def folders(vicuna_golden: Golden, tmp_path: Path, request: pytest.FixtureRequest) -> Folders:
    """Base and delta, and what is to come out: the golden's own language model, as far as its precision goes."""
    source, size = vicuna_golden[0] / "llm", vicuna_golden[2].text_config.vocab_size
    generator = torch.Generator().manual_seed(1)
    goal: Tensors = {}

    def as_base(tensors: Tensors) -> Tensors:
        noise = {
            name: (value + 0.01 * torch.randn(value.shape, generator=generator)).to(request.param)
            for name, value in without_last_row(tensors).items()
        }
        goal.update({name: value.to(request.param) for name, value in tensors.items() if not is_buffer(name)})
        return noise

    base = altered_folder(source, tmp_path / "llama", config={"vocab_size": size - 1}, tensors=as_base)
    start = load_file(base / "model.safetensors")

    def as_delta(tensors: Tensors) -> Tensors:
        grown = {name: F.pad(value, (0, 0, 0, 1)) if is_vocabulary(name) else value for name, value in start.items()}
        difference = {name: goal[name] - grown[name] for name in goal}
        goal.update({name: grown[name] + difference[name] for name in goal})
        return difference

    delta = altered_folder(source, tmp_path / "vicuna-delta", tensors=as_delta)
    return base, delta, goal


def written(folder: Path) -> Tensors:
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def test_the_sum_is_a_language_model(folders: Folders, vicuna_golden: Golden, tmp_path: Path) -> None:
    base, delta, goal = folders
    result = apply_delta(base, delta, tmp_path / "new" / "vicuna", shard_bytes=200_000)
    found = written(result.folder)
    assert found.keys() == goal.keys()
    for name, value in goal.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
    golden = load_file(vicuna_golden[0] / "llm" / "model.safetensors")
    for name, value in golden.items():  # so that it is not the base, either
        if is_buffer(name):
            continue
        torch.testing.assert_close(found[name].float(), value, rtol=0, atol=4e-3)
    assert result.vocabulary == vicuna_golden[2].text_config.vocab_size
    assert len(AutoTokenizer.from_pretrained(result.folder)) == result.vocabulary
    model = load_language_model(result.folder)
    assert model.config.vocab_size == result.vocabulary
    assert (result.folder / "tokenizer.model").read_bytes() == (delta / "tokenizer.model").read_bytes()
    assert [path.name for path in result.folder.parent.iterdir()] == ["vicuna"]


def test_files_are_sharded_and_memory_is_bounded(folders: Folders, tmp_path: Path) -> None:
    base, delta, goal = folders
    limit = 100_000
    largest = max(value.nbytes for value in goal.values())
    peaks: list[int] = []

    def alive() -> int:
        tensors = (value for value in gc.get_objects() if type(value) is torch.Tensor)
        return sum({value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}.values())

    gc.freeze()  # what is there before is not counted
    try:
        result = apply_delta(
            base, delta, tmp_path / "out", shard_bytes=limit, progress=lambda *_: peaks.append(alive())
        )
    finally:
        gc.unfreeze()
    assert len(peaks) == len(goal) == result.tensors
    assert sum(value.nbytes for value in goal.values()) > 2 * limit
    assert 0 < max(peaks) <= max(limit, largest)
    index = json.loads((result.folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == goal.keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in goal.values())
    files = sorted(path.name for path in result.folder.glob("*.safetensors"))
    assert files == [f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(result.shards)]
    assert set(index["weight_map"].values()) == set(files)
    for file in files:
        tensors = load_file(result.folder / file)
        assert len(tensors) == 1 or sum(value.nbytes for value in tensors.values()) <= limit


@pytest.mark.parametrize("old_format", [False, True])
def test_folders_of_bin_files(folders: Folders, tmp_path: Path, old_format: bool) -> None:
    base, delta, goal = folders
    for folder in (base, delta):
        tensors = {
            name: value for name, value in load_file(folder / "model.safetensors").items() if not is_buffer(name)
        }
        names = list(tensors)
        weight_map = {}
        for number, part in enumerate((names[:5], names[5:])):
            file = f"pytorch_model-{number + 1:05d}-of-00002.bin"
            torch.save(
                {name: tensors[name] for name in part}
                | {f"model.layers.{number}.self_attn.rotary_emb.inv_freq": torch.ones(8)},
                folder / file,
                _use_new_zipfile_serialization=not old_format,
            )
            weight_map |= dict.fromkeys(part, file)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        (folder / "model.safetensors").unlink()
    found = written(apply_delta(base, delta, tmp_path / "out").folder)
    assert found.keys() == goal.keys()
    assert all(torch.equal(found[name], value) for name, value in goal.items())
    (delta / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"lacks pytorch_model-00002-of-00002\.bin"):
        apply_delta(base, delta, tmp_path / "again")


@pytest.mark.parametrize("folders", [torch.float32], indirect=True)
def test_folders_that_do_not_belong_together(folders: Folders, tmp_path: Path) -> None:
    base, delta, _ = folders
    out = tmp_path / "out"

    def refused(base: Path, delta: Path, match: str) -> None:
        with pytest.raises(ModelLoadError, match=match) as caught:
            apply_delta(base, delta, out)
        assert "\n" not in str(caught.value)
        assert not out.exists()

    def changed(name: str, folder: Path, change: Callable[[Tensors], Tensors], **config: Any) -> Path:
        return altered_folder(folder, tmp_path / name, config=config, tensors=change)

    def fewer_rows(tensors: Tensors) -> Tensors:
        return without_last_row(tensors)

    def narrower(tensors: Tensors) -> Tensors:
        return {
            name: value[:-1].clone() if name.endswith("layers.0.mlp.up_proj.weight") else value
            for name, value in tensors.items()
        }

    def less(tensors: Tensors) -> Tensors:
        return {name: value for name, value in tensors.items() if not name.endswith("layers.0.mlp.up_proj.weight")}

    refused(changed("two", base, fewer_rows), delta, r"only the vocabulary may grow, by 1")
    refused(changed("narrow", base, narrower), delta, r"layers\.0\.mlp\.up_proj\.weight is ")
    refused(changed("less", base, less), delta, r"lacks 1 tensor .*up_proj")
    refused(base, changed("less2", delta, less), r"lacks 1 tensor .*up_proj")
    refused(delta, base, r"only the vocabulary may grow")
    refused(delta, delta, r"is itself a delta")
    refused(base, altered_folder(base, tmp_path / "whole"), r"is no delta")
    refused(altered_folder(base, tmp_path / "llama-2", config={"rms_norm_eps": 1e-5}), delta, "LLaMA-2 or later given")
    refused(tmp_path / "absent", delta, "no model folder at")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "consolidated.00.pth").write_bytes(b"")
    refused(tmp_path / "meta", delta, "Meta's own layout")


@pytest.mark.parametrize("folders", [torch.float32], indirect=True)
def test_output_is_whole_or_not_there(folders: Folders, tmp_path: Path) -> None:
    base, delta, _ = folders
    out = tmp_path / "out"

    def interrupt(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_delta(base, delta, out, shard_bytes=1, progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == [base.name, delta.name]
    out.mkdir()
    apply_delta(base, delta, out)
    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "llama"
    with pytest.raises(ModelLoadError, match="is not empty"):
        apply_delta(base, delta, out)


@pytest.mark.parametrize("folders", [torch.float32], indirect=True)
def test_a_damaged_folder_leaves_nothing(folders: Folders, tmp_path: Path) -> None:
    base, delta, _ = folders
    data = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(ModelLoadError, match="cut short"):
        apply_delta(base, delta, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(base)
    base.mkdir()
    with pytest.raises(ModelLoadError, match="holds no weights"):
        apply_delta(base, delta, tmp_path / "out")
    save_file({"x": torch.zeros(1)}, base / "model.safetensors")
    with pytest.raises(ModelLoadError, match="lacks"):
        apply_delta(base, delta, tmp_path / "out")
