"""Annotation files of any length: where each entry lies, and the entry when it is asked for."""

from __future__ import annotations

import codecs
import json
import mmap
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from videochat_tools.errors import TrainingDataError, UnsupportedContentError

__all__ = ["AnnotationFile", "RawEntry", "scan"]

_CHUNK = 1 << 20  # bytes read at once
_SPACE = re.compile(r"[ \t\r\n]*")
# Where the next entry of a list most likely begins behind a broken one; a turn of "QA" begins with i, q or a.
_NEXT_ENTRY = re.compile(r'[}\]]\s*,?\s*(?=\{\s*"(?:video|image|QA|caption|conversations|id|start|end)")')
# The decoder names a place this close to the end of its text when only the rest of the text is missing.
_NEAR_END = 16
_BOM = codecs.BOM_UTF8


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One entry of an annotation file.

    Attributes:
        number: Counted from 1; blank lines do not count.
        line: Of the file, counted from 1, where it begins.
        start: Byte of the file where it begins.
        length: Its bytes.
        value: What it holds; None where ``fault`` says why it cannot be read, or nobody wanted to know.
        fault: What is wrong with its JSON.
    """

    number: int
    line: int
    start: int
    length: int
    value: Any = None
    fault: str | None = None


def scan(path: str | Path, *, parse: bool = True) -> Iterator[RawEntry]:
    """All entries of a file in order, those included that cannot be read; memory stays flat.

    Behind a broken entry of a JSON list the next one is looked for; where none is found, the rest is lost.

    Args:
        path: A JSON list, or one JSON value a line (``.jsonl``).
        parse: Read the values of lines as well; a list has to be parsed in any case.

    Raises:
        TrainingDataError: The file cannot be opened.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            yield from _scan_lines(file, parse) if path.suffix == ".jsonl" else _scan_list(file)
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read ({error.strerror or error}); check the name") from error


def _scan_lines(file: IO[bytes], parse: bool) -> Iterator[RawEntry]:
    start = number = 0
    for line, raw in enumerate(file, 1):
        skipped = len(_BOM) if line == 1 and raw.startswith(_BOM) else 0
        content = raw[skipped:].rstrip()
        if content.strip():
            number += 1
            value, fault = _loads(content) if parse else (None, None)
            yield RawEntry(number, line, start + skipped, len(content), value, fault)
        start += len(raw)


def _loads(content: bytes) -> tuple[Any, str | None]:
    try:
        return json.loads(content), None
    except json.JSONDecodeError as error:
        return None, f"no JSON: {error.msg} at column {error.colno}"
    except (UnicodeDecodeError, RecursionError) as error:
        return None, _unreadable(error)


