"""docs/models.md says what is so: its commands parse, its figures are measured, its messages exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

import videochat_tools
from videochat_tools.cli import app
from videochat_tools.cli import main as videochat
from videochat_tools.evaluation.inventories import main, memory
from videochat_tools.models.loading.folder import FAMILIES
from videochat_tools.models.loading.kinds import looks_like_hd

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("videochat ")]
FILE = re.compile(r"[\w]+\.pth")


def parsed(line: str) -> dict[str, Any]:
    """Arguments of the command that a line calls, read by its own parser and not run."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    params: dict[str, Any] = command.make_context(line, words).params
    return params


def table(title: str) -> list[list[str]]:
    """Cells of the first table under a heading, its head left out."""
    section = PAGE.split(f"## {title}\n")[1]
    (lines, *_) = re.findall(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in lines.splitlines()[2:]]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    assert parsed(line)["output"]
    with pytest.raises(SystemExit) as exit_:
        videochat([*shlex.split(line)[1:], "--no-such-option"])
    assert exit_.value.code == 2


def test_every_model_has_its_command_and_every_language_model_is_made_or_released() -> None:
    checkpoints = [parsed(line) for line in COMMANDS if " checkpoint " in line]
    made = {str(parsed(line)["output"]) for line in COMMANDS if " delta " in line}
    converted = [({str(path) for path in call["sources"]}, call["llm"]) for call in checkpoints]
    for model, files, language_model in table("Which files"):
        wanted = set(FILE.findall(files))
        (llm,) = (llm for sources, llm in converted if sources == wanted)
        assert (llm is None) == (language_model == "none"), model
        assert "Vicuna" not in language_model or str(llm) in made, model
    assert len(converted) == len(table("Which files")) >= len(FAMILIES)
    assert [path for sources, _ in converted for path in sources if looks_like_hd(path)] == [
        "videochat2_hd_mistral_stage4.pth"
    ]


def test_the_memory_table_is_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--memory"]) == 0
    printed = capsys.readouterr().out
    assert printed in PAGE
    for name, counts in memory().items():
        (row,) = (line for line in printed.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {sum(counts.values()) / 1e6:,.1f} · " in row
        tower = counts["tower"]
        assert tower > 0
        assert f"| {tower / 1e6:,.1f} · {tower * 4 / 2**30:.1f} · {tower * 2 / 2**30:.1f} |" in row


def test_the_messages_exist() -> None:
    models = ROOT / "videochat_tools" / "models"
    code = "\n".join(path.read_text(encoding="utf-8") for path in models.rglob("*.py"))
    for message in [words for row in table("What a refusal means") for words in re.findall(r"`([^`]+)`", row[0])]:
        assert message in code, message


def test_commands_of_python_and_names_are_there() -> None:
    assert "python -m videochat_tools.evaluation.inventories --memory" in PAGE
    names = [
        *re.findall(r"videochat_tools\.(\w+)\(", PAGE),
        *re.findall(r"^from videochat_tools import (\w+)$", PAGE, re.M),
    ]
    assert names
    for name in names:
        assert hasattr(videochat_tools, name), name
