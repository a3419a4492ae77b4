"""The arrows between the parts, read from the import statements: nothing is imported here."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "videochat_tools"
MAX_LINES = 450

# From the ground up. A part may import the parts of its own floor and of those below it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_version", "errors", "types"),
    ("media", "models"),
    ("dual_encoders", "embeddings", "segmenting", "speech", "subtitles", "whisper"),
    ("picture", "retrievers", "testing"),
    ("library",),
    (
        "answerers",
        "answering",
        "block_forms",
        "cached_replies",
        "chat_model",
        "constrained",
        "content",
        "context",
        "dialogue",
        "engine",
        "generation",
        "prefix_cache",
        "remote_media",
        "reply",
        "stills",
        "tool_binding",
        "tool_calling",
        "video_embeddings",
        "video_loader",
        "visuals",
    ),
    ("training", "video_library"),
    ("tools",),
    ("agents", "evaluation"),
    ("cli", "quickstart", "serving"),
    ("__main__",),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# On one floor, and yet apart.
STRANGERS = {("media", "models"), ("models", "media"), ("training", "video_library"), ("picture", "retrievers")}
WITHOUT_LANGCHAIN = ("media", "models", "training")
# Only these use what makes training data; whoever answers about a video must not know how it was drawn.
USERS_OF_TRAINING = {"training", "evaluation", "cli", "quickstart"}


def module_files() -> dict[str, Path]:
    """Every module of the installed package, by its dotted name, in its real place in the repository."""
    places = {
        PACKAGE: ROOT / PACKAGE,
        f"{PACKAGE}.retrievers": ROOT / "retrievers",
        f"{PACKAGE}.agents": ROOT / "agents",
    }
    files: dict[str, Path] = {}
    for package, folder in places.items():
        for path in sorted(folder.rglob("*.py")):  # does not follow the two links
            parts = path.relative_to(folder).with_suffix("").parts
            files[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return files


FILES = module_files()


def part_of(module: str) -> str:
    """``videochat_tools.media.reader`` belongs to ``media``."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, *, top_level_only: bool = False) -> Iterator[str]:
    """The absolute names of all modules that ``module`` imports, including the names taken from them."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in top_level(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run on import: not those of functions, nor those that only a type checker reads."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                pending += getattr(node, block, [])
            for handler in getattr(node, "handlers", []):
                pending += handler.body


def own_imports(module: str, *, top_level_only: bool = False) -> set[str]:
    """Those imports of ``module`` that are modules of this package."""
    return {name for name in imports(module, top_level_only=top_level_only) if name in FILES and name != module}


def test_every_part_has_its_floor() -> None:
    parts = {part_of(module) for module in FILES} - {""}
    assert parts <= FLOOR.keys(), f"say on which floor {sorted(parts - FLOOR.keys())} stand"


@pytest.mark.parametrize("module", [module for module in FILES if part_of(module)])
def test_imports_point_down(module: str) -> None:
    part = part_of(module)
    for name in sorted(own_imports(module)):
        other = part_of(name)
        if other == "":  # the door itself; it imports nothing but the version
            assert name == PACKAGE, name
            assert part in ("cli", "quickstart"), f"{module} goes through the front door instead of to the module"
            continue
        assert FLOOR[other] <= FLOOR[part], f"{module} imports {name}, which stands above it"
        assert (part, other) not in STRANGERS, f"{module} imports {name}"
        assert other != "training" or part in USERS_OF_TRAINING, f"{module} imports {name}"


@pytest.mark.parametrize("module", [module for module in FILES if part_of(module) in WITHOUT_LANGCHAIN])
def test_networks_and_media_know_no_langchain(module: str) -> None:
    assert not [name for name in imports(module) if name.split("_")[0].split(".")[0] in ("langchain", "langgraph")]


@pytest.mark.parametrize("module", FILES)
def test_imports_are_absolute_in_the_linked_folders(module: str) -> None:
    if part_of(module) in ("retrievers", "agents"):
        nodes = ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8")))
        relative = [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
        assert not relative, f"relative imports in lines {relative}: the folder is reached by two routes"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: own_imports(module, top_level_only=True) for module in FILES}
    for module in FILES:  # importing a.b runs a/__init__.py first
        graph[module] |= {
            parent
            for name in list(graph[module])
            for parent in [name.rpartition(".")[0]]
            if parent in FILES and parent != PACKAGE and not module.startswith(parent)
        }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", FILES)
def test_modules_stay_short(module: str) -> None:
    lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{FILES[module].relative_to(ROOT)} has {lines} lines: it wants to be two modules"


def test_the_list_of_packages_is_complete() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    present = {module for module, path in FILES.items() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(present)
    orphans = {path.parent for module, path in FILES.items() if module.rpartition(".")[0] not in present | {""}}
    assert not orphans, f"folders of modules without an __init__.py: {orphans}"


@pytest.mark.parametrize("folder", ["retrievers", "agents"])
def test_the_two_outer_folders_are_linked_into_the_package(folder: str) -> None:
    link = ROOT / PACKAGE / folder
    assert (ROOT / folder / "__init__.py").is_file()
    assert link.is_symlink()
    assert link.readlink() == Path("..", folder), "the link must be relative, or a clone elsewhere breaks"
