"""``videochat convert`` as a person at a shell meets it: from released files to a folder that answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from altered_models import Tensors, altered_folder, without_last_row
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.cli import main
from videochat_tools.cli.convert import Family
from videochat_tools.engine import ChatEngine
from videochat_tools.models import VideoChat2ForRetrieval, VideoChat2Processor
from videochat_tools.models.loading.folder import FAMILIES
from videochat_tools.models.videochat2.conversion import convert_chat, convert_retrieval

LOGITS = 1e-3  # absolute tolerance, as for all goldens

Golden = tuple[Path, dict[str, Any], Any]
Goldens = Callable[[str], Path]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Convert = Callable[..., Result]


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Convert:
    """``convert("checkpoint", ...)``, run in this process, in an empty folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["convert", *map(str, arguments)])
        captured = capsys.readouterr()
        return Result(int(exit_.value.code or 0), captured.out, captured.err)

    return run


def written_config(config: Any, path: Path) -> Path:
    """A configuration as a file; the language model's own part comes from its folder."""
    fields = config.to_dict()
    fields.pop("text_config", None)
    path.write_text(json.dumps(fields))
    return path


def error_of(result: Result) -> str:
    assert result.code == 1, result
    assert "Traceback" not in result.err
    errors = [line for line in result.err.splitlines() if line.startswith("videochat: error: ")]
    assert len(errors) == 1, result.err
    assert result.err.splitlines()[-1] == errors[0]
    return errors[0]


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        assert torch.equal(value, second[name]), name


def test_families_are_those_of_the_library() -> None:
    assert tuple(Family) == FAMILIES


@torch.no_grad()
def test_chat_models(chat_golden: Golden, chat_model: Any, goldens: Goldens, convert: Convert, tmp_path: Path) -> None:
    folder, golden, config = chat_golden
    alpha = golden["reference_dims"]["lora_alpha"]
    result = convert(
        "checkpoint", folder / golden["files"]["stage3"], "--llm", folder / "llm", "--bert", goldens("bert"),
        "--config", written_config(config, tmp_path / "config.json"), "--lora-alpha", alpha, "--output", "out",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1].split() == ["written", "out", f"({config.family})"]
    assert result.out.splitlines()[0].split() == ["component", "expected", "loaded", "missing", "unexpected"]
    assert str(chat_model.load_report).splitlines()[-1] in result.out
    model = AutoModelForImageTextToText.from_pretrained("out")
    same(model, chat_model)
    processor = AutoProcessor.from_pretrained("out")
    case = next(case for case in golden["cases"].values() if "prompt" in case)
    assert processor(case["prompt"])["input_ids"].shape[1] == case["prompt_len"]
    assert "[DEC]" in processor.qformer_tokenizer.get_vocab()
    model.save_pretrained("again")
    same(AutoModelForImageTextToText.from_pretrained("again"), chat_model)
    assert sorted(path.name for path in Path().iterdir()) == ["again", "out"]


