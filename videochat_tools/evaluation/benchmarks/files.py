"""Annotation files read with a complaint that names the place, and videos looked for where they may lie."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videochat_tools.errors import BenchmarkError, MissingDependencyError
from videochat_tools.types import TimeSpan

__all__ = [
    "Row",
    "find_annotations",
    "find_file",
    "read_csv",
    "read_json",
    "read_lines",
    "read_object",
    "read_parquet",
    "read_rows",
]


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of an annotation file. Its fields are asked for by type; one that does not fit is an error."""

    path: Path
    number: int  # counted from 1
    fields: Mapping[str, Any]

    def error(self, problem: str) -> BenchmarkError:
        """An error that says where in which file the problem is."""
        return BenchmarkError(f"{self.path}, entry {self.number}: {problem}; download the file again or mend the entry")

    def text(self, name: str) -> str:
        """A text, or a number written as one."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(f"{name!r} must be a text, got {value!r}")
        return str(value)

    def number_of(self, name: str) -> float:
        """A finite number, also one that is written as a text."""
        value = self._get(name)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{name!r} must be a number, got {value!r}")
        return number

    def whole(self, name: str) -> int:
        """A whole number."""
        value = self.number_of(name)
        if value != int(value):
            raise self.error(f"{name!r} must be a whole number, got {value!r}")
        return int(value)

    def items(self, name: str) -> list[Any]:
        """A list with something in it."""
        value = self._get(name)
        if not isinstance(value, list) or not value:
            raise self.error(f"{name!r} must be a list with at least one entry, got {value!r}")
        return value

    def wholes(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, at least one."""
        values = self.items(name)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self.error(f"{name!r} must be a list of whole numbers, got {values!r}")
        return tuple(values)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, at least one."""
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"{name!r} must be a list of texts, got {values!r}")
        return tuple(values)

    def span(self, start: Any, end: Any) -> TimeSpan:
        """Two times in seconds as a span."""
        try:
            return TimeSpan(float(start), float(end))
        except (TypeError, ValueError):
            raise self.error(f"a span of time needs 0 <= start <= end, got {start!r} to {end!r}") from None

    def index_of(self, answer: str, options: Sequence[str]) -> int:
        """The place of the right answer among the options."""
        if answer not in options:
            raise self.error(f"the answer {answer!r} is none of the options {list(options)!r}")
        return list(options).index(answer)

    def letter(self, name: str, options: int) -> int:
        """An option's letter as its place, from 0."""
        value = self.text(name).strip()
        place = ord(value) - ord("A") if len(value) == 1 else -1
        if not 0 <= place < options:
            raise self.error(f"{name!r} must be a letter from A to {chr(ord('A') + options - 1)}, got {value!r}")
        return place

    def _get(self, name: str) -> Any:
        if name not in self.fields:
            raise self.error(f"{name!r} is missing")
        return self.fields[name]


def find_annotations(folder: Path, *names: str) -> Path:
    """The first of the files that is there.

    Raises:
        BenchmarkError: None of them is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise BenchmarkError(f"no folder {folder}; give the one that holds the benchmark's files")
    raise BenchmarkError(f"no {' or '.join(names)} in {folder}; download the annotations of the benchmark into it")


def find_file(folder: Path, *places: str) -> Path:
    """The first of the files or folders that is there; where none is, the first, whose absence is then reported."""
    return next((folder / place for place in places if (folder / place).exists()), folder / places[0])


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        BenchmarkError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise BenchmarkError(
            f"{path} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}; download the file again"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise BenchmarkError(f"{path} must hold a JSON object, got {type(value).__name__}; download the file again")
    return value


def read_rows(path: Path) -> list[Row]:
    """The entries of a JSON list, or of a file with one JSON object a line (``.jsonl``)."""
    if path.suffix == ".jsonl":
        return [_row(path, number, _line(path, number, line)) for number, line in read_lines(path)]
    values = read_json(path)
    if not isinstance(values, list) or not values:
        raise BenchmarkError(f"{path} must hold a list with at least one entry; download the file again")
    return [_row(path, number, value) for number, value in enumerate(values, 1)]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that hold something, with their numbers from 1."""
    lines = [(number, line) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
    if not lines:
        raise BenchmarkError(f"{path} is empty; download the file again")
    return lines


def read_csv(path: Path) -> list[Row]:
    """The lines of a table with a header."""
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise BenchmarkError(f"{path} is no table ({error}); download the file again") from error
    if not rows:
        raise BenchmarkError(f"{path} holds no line below its header; download the file again")
    # DictReader gives None for what a short line lacks; to ask for it is then an error, as for a missing column.
    given = [{key: value for key, value in row.items() if value is not None} for row in rows]
    return [Row(path, number, fields) for number, fields in enumerate(given, 1)]


def read_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError("pyarrow", "eval", f"reading {path.name}") from None
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise BenchmarkError(f"{path} is no Parquet file ({str(error).splitlines()[0]}); download it again") from error
    return [Row(path, number, row) for number, row in enumerate(rows, 1)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read ({error}); download the file again") from error


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BenchmarkError(f"{path}, line {number} is no JSON: {error.msg}; download the file again") from error


def _row(path: Path, number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        raise BenchmarkError(f"{path}, entry {number}: must be a JSON object, got {value!r}; download the file again")
    return Row(path, number, value)
