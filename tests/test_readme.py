"""The README does what it says: its commands run, its Python runs, its links and names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from videochat_tools.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NANO = ROOT / "videochat_tools" / "models" / "nano"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.strip()]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]

with_nano = pytest.mark.skipif(not (NANO / "chat" / "config.json").is_file(), reason="no nano weights in this tree yet")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which the commands are run, one after the other."""
    return tmp_path_factory.mktemp("workplace")


def test_there_are_commands_of_every_kind() -> None:
    assert {command.split()[0] for command in COMMANDS} >= {"make", "videochat", "pip"}
    assert COMMANDS[:2] == ["make quickstart", "make test"]


@pytest.mark.parametrize("command", [each for each in COMMANDS if not each.startswith("videochat")])
def test_the_commands_around_the_program_are_real(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        run = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
    elif words[:2] == ["pip", "install"]:
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        extras = re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*?)\]", command)))
        assert set(extras) <= settings["project"]["optional-dependencies"].keys()
    else:
        pytest.fail(f"this test does not know how to check: {command}")


@with_nano
def test_the_videochat_commands_run_in_their_order(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("VIDEOCHAT_LIBRARY", raising=False)
    for command in (each for each in COMMANDS if each.startswith("videochat")):
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(command)[1:])
        assert not exit_.value.code, command
        assert "Not found in the video." not in capsys.readouterr().out, command
    assert (workplace / "answer.png").is_file()


@with_nano
def test_the_first_python_example_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    if not (workplace / "demo.mp4").is_file():
        with pytest.raises(SystemExit):
            main(["sample", "demo.mp4", "--minutes", "0.5"])
    exec(compile(PYTHON[0], "README.md", "exec"), {})


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_the_python_examples_import_what_exists(number: int) -> None:
    imports = [line for line in PYTHON[number].splitlines() if line.startswith(("from ", "import "))]
    assert imports
    code = "\n".join(imports)
    exec(compile(code, "README.md", "exec"), {})
    compile(PYTHON[number], "README.md", "exec")


def test_every_extra_is_explained() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for extra in settings["project"]["optional-dependencies"]:
        assert re.search(rf"^\|.*`{extra}`.*\|", README, flags=re.MULTILINE), extra


def test_links_and_the_tree_point_at_what_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    (tree,) = (block for kind, block in BLOCKS if kind == "" and block.startswith("videochat_tools/"))
    for line in tree.splitlines():
        names = line.split() if line.startswith("tests/") else line.split()[:1]
        for name in names:
            place = ROOT / "videochat_tools" / name if line.startswith("  ") else ROOT / name
            assert place.exists(), name


@pytest.mark.parametrize("row", re.findall(r"^\|[^|]+\|[^|]+\| `([^`]+)` \|", README, flags=re.MULTILINE))
def test_the_commands_behind_the_numbers_exist(row: str) -> None:
    words = shlex.split(row)
    if words[0] == "make":
        run = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, check=False)
        assert run.returncode == 0, row
    elif words[:2] == ["python", "-m"]:
        check = f"import importlib.util as u, sys; sys.exit(u.find_spec({words[2]!r}) is None)"
        assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0, row
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), row
    elif words[:2] == ["videochat", "eval"]:
        told = [sys.executable, "-m", "videochat_tools", *words[1:3], "--help"]
        run = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=False)
        options = {word for word in words if word.startswith("--")}
        assert run.returncode == 0 and options <= set(re.findall(r"--[a-z-]+", run.stdout)), row
    else:
        pytest.fail(f"this test does not know how to check: {row}")
