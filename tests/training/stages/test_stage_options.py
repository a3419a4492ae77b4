"""Recipes, keys and what they are checked for; schedule, groups of parameters, dry run and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from videochat_tools.cli import main
from videochat_tools.errors import ConfigurationError, ModelLoadError
from videochat_tools.training.stages import RELEASED_STAGES, load_options, option_help, show_options
from videochat_tools.training.stages.accelerating import fsdp_plugin, make_accelerator
from videochat_tools.training.stages.parameters import decay_groups
from videochat_tools.training.stages.schedule import rate_factor
from videochat_tools.training.stages.starting import start_network

# The released values: frames, batch, rate, epochs, warm-up, least factor, longest text, LoRA rank.
RECIPES = {
    "videochat-7b-stage1": (4, 32, 1e-4, 1, 0.2, 0.01, 32, 0),
    "videochat-13b-stage1": (4, 16, 1e-4, 1, 0.2, 0.01, 32, 0),
    "videochat-7b-stage2": (8, 1, 2e-5, 3, 0.6, 0.25, 512, 0),
    "videochat-13b-stage2": (8, 1, 2e-5, 3, 0.6, 0.25, 512, 0),
    "videochat2-stage1": (4, 128, 1e-4, 10, 0.2, 0.01, 32, 0),
    "videochat2-vicuna-stage2": (8, 4, 1e-4, 1, 0.2, 0.01, 512, 0),
    "videochat2-mistral-stage2": (4, 16, 1e-4, 1, 0.2, 0.01, 32, 0),
    "videochat2-phi3-stage2": (4, 20, 1e-4, 1, 0.2, 0.01, 32, 0),
    "videochat2-vicuna-stage3": (8, 4, 2e-5, 3, 0.6, 0.25, 512, 16),
    "videochat2-mistral-stage3": (8, 4, 2e-5, 3, 0.6, 0.25, 512, 16),
    "videochat2-phi3-stage3": (8, 8, 2e-5, 3, 0.6, 0.25, 512, 16),
    "videochat2-mistral-stage4": (8, 3, 1e-5, 1, 0.0, 0.01, 512, 16),
}


def test_the_released_recipes() -> None:
    assert set(RELEASED_STAGES) == set(RECIPES)
    for name, values in RECIPES.items():
        options = load_options(name)
        assert values == (
            options.num_frames, options.batch_size, options.learning_rate, options.epochs, options.warmup_epochs,
            options.min_factor, options.max_text_length, options.lora_rank,
        ), name  # fmt: skip
        assert (options.weight_decay, options.beta1, options.beta2, options.seed, options.clip_norm) == (
            0.02, 0.9, 0.999, 42, 0.0,
        )  # fmt: skip
        if options.family != "videochat":
            assert (options.qformer_dropout, options.qformer_drop_path) == (0.1, 0.2)
        if options.lora_rank:
            assert (options.lora_alpha, options.lora_dropout) == (32.0, 0.1)
    hd = load_options("videochat2-mistral-stage4")
    assert (hd.max_tiles, hd.augment, hd.mixed_precision) == (6, False, "bf16")


def test_the_page_has_the_recipes() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    table = page.split("## The recipes\n")[1].strip().split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert {row[0].strip("`") for row in rows} == set(RECIPES)
    for name, *_, frames, batch, rate, schedule, text in rows:
        epochs, warm_up, floor = (float(each) for each in schedule.split(","))
        *released, _ = RECIPES[name.strip("`")]
        assert released == [int(frames), int(batch), float(rate), epochs, warm_up, floor, int(text)], name


def test_a_file_replaces_the_recipe_and_single_keys_replace_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    config = tmp_path / "mine" / "run.toml"
    config.write_text(
        'base = "videochat2-phi3-stage2"\nlearning_rate = 5e-5\nmodel = "../stage1"\n'
        '[[corpora]]\nannotation = "a.json"\nroot = "media"\nmedium = "image"\n'
    )
    options = load_options(
        None, config, ["learning_rate=1e-5", "fsdp.fsdp_version=2", "language_model=./phi", "epochs=2"]
    )
    assert (options.family, options.stage, options.batch_size) == ("phi3", 2, 20)
    assert (options.learning_rate, options.epochs, options.fsdp) == (1e-5, 2, {"fsdp_version": 2})
    assert options.language_model == "./phi"  # of the command line: from where one is
    assert Path(str(options.model)).resolve() == tmp_path / "stage1"  # of a file: from its folder
    assert options.corpora[0]["annotation"] == str(tmp_path / "mine" / "a.json")
    again = tmp_path / "again.toml"
    again.write_text(show_options(options, "videochat2-phi3-stage2"))
    assert load_options(None, again, [f"language_model={options.language_model}"]) == options


def test_every_key_has_its_help_in_what_show_prints() -> None:
    shown = show_options(load_options("videochat2-stage1"))
    for name, text in option_help().items():
        assert text.endswith((".", ":")) and f"# {text}" in shown, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["learning_rat=1"], "unknown key 'learning_rat' in --set; the keys are family, stage, model, "),
        (["learning_rate=fast"], "learning_rate must be a number, got 'fast'"),
        (["batch_size=0"], "batch_size must be at least 1, got 0"),
        (["batch_size={ video = 0 }"], "batch_size must be at least 1, got 0"),
        (["batch_size=1.5"], "batch_size must be a whole number or a table of whole numbers, got 1.5"),
        (["mixed_precision=fp8"], "mixed_precision must be one of no, fp16, bf16, got 'fp8'"),
        (["min_factor=1"], "min_factor must be at least 0 and below 1, got 1.0"),
        (["augment=1"], "augment must be true or false, got 1"),
        (["stage=4"], "vicuna has no stage 4; there are videochat 1, 2; retrieval 1; vicuna 2, 3; mistral 2, 3, 4"),
        (["epochs"], "--set 'epochs' has no value; write key=value"),
        (["epochs.a=1"], "epochs is no table"),
        (["lora_targets=[]"], "lora_rank is set, but no lora_targets"),
    ],
)
def test_wrong_keys_and_values(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_options("videochat2-vicuna-stage3", None, changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown key 'epoch' in the arguments; the keys are family, "):
        load_options("videochat2-stage1", epoch=1)
    with pytest.raises(ConfigurationError, match="no released stage 'videochat3'; there are videochat-13b-stage1, "):
        load_options("videochat3")
    with pytest.raises(ConfigurationError, match="no configuration at .*none.toml"):
        load_options(None, tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("learning_rate 3")
    with pytest.raises(ConfigurationError, match=r"bad\.toml is no TOML file .*--show"):
        load_options(None, bad)
    bad.write_text("rate = 3")
    with pytest.raises(ConfigurationError, match=r"unknown key 'rate' in .*bad\.toml; the keys are"):
        load_options(None, bad)
    bad.write_text("epochs = 3")
    with pytest.raises(
        ConfigurationError, match=r"does not say its family and stage; choose a released one with --stage"
    ):
        load_options(None, bad)


def test_the_schedule() -> None:
    def at(step: int) -> float:
        return rate_factor(step, total=100, warm_up=20, floor=0.25)

    assert [at(step) for step in (0, 4, 5, 10, 20)] == [0.25, 0.25, 0.25, 0.5, 1.0]
    assert at(60) == pytest.approx(0.5) and at(40) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert at(99) == at(100) == at(1000) == 0.25
    assert rate_factor(0, total=10, warm_up=0, floor=0.01) == 1.0


def test_vectors_and_biases_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    model[2].requires_grad_(False)
    decays, others = decay_groups(model, 0.02)
    assert (decays["weight_decay"], decays["params"]) == (0.02, [model[0].weight])
    assert others["weight_decay"] == 0.0
    assert [id(each) for each in others["params"]] == [id(model[0].bias), id(model[1].weight), id(model[1].bias)]


def test_the_plugin_of_fsdp() -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = fsdp_plugin(load_options("videochat2-vicuna-stage3", None, ["fsdp.reshard_after_forward=false"]))
    assert isinstance(plugin, FullyShardedDataParallelPlugin)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is False
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    with pytest.raises(ConfigurationError, match=r"fsdp: .*unexpected keyword argument 'shards'.*see Accelerate's"):
        fsdp_plugin(load_options("videochat2-vicuna-stage3", None, ["fsdp.shards=2"]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU says")
def test_what_needs_a_gpu_says_so() -> None:
    with pytest.raises(ConfigurationError, match="mixed_precision fp16 needs a GPU; set mixed_precision to bf16 or no"):
        make_accelerator(load_options("videochat2-vicuna-stage3"))
    with pytest.raises(ConfigurationError, match="fsdp shards over GPUs, and there is none"):
        make_accelerator(
            load_options("videochat2-vicuna-stage3", None, ["fsdp.fsdp_version=2", "mixed_precision=bf16"])
        )


def test_other_ways_of_sharding_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    options = load_options("videochat2-vicuna-stage3", None, ["fsdp.fsdp_version=1", "mixed_precision=bf16"])
    with pytest.raises(ConfigurationError, match="fsdp_version 1 cannot shard .*set fsdp_version to 2"):
        make_accelerator(options)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigurationError, match="configured for DeepSpeed, .*shard with fsdp"):
        make_accelerator(options)


# The dry run


def test_the_dry_run_counts_the_released_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--stage", "videochat2-vicuna-stage3", "--dry-run"])
    assert not exit_.value.code
    printed = capsys.readouterr().out
    # Rank 16 at q_proj and v_proj of 32 layers of width 4096: 2 * 32 * 2 * 16 * 4096.
    assert "LoRA           " in printed and "8,388,608" in printed
    assert "language model            0  6,738,423,808" in printed
    assert "weights in float16       12.55 GiB" in printed and "steps: unknown, no corpora are set" in printed


def test_the_dry_run_counts_steps(
    data: Any, sources: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    changes = {**sources["retrieval"], "corpora": data.corpora("captions", "pictures"), "batch_size": 2}
    config = tmp_path / "mine.toml"
    config.write_text(show_options(load_options("videochat2-stage1", **changes), "videochat2-stage1"))
    with pytest.raises(SystemExit):
        main(["train", "--config", str(config), "--dry-run", "--json", "--set", "workers=0"])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["steps"], printed["epochs"], printed["processes"]) == (4, 10, 1)
    assert 0 < printed["trained"] < 200_000
    assert printed["gradients"] == 4 * printed["trained"] and printed["optimizer"] == 8 * printed["trained"]
    assert printed["total"] == sum(printed["weights"].values()) + 12 * printed["trained"]
    assert set(printed["weights"]) == {"float32"}


# The command


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--stage", "stage3"], 2, "no stage 'stage3'; choose one of videochat-13b-stage1, "),
        ([], 2, "name a stage, or a file whose `base` names one"),
        (["--stage", "videochat2-vicuna-stage3", "--set", "epoch=1"], 1, "unknown key 'epoch' in --set; the keys are"),
        (["--stage", "videochat2-stage1", "--set", "mixed_precision=bf16"], 1, "nothing to train on; set corpora"),
        (
            ["--stage", "videochat2-stage1", "--set", "mixed_precision=bf16", "--set",
             'corpora=[{ annotation = "none.json", root = ".", medium = "video" }]'],
            1,
            "none.json cannot be read",
        ),
    ],
)  # fmt: skip
def test_errors_of_the_command_are_one_line(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--output", str(tmp_path / "run"), *words])
    assert exit_.value.code == code
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    if code == 1:
        assert told.count("\n") == 1 and told.startswith("videochat: error: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "videochat-7b-stage1",
            "stage 1 of videochat begins from tower, blip2, language_model; set tower and blip2 and",
        ),
        (
            "videochat-7b-stage2",
            "stage 2 of videochat goes on from stage 1 of VideoChat .*; give its folder with model",
        ),
        ("videochat2-stage1", "begins from tower, bert; set tower and bert"),
        ("videochat2-phi3-stage2", r"goes on from stage 1 of VideoChat2 .*umt_l16_qformer\.pth\); give its folder"),
        (
            "videochat2-mistral-stage4",
            r"goes on from stage 3 of mistral \(videochat2-mistral-stage3\); give its folder",
        ),
    ],
)
def test_a_stage_without_the_one_before(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        start_network(load_options(name))
    assert "\n" not in str(caught.value)


def test_a_stage_from_the_wrong_model(stages: Any, tmp_path: Path) -> None:
    first = str(stages.model("videochat2-stage1"))
    with pytest.raises(
        ConfigurationError, match="holds a videochat2_retrieval model, stage 3 of vicuna goes on from sta"
    ):
        start_network(load_options("videochat2-vicuna-stage3", None, [f"model={first}"]))
    with pytest.raises(ConfigurationError, match="stage 2 of vicuna brings the language model in; set language_model"):
        start_network(load_options("videochat2-vicuna-stage2", None, [f"model={first}"]))
    second = str(stages.model("videochat2-vicuna-stage2"))
    with pytest.raises(ConfigurationError, match="is of the family vicuna, the stage is of phi3"):
        start_network(load_options("videochat2-phi3-stage3", None, [f"model={second}"]))
    with pytest.raises(ConfigurationError, match="reads no text; stage 3 takes its text branch from stage 1"):
        start_network(load_options("videochat2-vicuna-stage3", None, [f"model={second}"]))
    with pytest.raises(ConfigurationError, match="image_size is 224, the tower of this VideoChat is made for 56"):
        start_network(stages.options("videochat-7b-stage1", image_size=224))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ModelLoadError, match="other holds no model of ours"):
        start_network(load_options("videochat2-vicuna-stage3", None, [f"model={tmp_path / 'other'}"]))
    with pytest.raises(ModelLoadError, match="no model at .*nowhere"):
        start_network(load_options("videochat2-vicuna-stage3", None, [f"model={tmp_path / 'nowhere'}"]))
