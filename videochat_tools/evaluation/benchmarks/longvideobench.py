"""LongVideoBench (Wu et al. 2024, arXiv 2407.15754): 1,337 public questions that refer to moments of 753 videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.evaluation.benchmarks.base import Context, Record, Sections, by_video, check_ids
from videochat_tools.evaluation.benchmarks.choices import ChoiceItem
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage, Shown
from videochat_tools.evaluation.benchmarks.long_choices import RANKS, LongChoiceBenchmark, found_windows
from videochat_tools.evaluation.benchmarks.subtitles import Subtitled
from videochat_tools.evaluation.statistics import cluster_rate
from videochat_tools.media import probe
from videochat_tools.types import TimeSpan, Utterance

__all__ = ["LongVideoBench", "read_subtitles"]


class LongVideoBench(Subtitled, LongChoiceBenchmark):
    """``lvb_val.json``, ``videos/…``, ``subtitles/…``.

    The evidence of a question is a list of frame numbers; recall@k is the share of these frames that lie in the first
    k stretches found. A few numbers lie far behind the end of their video: they stay in the count, and are told.
    The released loader puts subtitles between the frames; a VideoChat reads all frames at once, so those that are on
    screen with the frames are told before them.
    """

    name: ClassVar[str] = "longvideobench"

    def __init__(self, data: Path, *, subtitles: bool = False) -> None:
        self.subtitles = subtitles
        path = find_annotations(data, "lvb_val.json")
        rows = read_rows(path)
        self._positions = {row.text("id"): row.wholes("position") for row in rows}
        self._offsets = {row.text("id"): row.number_of("starting_timestamp_for_subtitles") for row in rows}
        super().__init__(check_ids([_item(row, data) for row in rows], path))

    def show(self, item: ChoiceItem, context: Context) -> tuple[Shown, dict[str, Any]]:
        """The frames, and where the evidence is in seconds."""
        shown, extra = super().show(item, context)
        if "found" in extra:
            fps = probe(item.footage.path).fps
            extra["evidence"] = [round(frame / fps, 3) if fps else None for frame in self._positions[item.id]]
        return shown, extra

    def utterances(self, item: ChoiceItem) -> list[Utterance]:
        """Those of its subtitle file, on the clock of the cut video."""
        assert item.subtitles is not None
        return read_subtitles(item.subtitles, self._offsets[item.id])

    def score(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> Sections:
        """Answers; where the video was searched also the recall of the evidence."""
        sections = super().score(items, records)
        if not any("found" in record for record in records.values()):
            return sections
        del sections["moment found"], sections["right, by what was shown"]  # those of benchmarks with true windows
        scores = []
        for k in RANKS:
            judged = by_video(items, partial(self._judged, records=records, k=k))
            clusters = {video: [found for each in lists for found in each] for video, lists in judged.items()}
            covered = [_covered(records[item.id], k) for item in items]
            scores.append(cluster_rate(f"recall@{k}", clusters, sum(covered) / len(covered)))
        sections["evidence frames found"] = scores
        return sections

    def _judged(self, item: ChoiceItem, *, records: Mapping[str, Record], k: int) -> list[bool]:
        """Whether each evidence frame lies in the first k stretches; none does where nothing was searched."""
        record = records[item.id]
        spans = found_windows(record)[:k]
        times = record.get("evidence", [None] * len(self._positions[item.id]))
        return [time is not None and any(s.start <= time < s.end for s in spans) for time in times]

    def facts(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """How many evidence frames cannot be found because they lie behind the end of their video."""
        facts = super().facts(items, records)
        searched = [records[item.id] for item in items if "evidence" in records[item.id]]
        if searched:
            facts["evidence frames behind the end of their video"] = sum(
                time is None or time > record["duration"] for record in searched for time in record["evidence"]
            )
        return facts


def _covered(record: Record, k: int) -> float:
    """Share of the video that the first k stretches cover: what a frame at a random place would find."""
    if not record.get("duration"):
        return 0.0
    return min(1.0, sum(span.duration for span in found_windows(record)[:k]) / record["duration"])


def read_subtitles(path: Path, offset: float = 0.0) -> list[Utterance]:
    """The released subtitles: a list of ``start``, ``end`` and ``line``, or of ``timestamp`` and ``text``.

    Args:
        path: The JSON file.
        offset: Seconds of the original video at which the cut one begins.
    """
    utterances = []
    for row in read_rows(path):
        if "timestamp" in row.fields:
            start, end, text = *(*row.items("timestamp"), None)[:2], row.text("text")
        else:
            start, end, text = _seconds(row, "start"), _seconds(row, "end"), row.text("line")
        begin = row.span(0.0, start).end
        finish = begin if end is None else max(begin, row.span(0.0, end).end)
        begin, finish = begin - offset, finish - offset
        if finish >= 0:
            utterances.append(Utterance(TimeSpan(max(0.0, begin), finish), text))
    return utterances


def _seconds(row: Row, name: str) -> float:
    """``01:02:03.450`` as seconds."""
    parts = row.text(name).replace(",", ".").split(":")
    try:
        return sum(float(part) * 60**place for place, part in enumerate(reversed(parts)))
    except ValueError:
        raise row.error(f"{name!r} must be a time such as 00:01:02.500, got {row.text(name)!r}") from None


def _item(row: Row, data: Path) -> ChoiceItem:
    options, answer = row.texts("candidates"), row.whole("correct_choice")
    if not 0 <= answer < len(options):
        raise row.error(f"'correct_choice' must be 0 to {len(options) - 1}, got {answer}")
    video = row.text("video_id")
    return ChoiceItem(
        id=row.text("id"),
        video=video,
        footage=Footage(find_file(data, f"videos/{row.text('video_path')}", row.text("video_path"))),
        question=row.text("question"),
        options=options,
        answer=answer,
        groups={
            "length": f"{row.whole('duration_group')} s",
            "level": row.text("level"),
            "category": row.text("question_category"),
        },
        subtitles=find_file(data, f"subtitles/{row.text('subtitle_path')}", row.text("subtitle_path")),
    )
