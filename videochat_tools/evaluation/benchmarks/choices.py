"""Multiple choice: items, prompts, and when an answer counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks.base import ANSWERED, Benchmark, Context, Record, Sections, share_of
from videochat_tools.evaluation.benchmarks.footage import Footage, Shown, blank_frames, read_frames
from videochat_tools.models.videochat2.prompts import ChoicePrompt
from videochat_tools.types import TimeSpan

__all__ = [
    "LETTERS",
    "ChoiceBenchmark",
    "ChoiceItem",
    "chance",
    "chosen_option",
    "official_mvbench",
    "official_mvbench_hd",
    "strict_mvbench",
]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PLAIN_PROMPT = ChoicePrompt(repeat_system=False)  # of the released EgoSchema and Video-MME notebooks

_STRICT = re.compile(r"\(?([A-E])\)")
_CHOSEN = re.compile(r"\(?([A-Z])(?:[).:,]|\s*$)")


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A question with its options.

    Attributes:
        id: One of a kind.
        video: Name of the video; intervals take the items of one video together.
        footage: What to show.
        question: Without the options.
        options: Texts without letters.
        answer: Place of the right one, from 0; None where it is not public.
        groups: What the scores are broken down by, such as ``{"task": "Action Count"}``.
        subtitles: File with what is said.
        windows: Where in the video the answer is seen.
    """

    id: str
    video: str
    footage: Footage
    question: str
    options: tuple[str, ...]
    answer: int | None
    groups: Mapping[str, str] = field(default_factory=dict)
    subtitles: Path | None = None
    windows: tuple[TimeSpan, ...] = ()

    @property
    def text(self) -> str:
        """Question and options as the released notebooks write them."""
        options = "\n".join(f"({LETTERS[place]}) {option}" for place, option in enumerate(self.options))
        return f"Question: {self.question}\nOptions:\n{options}".rstrip()

    def named(self, place: int) -> str:
        """An option with its letter."""
        return f"({LETTERS[place]}) {self.options[place]}"


Scorer = Callable[[str, ChoiceItem], bool]


def official_mvbench(prediction: str, item: ChoiceItem) -> bool:
    """The scorer of the released MVBench notebooks, as it is.

    It compares first words and takes each to be right when it is part of the other: "", "(" and ")" are right for
    every item. To be read beside :func:`strict_mvbench` only.
    """
    if item.answer is None:
        return False
    predicted = prediction.lower().split(" ")[0].replace(".", "")
    truth = item.named(item.answer).lower().split(" ")[0]
    return predicted in truth or truth in predicted


def official_mvbench_hd(prediction: str, item: ChoiceItem) -> bool:
    """The scorer of the released MVBench notebook of VideoChat2-HD, as it is.

    It asks the first word for one of the letters a to e, so that an empty answer is wrong; but any word with the right
    letter in it is right.
    """
    if item.answer is None:
        return False
    word = re.sub(r"[.() ]", "", prediction.lower().split(" ")[0])
    return any(letter in word for letter in "abcde") and LETTERS[item.answer].lower() in word


def strict_mvbench(prediction: str, item: ChoiceItem) -> bool:
    """Right is only the letter of the right option in its parenthesis: ``(B)`` or ``B)``."""
    found = _STRICT.match(prediction)
    return found is not None and LETTERS.index(found[1]) == item.answer


def chosen_option(prediction: str, options: int) -> int | None:
    """The option that an answer begins with, as ``(B)``, ``B)``, ``B.`` or ``B`` alone; None where it names none."""
    found = _CHOSEN.match(prediction.strip())
    place = LETTERS.index(found[1]) if found is not None else options
    return place if place < options else None


def right_letter(prediction: str, item: ChoiceItem) -> bool:
    """Whether the answer begins with the letter of the right option."""
    return item.answer is not None and chosen_option(prediction, len(item.options)) == item.answer


def chance(items: Sequence[ChoiceItem]) -> float | None:
    """What guessing would reach; None without items."""
    return sum(1 / len(item.options) for item in items) / len(items) if items else None


class ChoiceBenchmark(Benchmark[ChoiceItem]):
    """Multiple choice about frames that are spread evenly over a video, or over its part that a question names.

    Attributes:
        prompt: The words around the question.
        scorers: When an answer counts, by name; the first is the one to report.
    """

    shows_frames: ClassVar[bool] = True
    prompt: ClassVar[ChoicePrompt] = PLAIN_PROMPT
    scorers: ClassVar[Mapping[str, Scorer]] = {"right": right_letter}

    def __init__(self, items: Sequence[ChoiceItem]) -> None:
        for item in items:
            if not 1 <= len(item.options) <= len(LETTERS):
                raise BenchmarkError(f"{item.id} has {len(item.options)} options; 1 to {len(LETTERS)} are possible")
        self._items = list(items)

    @property
    def items(self) -> Sequence[ChoiceItem]:
        """All questions."""
        return self._items

    def is_there(self, item: ChoiceItem) -> bool:
        """Whether its video is on this machine."""
        return item.footage.there

    def measure(self, item: ChoiceItem, context: Context) -> Record:
        """Ask the chat model."""
        chat = context.models.chat
        extra: dict[str, Any] = {}
        if context.control == "text-only":
            output = chat.answer(self.prompt, item.text, None)
        else:
            shown, extra = self.show(item, context)
            output = chat.answer(self.prompt, item.text, shown.frames, before=self.before(item, shown))
        prediction = self.prompt.prediction(output)
        chosen = chosen_option(prediction, len(item.options))
        return {
            "output": output,
            "prediction": prediction,
            "chosen": None if chosen is None else LETTERS[chosen],
            "truth": None if item.answer is None else LETTERS[item.answer],
            "right": {name: scorer(prediction, item) for name, scorer in self.scorers.items()},
            **extra,
        }

    def show(self, item: ChoiceItem, context: Context) -> tuple[Shown, dict[str, Any]]:
        """The frames, and what the log shall say about them."""
        chat = context.models.chat
        if context.control == "blank":
            return blank_frames(chat.num_frames, chat.frame_size), {}
        return read_frames(item.footage, chat.num_frames, chat.frame_size), {}

    def before(self, item: ChoiceItem, shown: Shown) -> str:
        """What is told before the video."""
        return ""

    def score(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> Sections:
        """All, then by group; every scorer in its own section. Items without a public answer are left out."""
        known = [item for item in items if item.answer is not None]
        sections: Sections = {}
        for name, scorer in self.scorers.items():

            def is_right(item: ChoiceItem, scorer: Scorer = scorer) -> bool:
                record = records[item.id]
                return record["status"] == ANSWERED and scorer(str(record["prediction"]), item)

            sections[name] = [share_of("all", known, is_right, chance(known))]
            for kind in dict.fromkeys(kind for item in known for kind in item.groups):
                groups: dict[str, list[ChoiceItem]] = {}
                for item in known:
                    groups.setdefault(item.groups.get(kind, "other"), []).append(item)
                sections[f"{name}, by {kind}"] = [
                    share_of(group, members, is_right, chance(members)) for group, members in groups.items()
                ]
        return sections

    def facts(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """How many answers name no option, and how many items have no public answer."""
        answered = [records[item.id] for item in items if records[item.id]["status"] == ANSWERED]
        facts: dict[str, Any] = {"answers that name no option": sum(record["chosen"] is None for record in answered)}
        if hidden := sum(item.answer is None for item in items):
            facts["items without a public answer, not scored"] = hidden
        return facts
