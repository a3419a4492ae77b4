"""What reaches a user's machine: the wheel, its contents, its imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import videochat_tools

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "faiss", "av", "langchain_core", "faster_whisper", "numpy")


def python(code: str, *, cwd: Path | None = None, path: Path | None = None) -> str:
    """Run ``code`` in a fresh interpreter; with ``path``, that folder is searched before all others."""
    prelude = "" if path is None else f"import sys; sys.path.insert(0, {str(path)!r})\n"
    run = subprocess.run(
        [sys.executable, "-P", "-c", prelude + code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git would track, so that no old build folder leaks into it."""
    source = tmp_path_factory.mktemp("a folder with spaces") / "source"
    source.mkdir()
    for name in ("videochat_tools", "retrievers", "agents"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    out = source.parent / "dist"
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), "."]
    run = subprocess.run([sys.executable, *command], cwd=source, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel, and nothing else, is installed into."""
    target = tmp_path_factory.mktemp("site")
    command = ["-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return target


def test_the_wheel_puts_one_package_at_the_top(site: Path) -> None:
    top = {path.name for path in site.iterdir()} - {"bin", "__pycache__"}
    assert top == {"videochat_tools", f"videochat_tools-{videochat_tools.__version__}.dist-info"}


def test_the_wheel_holds_every_module_and_nothing_that_is_none(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "videochat_tools"
    expected = {f"videochat_tools/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    for folder in ("retrievers", "agents"):
        expected |= {f"videochat_tools/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == expected
    assert "videochat_tools/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_the_bundled_model(wheel: Path) -> None:
    nano = ROOT / "videochat_tools" / "models" / "nano"
    weights = {path for path in nano.rglob("*") if path.is_file()}
    if not weights:
        pytest.skip("no nano weights in this tree yet")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = {path for path in weights if f"videochat_tools/{path.relative_to(ROOT / 'videochat_tools')}" not in names}
    assert not missing, "add their suffix to package-data in pyproject.toml"
    assert sum(path.stat().st_size for path in weights) <= 25_000_000


@pytest.mark.parametrize("module", ["videochat_tools.retrievers", "videochat_tools.agents", "videochat_tools.cli"])
def test_the_installed_package_imports_from_anywhere(module: str, site: Path) -> None:
    origin = python(f"import {module} as module; print(module.__file__)", cwd=Path("/"), path=site)
    assert Path(origin).is_relative_to(site)


def test_the_installed_command_is_the_command_line(site: Path) -> None:
    run = "from videochat_tools.cli import main; main(['--version'])"
    assert python(run, cwd=Path("/"), path=site) == f"videochat {videochat_tools.__version__}"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["scripts"] == {"videochat": "videochat_tools.cli:main"}
    assert (site / "bin" / "videochat").is_file()


@pytest.mark.parametrize("folder", ["retrievers", "agents"])
def test_the_folders_refuse_to_be_modules_of_their_own(folder: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\ntry:\n    import {folder}\nexcept ImportError as e: print(e)"
    )
    assert f"videochat_tools.{folder}" in python(code)


@pytest.mark.parametrize("module", ["videochat_tools", "videochat_tools.cli"])
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    assert python(code, path=ROOT) == ""


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom videochat_tools.cli import main\ntry: main(['add', '--help'])\nexcept SystemExit: pass\n"
        f"print('loaded:', *[name for name in {HEAVY} if name in sys.modules])"
    )
    assert python(code, path=ROOT).endswith("loaded:")


def test_the_public_names_are_few_sorted_and_real() -> None:
    names = videochat_tools.__all__
    assert names == sorted(names)
    assert len(names) <= 24
    assert set(names) - {"__version__"} == set(videochat_tools._HOME)
    assert dir(videochat_tools) == names
    for name in names:
        assert getattr(videochat_tools, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = videochat_tools.Nothing
