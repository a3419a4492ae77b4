"""A chat model put on another sight: it answers from the new rows what it answered from the old ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.evaluation.generation import ask_about_clips, draw_questions
from videochat_tools.evaluation.held_out import held_out_scenes
from videochat_tools.training import transplant
from videochat_tools.training.bundle import BUNDLED
from videochat_tools.training.transplant import carry_over


def test_rows_are_carried_back() -> None:
    rows = torch.randn(3000, 20)
    before, after = rows + 5.0, rows @ torch.linalg.qr(torch.randn(20, 20)).Q * 3.0 - 1.0
    matrix, shift = carry_over(before, after)
    assert torch.allclose(after @ matrix + shift, before, atol=0.02)


def test_what_nothing_is_known_of_stays_as_it_is() -> None:
    """Of rows that vary in one direction alone, the others are not touched."""
    rows = torch.randn(300, 1) * torch.eye(1, 8)
    matrix, shift = carry_over(rows, 2.0 * rows)
    assert torch.allclose(matrix, torch.diag(torch.tensor([0.5] + [1.0] * 7)), atol=0.02)
    assert torch.allclose(shift, torch.zeros(8), atol=0.02)


def test_a_chat_model_reads_the_rows_of_another_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(BUNDLED / "retrieval", tmp_path / "retrieval")
    weights = load_file(tmp_path / "retrieval" / "model.safetensors")
    for part in ("weight", "bias"):
        weights[f"qformer.layers.2.query_feed_forward.output.norm.{part}"] *= -2.0  # all rows turn round and double
    save_file(weights, tmp_path / "retrieval" / "model.safetensors", metadata={"format": "pt"})
    scenes = held_out_scenes(12, new_pairs=False)
    asked = draw_questions(scenes, 3)

    def answers(folder: Path) -> list[str]:
        return ask_about_clips(ChatVideoChat(model=str(folder)), scenes, asked, "video")

    arguments = ["--chat", str(BUNDLED / "chat"), "--retrieval", str(tmp_path / "retrieval"), "--clips", "64"]
    monkeypatch.setattr("sys.argv", ["transplant", *arguments, "--folder", str(tmp_path / "chat")])
    with caplog.at_level("INFO"):
        transplant.main()
    assert "carried over, 0.0" in caplog.text
    as_it_was, now = answers(BUNDLED / "chat"), answers(tmp_path / "chat")
    assert len(asked) > 20
    assert sum(map(str.__eq__, as_it_was, now)) >= 0.9 * len(asked)
