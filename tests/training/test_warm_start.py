"""A trained network grown into a larger recipe does what it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from videochat_tools.engine import BUNDLED
from videochat_tools.errors import ConfigurationError, ModelLoadError
from videochat_tools.models.videochat2 import VideoChat2ForConditionalGeneration
from videochat_tools.training import bank
from videochat_tools.training.angles import SlidingAngles
from videochat_tools.training.instruct import train_instruct
from videochat_tools.training.loop import LoopOptions
from videochat_tools.training.recipe import ROPE_THETA, chat_config
from videochat_tools.training.tokenizers import build_llm_tokenizer, build_qformer_tokenizer
from videochat_tools.training.warm_start import grow, read_folder, read_rope_theta, read_vocabulary
from videochat_tools.training.world.questions import KINDS


@pytest.fixture(scope="module")
def old() -> VideoChat2ForConditionalGeneration:
    return VideoChat2ForConditionalGeneration.from_pretrained(BUNDLED, dtype=torch.float32).eval()


def test_more_layers_and_more_words_answer_alike(old: VideoChat2ForConditionalGeneration) -> None:
    words, pieces = build_llm_tokenizer(), build_qformer_tokenizer()
    added = ["zyzzyva", "quokka"]
    words.add_tokens(added)
    config = chat_config(len(pieces), len(words), rope_theta=read_rope_theta(BUNDLED))
    layers = old.config.text_config.num_hidden_layers
    config.text_config.num_hidden_layers = layers + 2
    places = [0, *range(2, layers + 1)]  # a new one after the first, another at the end
    new = VideoChat2ForConditionalGeneration(config).eval()
    vocabulary = read_vocabulary(BUNDLED)
    language = {name: value for name, value in read_folder(BUNDLED).items() if name.startswith("language_model.")}
    grow(new, language, [(vocabulary, words)], layers=places)

    text = "is there a red circle that moves left?"
    before = torch.tensor([[vocabulary[token] for token in words.tokenize(text)]])
    after = torch.tensor([words.convert_tokens_to_ids(words.tokenize(text))])
    with torch.no_grad():
        told = old.language_model(input_ids=before).logits[0]
        grown = new.language_model(input_ids=after).logits[0]
    kept = [word for word in vocabulary if word not in added and word in words.get_vocab()]
    assert len(kept) > 2000
    old_ids = torch.tensor([vocabulary[word] for word in kept])
    new_ids = torch.tensor(words.convert_tokens_to_ids(kept))
    assert torch.allclose(told[:, old_ids], grown[:, new_ids], atol=1e-3)


def test_a_tensor_without_a_place_is_an_error(old: VideoChat2ForConditionalGeneration, tmp_path: Path) -> None:
    words = build_llm_tokenizer()
    network = VideoChat2ForConditionalGeneration(chat_config(1, len(words)))
    with pytest.raises(ModelLoadError, match="no_such_part has no place"):
        grow(network, {"no_such_part": torch.zeros(2)}, [])
    with pytest.raises(ModelLoadError, match=r"vision_layernorm.weight is \(7,\), its place \(160,\)"):
        grow(network, {"vision_layernorm.weight": torch.zeros(7)}, [])


@pytest.mark.parametrize("theta", [ROPE_THETA, 1e4])
def test_the_bundled_model_is_gone_on_with_on_a_bank_without_the_state_of_its_sight(
    theta: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "_FIT_STEPS", 20)
    slid: list[float] = []
    slide = SlidingAngles.slide
    monkeypatch.setattr(SlidingAngles, "slide", lambda angles, share: (slid.append(share), slide(angles, share)))
    start = shutil.copytree(BUNDLED, tmp_path / "start")
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["rope_parameters"]["rope_theta"] = theta
    (start / "config.json").write_text(json.dumps(config), encoding="utf-8")
    options = LoopOptions(minutes=1e-3, log_steps=1).scaled(0.01)
    network = train_instruct(tmp_path, None, None, options, rows=8, text_rows=2, bank=32, start=start)
    assert read_rope_theta(tmp_path / "chat") == ROPE_THETA
    assert slid == ([] if theta == ROPE_THETA else [0.0, *slid[1:]]) and sorted(slid) == slid  # from its own angles on
    old = read_folder(BUNDLED)
    for name, value in network.state_dict().items():  # of the sight nothing has changed
        if name.startswith(("vision", "qformer", "query", "extra")):
            assert torch.equal(value, old[name])
    row = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    right = [row[kind] for kind in KINDS if kind in row]
    if theta == ROPE_THETA:
        assert sum(right) / len(right) > 0.5  # it answers as before
    assert {"l_see_3", "l_see_4", "l_look_5", "l_led_5"} <= row.keys()


def test_without_a_state_of_the_sight_a_folder_and_a_bank_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="begin with a state of this stage, or with the folder of a chat model and a bank"
    ):
        train_instruct(tmp_path, None, None, LoopOptions(minutes=1e-3), start=BUNDLED)
