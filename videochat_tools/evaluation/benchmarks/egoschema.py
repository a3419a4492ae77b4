"""EgoSchema (Mangalam et al. 2023, arXiv 2308.09126): clips of three minutes, 500 public answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.evaluation.benchmarks.base import ANSWERED, Record, check_ids
from videochat_tools.evaluation.benchmarks.choices import LETTERS, ChoiceBenchmark, ChoiceItem
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_object, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage

__all__ = ["EgoSchema"]

OPTIONS = 5
SUBMISSION = "submission.json"


class EgoSchema(ChoiceBenchmark):
    """``questions.json``, ``subset_answers.json``, ``videos/ID.mp4``.

    The questions with public answers; with ``full`` all of them, and ``submission.json`` for the makers' server.
    """

    name: ClassVar[str] = "egoschema"

    def __init__(self, data: Path, *, full: bool = False) -> None:
        self.full = full
        path = find_annotations(data, "questions.json")
        answers = read_object(find_annotations(data, "subset_answers.json"))
        rows = [row for row in read_rows(path) if full or row.text("q_uid") in answers]
        super().__init__(check_ids([_item(row, answers, data) for row in rows], path))

    @property
    def settings(self) -> dict[str, Any]:
        """The subset or all."""
        return {"full": self.full}

    def finish(self, items: Sequence[ChoiceItem], records: Mapping[str, Record], folder: Path) -> None:
        """Write the chosen options for the server of the makers, which takes -1 for none."""
        if self.full:
            chosen = {item.id: _place(records[item.id]) for item in items}
            (folder / SUBMISSION).write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")


def _place(record: Record) -> int:
    chosen = record.get("chosen") if record["status"] == ANSWERED else None
    return -1 if chosen is None else LETTERS.index(chosen)


def _item(row: Row, answers: Mapping[str, Any], data: Path) -> ChoiceItem:
    name = row.text("q_uid")
    answer = answers.get(name)
    if answer is not None and (type(answer) is not int or not 0 <= answer < OPTIONS):
        raise row.error(f"the answer to {name} must be 0 to {OPTIONS - 1}, got {answer!r}")
    question = row.text("question")
    return ChoiceItem(
        id=name,
        video=name,
        footage=Footage(find_file(data, f"videos/{name}.mp4", f"good_clips_git/{name}.mp4", f"{name}.mp4")),
        question=question[:1].upper() + question[1:],
        options=tuple(row.text(f"option {number}") for number in range(OPTIONS)),
        answer=answer,
    )
