"""The adapter inside the harness itself, where that is installed; a plain message where it is not."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_model import make_tiny_chat_model

from videochat_tools.errors import BenchmarkError

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


@pytest.mark.skipif(not installed, reason="lmms-eval is not installed")
def test_the_harness_loads_and_asks_the_model(tmp_path: Path, color_video: Path) -> None:
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    adapter = importlib.import_module(ADAPTER)
    registry = ModelRegistryV2()
    registry.register_manifest(adapter.model_manifest())
    kind = registry.get_model_class("videochat_tools")
    folder = make_tiny_chat_model(tmp_path / "model")
    model = kind.create_from_arg_string(f"pretrained={folder},max_tokens=6", {"batch_size": 1, "device": "cpu"})
    picture = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    documents = [{"seen": [str(color_video)]}, {"seen": [picture]}, {"seen": []}]
    model.task_dict["colours"] = {"test": documents}

    def request(number: int, generation: dict[str, object], visual: Callable[[dict[str, object]], object]) -> Instance:
        arguments = ("what colour is the ring?", generation, visual, number, "colours", "test")
        metadata = {"task": "colours", "doc_id": number, "repeats": 1}
        return Instance("generate_until", arguments, 0, metadata)

    greedy: dict[str, object] = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "until": ["\n\n"]}
    replies = model.generate_until([request(number, greedy, lambda doc: doc["seen"]) for number in range(3)])
    assert len(replies) == 3
    assert all(isinstance(reply, str) for reply in replies)
    assert len(set(replies)) == 3, "what is shown must reach the model"
    assert replies == model.generate_until([request(number, greedy, lambda doc: doc["seen"]) for number in range(3)])
    started = kind.create_from_arg_string(f"pretrained={folder},max_tokens=6,answer_start=Best option:(")
    started.task_dict = model.task_dict
    assert started.generate_until([request(0, greedy, lambda doc: doc["seen"])]) != replies[:1]
    with pytest.raises(NotImplementedError):
        model.loglikelihood([])
