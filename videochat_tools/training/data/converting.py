"""Conversations in the plain LLaVA and ShareGPT formats, rewritten in the instruction format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from videochat_tools.errors import TrainingDataError

from .annotations import scan
from .records import find_faults

__all__ = ["FORMATS", "Conversion", "Note", "convert_file", "convert_record"]

Format = Literal["llava", "sharegpt"]

FORMATS: tuple[Format, ...] = ("llava", "sharegpt")

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_MEDIA = {"image": "image", "images": "image", "video": "video", "videos": "video"}
_TAG = re.compile(r"<(?:image|video)>")  # data sets write <image> for the frames of a video, too
_TAG_WITH_BREAK = re.compile(r"\s*<(?:image|video)>[ \t]*\n?|\n?[ \t]*<(?:image|video)>\s*$")


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one entry that was not taken over whole.

    Attributes:
        entry: Counted from 1.
        line: Of the file, counted from 1.
        reason: Why.
        skipped: Nothing of it was written; else only what ``reason`` names is missing.
    """

    entry: int
    line: int
    reason: str
    skipped: bool = True


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was read, what was written, and what was not."""

    entries: int
    written: int
    notes: tuple[Note, ...]

    @property
    def skipped(self) -> int:
        """Entries of which nothing was written."""
        return sum(note.skipped for note in self.notes)


class _Skip(Exception):
    """An entry that cannot be written in the instruction format."""


def convert_file(source: Path, target: Path, form: Format) -> Conversion:
    """Rewrite a file, entry by entry; the new one appears when it is complete.

    Args:
        source: A JSON list, or one object a line (``.jsonl``).
        target: Likewise by its name; must not exist.
        form: Format of the source.

    Raises:
        TrainingDataError: The source cannot be read or gives no entry at all, or the target is there already.
    """
    if target.exists():
        raise TrainingDataError(f"{target} is there already; choose another name or remove it")
    lines = target.suffix == ".jsonl"
    if not lines and target.suffix != ".json":
        raise TrainingDataError(f"cannot write {str(target)!r}: annotation files end in .json or .jsonl")
    notes: list[Note] = []
    entries = written = 0
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8") as file:
            for entry in scan(source):
                entries += 1
                try:
                    if entry.fault is not None:
                        raise _Skip(entry.fault)
                    record, remarks = _convert(entry.value, form)
                except _Skip as reason:
                    notes.append(Note(entry.number, entry.line, str(reason)))
                    continue
                notes += [Note(entry.number, entry.line, remark, skipped=False) for remark in remarks]
                file.write(("" if lines else "[\n" if not written else ",\n") + json.dumps(record, ensure_ascii=False))
                file.write("\n" if lines else "")
                written += 1
            file.write("" if lines else "\n]\n")
        if not written:
            first = f"; entry {notes[0].entry}: {notes[0].reason}" if notes else ""
            raise TrainingDataError(f"no entry of {source} could be converted from {form}{first}")
        os.replace(unfinished, target)
    except OSError as error:
        raise TrainingDataError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return Conversion(entries, written, tuple(notes))


def convert_record(record: Any, form: Format) -> tuple[dict[str, Any], list[str]]:
    """One entry in the instruction format, and what of it was left out.

    Raises:
        TrainingDataError: It cannot be written in that format.
    """
    try:
        return _convert(record, form)
    except _Skip as reason:
        raise TrainingDataError(str(reason)) from None


def _convert(record: Any, form: Format) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(record, Mapping):
        raise _Skip(f"not an object but {type(record).__name__}")
    medium = _medium(record)
    messages = list(_messages(record))
    tags = sum(len(_TAG.findall(text)) for role, text in messages if role == "user")
    if medium is None and form == "llava" and tags:
        raise _Skip("has a tag <image> or <video>, but no 'image' or 'video'")
    if tags > 1 and medium is not None:
        raise _Skip(f"shows its clip in {tags} places; the instruction format shows one clip, before the first turn")
    system, turns, remarks = _pair(messages, strip_tags=medium is not None)
    if medium is not None and tags and not _TAG.search(next(text for role, text in messages if role == "user")):
        remarks.append("the clip stood in a later turn; it is now shown before the first")
    result: dict[str, Any] = {}
    if medium is not None:
        result[medium[0]] = medium[1]
    # Turns are shuffled in training and the first one decides the instruction: every turn has it.
    result["QA"] = [{**({"i": system} if system else {}), "q": question, "a": answer} for question, answer in turns]
    result |= {key: record[key] for key in ("start", "end") if record.get(key) is not None}
    faults = find_faults(result)
    if faults:
        raise _Skip("; ".join(faults))
    return result, remarks


def _medium(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """``("image", path)`` or ``("video", path)``; None for text alone."""
    found: list[tuple[str, str]] = []
    for key, kind in _MEDIA.items():
        value = record.get(key)
        for path in value if isinstance(value, list) else [] if value is None or value == "" else [value]:
            if not isinstance(path, str) or not path.strip():
                raise _Skip(f"{key!r} must be a path, got {path!r}")
            found.append((kind, path))
    if len(found) > 1:
        raise _Skip(f"shows {len(found)} images or videos; the instruction format shows one")
    return found[0] if found else None


def _messages(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Role and text of each message."""
    messages = record.get("conversations", record.get("messages"))
    if not isinstance(messages, list) or not messages:
        raise _Skip("'conversations' must be a list of messages")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise _Skip(f"message {number} must be an object with 'from' and 'value'")
        role = message.get("from", message.get("role"))
        text = message.get("value", message.get("content"))
        if role not in _ROLES:
            raise _Skip(f"message {number} is from {role!r}; known are {', '.join(_ROLES)}")
        if not isinstance(text, str):
            raise _Skip(f"message {number} must have a text in 'value', got {type(text).__name__}")
        yield _ROLES[role], text


def _pair(messages: list[tuple[str, str]], *, strip_tags: bool) -> tuple[str, list[tuple[str, str]], list[str]]:
    """System text, questions with their answers, and what was left out."""
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    question: str | None = None
    for number, (role, text) in enumerate(messages, 1):
        if role == "system":
            if turns or question is not None:
                raise _Skip(f"message {number} is a system message in the middle")
            system.append(text.strip())
        elif role == "user":
            if question is not None:
                raise _Skip(f"messages {number - 1} and {number} are two questions without an answer between")
            question = _TAG_WITH_BREAK.sub("", text).strip() if strip_tags else text.strip()
        else:
            if question is None and turns:
                raise _Skip(f"messages {number - 1} and {number} are two answers without a question between")
            turns.append((question or "", text.strip()))
            question = None
    if not turns:
        raise _Skip("has no answer")
    remarks = ["the last question has no answer and was left out"] if question is not None else []
    return "\n".join(part for part in system if part), turns, remarks
