"""``videochat eval`` as a person at a shell meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_benchmarks import write

from videochat_tools.cli import main
from videochat_tools.evaluation.benchmarks import BENCHMARKS

Eval = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Eval:
    """``evaluate("star", "--data", folder)`` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["eval", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


def test_the_help_names_every_benchmark(evaluate: Eval) -> None:
    code, out, _ = evaluate("--help")
    assert code == 0
    assert all(name in "".join(out.split()) for name in BENCHMARKS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("mvbenhc", "--data", "."), "no benchmark 'mvbenhc'"),
        (("star",), "--data"),
        (("star", "--data", ".", "--task", "action_count"), "--task"),
        (("star", "--data", ".", "--hours", "1"), "--hours"),
        (("star", "--data", ".", "--needles", "1"), "--needles"),
        (("msrvtt", "--data", ".", "--frames", "16"), "--frames"),
        (("needle", "--frames", "16"), "--frames"),
        (("star", "--data", ".", "--frames", "0"), "--frames"),
        (("needle", "--needles", "0"), "--needles"),
        (("needle", "--hours", "-1"), "--hours"),
        (("star", "--data", ".", "--control", "dark"), "dark"),
        (("star", "--data", ".", "--limit", "0"), "--limit"),
    ],
)
def test_wrong_usage(evaluate: Eval, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = evaluate(*arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_an_error_is_one_line(evaluate: Eval, tmp_path: Path) -> None:
    code, out, err = evaluate("star", "--data", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert err.startswith("videochat: error: no folder ")
    entry = {"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y"}
    write(tmp_path / "json" / "action_count.json", [entry])
    code, _, err = evaluate("mvbench", "--data", tmp_path, "--task", "action_count", "--control", "uniform")
    assert code == 1
    assert err == (
        "videochat: error: mvbench has no control 'uniform': its frames are spread evenly over the video to begin "
        "with, so that it would change nothing; choose one of none, blank, text-only\n"
    )


def test_a_model_that_is_not_there(evaluate: Eval, tmp_path: Path) -> None:
    entry = {"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y"}
    write(tmp_path / "json" / "action_count.json", [entry])
    code, _, err = evaluate("mvbench", "--data", tmp_path, "--task", "action_count", "--model", "./no-model")
    assert code == 1
    assert err.startswith("videochat: error: no chat model at no-model")
    assert not list(tmp_path.glob("videochat-eval/*/items.jsonl"))
