"""Precision, activation checkpointing, accumulation, logs, LoRA that goes on, and data that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from videochat_tools.errors import ConfigurationError, UnsupportedContentError
from videochat_tools.training.stages.encoding import ChatEncoder, make_encoder
from videochat_tools.training.stages.losses import RetrievalLoss
from videochat_tools.training.stages.starting import start_network
from videochat_tools.training.stages.trainer import StepReport, make_mixture, prepare_network, train_stage

STILL = {"qformer_dropout": 0.0, "qformer_drop_path": 0.0, "lora_dropout": 0.0, "augment": False}


def first_loss(run: Path) -> float:
    return float(json.loads((run / "log.jsonl").read_text().splitlines()[0])["loss"])


@pytest.fixture(scope="module")
def plain(stages: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of a stage with LoRA on pictures with one question each, so that no order is drawn in a sample."""
    folder = tmp_path_factory.mktemp("settings") / "plain"
    train_stage(settings(stages), folder)
    return folder


def settings(stages: Any, **changes: Any) -> Any:
    corpora = stages.data.corpora("picture_talks")
    values = {**STILL, "corpora": corpora, "max_steps": 2, "warmup_epochs": 0, **changes}
    return stages.options("videochat2-vicuna-stage3", **values)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step-00000002" / "model.safetensors")


def test_computing_layers_twice_changes_nothing(stages: Any, plain: Path, tmp_path: Path) -> None:
    train_stage(settings(stages, gradient_checkpointing=True, tower_checkpointing=2), tmp_path / "run")
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(tmp_path / "run")[name]), name


def test_accumulated_batches_are_one_of_their_size(stages: Any, plain: Path, tmp_path: Path) -> None:
    train_stage(settings(stages, batch_size=1, gradient_accumulation=4), tmp_path / "run")
    assert first_loss(tmp_path / "run") == pytest.approx(first_loss(plain), rel=1e-5)
    for name, value in weights(plain).items():  # a step of AdamW is 3e-3 long
        torch.testing.assert_close(weights(tmp_path / "run")[name], value, rtol=0, atol=1e-4)


def test_half_precision(stages: Any, plain: Path, tmp_path: Path) -> None:
    options = settings(stages, mixed_precision="bf16", language_model_dtype="bfloat16")
    train_stage(options, tmp_path / "run")
    assert first_loss(tmp_path / "run") == pytest.approx(first_loss(plain), rel=0.02)
    assert {value.dtype for value in weights(tmp_path / "run").values()} == {torch.float32}  # LoRA too
    finished = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert finished["language_model.lm_head.weight"].dtype == torch.bfloat16
    assert finished["projection.weight"].dtype == torch.float32


def test_the_log_for_tensorboard(stages: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_stage(settings(stages, tensorboard=True), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "rate", "seconds"}
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([row["loss"] for row in logged])


def test_lora_of_the_stage_before_goes_on(stages: Any) -> None:
    before = load_file(stages.model("videochat2-mistral-stage3") / "adapter_model.safetensors")
    options = stages.options("videochat2-mistral-stage4")
    module = prepare_network(start_network(options), options)
    found = {name: each for name, each in module.model.named_parameters() if ".lora_B." in name}
    assert found and all(each.requires_grad for each in found.values())
    for name, value in found.items():
        stored = f"base_model.model.{name}".replace(".default", "")
        assert torch.equal(value, before[stored]) and value.abs().sum() > 0
    with pytest.raises(ConfigurationError, match="has LoRA of rank 4, lora_rank is 8; set lora_rank to 4"):
        start_network(stages.options("videochat2-mistral-stage4", lora_rank=8))


def test_the_key_biases_of_the_tower_stay_zero(stages: Any) -> None:
    trained = load_file(stages.model("videochat2-vicuna-stage3") / "model.safetensors")
    biases = [value for name, value in trained.items() if name.endswith("attention.qkv.bias")]
    assert biases
    for bias in biases:
        query, key, value = bias.chunk(3)
        assert not key.any() and query.any() and value.any()


def test_a_temperature_that_leaves_its_bounds_is_brought_back(stages: Any) -> None:
    options = stages.options("videochat2-stage1")
    module = prepare_network(start_network(options), options)
    assert isinstance(module, RetrievalLoss)
    for given, kept in ((-1.0, 0.001), (2.0, 0.5), (0.1, 0.1)):
        with torch.no_grad():
            module.model.temp.fill_(given)
        module.after_step()
        assert module.model.temp.item() == pytest.approx(kept)


def test_our_losses_are_those_of_the_network(stages: Any) -> None:
    """In one process the sums over processes are what the network's own ``forward`` takes the mean of."""
    options = stages.options("videochat2-stage1", **STILL)
    start = start_network(options)
    with make_mixture(options) as mixture:
        encoded = make_encoder(options, start.processor)(next(mixture.epoch(0)), "draws")
    module = prepare_network(start, options).eval()
    with torch.no_grad():
        ours = module(**encoded.inputs, total=encoded.learned, share=1.0)
        inputs = {name: value for name, value in encoded.inputs.items() if name != "draws"}
        theirs = module.model(**inputs)
    torch.testing.assert_close(ours["contrastive"], theirs.contrastive_loss)
    torch.testing.assert_close(ours["caption"], theirs.caption_loss)
    assert float(ours["matching"]) == pytest.approx(float(theirs.matching_loss), rel=0.5)  # other negatives were drawn
    torch.testing.assert_close(ours["loss"], ours["contrastive"] + ours["matching"] + ours["caption"])


def test_a_sample_that_is_too_long_counts_for_nothing(stages: Any) -> None:
    options = settings(stages, max_text_length=12, batch_size=2)
    encoder = ChatEncoder(options, start_network(options).processor)
    with make_mixture(options) as mixture:
        encoded = encoder(next(mixture.epoch(0)), "draws")
    assert encoded.learned == 0 and encoder.unlearned == 2
    assert encoded.inputs["batch"].visual_mask.sum() == 2 * 16  # the clips are whole


def test_full_memory_is_told_in_words(stages: Any, tmp_path: Path) -> None:
    def fill(_: StepReport) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ConfigurationError, match="memory of the GPU is full; set gradient_checkpointing"):
        train_stage(settings(stages), tmp_path / "run", fill)


def test_a_loss_that_is_no_number_stops_the_run(stages: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the loss of step \d is nan; lower learning_rate") as caught:
        train_stage(settings(stages, learning_rate=1e30, max_steps=9), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_the_wrong_kind_of_data(stages: Any, tmp_path: Path) -> None:
    options = settings(stages, corpora=stages.data.corpora("captions"))
    with pytest.raises(
        UnsupportedContentError, match="stage 3 learns conversations, but .* is a caption; give files wi"
    ):
        train_stage(options, tmp_path / "run")
    options = stages.options("videochat2-stage1", corpora=stages.data.corpora("talks"))
    with pytest.raises(UnsupportedContentError, match="stage 1 learns captions, but .* is a conversation; give files"):
        train_stage(options, tmp_path / "run")
