"""Loading is never silent: what a user is told about files that are not what they should be."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from altered_models import Tensors, altered_folder, plain_tokenizer, without_last_row
from safetensors.torch import save_file

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.loading import LoadReport, read_checkpoint
from videochat_tools.models.videochat.conversion import LAYOUT as VIDEOCHAT_LAYOUT
from videochat_tools.models.videochat.conversion import convert_videochat
from videochat_tools.models.videochat2.conversion import (
    DERIVED,
    LAYOUTS,
    RETRIEVAL_LAYOUT,
    convert_chat,
    convert_retrieval,
)

Golden = tuple[Path, dict[str, Any], Any]
Goldens = Callable[[str], Path]


def told(caught: pytest.ExceptionInfo[ModelLoadError]) -> str:
    """The message, which must be one line."""
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def stage_3(vicuna_golden: Golden) -> tuple[Path, Tensors, Golden]:
    """The file of VideoChat2-Vicuna, its tensors, and the golden that it belongs to."""
    folder, golden, _ = vicuna_golden
    path = folder / golden["files"]["stage3"]
    return path, dict(read_checkpoint(path)), vicuna_golden


def saved(tensors: Tensors, path: Path) -> Path:
    torch.save({"model": tensors}, path)
    return path


# Files


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    def reading(name: str, content: bytes | None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelLoadError) as caught:
            read_checkpoint(tmp_path / name)
        return told(caught)

    assert "no checkpoint at" in reading("absent.pth", None)
    assert "is empty" in reading("empty.pth", b"")
    assert "is a web page" in reading("page.pth", b"<!DOCTYPE html><html>not found</html>")
    assert "git lfs pull" in reading("pointer.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "cannot be read as a checkpoint" in reading("noise.pth", b"noise" * 100)
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    assert "holds no tensors by name" in reading("epoch.pth", None)
    (tmp_path / "folder").mkdir()
    assert "holds neither" in reading("folder", None)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_truncated_file(retrieval_golden: Golden, tmp_path: Path, kind: str) -> None:
    (source,) = retrieval_golden[0].glob("*.pth")
    tensors = read_checkpoint(source)
    whole = tmp_path / ("whole.safetensors" if kind == "safetensors" else "whole.pth")
    if kind == "safetensors":
        save_file({name: value.clone() for name, value in tensors.items()}, whole)
    else:
        torch.save(tensors, whole, _use_new_zipfile_serialization=kind == "zip")
    assert read_checkpoint(whole).keys() == tensors.keys()
    data = whole.read_bytes()
    for part in (0.001, 0.5, 0.999):
        cut = tmp_path / f"cut{whole.suffix}"
        cut.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(ModelLoadError, match=r"cut short.*download it again"):
            read_checkpoint(cut)


class Payload:
    """Leaves a file behind when pickle runs it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("place", ["alone", "bare pickle", "as the model", "as a tensor", "beside the model"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, place: str) -> None:
    trace, path = tmp_path / "ran", tmp_path / "bad.pth"
    payload, good = Payload(trace), {"query_tokens": torch.zeros(2)}
    content: Any = {
        "as the model": {"model": payload},
        "as a tensor": {"model": {**good, "extra_query_tokens": payload}},
        "beside the model": {"model": good, "config": payload},
    }.get(place, payload)
    if place == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ModelLoadError, match=r"not plain tensors.*nothing in it was run") as caught:
        read_checkpoint(path)
    told(caught)
    assert not trace.exists()
    pickle.loads(pickle.dumps(payload))
    assert trace.exists()  # so it would have been noticed