@torch.no_grad()
def test_an_adapter_in_the_folder(vicuna_golden: Golden, goldens: Goldens, convert: Convert, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder, golden, config = vicuna_golden
    taps = load_file(folder / "golden_llm_lora.safetensors")
    arguments = (
        "checkpoint", folder / golden["files"]["stage3"], "--llm", folder / "llm", "--bert", goldens("bert"),
        "--config", written_config(config, tmp_path / "config.json"), "--lora", "adapter", "--output", "out", "--json",
        "--lora-alpha", golden["reference_dims"]["lora_alpha"],
    )  # fmt: skip
    result = convert(*arguments)
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["adapter"] is True
    assert content["family"] == "vicuna"
    assert all(row["loaded"] == row["expected"] and not row["missing"] for row in content["components"])
    assert "peft" in result.err
    from peft import PeftModel

    apart = AutoModelForImageTextToText.from_pretrained("out")
    torch.testing.assert_close(apart(input_ids=taps["input_ids"]).logits, taps["logits_with_lora"], rtol=0, atol=LOGITS)
    apart.disable_adapters()
    torch.testing.assert_close(
        apart(input_ids=taps["input_ids"]).logits, taps["logits_without_lora"], rtol=0, atol=LOGITS
    )
    # PEFT's own way: the model without the adapter, which is then put on.
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (Path("adapter") / name).parent.mkdir(exist_ok=True)
        (Path("out") / name).rename(Path("adapter") / name)
    plain = AutoModelForImageTextToText.from_pretrained("out")
    torch.testing.assert_close(
        plain(input_ids=taps["input_ids"]).logits, taps["logits_without_lora"], rtol=0, atol=LOGITS
    )
    wrapped = PeftModel.from_pretrained(plain, "adapter")
    torch.testing.assert_close(
        wrapped(input_ids=taps["input_ids"]).logits, taps["logits_with_lora"], rtol=0, atol=LOGITS
    )


def test_an_adapter_without_peft_is_an_error(
    vicuna_golden: Golden, goldens: Goldens, convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, golden, config = vicuna_golden
    result = convert(
        "checkpoint", folder / golden["files"]["stage3"], "--llm", folder / "llm", "--bert", goldens("bert"),
        "--config", written_config(config, tmp_path / "config.json"), "--lora", "adapter", "--output", "out",
    )  # fmt: skip
    assert result.code == 0, result.err  # writing it needs no peft
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"videochat-tools\[lora\]"):
        AutoModelForImageTextToText.from_pretrained("out")
    with pytest.raises(ImportError, match=r"videochat-tools\[lora\]"):
        convert_chat(folder / golden["files"]["stage3"], folder / "llm", config, lora="adapter")


def test_stage_1(retrieval_golden: Golden, goldens: Goldens, convert: Convert, tmp_path: Path) -> None:
    folder, _, config = retrieval_golden
    (file,) = folder.glob("*.pth")
    settings = written_config(config, tmp_path / "config.json")
    result = convert("checkpoint", file, "--bert", goldens("bert"), "--config", settings, "--output", "out")
    assert result.code == 0, result.err
    assert "retrieval heads" in result.out
    same(VideoChat2ForRetrieval.from_pretrained("out"), convert_retrieval(file, config))
    processor = VideoChat2Processor.from_pretrained("out")
    assert processor.tokenizer is None
    assert (processor.options.truncation_side, processor.options.max_text_length) == ("right", 32)


def test_stage_2_needs_no_words(vicuna_golden: Golden, convert: Convert, tmp_path: Path) -> None:
    folder, golden, config = vicuna_golden
    fields = config.to_dict()
    fields["qformer_config"]["text_input"] = False
    (tmp_path / "config.json").write_text(json.dumps(fields))
    stage_2 = folder / golden["files"]["stage2"]
    result = convert(
        "checkpoint", stage_2, "--llm", folder / "llm", "--config", tmp_path / "config.json", "--output", "out"
    )
    assert result.code == 0, result.err
    assert VideoChat2Processor.from_pretrained("out").qformer_tokenizer is None


def test_hd(hd_golden: Any, goldens: Goldens, convert: Convert, tmp_path: Path) -> None:
    folder, golden, model, _ = hd_golden
    language_model = (folder / golden["files"]["llm"]).resolve()
    settings = written_config(model.config, tmp_path / "config.json")
    common = ("--llm", language_model, "--bert", goldens("bert"), "--config", settings)
    alpha = golden["reference_dims"]["lora_alpha"]
    file = folder / golden["files"]["stage4"]
    result = convert("checkpoint", file, *common, "--lora-alpha", alpha, "--output", "out")
    assert result.code == 0, result.err
    assert "(mistral_hd)" in result.out
    assert VideoChat2Processor.from_pretrained("out").options.tiling is not None
    same(AutoModelForImageTextToText.from_pretrained("out"), model)
    flat = convert("checkpoint", file, *common, "--family", "mistral", "--dtype", "bfloat16", "--output", "flat")
    assert flat.code == 0, flat.err
    assert VideoChat2Processor.from_pretrained("flat").options.tiling is None
    loaded = AutoModelForImageTextToText.from_pretrained("flat")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.bfloat16}


def test_the_first_videochat(
    videochat_golden: Golden, videochat_sources: dict[str, Path], videochat_model: Any, convert: Convert, tmp_path: Path
) -> None:
    settings = written_config(videochat_golden[2], tmp_path / "config.json")
    files = [videochat_sources[name] for name in ("checkpoints", "eva", "blip2")]  # in any order
    common = ("--llm", videochat_sources["language_model"], "--config", settings, "--output", "out")
    result = convert("checkpoint", *files, *common)
    assert result.code == 0, result.err
    same(AutoModelForImageTextToText.from_pretrained("out"), videochat_model)
    assert "GMHRA" in result.out
    assert AutoProcessor.from_pretrained("out").options.timestamps
    engine = ChatEngine("out", device="cpu")
    assert engine.tokens_per_clip == videochat_golden[2].num_visual_tokens
    assert isinstance(ChatVideoChat(model="out"), ChatVideoChat)
    other = ("--llm", videochat_sources["language_model"], "--config", settings, "--output", "other")
    error = error_of(convert("checkpoint", *files[:2], *other))
    assert "missing blip2_pretrained_flant5xxl.pth" in error
    assert "videochat convert checkpoint eva_vit_g.pth" in error
    assert not Path("other").exists()


