"""The adapter inside the harness itself, where that is installed; a plain message where it is not."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_model import make_tiny_chat_model

from videochat_tools.content import Turn
from videochat_tools.engine import ReplySettings, load_engine
from videochat_tools.errors import BenchmarkError, ContextTooLongError

ADAPTER = "videochat_tools.evaluation.lmms_eval"
installed = importlib.util.find_spec("lmms_eval") is not None


@pytest.mark.skipif(installed, reason="lmms-eval is installed")
def test_without_the_harness_one_line_says_what_to_install() -> None:
    with pytest.raises(BenchmarkError, match="pip install --no-deps lmms-eval"):
        importlib.import_module(ADAPTER)


def test_the_entry_point_names_the_adapter() -> None:
    root = Path(__file__).resolve().parents[3]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["entry-points"]["lmms_eval.models"] == {"videochat_tools": f"{ADAPTER}:model_manifest"}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """``load("max_tokens=6")``: a tiny model as the harness itself loads it; skipped where that is not installed."""
    if not installed:
        pytest.skip("lmms-eval is not installed")
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    registry.register_manifest(importlib.import_module(ADAPTER).model_manifest())
    folder = make_tiny_chat_model(tmp_path / "model")

    def make(arguments: str = "max_tokens=6") -> Any:
        kind = registry.get_model_class("videochat_tools")
        return kind.create_from_arg_string(f"pretrained={folder},{arguments}", {"batch_size": 1, "device": "cpu"})

    return make


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lmms_eval.api.instance import Instance

    metadata = {"task": "colours", "doc_id": 0, "repeats": 1}
    return [Instance(kind, given, number, metadata) for number, given in enumerate(arguments)]


GREEDY = {"max_new_tokens": 6, "temperature": 0, "top_p": 0, "do_sample": False, "until": ["\n\n"]}


def seen(document: dict[str, Any]) -> Any:
    return document["seen"]


def test_the_harness_loads_and_asks_the_model(load: Callable[..., Any], color_video: Path) -> None:
    model = load()
    picture = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    model.task_dict["colours"] = {"test": [{"seen": [str(color_video)]}, {"seen": [picture]}, {"seen": []}]}
    asked = requests(
        "generate_until",
        *(("what colour is the ring?", dict(GREEDY), seen, number, "colours", "test") for number in range(3)),
    )
    replies = model.generate_until(asked)
    assert len(replies) == 3
    assert all(isinstance(reply, str) for reply in replies)
    assert len(set(replies)) == 3, "what is shown must reach the model"
    assert replies == model.generate_until(asked)
    started = load("max_tokens=6,answer_start=Best option:(")
    started.task_dict = model.task_dict
    assert started.generate_until(asked[:1]) != replies[:1]


def test_the_harness_compares_how_unlikely_answers_are(load: Callable[..., Any], color_video: Path) -> None:
    model = load()
    model.task_dict["colours"] = {"test": [{"seen": [str(color_video)], "answer": "red"}]}
    question, where = "what colour is the ring?", (seen, 0, "colours", "test")
    (written,) = model.generate_until(requests("generate_until", (question, dict(GREEDY), *where)))
    own, other, by_function, alone = model.loglikelihood(
        requests(
            "loglikelihood",
            (question, f" {written}", *where),
            (question, " red", *where),
            (question, lambda document: document["answer"], *where),
            ("", "red"),  # how the harness asks for the answer without a question
        )
    )
    assert own[1] is True, "what it writes by itself is the likeliest"
    assert other[1] is False
    assert other[0] > own[0] > 0, "the least is the model's choice, as the harness reads it"
    assert by_function == other
    assert alone[0] not in (own[0], other[0])


def test_the_harness_asks_in_rounds(load: Callable[..., Any], color_video: Path) -> None:
    model = load()
    model.task_dict["colours"] = {"test": [{"seen": [str(color_video)]}]}
    told: list[tuple[list[str], int, Any]] = []

    def next_round(document: dict[str, Any], *, previous_output: Any, round_idx: int, previous_round_info: Any) -> Any:
        told.append((list(previous_output), round_idx, previous_round_info))
        if round_idx == 3:
            return None, None, True, previous_output, None
        return document["seen"], f"what happens in part {round_idx}?", False, previous_output, f"after {round_idx}"

    (rounds,) = model.generate_until_multi_round(
        requests(
            "generate_until_multi_round",
            ("what happens first?", dict(GREEDY), seen, next_round, 0, "colours", "test"),
        )
    )
    assert len(rounds) == 3
    assert [(len(before), number, info) for before, number, info in told] == [
        (1, 1, None), (2, 2, "after 1"), (3, 3, "after 2")
    ]  # fmt: skip
    assert told[-1][0] == list(rounds)
    (alone,) = model.generate_until(
        requests("generate_until", ("what happens first?", dict(GREEDY), seen, 0, "colours", "test"))
    )
    assert rounds[0] == alone


def test_what_a_model_writes_is_the_likeliest_to_it(tmp_path: Path) -> None:
    """What the adapter goes by, without the harness."""
    engine = load_engine(make_tiny_chat_model(tmp_path / "model"), "cpu")
    turn, settings = Turn("human", "what colour is the ring?"), ReplySettings(max_tokens=4)
    written = "".join(engine.reply([turn], settings))
    own, is_likeliest = engine.reply([turn], settings).loss_of(written)
    assert is_likeliest
    loss, other_is_likeliest = engine.reply([turn], settings).loss_of("red")
    assert loss > own > 0
    assert not other_is_likeliest
    with pytest.raises(ContextTooLongError, match="drop earlier turns"):
        engine.reply([turn], settings).loss_of("red " * engine.context_tokens)