def test_what_a_trainer_leaves_beside_the_weights(
    retrieval_golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("utils_of_a_trainer")
    trace = tmp_path / "ran"

    class Settings(dict[str, Any]):
        def __setstate__(self, state: Any) -> None:
            trace.touch()

    Settings.__module__, Settings.__qualname__ = module.__name__, "Settings"
    module.Settings = Settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (source,) = retrieval_golden[0].glob("*.pth")
    tensors = read_checkpoint(source)
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    settings = Settings(lr=1e-4, model=Settings(name="vit"))
    settings.note = "an attribute"  # type: ignore[attr-defined]
    weights = torch.nn.Module()
    content = {
        "model": {**tensors, "half": torch.arange(6).reshape(2, 3).half().T, "parameter": network.weight},
        "optimizer": optimizer.state_dict(),
        "config": settings,
        "state": weights.state_dict(),
        "epoch": 3,
    }
    torch.save(content, tmp_path / "trainer.pth")
    monkeypatch.delitem(sys.modules, module.__name__)
    found = read_checkpoint(tmp_path / "trainer.pth")
    assert not trace.exists()
    assert found.keys() == content["model"].keys()
    for name, value in content["model"].items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_a_deepspeed_folder(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path) -> None:
    _, tensors, _ = stage_3
    (tmp_path / "ckpt").mkdir()
    torch.save({"module": tensors, "ds_version": "0"}, tmp_path / "ckpt" / "mp_rank_00_model_states.pt")
    assert read_checkpoint(tmp_path).keys() == tensors.keys()


# The table


def test_the_report_counts_every_tensor(
    stage_3: tuple[Path, Tensors, Golden], caplog: pytest.LogCaptureFixture
) -> None:
    path, tensors, (folder, _, config) = stage_3
    with caplog.at_level("INFO", logger="videochat_tools"):
        report: LoadReport = convert_chat(path, folder / "llm", config).load_report
    assert report.complete
    by_name = {count.name: count for count in report.counts}
    language_model = by_name.pop("language model")
    assert language_model.loaded == language_model.expected > 0
    assert sum(count.loaded for count in by_name.values()) == sum(not DERIVED.search(name) for name in tensors)
    assert by_name["LoRA"].loaded == sum(".lora_" in name for name in tensors)
    lines = str(report).splitlines()
    assert lines[0].split() == ["component", "expected", "loaded", "missing", "unexpected"]
    assert len({len(line) for line in lines}) == 1
    row = next(line for line in lines if line.startswith("vision tower"))
    count = by_name["vision tower"].expected
    assert row.split()[-4:] == [str(count), str(count), "0", "0"]
    assert str(report) in caplog.text


def test_whatever_is_missing_is_named_with_its_file_and_the_command(
    stage_3: tuple[Path, Tensors, Golden], tmp_path: Path
) -> None:
    _, tensors, (folder, _, config) = stage_3
    layout = LAYOUTS["vicuna"]
    seen = set()
    for name in tensors:
        component = layout.component(name)
        if component.name in seen or DERIVED.search(name):
            continue
        seen.add(component.name)
        rest = {key: value for key, value in tensors.items() if key != name}
        cut = saved(rest, tmp_path / "cut.pth")
        with pytest.raises(ModelLoadError) as caught:
            convert_chat(cut, folder / "llm", config)
        message = told(caught)
        if component.name == "LoRA":
            assert "no pair" in message
            continue
        assert f"{component.name}: 1 tensor would stay random" in message
        assert name in message and "cut.pth" in message and component.files in message and layout.command in message
        assert f"missing: {name}" in caught.value.__notes__[0]
    assert seen >= {"vision tower", "vision norm", "queries", "Q-Former", "projection", "LoRA"}


def test_missing_lora_is_no_small_thing(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path) -> None:
    _, tensors, (folder, _, config) = stage_3
    module = next(name for name in tensors if ".lora_A." in name).split(".lora_A.")[0]
    rest = {name: value for name, value in tensors.items() if not name.startswith(f"{module}.lora_")}
    with pytest.raises(ModelLoadError, match="LoRA: 2 tensors would stay random"):
        convert_chat(saved(rest, tmp_path / "some.pth"), folder / "llm", config)
    rest = {name: value for name, value in tensors.items() if ".lora_" not in name}
    with pytest.raises(ModelLoadError, match=r"LoRA missing in .*videochat convert checkpoint"):
        convert_chat(saved(rest, tmp_path / "none.pth"), folder / "llm", config)


def test_what_is_missing_in_the_first_videochat(
    videochat_sources: dict[str, Path], videochat_golden: Golden, tmp_path: Path
) -> None:
    for argument, name, component, file in (
        ("eva", "blocks.0.norm1.weight", "vision tower", "eva_vit_g.pth"),
        ("blip2", "query_tokens", "queries", "blip2_pretrained_flant5xxl.pth"),
        ("checkpoints", "visual_encoder.gmhra_cls_token", "GMHRA", "videochat_7b.pth"),
    ):
        tensors = dict(read_checkpoint(videochat_sources[argument]))
        del tensors[name]
        path = tmp_path / f"{argument}.pth"
        torch.save(tensors, path)
        with pytest.raises(ModelLoadError) as caught:
            convert_videochat(**{**videochat_sources, argument: path}, config=videochat_golden[2])
        message = told(caught)
        assert f"{component}: 1 tensor would stay random" in message
        assert file in message and VIDEOCHAT_LAYOUT.command in message


def test_what_no_network_has_is_refused(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path) -> None:
    path, tensors, (folder, _, config) = stage_3
    with pytest.raises(ModelLoadError, match="the configuration asks for"):
        convert_chat(path, folder / "llm")  # the released sizes
    tensors["vision_encoder.encoder.norm.weight"] = torch.zeros(1)
    with pytest.raises(ModelLoadError, match=r"vision tower: 1 tensor .*vision_encoder\.encoder\.norm\.weight"):
        convert_chat(saved(tensors, tmp_path / "more.pth"), folder / "llm", config)


# Language models


def test_llama_2_for_llama_1(
    vicuna_golden: Golden, videochat_golden: Golden, videochat_sources: dict[str, Path], tmp_path: Path
) -> None:
    folder, golden, config = vicuna_golden
    signs = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    llama_2 = altered_folder(folder / "llm", tmp_path / "llama2", config=signs)
    with pytest.raises(ModelLoadError, match="LLaMA-2 or later given") as caught:
        convert_chat(folder / golden["files"]["stage3"], llama_2, config)
    message = told(caught)
    assert "max_position_embeddings 4096, not 2048" in message and "rms_norm_eps 1e-05, not 1e-06" in message
    assert "videochat convert delta" in message
    v1_llama_2 = altered_folder(videochat_sources["language_model"], tmp_path / "v1", config={"rms_norm_eps": 1e-5})
    with pytest.raises(ModelLoadError, match="LLaMA-2 or later given"):
        convert_videochat(**{**videochat_sources, "language_model": v1_llama_2}, config=videochat_golden[2])


def test_an_unapplied_delta(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path) -> None:
    path, _, (folder, _, config) = stage_3
    generator = torch.Generator().manual_seed(0)

    def difference(tensors: Tensors) -> Tensors:
        return {name: 0.02 * torch.randn(value.shape, generator=generator) for name, value in tensors.items()}

    delta = altered_folder(folder / "llm", tmp_path / "vicuna-delta", tensors=difference)
    with pytest.raises(ModelLoadError, match=r"unapplied delta.*videochat convert delta") as caught:
        convert_chat(path, delta, config)
    assert str(delta) in told(caught)


@pytest.mark.parametrize("tokenizer", ["of the delta", "of LLaMA"])
def test_a_vocabulary_without_pad(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path, tokenizer: str) -> None:
    path, _, (folder, _, config) = stage_3
    size = config.text_config.vocab_size
    llama = altered_folder(
        folder / "llm", tmp_path / "llama", config={"vocab_size": size - 1}, tensors=without_last_row
    )
    if tokenizer == "of LLaMA":
        plain_tokenizer(llama)
    with pytest.raises(ModelLoadError, match=rf"vocabulary: {size - 1} tokens in .* trained with {size} \(\[PAD\]"):
        convert_chat(path, llama, config)


def test_vocabularies_that_disagree(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path) -> None:
    path, _, (folder, _, config) = stage_3
    size = config.text_config.vocab_size
    copy = altered_folder(folder / "llm", tmp_path / "tokenizer")
    plain_tokenizer(copy)
    with pytest.raises(ModelLoadError, match=rf"the tokenizer in .* has {size - 1} tokens, the weights {size}"):
        convert_chat(path, copy, config)
    copy = altered_folder(folder / "llm", tmp_path / "config", config={"vocab_size": size - 1})
    with pytest.raises(ModelLoadError, match=rf"config.json in .* says {size - 1}, the weights have {size} rows"):
        convert_chat(path, copy, config)


def test_language_models_that_are_none(stage_3: tuple[Path, Tensors, Golden], goldens: Goldens, tmp_path: Path) -> None:
    path, _, (folder, _, config) = stage_3
    with pytest.raises(ModelLoadError, match="no language model at"):
        convert_chat(path, tmp_path / "absent", config)
    with pytest.raises(ModelLoadError, match=r"wrong language model: .* a mistral model.*trained on a llama model"):
        convert_chat(path, goldens("vc2_mistral") / "llm", config)

    def less(tensors: Tensors) -> Tensors:
        return {name: value for name, value in tensors.items() if not name.endswith("layers.0.mlp.up_proj.weight")}

    with pytest.raises(ModelLoadError, match=r"language model: 1 tensor .* missing, first .*up_proj"):
        convert_chat(path, altered_folder(folder / "llm", tmp_path / "less", tensors=less), config)

    def more(tensors: Tensors) -> Tensors:
        return {**tensors, "vision_tower.weight": torch.zeros(1)}

    with pytest.raises(ModelLoadError, match=r"language model: 1 tensor .*not of its network, first vision_tower"):
        convert_chat(path, altered_folder(folder / "llm", tmp_path / "more", tensors=more), config)


# LoRA names


def test_doubled_lora_prefixes(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path) -> None:
    _, tensors, (folder, _, config) = stage_3
    doubled = {name.replace("base_model.model.", "base_model.model." * 2): value for name, value in tensors.items()}
    with pytest.raises(ModelLoadError, match=r"doubled LoRA prefix: base_model\.model\.base_model\.model\."):
        convert_chat(saved(doubled, tmp_path / "doubled.pth"), folder / "llm", config)


def test_lora_names_of_newer_peft(stage_3: tuple[Path, Tensors, Golden], tmp_path: Path) -> None:
    _, tensors, (folder, _, config) = stage_3
    newer = {name.replace(".default.weight", ".weight"): value for name, value in tensors.items()}
    with pytest.raises(ModelLoadError, match=r"LoRA names of newer peft: .*lora_A\.weight"):
        convert_chat(saved(newer, tmp_path / "newer.pth"), folder / "llm", config)
    module = next(name for name in tensors if ".lora_A." in name).split(".lora_A.")[0]
    wrapped = {f"{module}.base_layer.weight": torch.zeros(2, 2), **tensors}
    with pytest.raises(ModelLoadError, match=r"LoRA names of newer peft: .*base_layer\.weight"):
        convert_chat(saved(wrapped, tmp_path / "wrapped.pth"), folder / "llm", config)


# Stages and families


def test_a_wrong_stage(
    vicuna_golden: Golden, retrieval_golden: Golden, videochat_sources: dict[str, Path], videochat_golden: Golden
) -> None:
    folder, golden, config = vicuna_golden
    stage_2, stage_3 = (folder / golden["files"][name] for name in ("stage2", "stage3"))
    (stage_1,) = retrieval_golden[0].glob("*.pth")
    llm, wanted = folder / "llm", LAYOUTS["vicuna"].component("query_tokens").files

    def telling(convert: Callable[..., Any], *arguments: Any, **options: Any) -> str:
        with pytest.raises(ModelLoadError, match="wrong stage: ") as caught:
            convert(*arguments, **options)
        return told(caught)

    assert "is a stage-1 file" in telling(convert_chat, stage_1, llm, config)
    assert "is a stage-1 file" in telling(convert_chat, stage_1, llm)
    assert "is a stage-2 file" in (message := telling(convert_chat, stage_2, llm, config))
    assert f"give {wanted}" in message
    assert "is a stage-2 file" in telling(convert_chat, stage_2, llm, stage=3)
    assert "is a stage-3 or stage-4 file" in telling(convert_chat, stage_3, llm, stage=2)
    assert "named as stage 3, 4 is asked for" in telling(convert_chat, stage_3, llm, stage=4)
    assert "is a stage-3 or stage-4 file" in (message := telling(convert_retrieval, stage_3, retrieval_golden[2]))
    assert f"give {RETRIEVAL_LAYOUT.components[0].files}" in message
    v1, v1_config = videochat_sources, videochat_golden[2]
    assert "is a file of VideoChat v1" in telling(convert_chat, v1["checkpoints"], llm, config)
    assert "is EVA-CLIP-g" in telling(convert_retrieval, v1["eva"])
    assert "is BLIP-2" in telling(convert_videochat, **{**v1, "eva": v1["blip2"]}, config=v1_config)
    assert "is a stage-3" in telling(convert_videochat, **{**v1, "checkpoints": stage_3}, config=v1_config)


def test_a_wrong_family(vicuna_golden: Golden, goldens: Goldens) -> None:
    folder, _, config = vicuna_golden
    (phi,) = goldens("vc2_phi").glob("*stage3.pth")
    with pytest.raises(ModelLoadError, match="wrong family: .*phi3 model, vicuna is asked for"):
        convert_chat(phi, folder / "llm", config)
    with pytest.raises(ModelLoadError, match="wrong family: .*phi3 model, mistral is asked for"):
        convert_chat(phi, folder / "llm", family="mistral")
