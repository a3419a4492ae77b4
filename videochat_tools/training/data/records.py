"""What may be wrong with one entry of an annotation file, all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.training.released.samples import read_sample, read_seconds

__all__ = ["RECORD_KEYS", "TURN_KEYS", "find_faults", "unknown_keys"]

RECORD_KEYS = frozenset({"video", "image", "caption", "QA", "start", "end"})
TURN_KEYS = frozenset({"i", "q", "a"})


def find_faults(record: Any, medium: str | None = None) -> list[str]:
    """Everything that keeps an entry from being learned from as it is meant; empty if it is good.

    Args:
        record: The value in the file.
        medium: What its corpus shows; None takes any.
    """
    if not isinstance(record, Mapping):
        return [f"must be an object, got {_shortened(record)}"]
    kinds = [kind for kind in ("video", "image") if kind in record]
    faults = [f"{kind!r} must be a path, got {_shortened(record[kind])}" for kind in kinds if not _text(record[kind])]
    if len(kinds) > 1:
        faults.append("shows both a video and an image; make two entries of it")
    shown = kinds[0] if kinds else "text"
    if medium is not None and len(kinds) < 2 and shown != medium:
        faults.append(f"shows {'a ' if kinds else ''}{shown}, but its corpus is of {medium}; split the file")
    if "QA" in record:
        faults += _turn_faults(record["QA"], visual=bool(kinds))
    elif "caption" in record:
        faults += [] if kinds else ["'caption' needs a 'video' or an 'image'"]
        faults += _text_fault(record, "caption")
    else:
        faults.append("has neither 'QA' nor 'caption'")
    faults += _span_faults(record, visual=shown)
    if not faults:
        try:
            read_sample(record)
        except UnsupportedContentError as error:
            faults.append(str(error))
    return faults


def unknown_keys(record: Any) -> Iterator[str]:
    """Names that nobody reads: most likely slips of the pen, such as "Q" for "q"; or what a format has for others."""
    if not isinstance(record, Mapping):
        return
    yield from sorted(key for key in record if key not in RECORD_KEYS)
    if "QA" in record and "caption" in record:
        yield "caption beside QA"
    turns = record.get("QA")
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, Mapping):
            yield from sorted(f"QA.{key}" for key in turn if key not in TURN_KEYS)


def _turn_faults(turns: Any, *, visual: bool) -> Iterator[str]:
    if not isinstance(turns, list) or not turns:
        yield f"'QA' must be a list with at least one turn, got {_shortened(turns)}"
        return
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping):
            yield f"turn {number} must be an object with 'q' and 'a', got {_shortened(turn)}"
            continue
        for fault in _text_fault(turn, "a"):
            yield f"turn {number}: {fault}"
        for key in ("q", "i"):
            value = turn.get(key, "" if key == "i" else None)
            if not isinstance(value, str):
                yield f"turn {number}: {_missing_or(turn, key)}"
            elif key == "q" and not visual and not value.strip():
                yield f"turn {number}: 'q' is empty, and nothing is shown; only an answer about a clip may stand alone"


def _text_fault(record: Mapping[str, Any], key: str) -> list[str]:
    value = record.get(key)
    if not isinstance(value, str):
        return [_missing_or(record, key)]
    return [] if value.strip() else [f"{key!r} is empty: there is nothing to learn"]


def _missing_or(record: Mapping[str, Any], key: str) -> str:
    if key not in record:
        return f"{key!r} is missing"
    return f"{key!r} must be a text, got {_shortened(record[key])}"


def _span_faults(record: Mapping[str, Any], visual: str) -> Iterator[str]:
    given = {key: record[key] for key in ("start", "end") if record.get(key) is not None}
    if not given:
        return
    if visual != "video":
        yield f"{' and '.join(map(repr, given))} belong to a video, and this shows {visual}"
    if len(given) == 1:
        yield f"{next(iter(given))!r} stands alone; give both 'start' and 'end', or none"
    good: list[float] = []
    for key in given:
        try:
            seconds = read_seconds(record, key)
        except UnsupportedContentError as error:
            yield str(error)
            continue
        assert seconds is not None  # it was given
        if seconds < 0:
            yield f"{key!r} must not be negative, got {seconds:g}"
        else:
            good.append(seconds)
    if len(good) == 2 and good[0] >= good[1]:
        yield f"'start' must lie before 'end', got {good[0]:g} and {good[1]:g}"


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
