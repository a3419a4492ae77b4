"""LVBench (Wang et al. 2024, arXiv 2406.08035): questions about videos of an hour, with the time of the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.evaluation.benchmarks.base import Record, check_ids
from videochat_tools.evaluation.benchmarks.choices import ChoiceItem
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage
from videochat_tools.evaluation.benchmarks.long_choices import LongChoiceBenchmark
from videochat_tools.types import TimeSpan, parse_timecode

__all__ = ["LVBench", "parse_window"]

_OPTION = re.compile(r"^\(([A-Z])\)\s*", re.MULTILINE)


class LVBench(LongChoiceBenchmark):
    """``lvbench_clean.json`` or the released ``video_info.meta.jsonl``; ``videos/ID.mp4``.

    A moment counts as found when a stretch shares half of the shorter of the two with the time reference. A few
    references are no times ("None-None") or end before they start; those questions count for the answers only.
    """

    name: ClassVar[str] = "lvbench"

    def __init__(self, data: Path) -> None:
        path = find_annotations(data, "lvbench_clean.json", "video_info.meta.jsonl")
        rows = read_rows(path) if path.suffix == ".json" else _flat(read_rows(path))
        super().__init__(check_ids([_item(row, number, data) for number, row in enumerate(rows)], path))

    def facts(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """How many questions have no usable time."""
        without = sum(not item.windows for item in items)
        return {**super().facts(items, records), "questions without a usable time reference": without}


def parse_window(text: str) -> TimeSpan | None:
    """``00:15-00:19`` as a span; None where it is none."""
    start, _, end = text.partition("-")
    try:
        return TimeSpan(parse_timecode(start), parse_timecode(end))
    except ValueError:
        return None


def _item(row: Row, number: int, data: Path) -> ChoiceItem:
    video, options = row.text("video"), row.texts("candidates")
    window = parse_window(row.text("time_reference"))
    return ChoiceItem(
        id=f"{video}/{number}",
        video=video,
        footage=Footage(find_file(data, f"videos/{video}.mp4", f"all_videos/{video}.mp4", f"{video}.mp4")),
        question=row.text("question"),
        options=tuple(_OPTION.sub("", option) for option in options),
        answer=row.index_of(row.text("answer"), options),
        groups={"kind of video": row.text("type"), "first type": row.texts("question_type")[0]},
        windows=() if window is None else (window,),
    )


def _flat(videos: Sequence[Row]) -> list[Row]:
    """The rows of the cleaned copy from the released lines, one a video, whose questions end with their options."""
    rows = []
    for video in videos:
        for entry in video.items("qa"):
            asked = Row(video.path, video.number, entry if isinstance(entry, dict) else {})
            question, *parts = _OPTION.split(asked.text("question"))
            candidates = [f"({letter}) {text.strip()}" for letter, text in zip(parts[::2], parts[1::2], strict=True)]
            fields: dict[str, Any] = {
                **asked.fields,
                "video": video.text("key"),
                "type": video.text("type"),
                "question": question.strip(),
                "candidates": candidates,
            }
            place = asked.letter("answer", len(candidates)) if candidates else 0
            rows.append(Row(video.path, video.number, {**fields, "answer": candidates[place] if candidates else ""}))
    return rows
