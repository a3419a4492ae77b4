"""What other files of the same scenes do to a model: ``python -m videochat_tools.evaluation.robustness``.

Held-out scenes are written as real H.264 files, many in one, read back as a library reads them, searched by their
captions and asked about. From one base condition one factor at a time is changed: quality, size, rate, colours. The
scenes, captions and questions are the same under all of them, so that the differences are those of pairs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import VideoEncoder, load_encoder, text_similarity
from videochat_tools.evaluation.answers import normalise
from videochat_tools.evaluation.encoded import (
    BASE,
    COLOUR_SHIFTS,
    CONDITIONS,
    PRESET,
    Condition,
    in_whole_frames,
    places_of,
    read_clips,
    write_files,
)
from videochat_tools.evaluation.generation import Asked, about_clip, draw_questions, reply_to_all
from videochat_tools.evaluation.held_out import held_out_scenes, unique_captions
from videochat_tools.evaluation.statistics import Mean, Score, cluster_mean, cluster_rate
from videochat_tools.library.clips import ClipShape
from videochat_tools.training.world.scene import Scene

if TYPE_CHECKING:
    from videochat_tools.chat_model import ChatVideoChat

__all__ = ["KINDS", "POOL", "Outcome", "Verdict", "clips_for", "compare", "evaluate_robustness", "main"]

logger = logging.getLogger(__name__)

POOL = 100  # clips that one caption is searched among
KINDS = ("colour", "shape", "direction", "motion", "count", "which")
ALL_KINDS = "answers, all kinds"
MARGIN = 0.03  # a measure is stable where it differs from the base by no more
_SHARES = {720: 0.25, 1080: 0.1}  # of the clips; these pictures take ten and twenty times as long to draw and read
_TOGETHER = 50  # scenes in one file


@dataclass
class Outcome:
    """What came out under one condition.

    Attributes:
        condition: How the files were made.
        clips: How many scenes they showed.
        right: For every measure, whether each item was right: an item is named by its clip and its text.
        seconds: Of the processor (of all its cores together), by what they were spent on.
        megabytes: Of the files.
    """

    condition: Condition
    clips: int
    right: dict[str, dict[tuple[int, str], bool]] = field(default_factory=lambda: defaultdict(dict))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    megabytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measure under one condition; ``difference`` from the base is that of the items that both were asked."""

    measure: str
    score: Score
    difference: Mean

    @property
    def stable(self) -> str:
        """Whether the measure stays within :data:`MARGIN` of the base.

        "yes" and "no" where the whole interval says so, "likely" and "unlikely" where the value alone does.
        """
        change = self.difference
        if -MARGIN <= change.value <= MARGIN:
            return "yes" if change.low >= -MARGIN and change.high <= MARGIN else "likely"
        return "no" if change.low > MARGIN or change.high < -MARGIN else "unlikely"


def clips_for(condition: Condition, clips: int) -> int:
    """How many of the clips a condition shows: fewer where the pictures are large, and whole pools where possible."""
    wanted = max(min(clips, POOL), round(clips * _SHARES.get(condition.height, 1.0)))
    return wanted // POOL * POOL if wanted >= POOL else wanted


def evaluate_robustness(
    encoder: VideoEncoder,
    chat: ChatVideoChat | None,
    folder: Path,
    *,
    clips: int = 500,
    questions: int = 200,
    kinds: Sequence[str] = KINDS,
    conditions: Sequence[Condition] = CONDITIONS,
) -> Iterator[Outcome]:
    """Write, read, search and ask under every condition; yields what came out of each, the base first.

    Args:
        encoder: Searches clips by captions.
        chat: Answers questions; ``None`` leaves that out.
        folder: Where the files are while they are needed.
        clips: Held-out scenes.
        questions: Of each kind.
        kinds: Of question, with answers that are right or wrong in all words.
        conditions: To be compared with :data:`~videochat_tools.evaluation.encoded.BASE`.
    """
    if clips < 2:
        raise ValueError(f"something is searched among at least 2 clips, got {clips}")
    scenes = in_whole_frames(held_out_scenes(clips, new_pairs=False))
    captions = _Captions.draw(encoder, scenes)
    asked: dict[int, list[Asked]] = {}
    if chat is not None:
        for count in sorted({clips_for(each, clips) for each in (BASE, *conditions)}):
            asked[count] = draw_questions(scenes[:count], questions, kinds=kinds)
    ordered = [BASE, *(each for each in conditions if each != BASE)]
    # Files of one size and rate share their pictures; the sort is stable, so the base stays first.
    for _, group in groupby(sorted(ordered, key=_pictures), key=_pictures):
        together = list(group)
        count = clips_for(together[0], clips)
        for outcome, vectors, tokens in _look(encoder, chat, folder, scenes[:count], together):
            began = time.process_time()
            captions.search(vectors, outcome)
            outcome.seconds["searched"] += time.process_time() - began
            if chat is not None:
                # The base answers the questions of all others, too.
                wanted = asked.values() if outcome.condition == BASE else [asked[count]]
                began = time.process_time()
                _answer(chat, scenes, [each for part in wanted for each in part], tokens, outcome)
                outcome.seconds["answered"] += time.process_time() - began
            spent = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in outcome.seconds.items())
            logger.info("%s: %d clips, %s", outcome.condition.name, count, spent)
            yield outcome


