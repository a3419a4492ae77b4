"""What the language model is asked while it trains: what the words of a prompt have to do with each other.

The letter of an option and the name of a speaker stand before the words that a question goes by. Finding them takes
several steps, none of which pays without the others: every word has to learn the mark of its line, what is quoted in
a question has to find its line and take over what is known there, and an answer has to know which option is wanted
before it can look for it. So it is with a line that is to be quoted and cited, and with the times of a clip's frames:
which of them it is, and which of them begins and ends what is asked about. Left to the answers alone, 3,000 steps had
not found the way to letters and speakers. Linear heads ask for these steps; they are left behind when training ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from videochat_tools.context import FRAMES_LABEL
from videochat_tools.training.batches import ConversationBatch
from videochat_tools.training.world.choices import LETTERS
from videochat_tools.training.world.narration import SPEAKERS
from videochat_tools.training.world.scene import FRAMES

__all__ = ["Line", "LineHeads", "Reading", "read_lines"]

_OF_WORDS = ("mark", "time", "before")  # letter or speaker, first second, first word of the line before
_OF_QUOTATIONS = ("told_mark", "told_before", "told_after", "told_time")  # the same of the line that a question quotes
_OF_TIMES = ("told_at",)  # first word of the line that begins then
_WANTED = "wanted"  # a word that only the option has whose letter is to come
_OF_ANSWERS = ("wanted_words", "wanted_time")  # first word and time of the line that an answer is about to quote, cite
_FRAME, _FRAME_WANTED = "frame", "wanted_frame"  # number of a frame by its time; of that whose time is to come
_ENDS_WANTED = ("wanted_begin", "wanted_end")  # the same of both, where an answer in times begins
_ASKED = 192  # places of each kind in a batch, at most; an output layer over all would take half the time
_WEIGHT = 0.15  # of each question, beside the loss of answers


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
        frames: Places of the times of each clip's frames, one after another: the first and the last part of each.
    """

    lines: list[Line] = field(default_factory=list)
    quotations: list[list[int]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    frames: list[list[tuple[int, int]]] = field(default_factory=list)


class _Signs:
    """The tokens that lines are told by."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        vocabulary = tokenizer.get_vocab()
        self.letters = {vocabulary[letter] for letter in LETTERS}
        self.speakers = {vocabulary[f"▁{name}"] for name in SPEAKERS}
        self.ends = {vocabulary[sign] for sign in ("<0x0A>", "###")}
        signs = (vocabulary[sign] for sign in '():"–[')
        self.open, self.close, self.colon, self.quote, self.dash, self.bracket = signs
        self.asks = vocabulary["?"]
        self.seconds = {vocabulary[f"{number:02d}"] for number in range(60)}
        self.space = vocabulary["▁"]
        self.silent = {self.close, self.space}
        self.numbers = [vocabulary[str(number)] for number in range(FRAMES + 1)]
        self.frames = tuple(vocabulary[f"▁{word}"] for word in FRAMES_LABEL.split())
        self.since, self.until = vocabulary["▁from"], vocabulary["▁to"]


def read_lines(ids: Sequence[int], signs: _Signs) -> Reading:
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
            found.frames.append(_times(ids, place + 1, signs))
        elif not quoted and token in signs.letters and (ids[place - 1], following) == (signs.open, signs.close):
            current = Line(token)
            found.lines.append(current)
        elif not quoted and token in signs.speakers and following == signs.colon:
            current = Line(token, time=_begin(ids[max(place - 10, 0) : place], signs))
            found.lines.append(current)
        elif current is not None and (quoted or current.mark in signs.letters) and token not in signs.silent:
            current.words.append(place)
        elif current is None and quoted:
            found.quotations[-1].append(place)
        elif token in signs.seconds and (ids[place - 1], following) == (signs.colon, signs.asks):  # "at 37:25?"
            found.times.append(place)
    found.lines = [line for line in found.lines if line.words]
    return found


def _begin(ids: Sequence[int], signs: _Signs) -> int | None:
    """The seconds before the dash of ``[37:25–37:29]``."""
    return next((one for one, sign in pairwise(ids) if sign == signs.dash), None)


def _times(ids: Sequence[int], place: int, signs: _Signs) -> list[tuple[int, int]]:
    """First and last place of each time from a place on: ``▁12:34▁12:35``."""
    found = []
    while ids[place : place + 1] == [signs.space]:
        first = place + 1
        place = first + 1
        while ids[place : place + 1] == [signs.colon]:
            place += 2
        found.append((first, place - 1))
    return found


class LineHeads(nn.Module):
    """The questions, each a matrix before the language model's own output layer.

    Words are asked in the middle of the layers, what refers to them one layer later, and before the last what an answer
    is about to look up.

    Attributes:
        teaches: Whether the language model learns from the questions too. Heads that know nothing yet would wash out
            what it can: while they start, only they learn.

    Args:
        width: Of the language model, h.
        tokenizer: Its tokenizer.
        layers: How many it has.
    """

    def __init__(self, width: int, tokenizer: PreTrainedTokenizerBase, layers: int) -> None:
        super().__init__()
        self.teaches = True
        self.signs = _Signs(tokenizer)
        self.layers = dict.fromkeys((*_OF_WORDS, _FRAME), layers // 2)
        self.layers |= dict.fromkeys((*_OF_QUOTATIONS, *_OF_TIMES, _WANTED, *_ENDS_WANTED), layers // 2 + 1)
        # What is wanted is found before; the last layer looks up the rest of it.
        self.layers |= dict.fromkeys((_FRAME_WANTED, *_OF_ANSWERS), layers - 1)
        heads = {name: nn.Linear(width, width, bias=False) for name in self.layers}
        for head in heads.values():
            nn.init.eye_(head.weight)
        self.heads = nn.ModuleDict(heads)

    def forward(
        self, language_model: PreTrainedModel, states: Sequence[Tensor], batch: ConversationBatch
    ) -> tuple[Tensor, dict[str, list[float]]]:
        """Loss, and for every question whether each of its answers is right.

        Args:
            language_model: Whose output layer is used.
            states: Its hidden states [B, L, h], after no layer, one, two, …
            batch: The rows.
        """
        losses, right = [states[0].sum() * 0.0], {}
        for name, asked in self._ask(batch).items():
            if not asked:
                continue
            rows, places, wanted = zip(*asked[:: -(-len(asked) // _ASKED)], strict=True)
            seen = states[self.layers[name]][list(rows), list(places)]
            table = language_model.lm_head.weight
            if not self.teaches:
                seen, table = seen.detach(), table.detach()
            logits = F.linear(self.heads[name](seen), table).float()
            target = torch.tensor(wanted)
            losses.append(_WEIGHT * F.cross_entropy(logits, target))
            right[f"l_{name}"] = (logits.argmax(-1) == target).float().tolist()
        return torch.stack(losses).sum(), right

    def _ask(self, batch: ConversationBatch) -> dict[str, list[tuple[int, int, int]]]:
        """For every question row, place and the token that is right."""
        asked: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        asked[_FRAME_WANTED] = self._frames_wanted(batch)
        begun = set[int]()
        for place, answer in zip(batch.places.tolist(), batch.answers.tolist(), strict=True):
            seen = batch.seen[answer]
            if seen is not None and answer not in begun:
                begun.add(answer)
                _add(asked, _ENDS_WANTED, place[0], place[1:], [self.signs.numbers[frame] for frame in seen])
        targets: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for (row, place), target in zip(batch.places.tolist(), batch.targets.tolist(), strict=True):
            targets[row].append((place, target))
        for row, ids in enumerate(batch.input_ids.tolist()):
            reading = read_lines(ids, self.signs)
            spoken = [line for line in reading.lines if line.time is not None]
            for number, line in enumerate(spoken):
                before = ids[spoken[number - 1].words[0]] if number else None
                after = ids[spoken[number + 1].words[0]] if number + 1 < len(spoken) else None
                words = [ids[place] for place in line.words]
                for quotation in reading.quotations:
                    if [ids[place] for place in quotation] == words:
                        _add(asked, _OF_QUOTATIONS, row, quotation, (line.mark, before, after, line.time))
                times = [place for place in reading.times if ids[place] == line.time]
                _add(asked, _OF_TIMES, row, times, words[:1])
                _add(asked, _OF_WORDS, row, line.words, (line.mark, line.time, before))
            for clip in reading.frames:
                for ends, number in zip(clip, self.signs.numbers, strict=False):
                    asked[_FRAME] += [(row, place, number) for place in {*ends}]
            for line in reading.lines:
                if line.time is None:
                    _add(asked, _OF_WORDS[:1], row, line.words, (line.mark,))
            for place, target in targets[row]:
                # The answer is an option too: only those that stand before.
                told = [line for line in reading.lines if line.mark == target and line.words[0] <= place]
                if told and told[-1].time is None:
                    asked[_WANTED].append((row, place, _telling(reading.lines, told[-1], ids)))
            for words_at, time_at, line in self._cited(ids, spoken, [place for place, _ in targets[row]]):
                asked[_OF_ANSWERS[0]] += [(row, place, ids[line.words[0]]) for place in words_at]
                asked[_OF_ANSWERS[1]] += [(row, place, line.time) for place in time_at if line.time is not None]
        return asked

    def _cited(
        self, ids: Sequence[int], spoken: Sequence[Line], places: Sequence[int]
    ) -> Iterator[tuple[list[int], list[int], Line]]:
        """The answers that cite a line, told by its seconds: places before its words, places before its time.

        Args:
            ids: Of the row.
            spoken: Lines of its transcript.
            places: Before the tokens that answers consist of.
        """
        by_time = {line.time: line for line in spoken}
        start = 0
        for number, place in enumerate(places):
            if number and place != places[number - 1] + 1:
                start = number
            if ids[place] == self.signs.bracket and (line := by_time.get(_begin(ids[place : place + 8], self.signs))):
                before = [*places[start : start + 3]] if ids[places[start] + 2] == self.signs.quote else []
                yield before, [place - 1, place], line

    def _frames_wanted(self, batch: ConversationBatch) -> list[tuple[int, int, int]]:
        """Which frame is wanted where an answer goes on with its time: ``from 12:35 to 12:37``."""
        wanted = []
        for (row, place), target, answer in zip(
            batch.places.tolist(), batch.targets.tolist(), batch.answers.tolist(), strict=True
        ):
            seen = batch.seen[answer]
            if seen is not None and target in (self.signs.since, self.signs.until):
                frame = self.signs.numbers[seen[target == self.signs.until]]
                for first, last in _times(batch.input_ids[row].tolist(), place + 2, self.signs)[:1]:
                    wanted += [(row, here, frame) for here in {first - 1, last - 1}]
        return wanted


def _telling(lines: Sequence[Line], option: Line, ids: Sequence[int]) -> int:
    """The first word of an option that no other of its list has, else its first; lists begin anew at A."""
    number = next(place for place, line in enumerate(lines) if line is option)
    first = max(place for place in range(number + 1) if place == 0 or lines[place].mark <= lines[place - 1].mark)
    others = set[int]()
    for place in range(first, len(lines)):
        if place > first and lines[place].mark <= lines[place - 1].mark:
            break
        if place != number:
            others |= {ids[word] for word in lines[place].words}
    words = [ids[word] for word in option.words]
    return next((word for word in words if word not in others), words[0])


def _add(
    asked: dict[str, list[tuple[int, int, int]]],
    names: Sequence[str],
    row: int,
    places: Sequence[int],
    values: Sequence[int | None],
) -> None:
    for name, value in zip(names, values, strict=True):
        if value is not None and places:
            asked[name] += [(row, place, value) for place in places]
