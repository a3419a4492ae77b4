"""Where an answer has to look: the places of what it copies from the prompt, and the row of a clip that it is about.

Quotations, names, times, letters of options and arguments of tools are taken over word by word. What is to be taken is
known before the last layer (:mod:`videochat_tools.training.lines` asks for it), but finding the place where it stands
was left to the answers alone, and thousands of steps did not settle it. Some heads of the last layer are therefore told
the place: their attention is trained like any other answer ("guided attention", Tachibana et al. 2017, arXiv
1710.08969, there for speech), and where an answer copies nothing, they look at the beginning of the row. What they do
with what they find is theirs to learn, and nothing of this is left when training ends.

A letter, a name and a time stand before the words that they belong to, and cannot know them. The words know: so it is
as good to look at these. What is read there is not the word itself, so other heads do it.

So it is with clips: each object and each event has a row of its own (:mod:`~videochat_tools.training.slots`), and heads
in the middle are told which of them a question is about. Without this the answers read all rows at once: after six runs
the heads of the upper four layers still spread their weight over 12 to 58 places (docs/experiments.md). The same heads
are told the first word of the line of a transcript that is about to be quoted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from videochat_tools.training.reading import Signs

__all__ = ["Copies", "Copy", "look_losses", "thinned"]

_T = TypeVar("_T")
_LEAST = 1e-12  # of an attention weight that a logarithm is taken of
_ASKED = 384  # places in a batch, at most
_REACH = 20  # from the beginning of a line of a transcript to its first word: time, name and signs


class Copy(NamedTuple):
    """The token after ``place`` is copied from one of ``sources``; with ``led``, it is what is known there."""

    place: int
    sources: tuple[int, ...]
    led: bool = False


class _Part(NamedTuple):
    """A part of an answer that is taken over whole.

    Attributes:
        first: Number of its first token.
        last: Of the first token after it.
        around: The tokens before and after the original, where these are known.
        led: How many of its tokens stand before the words of their line.
    """

    first: int
    last: int
    around: tuple[int, int] | None = None
    led: int = 0


class Copies:
    """Finds what the answers of a row copy.

    Args:
        signs: What lines are told by.
    """

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._between = {signs.colon, signs.dash}  # of the parts of a time: known without looking

    def find(
        self, ids: Sequence[int], answers: Iterable[tuple[int, Sequence[int]]], lines: Sequence[Sequence[int]]
    ) -> Iterator[Copy]:
        """What is copied, and from where.

        Args:
            ids: The row.
            answers: The place before each answer's first token, and its tokens.
            lines: Places of the words of options and lines of transcripts, in order.
        """
        text = "".join(map(chr, ids))  # so that a run of tokens is found as fast as a word
        begins = [words[0] for words in lines]
        for before, answer in answers:
            for part in self._parts(answer):
                run = text[before + 1 + part.first : before + 1 + part.last]
                found = [
                    place
                    for place in _occurrences(text, run, before + 1)
                    if part.around is None or (ids[place - 1], ids[place + len(run)]) == part.around
                ]
                words = [*dict.fromkeys(word for place in found for word in _next(lines, begins, place))]
                for offset in range(part.last - part.first) if found else ():
                    led = offset < part.led
                    if led and answer[part.first + offset] in self._between:
                        continue
                    sources = [place + offset for place in found] + (words if led else [])
                    yield Copy(before + part.first + offset, tuple(sources), led)

    def _parts(self, answer: Sequence[int]) -> Iterator[_Part]:
        signs = self._signs
        call = signs.brace in answer[:3]
        if answer and answer[0] in signs.speakers:
            yield _Part(0, 1, led=1)
        place = 0
        while place < len(answer):
            token, last = answer[place], place
            if token == signs.quote:
                last = _next_of(answer, place + 1, {signs.quote})
                around = None if call else (signs.quote, signs.quote)  # arguments stand without marks
                yield _Part(place + 1, last, around)
            elif token == signs.bracket:
                last = _next_of(answer, place + 1, {signs.closing})
                yield _Part(place + 1, last, (signs.bracket, signs.closing), led=last - place - 1)
            elif token == signs.open and answer[place + 1] in signs.letters:
                last = _next_of(answer, place, {signs.bracket, signs.stop})
                last -= answer[last - 1] == signs.space
                yield _Part(place + 1, last, led=1)
            elif call and token in signs.digits:
                last = next(number for number in range(place, len(answer)) if answer[number] not in signs.digits)
                yield _Part(place, last)
            place = max(last + (token == signs.quote), place + 1)


def _next_of(tokens: Sequence[int], place: int, wanted: set[int]) -> int:
    """The next place of one of the tokens; the end where there is none."""
    return next((number for number in range(place, len(tokens)) if tokens[number] in wanted), len(tokens))


def _next(lines: Sequence[Sequence[int]], begins: Sequence[int], place: int) -> Sequence[int]:
    """The words of the line that a letter, a name or a time stands before."""
    number = bisect_right(begins, place)
    return lines[number] if number < len(lines) and begins[number] - place <= _REACH else ()


def _occurrences(text: str, run: str, end: int) -> Iterator[int]:
    place = text.find(run, 0, end) if run else -1
    while place >= 0:
        yield place
        place = text.find(run, place + 1, end)


def thinned(told: Sequence[_T], most: int) -> Sequence[_T]:
    """Every second, third, … of them, so that there are at most so many."""
    return told[:: -(-len(told) // most)]


def look_losses(
    attention: Tensor, looks: Sequence[tuple[str, slice, Sequence[tuple[int, Copy]]]]
) -> Iterator[tuple[str, Tensor, list[float]]]:
    """Cross-entropy of the places that some heads look at, and whether they look there for the most part.

    Args:
        attention: Weights of a layer [B, heads, L, L].
        looks: A name, the heads that are told, and row and copy of what they have to look at.

    Yields:
        Name, loss, and for every copy whether it is looked at.
    """
    told = [(name, heads, thinned(copies, _ASKED)) for name, heads, copies in looks if copies]
    if not told:
        return
    # Taken out once for all, since the gradient of each time is as large as the weights.
    places = [(row, copy.place) for _, _, copies in told for row, copy in copies]
    rows = attention[[row for row, _ in places], :, [place for _, place in places]]  # [n, heads, L]
    for (name, heads, copies), seen in zip(told, rows.split([len(copies) for *_, copies in told]), strict=True):
        right = torch.zeros(len(copies), seen.shape[-1])
        for number, (_, copy) in enumerate(copies):
            right[number, list(copy.sources)] = 1.0
        there = (seen[:, heads].float() * right[:, None]).sum(dim=-1)
        yield name, -there.clamp_min(_LEAST).log().mean(), (there.mean(dim=-1) > 0.5).float().tolist()
