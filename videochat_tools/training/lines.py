"""What the language model is asked while it trains: what the words of a prompt have to do with each other.

The letter of an option and the name of a speaker stand before the words that a question goes by. Finding them takes
several steps, none of which pays without the others: every word has to learn the mark of its line, what is quoted in
a question has to find its line and take over what is known there, and an answer has to know which option is wanted
before it can look for it. So it is with a line that is to be quoted and cited, and with the times of a clip's frames:
which of them it is, and which of them begins and ends what is asked about. And so it is with what a question takes for
granted of a clip: what it named has to be compared with what is there (:mod:`~videochat_tools.training.claims`). Left
to the answers alone, 3,000 steps had not found the way to letters and speakers. Linear heads ask for these steps; they
are left behind when training ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from videochat_tools.training.batches import ConversationBatch
from videochat_tools.training.claims import ASKED, NOT_TRUE, SEEN, SLOTS, WHOM
from videochat_tools.training.looking import Copies, Copy, look_losses, thinned
from videochat_tools.training.reading import Line, Reading, Signs, begin_seconds, read_lines, read_times

__all__ = ["LineHeads"]

# Lines of a transcript are told by who speaks, which no two share; many begin with the same word.
_OF_WORDS = ("mark", "time", "earlier")  # letter or speaker, first second, speaker of the line before
_OF_QUOTATIONS = ("told_mark", "told_earlier", "told_later", "told_time")  # the same of the line that a question quotes
_OF_TIMES = ("told_speaker",)  # of the line that begins then
_WANTED = "wanted"  # a word that only the option has whose letter is to come
# First word, time and speaker of the line that an answer quotes and cites.
_OF_ANSWERS = ("wanted_words", "wanted_time", "wanted_speaker")
# A copied token itself: what earlier layers add to a word is so large that its own identity is lost in it.
_OWN = "own"
_FRAME, _FRAME_WANTED = "frame", "wanted_frame"  # number of a frame by its time; of that whose time is to come
_ENDS_WANTED = ("wanted_begin", "wanted_end")  # the same of both, where an answer in times begins
_ASKED = 192  # places of each kind in a batch, at most; an output layer over all would take half the time
_WEIGHT = 0.15  # of each question, beside the loss of answers
# Of those that count for more: most answers deny nothing, and few are about what is done to another object.
_WEIGHTS = {NOT_TRUE: 0.45, f"{SEEN}{WHOM}colour": 0.45, f"{SEEN}{WHOM}shape": 0.45}
_LOOK_WEIGHT = 0.3  # of where answers look
_COPYING, _LED = slice(0, 2), slice(2, 4)  # heads of the last layer: of what is copied, of what is known of a line
_SEEING = slice(0, 2)  # heads of the two layers after the middle, which look at the clip, or at the line


class LineHeads(nn.Module):
    """The questions, each a matrix before the language model's own output layer.

    Words are asked in the middle of the layers, what refers to them one layer later, and before the last what an answer
    is about to look up.

    Attributes:
        teaches: Whether the language model learns from the questions too. Heads that know nothing yet would wash out
            what it can: while they start, only they learn. Where to look is always taught, no head is between.

    Args:
        width: Of the language model, h.
        tokenizer: Its tokenizer.
        layers: How many it has.
    """

    def __init__(self, width: int, tokenizer: PreTrainedTokenizerBase, layers: int) -> None:
        super().__init__()
        self.teaches = True
        self.signs = Signs(tokenizer)
        self.copies = Copies(self.signs)
        self.layers = dict.fromkeys((*_OF_WORDS, _FRAME), layers // 2)
        self.layers |= dict.fromkeys((*_OF_QUOTATIONS, *_OF_TIMES, *_ENDS_WANTED), layers // 2 + 1)
        # What is wanted is found before; the last layer looks up the rest of it.
        self.layers |= dict.fromkeys((_WANTED, _FRAME_WANTED, *_OF_ANSWERS), layers - 1)
        self.layers[_OWN] = max(layers - 2, 1)
        # Before the row of a clip is looked at, after, and after both are compared.
        self.layers |= {f"{ASKED}{slot}": layers // 2 for slot in SLOTS}
        self.layers |= {f"{SEEN}{slot}": layers // 2 + 1 for slot in SLOTS} | {NOT_TRUE: layers - 1}
        heads = {name: nn.Linear(width, width, bias=False) for name in self.layers}
        for name, head in heads.items():  # those that ask for another word than the one they look at start with no idea
            (nn.init.eye_ if name == _OWN else nn.init.zeros_)(head.weight)
        self.heads = nn.ModuleDict(heads)

    def forward(
        self,
        language_model: PreTrainedModel,
        states: Sequence[Tensor],
        attentions: Sequence[Tensor],
        batch: ConversationBatch,
    ) -> tuple[Tensor, dict[str, list[float]]]:
        """Loss, and for every question whether each of its answers is right.

        Args:
            language_model: Whose output layer is used.
            states: Its hidden states [B, L, h], after no layer, one, two, …
            attentions: The attention weights of its layers [B, heads, L, L].
            batch: The rows.
        """
        readings = [read_lines(ids, self.signs) for ids in batch.input_ids.tolist()]
        copied = self.copied(batch, readings)
        words = [one for one in copied if not one[1].led]
        asked = self.ask(batch, readings) | {_OWN: _sources(batch, words)}
        losses, right = [states[0].sum() * 0.0], {}
        for layer in dict.fromkeys(self.layers.values()):
            names = [name for name, of in self.layers.items() if of == layer and asked[name]]
            here = {name: thinned(asked[name], _ASKED) for name in names}
            for name, loss, told in self._answer(language_model, states[layer], here) if here else ():
                losses.append(_WEIGHTS.get(name, _WEIGHT) * loss)
                right[f"l_{name}"] = told
        shown, last = self.shown(batch), len(attentions) - 1
        middle = sorted({len(attentions) // 2, min(len(attentions) // 2 + 1, last - 1)})
        looks = [
            (last, "look", _COPYING, words),
            (last, "idle", _COPYING, _elsewhere(batch, words)),
            (last, "led", _LED, [one for one in copied if one[1].led]),
            (middle[-1], "line", _SEEING, self.meant(batch, readings)),
            *((layer, "see", _SEEING, shown) for layer in middle),
        ]
        for layer in sorted({last, *middle}):
            for name, loss, told in look_losses(
                attentions[layer], [(name, heads, told) for of, name, heads, told in looks if of == layer]
            ):
                losses.append(_LOOK_WEIGHT * loss)
                right[f"l_{name}_{layer}"] = told
        return torch.stack(losses).sum(), right

    def _answer(
        self, language_model: PreTrainedModel, states: Tensor, asked: Mapping[str, Sequence[tuple[int, int, int]]]
    ) -> Iterator[tuple[str, Tensor, list[float]]]:
        """Of each question to the states [B, L, h] of one layer its name, its loss and what was right."""
        rows, places, wanted = zip(*chain.from_iterable(asked.values()), strict=True)
        norm, table = language_model.model.norm, language_model.lm_head.weight
        # Taken out once for all questions, since the gradient of each time is as large as the states. As long as what
        # the output layer reads: else the states would have to grow before a head could tell.
        seen = states[list(rows), list(places)]
        seen = F.rms_norm(seen, seen.shape[-1:], norm.weight.detach(), norm.variance_epsilon)
        if not self.teaches:
            seen, table = seen.detach(), table.detach()
        sizes = [*map(len, asked.values())]
        for name, of, target in zip(asked, seen.split(sizes), torch.tensor(wanted).split(sizes), strict=True):
            logits = F.linear(self.heads[name](of), table).float()
            yield name, F.cross_entropy(logits, target), (logits.argmax(-1) == target).float().tolist()

    def copied(self, batch: ConversationBatch, readings: Sequence[Reading]) -> list[tuple[int, Copy]]:
        """Row, and what is copied in it."""
        answers: dict[int, list[tuple[int, Sequence[int]]]] = defaultdict(list)
        asked = zip(batch.answers.tolist(), batch.places.tolist(), batch.targets.tolist(), strict=True)
        for _, tokens in groupby(asked, key=lambda token: token[0]):
            _, places, answer = zip(*tokens, strict=True)
            row, before = places[0]
            answers[row].append((before, answer))
        copied = []
        for row, (ids, reading) in enumerate(zip(batch.input_ids.tolist(), readings, strict=True)):
            found = self.copies.find(ids, answers[row], [line.words for line in reading.lines])
            copied += [(row, copy) for copy in found]
        for row, first, last, frame in self._times_told(batch):
            ids, told = batch.input_ids[row].tolist(), [clip[frame][0] for clip in readings[row].frames]
            for part in range(0, last - first + 1, 2):  # hours, minutes, seconds, tenths; no colons
                if sources := tuple(one + part for one in told if ids[one + part] == ids[first + part]):
                    copied.append((row, Copy(first + part - 1, sources)))
        return copied

    def shown(self, batch: ConversationBatch) -> list[tuple[int, Copy]]:
        """Row, and the row of a clip that its answers are about; where they cite, they look for something else."""
        told, cites = [], set[int]()
        asked = zip(batch.answers.tolist(), batch.places.tolist(), batch.targets.tolist(), strict=True)
        for answer, (row, place), target in asked if batch.shown else ():
            if target == self.signs.bracket:
                cites.add(answer)
            if (source := batch.shown[answer]) is not None and answer not in cites:
                told.append((row, Copy(place, (source,))))
        return told

    def meant(self, batch: ConversationBatch, readings: Sequence[Reading]) -> list[tuple[int, Copy]]:
        """Row, and the first word of the line of a transcript that an answer is about to quote."""
        return [
            (row, Copy(place, (line.words[0],)))
            for row, (before, _, _), line in self._all_cited(batch, readings)
            for place in before
        ]

    def ask(self, batch: ConversationBatch, readings: Sequence[Reading]) -> dict[str, list[tuple[int, int, int]]]:
        """For every question row, place and the token that is right."""
        asked: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for row, first, last, frame in self._times_told(batch):
            asked[_FRAME_WANTED] += [(row, place, self.signs.numbers[frame]) for place in range(first - 1, last, 2)]
        begun = set[int]()
        for place, answer in zip(batch.places.tolist(), batch.answers.tolist(), strict=True):
            if answer in begun:
                continue
            begun.add(answer)
            seen, compared = batch.seen[answer], batch.compared[answer] if batch.compared else None
            for name, word in (compared or {}).items():
                asked[name].append((*place, self.signs.vocabulary[f"▁{word}"]))
            if seen is not None:
                _add(asked, _ENDS_WANTED, place[0], place[1:], [self.signs.numbers[frame] for frame in seen])
        targets: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for (row, place), target in zip(batch.places.tolist(), batch.targets.tolist(), strict=True):
            targets[row].append((place, target))
        for row, (ids, reading) in enumerate(zip(batch.input_ids.tolist(), readings, strict=True)):
            spoken = [line for line in reading.lines if line.time is not None]
            for number, line in enumerate(spoken):
                before = spoken[number - 1].mark if number else None
                after = spoken[number + 1].mark if number + 1 < len(spoken) else None
                words = [ids[place] for place in line.words]
                for quotation in reading.quotations:
                    if [ids[place] for place in quotation] == words:
                        _add(asked, _OF_QUOTATIONS, row, quotation, (line.mark, before, after, line.time))
                times = [place for place in reading.times if ids[place] == line.time]
                _add(asked, _OF_TIMES, row, times, (line.mark,))
                _add(asked, _OF_WORDS, row, line.words, (line.mark, line.time, before))
            for clip in reading.frames:
                for (first, last), number in zip(clip, self.signs.numbers, strict=False):
                    asked[_FRAME] += [(row, place, number) for place in range(first, last + 1, 2)]
            for line in reading.lines:
                if line.time is None:
                    _add(asked, _OF_WORDS[:1], row, line.words, (line.mark,))
            for place, target in targets[row]:
                # The answer is an option too: only those that stand before.
                told = [line for line in reading.lines if line.mark == target and line.words[0] <= place]
                if told and told[-1].time is None:
                    asked[_WANTED].append((row, place, _telling(reading.lines, told[-1], ids)))
        for row, places, line in self._all_cited(batch, readings):
            values = (int(batch.input_ids[row, line.words[0]]), line.time, line.mark)
            for name, where, value in zip(_OF_ANSWERS, places, values, strict=True):
                _add(asked, (name,), row, where, (value,))
        return asked

    def _all_cited(
        self, batch: ConversationBatch, readings: Sequence[Reading]
    ) -> Iterator[tuple[int, tuple[list[int], ...], Line]]:
        """Each row before what :meth:`_cited` finds in it."""
        places: dict[int, list[int]] = defaultdict(list)
        for row, place in batch.places.tolist():
            places[row].append(place)
        for row, (ids, reading) in enumerate(zip(batch.input_ids.tolist(), readings, strict=True)):
            spoken = [line for line in reading.lines if line.time is not None]
            for where, line in self._cited(ids, spoken, places[row]):
                yield row, where, line

    def _cited(
        self, ids: Sequence[int], spoken: Sequence[Line], places: Sequence[int]
    ) -> Iterator[tuple[tuple[list[int], ...], Line]]:
        """The answers that cite a line, told by its seconds, each with the places of its questions (``_OF_ANSWERS``).

        Places before the words, places before the time, and all up to there, from the one before the answer on.

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
            if ids[place] == self.signs.bracket and (
                line := by_time.get(begin_seconds(ids[place : place + 8], self.signs))
            ):
                before = [*places[start : start + 3]] if ids[places[start] + 2] == self.signs.quote else []
                yield (before, [place - 1, place], [*places[start : number + 1]]), line

    def _times_told(self, batch: ConversationBatch) -> Iterator[tuple[int, int, int, int]]:
        """Of the times in answers like ``from 12:35.4 to 12:37.0``: row, first and last place, number of the frame."""
        asked = zip(batch.places.tolist(), batch.targets.tolist(), batch.answers.tolist(), strict=True)
        for (row, place), target, answer in asked:
            seen = batch.seen[answer]
            if seen is not None and target in (self.signs.since, self.signs.until):
                for first, last in read_times(batch.input_ids[row].tolist(), place + 2, self.signs)[:1]:
                    yield row, first, last, seen[target == self.signs.until]


def _sources(batch: ConversationBatch, copied: Sequence[tuple[int, Copy]]) -> list[tuple[int, int, int]]:
    """Row, place and token of what is copied word by word."""
    places = dict.fromkeys((row, place) for row, copy in copied for place in copy.sources)
    return [(row, place, int(batch.input_ids[row, place])) for row, place in places]


def _elsewhere(batch: ConversationBatch, copied: Sequence[tuple[int, Copy]]) -> list[tuple[int, Copy]]:
    """Where an answer copies nothing: there the heads that copy look at the beginning of the row.

    Else what they write for what they happen to see would be wrong, and they would not learn to write at all.
    """
    busy = {(row, copy.place) for row, copy in copied}
    return [(row, Copy(place, (0,))) for row, place in batch.places.tolist() if (row, place) not in busy]


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
