"""How readily a chat model denies: the share of refusals that is wanted comes out, wherever replies are made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.engine import BUNDLED
from videochat_tools.evaluation.generation import ask_about_clips, draw_questions
from videochat_tools.evaluation.held_out import held_out_scenes
from videochat_tools.evaluation.refusals import Leads, fit, main, measure, write_bias

with_nano = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="no nano weights in this tree yet")


def _looked(seed: int, shift: float = 0.0) -> Leads:
    """Denials that lead by 2 where nothing answers, and lag by 3 where something does, give or take 2."""
    rng = np.random.default_rng(seed)
    kinds = ("colour", "when", "absent", "mistaken") * 1000
    middle = np.array([-3.0 if kind in ("colour", "when") else 2.0 for kind in kinds])
    return Leads(kinds, (middle + rng.normal(0.0, 2.0, len(kinds)) + shift).astype(np.float32))


def test_the_wanted_share_is_refused() -> None:
    looked, again = _looked(0, shift=-2.0), _looked(1, shift=-2.0)
    bias = fit(looked, 0.03)
    absent, mistaken, present = measure(again, bias)
    assert 0.02 < present.value < 0.04
    assert present.total == absent.total + mistaken.total == 2000
    assert absent.value > measure(again, 0.0)[0].value + 0.2


def test_a_model_that_refuses_enough_is_left_as_it_is() -> None:
    assert measure(_looked(0, shift=4.0), 0.0)[2].value > 0.3
    assert fit(_looked(0, shift=4.0)) == 0.0


def test_what_else_a_generation_config_holds_stays(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(
        '{"eos_token_id": 2, "sequence_bias": [[[7], -1.0], [[7, 8], 2.0]], "max_new_tokens": 9}'
    )
    for bias in (0.25, 0.5):
        path = write_bias(tmp_path, [7], bias)
    text = path.read_text().replace("\n", "").replace(" ", "")
    assert '"sequence_bias":[[[7,8],2.0],[[7],0.5]]' in text
    assert '"eos_token_id":2' in text and '"max_new_tokens":9' in text


@with_nano
def test_both_ways_to_reply_deny_more_readily(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(BUNDLED, tmp_path / "fitted")
    assert main(["--chat", str(folder), "--questions", "4", "--device", "cpu"]) == 0
    assert "present, answered 'not found'" in capsys.readouterr().out
    ((sequence, _),) = json.loads((folder / "generation_config.json").read_text())["sequence_bias"]
    folder = folder.rename(tmp_path / "denying")  # where nothing is loaded from yet
    write_bias(folder, sequence, 40.0)

    scenes = held_out_scenes(12, new_pairs=False)
    asked = draw_questions(scenes, 4, kinds=("colour", "shape"))
    chat, denying = ChatVideoChat(device="cpu"), ChatVideoChat(model=str(folder), device="cpu")
    assert "Not found in the video." not in ask_about_clips(chat, scenes, asked, "video")[:2]
    assert set(ask_about_clips(denying, scenes, asked, "video")) == {"Not found in the video."}
    assert chat.invoke("what is 2 + 2?").content != "Not found in the video."
    assert denying.invoke("what is 2 + 2?").content == "Not found in the video."