def _pictures(condition: Condition) -> tuple[bool, int, int]:
    other = (condition.height, condition.fps) != (BASE.height, BASE.fps)
    return other, condition.height, condition.fps


Tokens = dict[int, npt.NDArray[np.float16]]


def _look(
    encoder: VideoEncoder,
    chat: ChatVideoChat | None,
    folder: Path,
    scenes: Sequence[Scene],
    conditions: Sequence[Condition],
) -> list[tuple[Outcome, npt.NDArray[np.float32], Tokens]]:
    """Vectors and clip tokens of all scenes under conditions that share their pictures."""
    outcomes = [Outcome(condition, len(scenes)) for condition in conditions]
    vectors: list[dict[int, npt.NDArray[np.float32]]] = [{} for _ in conditions]
    tokens: list[Tokens] = [{} for _ in conditions]
    shapes = [ClipShape.of(model) for model in (encoder, None if chat is None else chat.engine) if model is not None]
    for first in range(0, len(scenes), _TOGETHER):
        part = scenes[first : first + _TOGETHER]
        began = time.process_time()
        paths = write_files(folder, part, conditions)
        written = (time.process_time() - began) / len(conditions)
        for number, (outcome, path) in enumerate(zip(outcomes, paths, strict=True)):
            outcome.seconds["drawn and encoded"] += written
            outcome.megabytes += path.stat().st_size / 1e6
            began = time.process_time()
            for batch in read_clips(path, places_of(part), shapes):
                outcome.seconds["read"] += time.process_time() - began
                began = time.process_time()
                rows = [first + row for row in batch.rows]
                vectors[number].update(zip(rows, encoder.embed_clips(batch.clips[shapes[0]]).vectors, strict=True))
                if chat is not None:
                    tokens[number].update(zip(rows, chat.engine.watch(batch.clips[shapes[1]]), strict=True))
                outcome.seconds["watched"] += time.process_time() - began
                began = time.process_time()
            path.unlink()
    stacked = [np.stack([found[clip] for clip in range(len(scenes))]) for found in vectors]
    return list(zip(outcomes, stacked, tokens, strict=True))


@dataclass(frozen=True)
class _Captions:
    """A caption for every clip that is true of no other clip of its pool, embedded once for all conditions."""

    clips: npt.NDArray[np.int64]
    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]

    @classmethod
    def draw(cls, encoder: VideoEncoder, scenes: Sequence[Scene]) -> _Captions:
        rng = Random(0)
        drawn = [
            text for first in range(0, len(scenes), POOL) for text in unique_captions(rng, scenes[first : first + POOL])
        ]
        clips = [clip for clip, text in enumerate(drawn) if text is not None]
        texts = tuple(text for text in drawn if text is not None)
        return cls(np.array(clips), texts, encoder.embed_texts(texts))

    def search(self, vectors: npt.NDArray[np.float32], outcome: Outcome) -> None:
        """Whether each caption finds its clip first in its pool; a last pool that is not full is left out."""
        pool = min(POOL, len(vectors))
        found = outcome.right[f"recall@1, pool {pool}"]
        for first in range(0, len(vectors) - pool + 1, pool):
            places = np.flatnonzero((self.clips >= first) & (self.clips < first + pool))
            best = text_similarity(self.vectors[places], vectors[first : first + pool]).argmax(axis=1) + first
            for place, clip in zip(places, best, strict=True):
                found[int(self.clips[place]), self.texts[place]] = bool(clip == self.clips[place])


def _answer(
    chat: ChatVideoChat, scenes: Sequence[Scene], asked: Iterable[Asked], tokens: Tokens, outcome: Outcome
) -> None:
    once = list({(each.clip, each.question.question): each for each in asked}.items())
    replies = reply_to_all(
        chat,
        [
            (about_clip(chat, each.clip, scenes[each.clip], each.question.question), [tokens[each.clip]])
            for _, each in once
        ],
    )
    for (item, each), reply in zip(once, replies, strict=True):
        right = normalise(reply) == normalise(each.question.answer)
        outcome.right[ALL_KINDS][item] = right
        outcome.right[each.question.kind][item] = right


def compare(outcome: Outcome, base: Outcome) -> list[Verdict]:
    """Every measure of an outcome with its 95 % interval, and its difference from the base with the one of pairs.

    Intervals allow for several questions about one clip (:func:`~videochat_tools.evaluation.statistics.cluster_rate`).
    """
    verdicts = []
    for measure, right in outcome.right.items():
        changes = {item: float(value) - float(base.right[measure][item]) for item, value in right.items()}
        score = cluster_rate(measure, _by_clip(right))
        verdicts.append(Verdict(measure, score, _difference(measure, _by_clip(changes))))
    return verdicts