def _unreadable(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else "not in UTF-8; save the file in it"


class _Window:
    """A stretch of a text file, moved forward; knows the byte and the line of its place."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        # Bytes that are no UTF-8 become surrogates, which are written back as the same bytes: places stay right.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text = ""
        self.place = 0  # in the text
        self.byte = 0  # of the file, at the place
        self.line = 1
        self.ended = False
        self.grow()
        if self.text.startswith("\ufeff"):
            self.move_to(1)

    def grow(self) -> None:
        """Read on, twice as much each time that the text must be kept."""
        chunk = self._file.read(max(_CHUNK, len(self.text) - self.place))
        self.ended = not chunk
        self.text = self.text[self.place :] + self._decoder.decode(chunk, final=self.ended)
        self.place = 0

    def move_to(self, place: int) -> str:
        """Go to a place of the text; what was passed."""
        passed = self.text[self.place : place]
        self.byte += len(passed) if passed.isascii() else len(passed.encode("utf-8", "surrogateescape"))
        self.line += passed.count("\n")
        self.place = place
        return passed

    def peek(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.place)
            assert match is not None  # it matches nothing, too
            self.move_to(match.end())
            if self.place < len(self.text):
                return self.text[self.place]
            if self.ended:
                return ""
            self.grow()

    def parse(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        """The JSON value at the place, and where it ends.

        Raises:
            json.JSONDecodeError: There is none.
        """
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.place)
                if self.ended or end < len(self.text):  # a number may go on behind the end of the text
                    return value, end
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _NEAR_END
                if self.ended or not cut:
                    raise
            self.grow()

    def find_next_entry(self) -> bool:
        """Go to where the next entry seems to begin; false if there is none."""
        while True:
            match = _NEXT_ENTRY.search(self.text, self.place)
            if match is not None:
                self.move_to(match.end())
                return True
            if self.ended:
                return False
            self.move_to(max(self.place, len(self.text) - 1000))  # longer than what the expression needs
            self.grow()


def _scan_list(file: IO[bytes]) -> Iterator[RawEntry]:
    decoder = json.JSONDecoder()
    window = _Window(file)
    if window.peek() != "[":
        yield RawEntry(
            1, window.line, 0, 0, None, "not a JSON list; write [entry, entry, …], or one a line in a .jsonl"
        )
        return
    window.move_to(window.place + 1)
    number, expected = 0, window.peek() != "]"
    while expected:
        number += 1
        line, start = window.line, window.byte
        try:
            value, end = window.parse(decoder)
        except (json.JSONDecodeError, RecursionError) as error:
            yield RawEntry(number, line, start, 0, None, _list_fault(window, error))
            if not window.find_next_entry():
                return
            continue
        raw = window.move_to(end)
        fault = None if raw.isascii() or not _has_surrogates(raw) else _unreadable(ValueError())
        length = window.byte - start
        yield RawEntry(number, line, start, length, None if fault else value, fault)
        following = window.peek()
        if following == ",":
            window.move_to(window.place + 1)
            window.peek()
        elif following == "]":
            expected = False
        else:
            what = "the file ends without a ]; it may be cut off" if not following else "no comma behind the entry"
            yield RawEntry(number + 1, window.line, window.byte, 0, None, f"no JSON: {what}")
            number += 1
            if not following or not window.find_next_entry():
                return
    window.move_to(window.place + 1)
    if window.peek():
        yield RawEntry(number + 1, window.line, window.byte, 0, None, "no JSON: something follows the end of the list")


def _list_fault(window: _Window, error: json.JSONDecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return _unreadable(error)
    line = window.line + window.text.count("\n", window.place, error.pos)
    return f"no JSON: {error.msg} in line {line}"


def _has_surrogates(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


class AnnotationFile:
    """The entries of one annotation file, by number from 0; only where they lie is kept in memory (16 bytes each).

    Args:
        path: A JSON list, or one JSON object a line (``.jsonl``).

    Raises:
        TrainingDataError: It cannot be read, holds no entry, or (a list) is no JSON.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._starts, self._lengths = array("q"), array("q")
        self._bytes: mmap.mmap | None = None
        for entry in scan(self.path, parse=False):
            if entry.fault is not None and not entry.length:
                raise TrainingDataError(
                    f"{self.path}, entry {entry.number} in line {entry.line}: {entry.fault}; "
                    f"`videochat data check {self.path}` lists everything that is wrong"
                )
            self._starts.append(entry.start)
            self._lengths.append(entry.length)
        if not self._starts:
            raise TrainingDataError(f"{self.path} holds no entry; give a file with samples")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One entry, read from the file.

        Raises:
            UnsupportedContentError: It is no JSON object.
        """
        if self._bytes is None:
            with self.path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start, length = self._starts[number], self._lengths[number]
        value, fault = _loads(self._bytes[start : start + length])
        if fault is None and not isinstance(value, dict):
            fault = f"not a JSON object but {type(value).__name__}"
        if fault is not None:
            raise UnsupportedContentError(f"{self.path}, entry {number + 1} is {fault}")
        return dict(value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}
