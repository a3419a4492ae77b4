"""Samples as the released instruction and caption files hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from videochat_tools.errors import UnsupportedContentError

__all__ = ["CaptionSample", "InstructionSample", "MediaKind", "Turn", "read_sample", "read_seconds"]

MediaKind = Literal["video", "image"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    Attributes:
        question: May be empty, as in captioning data: then the answer follows the clip at once.
        answer: What is to be learned.
        instruction: What the whole task is, such as "Answer the question."; may be empty.
    """

    question: str
    answer: str
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class InstructionSample:
    """A conversation about one video or image, or about none.

    Attributes:
        turns: At least one.
        kind: What is shown; None for text alone.
        path: Where it lies, as the file says (relative to the data root).
        start: First second of the part to be shown; None shows all.
        end: Last second of the part to be shown.
    """

    turns: tuple[Turn, ...]
    kind: MediaKind | None = None
    path: str | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if not self.turns:
            raise UnsupportedContentError("an instruction sample needs at least one question with its answer in 'QA'")
        if (self.start is None) != (self.end is None):
            raise UnsupportedContentError(
                f"a part of a video needs both start and end, got {self.start} and {self.end}; give both or none"
            )
        if self.start is not None and self.end is not None:
            if self.kind != "video":
                raise UnsupportedContentError(f"only a part of a video has start and end, not {self.kind or 'text'}")
            if not 0 <= self.start < self.end:
                raise UnsupportedContentError(
                    f"start {self.start} and end {self.end} are no span of time; give seconds with 0 <= start < end"
                )

    def shuffled(self, rng: Random) -> InstructionSample:
        """The turns in another order, as the released recipes draw it anew each time a sample is used.

        The first turn after shuffling decides the instruction.
        """
        return replace(self, turns=tuple(rng.sample(self.turns, len(self.turns))))


@dataclass(frozen=True, slots=True)
class CaptionSample:
    """A video or image and its caption, as in the pre-training files.

    Attributes:
        caption: What is to be learned.
        kind: What is shown.
        path: Where it lies, as the file says.
    """

    caption: str
    kind: MediaKind
    path: str | None = None


def read_sample(record: Mapping[str, Any]) -> InstructionSample | CaptionSample:
    """One entry of a released annotation file.

    Instruction data is ``{"video" or "image": path, "QA": [{"i": ..., "q": ..., "a": ...}], "start": ..., "end": ...}``
    with ``i``, ``start`` and ``end`` (seconds) optional, and no path for text alone; pre-training data is
    ``{"video" or "image": path, "caption": ...}``.

    Raises:
        UnsupportedContentError: The entry is neither.
    """
    kinds: list[MediaKind] = [kind for kind in ("video", "image") if kind in record]
    if len(kinds) > 1:
        raise UnsupportedContentError("a sample shows one video or one image, got both; split it into two samples")
    kind = kinds[0] if kinds else None
    path = None if kind is None else _text(record, kind)
    if "caption" in record and "QA" not in record:
        if kind is None:
            raise UnsupportedContentError("a caption needs its 'video' or 'image'")
        return CaptionSample(_text(record, "caption"), kind, path)
    turns = record.get("QA")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise UnsupportedContentError(
            f"a sample needs 'caption' or a list 'QA' of objects, got the keys {', '.join(map(repr, record))}"
        )
    return InstructionSample(
        tuple(Turn(_text(turn, "q"), _text(turn, "a"), _text(turn, "i", "")) for turn in turns),
        kind,
        path,
        read_seconds(record, "start"),
        read_seconds(record, "end"),
    )


def _text(record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if not isinstance(value, str):
        raise UnsupportedContentError(f"{key!r} of a sample must be text, got {value!r}")
    return value


def read_seconds(record: Mapping[str, Any], key: str) -> float | None:
    """A time in seconds, also one that is written as a text; None where there is none.

    Raises:
        UnsupportedContentError: It is no finite number.
    """
    value = record.get(key)
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UnsupportedContentError(f"{key!r} must be a number of seconds, got {value!r}")
    return seconds
