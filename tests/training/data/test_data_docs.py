"""docs/training-data.md says what is so: its entries are good, its lists are read, its commands exist."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from videochat_tools.training.data import ClipSampling, Mixture, read_corpora
from videochat_tools.training.data.records import find_faults, unknown_keys


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "training-data.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_entries_are_good(page: str) -> None:
    lines = [line for block in blocks(page, "json") if block.startswith("{") for line in block.splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert find_faults(json.loads(line)) == [] == list(unknown_keys(json.loads(line)))


def test_the_lists_of_corpora_are_read(page: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(blocks(page, "toml")[0])
    (tmp_path / "c.json").write_text(next(block for block in blocks(page, "json") if block.startswith("[")))
    assert [corpus.medium for corpus in read_corpora(tmp_path / "c.toml")] == ["video", "video", "text"]
    assert [corpus.medium for corpus in read_corpora(tmp_path / "c.json")] == ["image", "video", "video", "text"]


def test_the_program_runs(
    page: str, tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"image": str(media / "images" / "0.png"), "caption": "x"}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(entry)}\n" * 8)
    (tmp_path / "corpora.toml").write_text('[[corpora]]\nannotation = "a.jsonl"\n')
    monkeypatch.chdir(tmp_path)
    (program,) = blocks(page, "python")
    exec(program.replace("workers=4", "workers=0"), {})
    assert capsys.readouterr().out == f"image 8 {[(1, 3, 224, 224)] * 8}\n\n"


def test_the_defaults_are_those_of_the_code(page: str) -> None:
    import inspect

    assert f"`time_limit` ({inspect.signature(Mixture).parameters['time_limit'].default:g} s)" in page
    assert ClipSampling().crop_scale == (0.5, 1.0) and "50 to 100 %" in page
    assert ClipSampling().flip == 0.5 and "every other time" in page


def test_the_options_exist(page: str, data: Callable[..., tuple[int, str, str]]) -> None:
    for command in ("check", "convert"):
        code, out, _ = data(command, "--help")
        synopsis = next(line for line in page.splitlines() if line.startswith(f"    videochat data {command}"))
        assert code == 0
        assert all(option in out for option in re.findall(r"--[a-z-]+", synopsis))
