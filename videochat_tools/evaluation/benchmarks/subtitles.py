"""What is said while a frame is on screen, told before the video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from videochat_tools.evaluation.benchmarks.base import Context, Record
from videochat_tools.evaluation.benchmarks.choices import ChoiceBenchmark, ChoiceItem
from videochat_tools.evaluation.benchmarks.footage import Shown, read_frames
from videochat_tools.types import Utterance

__all__ = ["INTRODUCTION", "Subtitled", "subtitles_at"]

INTRODUCTION = "This video's subtitles are listed below: "  # words of the released Video-MME notebooks
LINES = "subtitle_lines"  # of the log: how many went with an item


class Subtitled(ChoiceBenchmark):
    """Multiple choice, with or without the subtitles that are on screen together with the frames.

    With subtitles the control "blank" shows black frames together with the subtitles of frames that are spread over
    the video: what is right then was read, or guessed, but not seen. "text-only" leaves out both.

    Attributes:
        subtitles: Whether they are told.
    """

    subtitles: bool

    @property
    def settings(self) -> dict[str, Any]:
        """With or without subtitles."""
        return {**super().settings, "subtitles": self.subtitles}

    def utterances(self, item: ChoiceItem) -> Iterable[Utterance]:
        """All that is said in the video of an item."""
        raise NotImplementedError

    def looks(self, control: str) -> bool:
        """Black frames need the video too, where subtitles go with its frames."""
        return super().looks(control) or (self.subtitles and control == "blank")

    def show(self, item: ChoiceItem, context: Context) -> tuple[Shown, dict[str, Any]]:
        """The frames, and how many lines of subtitles go with them."""
        if not self.subtitles:
            return super().show(item, context)
        if context.control == "blank":
            seen = read_frames(item.footage, context.models.chat.num_frames, context.models.chat.frame_size)
            shown, extra = Shown(np.zeros_like(seen.frames), seen.seconds), dict[str, Any]()
        else:
            shown, extra = super().show(item, context)
        return shown, {**extra, LINES: self.before(item, shown).count("\n")}

    def before(self, item: ChoiceItem, shown: Shown) -> str:
        """The subtitles that are aligned with the frames."""
        if not self.subtitles or item.subtitles is None or not item.subtitles.is_file():
            return ""
        return subtitles_at(self.utterances(item), shown.seconds)

    def facts(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """How many questions came with subtitles; a file that is missing shows here."""
        facts = super().facts(items, records)
        if self.subtitles:
            facts["questions asked with subtitles"] = sum(bool(records[item.id].get(LINES)) for item in items)
        return facts


def subtitles_at(utterances: Iterable[Utterance], seconds: Sequence[float]) -> str:
    """The subtitles that are shown together with frames, a line each, with the released introduction.

    Only these count as subtitles of the frames that a model is shown; the rest of a film would tell it more than it
    sees. Empty where nothing is said.

    Args:
        utterances: In order of time.
        seconds: When the frames are on screen.
    """
    said = [each.text for each in utterances if any(each.span.start <= time <= each.span.end for time in seconds)]
    lines = [line for number, line in enumerate(said) if number == 0 or line != said[number - 1]]
    return INTRODUCTION + "\n".join(lines) + "\n" if lines else ""
