"""Citations: does an answer name the moments that prove it, and only those?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from videochat_tools.answering import says_not_found
from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.answers import same_answer, same_place
from videochat_tools.evaluation.benchmarks.asking import BlindableLibrary
from videochat_tools.evaluation.benchmarks.base import (
    CONTROLS,
    Benchmark,
    Context,
    Record,
    Sections,
    by_video,
    share_of,
)
from videochat_tools.evaluation.benchmarks.files import Row, find_file, read_object
from videochat_tools.evaluation.benchmarks.footage import frames_at
from videochat_tools.evaluation.statistics import cluster_rate
from videochat_tools.media import probe, uniform_times
from videochat_tools.types import TimeSpan

__all__ = ["Citations"]

SUFFIX = ".timeline.json"


@dataclass(frozen=True, slots=True)
class TimedItem:
    """A question about a video; ``span`` is where its answer is, None: nowhere."""

    id: str
    video: str
    path: Path
    kind: str
    question: str
    answer: str
    span: TimeSpan | None


class Citations(Benchmark[TimedItem]):
    """Videos with ``NAME.timeline.json`` beside them, as ``videochat sample`` writes them.

    The videos go into a library (which does not read those files), and every question is asked of it. A citation is
    right when it shares half of the shorter span with the true one; one that the check of the answer had to drop, or
    that answers a question whose answer is not there, is wrong.

    Of the controls, "blank" shows the model black clips in place of those that were found, "text-only" asks it without
    any clip, and "uniform" shows it as many frames, spread over the whole video. The last two search nothing, so that
    there is nothing to cite.
    """

    name: ClassVar[str] = "citations"
    uses: ClassVar[tuple[str, ...]] = ("chat", "encoder")
    controls: ClassVar[tuple[str, ...]] = CONTROLS
    senseless: ClassVar[Mapping[str, str]] = {}

    def __init__(self, data: Path) -> None:
        files = sorted(data.glob(f"*{SUFFIX}"))
        if not files:
            raise BenchmarkError(f"no *{SUFFIX} in {data}; make some with: videochat sample {data}/NAME.mp4")
        self._items = [item for path in files for item in _items(path)]

    @property
    def items(self) -> Sequence[TimedItem]:
        """All questions, those without an answer too."""
        return self._items

    def is_there(self, item: TimedItem) -> bool:
        """Whether its video is on this machine."""
        return item.path.is_file()

    def looks(self, control: str) -> bool:
        """The black clips stand for some that were found in the video."""
        return control != "text-only"

    def prepare(self, context: Context) -> None:
        """Add the videos to a library."""
        models = context.models
        library = BlindableLibrary(context.place("library"), model=models.chat_folder, encoder=models.encoder)
        library.blind = context.control == "blank"
        there = sorted({item.path for item in self._items if self.is_there(item)})
        self._library = library
        self._failed = library.add_new(there) if context.control in ("none", "blank") else {}

    def measure(self, item: TimedItem, context: Context) -> Record:
        """Ask the library about this video; or only its chat model, for a control."""
        asked = {"question": item.question, "truth": item.answer}
        library = self._library
        if context.control == "text-only":
            return {**asked, "answer": library.ask_alone(item.question)}
        if item.path in self._failed:
            raise self._failed[item.path]
        if context.control == "uniform":
            seconds, engine = probe(item.path).duration, library.engine
            times = uniform_times(TimeSpan(0.0, seconds), engine.num_frames)
            frames = frames_at(item.path, times, engine.frame_size).frames
            return {**asked, "answer": library.ask_about(item.question, frames, item.path, seconds)}
        answer = library.ask(item.question, videos=[str(item.path.absolute())])
        return {
            **asked,
            "answer": answer.text,
            "found": answer.found,
            "cited": [[each.span.start, each.span.end] for each in answer.evidence if each.cited],
            "dropped": list(answer.dropped),
        }

    def score(self, items: Sequence[TimedItem], records: Mapping[str, Record]) -> Sections:
        """Precision over the citations, recall over the questions, and the answers themselves."""
        present = [item for item in items if item.span is not None]
        absent = [item for item in items if item.span is None]
        judged = by_video(items, lambda item: _judged(item, records[item.id]))
        clusters = {video: [right for each in lists for right in each] for video, lists in judged.items()}

        def proved(item: TimedItem) -> bool:
            return any(_judged(item, records[item.id]))

        def right(item: TimedItem) -> bool:
            return same_answer(str(records[item.id].get("answer", "")), item.answer, item.kind)

        def refused(item: TimedItem) -> bool:
            return says_not_found(str(records[item.id].get("answer", "")))

        if not any("cited" in record for record in records.values()):
            return {
                "answers": [
                    share_of("right words", present, right),
                    share_of("not there, and said so", absent, refused),
                ]
            }
        return {
            "citations": [
                cluster_rate("precision: citations that are right", clusters),
                share_of("recall: questions whose moment is cited", present, proved),
            ],
            "answers": [
                share_of("right words", present, right),
                share_of("right words with a right citation", present, lambda item: right(item) and proved(item)),
                share_of("not there, and said so", absent, refused),
            ],
        }


def _judged(item: TimedItem, record: Record) -> list[bool]:
    """Whether each citation of an answer is right."""
    cited = [item.span is not None and same_place(TimeSpan(*span), item.span) for span in record.get("cited", ())]
    return cited + [False] * len(record.get("dropped", ()))


def _items(path: Path) -> list[TimedItem]:
    name = path.name.removesuffix(SUFFIX)
    video = find_file(path.parent, f"{name}.mp4", f"{name}.mkv", f"{name}.mov")
    whole = Row(path, 1, read_object(path))
    items = []
    for part in ("questions", "absent_questions"):
        for number, fields in enumerate(whole.fields.get(part) or [], 1):
            row = Row(path, number, fields if isinstance(fields, dict) else {})
            timed = row.fields.get("start") is not None
            span = row.span(row.number_of("start"), row.number_of("end")) if timed else None
            items.append(
                TimedItem(
                    f"{name}/{part}/{number - 1}",
                    name,
                    video,
                    row.text("type"),
                    row.text("question"),
                    row.text("answer"),
                    span,
                )
            )
    if not items:
        raise BenchmarkError(f"{path} holds no questions; make it again with: videochat sample")
    return items
