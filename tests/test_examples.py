"""Every example runs, offline, and says what is true."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from videochat_tools.embeddings import NANO_ENCODER

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
