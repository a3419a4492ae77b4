"""Every released stage at toy size: it learns, trains what it should and nothing else, and its model opens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from videochat_tools.models.loading import read_checkpoint
from videochat_tools.training.stages.checkpoints import read_trained
from videochat_tools.training.stages.estimate import estimate
from videochat_tools.training.stages.finishing import write_model
from videochat_tools.training.stages.parameters import component_of
from videochat_tools.training.stages.starting import start_network

RUNS = (
    "videochat-7b-stage1",
    "videochat-7b-stage2",
    "videochat2-stage1",
    "videochat2-vicuna-stage2",
    "videochat2-vicuna-stage3",
    "videochat2-mistral-stage2",
    "videochat2-mistral-stage3",
    "videochat2-mistral-stage4",
    "videochat2-phi3-stage2",
    "videochat2-phi3-stage3",
)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_twenty_steps_lower_the_loss(stages: Any, name: str) -> None:
    values = losses(stages.run(name))
    assert len(values) == 20
    assert sum(values[-5:]) < 0.9 * sum(values[:5]), values


BRIDGE = {"vision tower", "vision norm", "queries", "extra queries", "Q-Former", "projection"}
TRAINED = {
    "videochat 1": {"GMHRA", "vision norm", "extra queries", "projection"},
    "videochat 2": {"GMHRA", "vision norm", "extra queries", "projection"},
    "retrieval 1": {
        "temporal embedding", "vision norm", "queries", "Q-Former, text", "Q-Former", "retrieval heads",
    },
    "2": BRIDGE,
    "3": {*BRIDGE, "Q-Former, text", "LoRA"},
    "4": {*BRIDGE, "Q-Former, text", "LoRA"},
}  # fmt: skip
LAST_TEXT = "layers.2.text_feed_forward."  # what comes out of it for the text is left, where only queries count
KEY_BIASES = re.compile(r"\.key\.bias$")


@pytest.mark.parametrize("name", RUNS)
def test_what_is_trained_changes_and_what_is_frozen_does_not(stages: Any, name: str) -> None:
    options = stages.options(name)
    wanted = TRAINED.get(f"{options.family} {options.stage}") or TRAINED[str(options.stage)]
    assert {each.name for each in estimate(options).components if each.trained} == wanted
    before = start_network(options).model.state_dict()
    after = read_checkpoint(stages.model(name))
    trained = {key: value for key, value in after.items() if not key.startswith("base_model.model.")}
    assert trained.keys() == before.keys()
    adapted = {key for key in after if key.startswith("base_model.model.")}
    assert bool(adapted) == ("LoRA" in wanted)
    for key, value in trained.items():
        same = torch.equal(value, before[key].to(value.dtype))
        if component_of(key) not in wanted or KEY_BIASES.search(key):
            assert same, f"{key} is frozen"
        elif not key.endswith("embeddings.weight") and not (options.stage > 2 and LAST_TEXT in key):
            assert not same, f"{key} is trained"


@pytest.mark.parametrize(
    "name", ["videochat-7b-stage2", "videochat2-vicuna-stage3", "videochat2-mistral-stage4", "videochat2-phi3-stage2"]
)
def test_the_finished_model_answers(stages: Any, data: Any, name: str) -> None:
    from videochat_tools import ChatVideoChat

    family, number = name.rpartition("-stage")[::2]
    model = ChatVideoChat(model=str(stages.model(name)), device="cpu", max_tokens=4)
    assert model.engine.num_frames == 2
    content = [{"type": "video", "url": str(data.root / "red.mp4")}, {"type": "text", "text": "What is the object?"}]
    assert isinstance(model.invoke([{"role": "user", "content": content}]).content, str)
    assert model.engine.network.tiled == (number == "4"), family


def test_the_finished_model_of_stage_1_embeds(stages: Any, data: Any) -> None:
    from videochat_tools import VideoEmbeddings

    encoder = VideoEmbeddings(str(stages.model("videochat2-stage1")))
    (vector,) = encoder.embed_documents([f"file://{data.root / 'red.mp4'}#t=0,0.8"])
    assert len(vector) == len(encoder.embed_query("a red video")) > 24  # the space, and what tells texts from videos


def test_lora_is_merged_if_asked_for(stages: Any, data: Any, tmp_path: Path) -> None:
    name = "videochat2-vicuna-stage3"
    trained = read_trained(stages.run(name) / "checkpoints" / "step-00000020")
    write_model(tmp_path / "merged", trained, stages.options(name, lora_output="merge"))
    assert not list((tmp_path / "merged").glob("adapter_*"))
    ids = torch.tensor([[1, 5, 9, 30]])
    logits = [
        AutoModelForImageTextToText.from_pretrained(folder)(input_ids=ids).logits
        for folder in (tmp_path / "merged", stages.model(name))
    ]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)