def test_wrong_input_is_told_in_one_line(
    vicuna_golden: Golden, retrieval_golden: Golden, goldens: Goldens, convert: Convert, tmp_path: Path
) -> None:
    folder, golden, config = vicuna_golden
    file, llm, bert = folder / golden["files"]["stage3"], folder / "llm", goldens("bert")
    settings = written_config(config, tmp_path / "config.json")

    def error(*arguments: str | Path) -> str:
        found = error_of(convert("checkpoint", *arguments, "--output", "out"))
        assert list(Path().iterdir()) == []
        return found

    assert "--llm DIR" in error(file, "--bert", bert)
    assert "copy vocab.txt" in (message := error(file, "--llm", llm, "--config", settings))
    assert "--bert DIR" in message
    assert "no vocabulary of the Q-Former at" in error(file, "--llm", llm, "--bert", tmp_path)
    dumb = altered_folder(llm, tmp_path / "dumb")
    for path in dumb.glob("tokenizer.*"):
        path.unlink()
    assert "no tokenizer in" in error(file, "--llm", dumb, "--bert", bert, "--config", settings)
    assert "the configuration asks for" in error(file, "--llm", llm, "--bert", bert)  # tiny, and no --config
    assert "wrong family" in error(file, "--llm", llm, "--bert", bert, "--family", "phi3")
    (stage_1,) = retrieval_golden[0].glob("*.pth")
    assert "wrong family" in error(stage_1, "--bert", bert, "--family", "videochat")
    assert "no checkpoint at" in error("absent.pth")
    assert "a language model, which is given as a folder" in error(llm / "model.safetensors", "--llm", llm)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    assert "no file that is known here" in error(tmp_path / "other.pth")
    (tmp_path / "words").mkdir()
    lines = (bert / "vocab.txt").read_text().splitlines()
    (tmp_path / "words" / "vocab.txt").write_text("\n".join(lines[:-1]) + "\n")
    message = error(file, "--llm", llm, "--bert", tmp_path / "words", "--config", settings)
    assert f"has {len(lines)} word pieces with [DEC], the Q-Former {len(lines) + 1}" in message
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("keep")
    result = convert("checkpoint", file, "--llm", llm, "--output", tmp_path / "full")
    assert "is not empty" in error_of(result)
    assert (tmp_path / "full" / "note.txt").read_text() == "keep"


def test_what_does_not_fit_is_listed(vicuna_golden: Golden, goldens: Goldens, convert: Convert, tmp_path: Path) -> None:
    from videochat_tools.models.loading import read_checkpoint

    folder, golden, config = vicuna_golden
    tensors = dict(read_checkpoint(folder / golden["files"]["stage3"]))
    tensors["vision_encoder.head.weight"] = torch.zeros(1)
    tensors["llama_proj.more"] = torch.zeros(1)
    torch.save(tensors, tmp_path / "more.pth")
    result = convert(
        "checkpoint", tmp_path / "more.pth", "--llm", folder / "llm", "--bert", goldens("bert"),
        "--config", written_config(config, tmp_path / "config.json"), "--output", "out",
    )  # fmt: skip
    error_of(result)
    assert "unexpected: vision_encoder.head.weight\nunexpected: llama_proj.more\n" in result.err
    assert "component" in result.err


def test_delta(vicuna_golden: Golden, convert: Convert, tmp_path: Path) -> None:
    source, size = vicuna_golden[0] / "llm", vicuna_golden[2].text_config.vocab_size

    def small(tensors: Tensors) -> Tensors:
        return {name: value / 100 for name, value in tensors.items()}

    base = altered_folder(source, tmp_path / "llama", config={"vocab_size": size - 1}, tensors=without_last_row)
    delta = altered_folder(source, tmp_path / "delta", tensors=small)
    arguments = ("delta", "--base", base, "--delta", delta, "--output", "vicuna")
    result = convert(*arguments, "--json")
    assert result.code == 0, result.err
    count = sum(not name.endswith("inv_freq") for name in load_file(source / "model.safetensors"))
    assert json.loads(result.out) == {"folder": "vicuna", "tensors": count, "shards": 1, "vocabulary": size}
    assert "is not empty" in error_of(convert(*arguments))
    again = convert("delta", "--base", base, "--delta", delta, "--output", "vicuna2", "--shard-mib", "1")
    assert again.out.split() == ["written", "vicuna2", *f"({count} tensors in 1 files, vocabulary {size})".split()]
    assert "is no delta" in error_of(convert("delta", "--base", base, "--delta", source, "--output", "no"))


def test_help_names_everything(convert: Convert) -> None:
    text = convert("--help").out
    assert "checkpoint" in text and "delta" in text
    for command in ("checkpoint", "delta"):
        assert f"videochat convert {command}" in convert(command, "--help").out
    assert convert("delta").code == 2
