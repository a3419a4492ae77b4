"""Rows of tokens as what they say: options, lines of transcripts, times, and what refers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from videochat_tools.context import FRAMES_LABEL
from videochat_tools.training.world.choices import LETTERS
from videochat_tools.training.world.narration import SPEAKERS
from videochat_tools.training.world.scene import FRAMES

__all__ = ["Line", "Reading", "Signs", "begin_seconds", "read_lines", "read_times"]


@dataclass(slots=True)
class Line:
    """An option or a line of a transcript, as numbers of tokens.

    Attributes:
        mark: Letter or speaker.
        words: Places of its words, without quotation marks.
        time: The seconds of its beginning, None for an option.
    """

    mark: int
    words: list[int] = field(default_factory=list)
    time: int | None = None


@dataclass(slots=True)
class Reading:
    """A row of tokens as lines and what refers to them.

    Attributes:
        lines: Options and lines of transcripts, in order.
        quotations: Places of the words of everything else in quotation marks.
        times: Places of the seconds of times outside of lines.
        frames: Places of the times of each clip's parts, one after another, and of its end: the first and the last
            number of each.
    """

    lines: list[Line] = field(default_factory=list)
    quotations: list[list[int]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    frames: list[list[tuple[int, int]]] = field(default_factory=list)


class Signs:
    """The tokens that lines are told by.

    Args:
        tokenizer: Of the language model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        vocabulary = self.vocabulary = tokenizer.get_vocab()
        self.letters = {vocabulary[letter] for letter in LETTERS}
        self.speakers = {vocabulary[f"▁{name}"] for name in SPEAKERS}
        self.stop = vocabulary["###"]
        self.ends = {vocabulary["<0x0A>"], self.stop}
        signs = (vocabulary[sign] for sign in '():"–[]{')
        self.open, self.close, self.colon, self.quote, self.dash, self.bracket, self.closing, self.brace = signs
        self.within = {self.colon, vocabulary["."]}  # between the numbers of a time
        self.digits = {number for word, number in vocabulary.items() if word.isdecimal()} | {vocabulary["-"]}
        self.asks = vocabulary["?"]
        self.seconds = {vocabulary[f"{number:02d}"] for number in range(60)}
        self.space = vocabulary["▁"]
        self.silent = {self.close, self.space}
        self.numbers = [vocabulary[str(number)] for number in range(FRAMES + 1)]
        self.frames = tuple(vocabulary[f"▁{word}"] for word in FRAMES_LABEL.split())
        self.since, self.until = vocabulary["▁from"], vocabulary["▁to"]


def read_lines(ids: Sequence[int], signs: Signs) -> Reading:
    """Find the lines of a row, and what refers to lines."""
    found = Reading()
    current: Line | None = None
    quoted = False
    for place, token in enumerate(ids):
        following = ids[place + 1] if place + 1 < len(ids) else None
        if token == signs.quote:
            quoted = not quoted
            if quoted and current is None:
                found.quotations.append([])
        elif token in signs.ends:
            current, quoted = None, False
        elif not quoted and tuple(ids[place - 1 : place + 1]) == signs.frames:
            found.frames.append(read_times(ids, place + 1, signs))
        elif not quoted and token in signs.letters and (ids[place - 1], following) == (signs.open, signs.close):
            current = Line(token)
            found.lines.append(current)
        elif not quoted and token in signs.speakers and following == signs.colon:
            current = Line(token, time=begin_seconds(ids[max(place - 10, 0) : place], signs))
            found.lines.append(current)
        elif current is not None and (quoted or current.mark in signs.letters) and token not in signs.silent:
            current.words.append(place)
        elif current is None and quoted:
            found.quotations[-1].append(place)
        elif token in signs.seconds and (ids[place - 1], following) == (signs.colon, signs.asks):  # "at 37:25?"
            found.times.append(place)
    found.lines = [line for line in found.lines if line.words]
    return found


def begin_seconds(ids: Sequence[int], signs: Signs) -> int | None:
    """The seconds before the dash of ``[37:25–37:29]``."""
    return next((one for one, sign in pairwise(ids) if sign == signs.dash), None)


def read_times(ids: Sequence[int], place: int, signs: Signs) -> list[tuple[int, int]]:
    """Places of the first and the last number of each time from a place on: ``▁12:34.0▁12:34.7``."""
    found = []
    while ids[place : place + 1] == [signs.space]:
        first = place + 1
        place = first + 1
        while place < len(ids) and ids[place] in signs.within:
            place += 2
        found.append((first, place - 1))
    return found
