"""The released recipes as files, and how a user's file and single keys change them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from videochat_tools.errors import ConfigurationError

from .options import StageOptions, option_help, parse_options

__all__ = ["RELEASED_STAGES", "load_options", "show_options", "stage_name"]

_FOLDER = Path(__file__).parent / "recipes"
_PATHS = ("model", "language_model", "retrieval_model", "tower", "blip2", "bert", "network")

_NO_CORPORA = '# [[corpora]]\n# annotation = "captions.json"\n# root = "videos"\n# medium = "video"'

RELEASED_STAGES: tuple[str, ...] = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))
"""Names of the released recipes: ``videochat2-vicuna-stage3``."""


def load_options(
    stage: str | None = None, config: str | Path | None = None, changes: Sequence[str] = (), **values: Any
) -> StageOptions:
    """The options of a run: a released recipe, over it a file, over that single keys.

    ``load_options("videochat2-vicuna-stage3", model="runs/stage2/model", batch_size=2)``

    Args:
        stage: One of ``RELEASED_STAGES``; may stand in the file instead, as ``base``.
        config: TOML file with keys of :class:`StageOptions`. Paths in it count from its own folder.
        changes: ``key=value`` each, the value in TOML; what is no TOML is text. ``fsdp.fsdp_version=2`` sets an entry
            of a table.
        **values: Keys, as plain values.

    Raises:
        ConfigurationError: There is no such stage, file or key, or a value does not do.
    """
    mine: dict[str, Any] = {} if config is None else _read(Path(config))
    base = mine.pop("base", None)
    if stage is not None and base is not None and stage != base:
        raise ConfigurationError(
            f"{config} is for the stage {base}, {stage} is asked for; leave --stage out or change base"
        )
    name = stage or base
    if name is not None and name not in RELEASED_STAGES:
        raise ConfigurationError(f"no released stage {name!r}; there are {', '.join(RELEASED_STAGES)}")
    released: dict[str, Any] = {} if name is None else _read(_FOLDER / f"{name}.toml")
    if config is not None:
        mine = _from_folder(mine, Path(config).absolute().parent)
        parse_options({"family": "videochat", "stage": 1, **released, **mine}, str(config))  # its errors name the file
    chosen = {**released, **mine, **values}
    for change in changes:
        _apply(chosen, change)
    source = "--set" if changes else "the arguments" if values else str(config or name or "the configuration")
    return parse_options(chosen, source)


def stage_name(stage: str | None, config: str | Path | None) -> str | None:
    """The released stage that a run is based on, by the command line or by the file."""
    if stage is not None or config is None:
        return stage
    base = _read(Path(config)).get("base")
    return None if base is None else str(base)


def show_options(options: StageOptions, name: str | None = None) -> str:
    """The options as a TOML file, every key with its help: a start for a file of one's own."""
    lines = [] if name is None else [f"base = {json.dumps(name)}", ""]
    tables: list[str] = []
    texts = option_help()
    for key, value in asdict(options).items():
        if name is not None and key in ("family", "stage"):
            continue
        if key == "corpora":
            tables += [f"\n# {texts[key]}"]
            tables += ["\n".join(["[[corpora]]", *_entries(each)]) for each in value] or [_NO_CORPORA]
        elif value is None:
            lines += [f"# {texts[key]}", f"# {key} =", ""]
        else:
            lines += [f"# {texts[key]}", f"{key} = {_toml(value)}", ""]
    return "\n".join(lines + tables) + "\n"


def _entries(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_entries(value)) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # text, numbers and truth look the same in JSON and TOML


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"no configuration at {path} ({error.strerror}); give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is no TOML file ({error}); see `videochat train --stage NAME --show`"
        ) from error


def _from_folder(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same with relative paths made absolute: a file means the same from wherever it is used."""

    def place(path: Any) -> Any:
        return str(folder / path) if isinstance(path, str) and path and not path.startswith("~") else path

    found = {
        key: place(value) if key in _PATHS and _is_local(folder, key, value) else value for key, value in values.items()
    }
    if isinstance(found.get("corpora"), list):
        found["corpora"] = [
            {key: place(value) if key in ("annotation", "root") else value for key, value in each.items()}
            if isinstance(each, Mapping)
            else each
            for each in found["corpora"]
        ]
    return found


def _is_local(folder: Path, key: str, value: Any) -> bool:
    """Whether a value is a path: ``bert`` may be the id of a model on a hub."""
    return key != "bert" or (folder / str(value)).exists()


def _apply(values: dict[str, Any], change: str) -> None:
    key, separator, text = change.partition("=")
    if not separator:
        raise ConfigurationError(f"--set {change!r} has no value; write key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    name, _, entry = key.strip().partition(".")
    if entry:
        table = values.get(name) or {}
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"--set {change!r}: {name} is no table; write {name}=value")
        value = {**table, entry: value}
    values[name] = value