def _difference(name: str, changes: dict[str, list[float]]) -> Mean:
    """Mean of paired differences, with an interval that does not vanish where all pairs agree.

    Two pairs are added for it, one for better and one for worse (Bonett and Price 2012, J. Educational and Behavioral
    Statistics 37).
    """
    plain = cluster_mean(name, changes)
    bounds = cluster_mean(name, {**changes, "better": [1.0], "worse": [-1.0]})
    return replace(plain, low=bounds.low, high=bounds.high)


def _by_clip(items: Mapping[tuple[int, str], Any]) -> dict[str, list[Any]]:
    clips: dict[str, list[Any]] = defaultdict(list)
    for (clip, _), value in items.items():
        clips[str(clip)].append(value)
    return clips


def _table(compared: Sequence[tuple[Outcome, list[Verdict]]], measure: str) -> str:
    lines = [
        "| condition | n | right | 95 % interval | difference | 95 % interval | within 3 points |",
        "|---|---|---|---|---|---|---|",
    ]
    for outcome, verdicts in compared:
        for each in verdicts:
            if each.measure == measure:
                score, change = each.score, each.difference
                lines.append(
                    f"| {outcome.condition.name} | {score.total} | {score.value:.3f} | "
                    f"{score.low:.3f}–{score.high:.3f} | {change.value:+.3f} | "
                    f"{change.low:+.3f} – {change.high:+.3f} | {each.stable} |"
                )
    return "\n".join(lines)


def _report(compared: Sequence[tuple[Outcome, list[Verdict]]]) -> str:
    measures = list(dict.fromkeys(each.measure for _, verdicts in compared for each in verdicts))
    return "\n\n".join(f"## {measure}\n\n{_table(compared, measure)}" for measure in measures)


def _json(compared: Sequence[tuple[Outcome, list[Verdict]]], **facts: Any) -> str:
    entries = [
        {
            **asdict(outcome.condition),
            "width": outcome.condition.width,
            "clips": outcome.clips,
            "megabytes": round(outcome.megabytes, 2),
            "seconds": {what: round(seconds, 1) for what, seconds in outcome.seconds.items()},
            "measures": {
                each.measure: {
                    "n": each.score.total,
                    "value": each.score.value,
                    "interval": [each.score.low, each.score.high],
                    "difference": each.difference.value,
                    "difference_interval": [each.difference.low, each.difference.high],
                    "stable": each.stable,
                }
                for each in verdicts
            },
        }
        for outcome, verdicts in compared
    ]
    shifts = {name: asdict(shift) for name, shift in COLOUR_SHIFTS.items()}
    return json.dumps({**facts, "preset": PRESET, "colours": shifts, "conditions": entries}, indent=1, allow_nan=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure under every condition, print Markdown tables, and write JSON (after every condition) if asked to."""
    names = [each.name for each in CONDITIONS]
    parser = argparse.ArgumentParser(prog="python -m videochat_tools.evaluation.robustness", description=main.__doc__)
    parser.add_argument("--clips", type=int, default=500, help="held-out clips; fewer from 720p on (default: 500)")
    parser.add_argument("--questions", type=int, default=200, help="of each kind; 0: no answers (default: 200)")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="CONDITION", help=f"one of: {', '.join(names)}"
    )
    parser.add_argument("--retrieval", type=Path, help="folder of a video encoder (default: the bundled nano)")
    parser.add_argument("--chat", type=Path, help="folder of a chat model (default: the bundled nano)")
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args(arguments)
    if options.clips < 2 or options.questions < 0:
        parser.error("--clips is at least 2 and --questions at least 0")
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    began = time.perf_counter()
    chat = None
    if options.questions:
        from videochat_tools.chat_model import ChatVideoChat

        chat = ChatVideoChat(model=None if options.chat is None else str(options.chat), device=options.device or "auto")
    conditions = [each for each in CONDITIONS if options.only is None or each.name in options.only]
    compared: list[tuple[Outcome, list[Verdict]]] = []
    with tempfile.TemporaryDirectory(prefix="videochat-robustness-") as folder:
        outcomes = evaluate_robustness(
            load_encoder(options.retrieval, device=options.device),
            chat,
            Path(folder),
            clips=options.clips,
            questions=options.questions,
            conditions=conditions,
        )
        for outcome in outcomes:
            compared.append((outcome, compare(outcome, compared[0][0] if compared else outcome)))
            for each in compared[-1][1][:2]:  # of recall and of all answers; an interrupted run has told them
                logger.info("  %s, %+.3f from the base", each.score, each.difference.value)
            if options.json is not None:
                text = _json(compared, clips=options.clips, questions=options.questions)
                options.json.write_text(text + "\n", encoding="utf-8")
    logger.info("all of it: %.0f s on the clock", time.perf_counter() - began)
    sys.stdout.write(f"{_report(compared)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
