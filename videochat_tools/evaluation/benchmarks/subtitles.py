"""What is said while a frame is on screen, told before the video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from videochat_tools.types import Utterance

__all__ = ["INTRODUCTION", "subtitles_at"]

INTRODUCTION = "This video's subtitles are listed below: "  # words of the released Video-MME notebooks


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
