"""STAR (Wu et al. 2021, NeurIPS): interaction, sequence, prediction and feasibility in parts of everyday videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.evaluation.benchmarks.base import Record, check_ids
from videochat_tools.evaluation.benchmarks.choices import ChoiceBenchmark, ChoiceItem
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage

__all__ = ["STAR"]

KINDS = ("Interaction", "Sequence", "Prediction", "Feasibility")


class STAR(ChoiceBenchmark):
    """``STAR_val.json`` and ``Charades_v1_480/ID.mp4``. Papers report the mean of the four kinds; it is a fact here."""

    name: ClassVar[str] = "star"

    def __init__(self, data: Path) -> None:
        path = find_annotations(data, "STAR_val.json", "STAR_test.json")
        super().__init__(check_ids([_item(row, data) for row in read_rows(path)], path))

    def facts(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """The mean over the kinds of question, in which each kind weighs the same."""
        facts = super().facts(items, records)
        groups = self.score(items, records).get("right, by kind")
        if groups:  # there are none where no answer is public
            facts["mean of the kinds"] = round(sum(group.value for group in groups) / len(groups), 4)
        return facts


def _item(row: Row, data: Path) -> ChoiceItem:
    name, video = row.text("question_id"), row.text("video_id")
    kind = name.partition("_")[0]
    if kind not in KINDS:
        raise row.error(f"'question_id' must begin with {', '.join(KINDS)}, got {name!r}")
    choices = [choice.get("choice") if isinstance(choice, dict) else None for choice in row.items("choices")]
    if not all(isinstance(choice, str) for choice in choices):
        raise row.error(f"'choices' must be objects with a 'choice' each, got {row.items('choices')!r}")
    options = tuple(map(str, choices))
    span = row.span(row.number_of("start"), row.number_of("end"))
    places = (f"{folder}/{video}.mp4" for folder in ("Charades_v1_480", "videos", "Charades_v1"))
    return ChoiceItem(
        id=name,
        video=video,
        footage=Footage(find_file(data, *places), (span.start, span.end)),
        question=row.text("question"),
        options=options,
        answer=row.index_of(row.text("answer"), options) if "answer" in row.fields else None,
        groups={"kind": kind},
    )
