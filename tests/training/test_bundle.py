"""Checkpoints become folders that open like any other model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.engine import GROUNDING_FILE, ChatEngine, Grounding
from videochat_tools.errors import ModelLoadError
from videochat_tools.models.videochat2 import VideoChat2ForConditionalGeneration
from videochat_tools.training import align, bundle, instruct
from videochat_tools.training.bundle import bundle_chat
from videochat_tools.training.instruct import start_chat_model
from videochat_tools.training.recipe import SIZES
from videochat_tools.training.world.scene import FRAMES


def test_several_checkpoints_are_averaged(tmp_path: Path) -> None:
    size = SIZES["half"]
    torch.manual_seed(0)
    state = {f"network.{name}": value for name, value in start_chat_model(None, None, size).state_dict().items()}
    moved = {**state, "network.projection.weight": state["network.projection.weight"] + 2.0}
    for name, tensors in (("one", state), ("other", moved)):
        torch.save({"model": tensors}, tmp_path / f"{name}.pt")
    bundle_chat([tmp_path / "one.pt", tmp_path / "other.pt"], tmp_path / "chat", max_clips=2, size=size)
    made = VideoChat2ForConditionalGeneration.from_pretrained(tmp_path / "chat", dtype=torch.float32)
    weight = made.projection.weight
    assert torch.allclose(weight, state["network.projection.weight"] + 1.0, atol=2e-3)  # kept in half precision
    bundle_chat([tmp_path / "chat", tmp_path / "other.pt"], tmp_path / "later", shares=[0.25, 0.75], size=size)
    later = VideoChat2ForConditionalGeneration.from_pretrained(tmp_path / "later", dtype=torch.float32)
    assert torch.allclose(later.projection.weight, state["network.projection.weight"] + 1.75, atol=2e-3)
    engine = ChatVideoChat(model=str(tmp_path / "chat"), max_tokens=2).engine
    assert engine.grounding == Grounding(max_clips=2, frame_times=True, brief_tools=True)
    assert engine.told_frames == engine.num_frames == FRAMES
    (tmp_path / "chat" / GROUNDING_FILE).write_text('{"max_clips": "two"}')
    with pytest.raises(ModelLoadError, match="max_clips must be int, got 'two'"):
        _ = ChatEngine(tmp_path / "chat", "cpu").grounding


def test_shares_that_do_not_add_up_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = str(tmp_path)
    for shares in (["0.2", "0.7"], ["1"]):
        monkeypatch.setattr(
            "sys.argv", ["bundle", "--folder", f"{state}/new", "--chat", state, state, "--shares", *shares]
        )
        with pytest.raises(SystemExit):
            bundle.main()
        assert "--shares gives every --chat its share" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        (align, ["--folder", "new", "--begin"]),
        (instruct, ["instruct", "--folder", "new", "--align"]),
        (instruct, ["language", "--folder", "new", "--begin"]),
        (bundle, ["--chat"]),
    ],
)
def test_a_missing_checkpoint_is_told_before_anything_begins(
    stage, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stage", *arguments, "gone/state.pt"])
    with pytest.raises(SystemExit):
        stage.main()
    assert f"argument {arguments[-1]}: there is no gone/state.pt: name the state.pt" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
