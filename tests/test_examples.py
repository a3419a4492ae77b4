"""Every example runs, offline, and says what is true."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.embeddings import NANO_ENCODER, load_encoder
from videochat_tools.evaluation.gates import GATES

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
pytestmark = pytest.mark.skipif(
    not (NANO_ENCODER / "model.safetensors").is_file(), reason="the weights of the nano are not in this checkout"
)


_STAR = tuple(  # in any of its world's words; nothing else there is yellow
    f"{name} {verb} up [00:12–00:18]" for name in ("star", "yellow object") for verb in ("moves", "goes")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run: the first one makes the sample library there."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "ask",
            [
                "the red circle [00:06–00:12]",
                _STAR,
                '"nina lost the old umbrella"',
                "Not found in the video.",
                "proof: film.mp4",
            ],
        ),
        ("retriever_chain", ["look like it:\n- 6–12 s\n", "are said:\n- 12–17 s nina lost the old umbrella"]),
        ("agent", ["search_video (call", "query: which object", "the red circle [00:06–00:12]", "red [00:06–00:12]"]),
        ("chatbot", ["the red circle [00:06–00:12]", "red [00:06–00:12]", _STAR]),
        ("rag", ["  yellow", "  the red circle"]),
    ],
)
def test_it_runs_and_says_what_is_true(
    name: str,
    told: list[str | tuple[str, ...]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    output = capsys.readouterr().out
    for each in told:
        assert any(words in output for words in ([each] if isinstance(each, str) else each)), (each, output)


def test_every_example_is_run() -> None:
    programs = {path.stem for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    assert programs == {"ask", "agent", "chatbot", "rag", "retriever_chain"}


def test_the_nano_is_made_from_nothing_in_a_moment(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    made = subprocess.run(
        ["sh", str(EXAMPLES / "train_nano.sh"), str(folder), "0.0005", "half", "7"],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    gates = made.stdout.partition("## Gates")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in gates.strip().splitlines()[2:]]
    assert rows == [gate.name for gate in GATES if not gate.name.startswith("recall@1")]  # too few clips for a pool
    assert load_encoder(folder / "nano" / "retrieval").calibration.look_threshold is not None
    # It has learned nothing, but it is a chat model.
    reply = ChatVideoChat(model=str(folder / "nano" / "chat"), max_tokens=4).invoke("what is said?")
    assert reply.response_metadata["finish_reason"] in {"stop", "length"}
