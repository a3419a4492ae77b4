"""NExT-QA, multiple choice (Xiao et al. 2021, CVPR): why, how, before, after, what and where, five options each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.evaluation.benchmarks.base import check_ids
from videochat_tools.evaluation.benchmarks.choices import ChoiceBenchmark, ChoiceItem
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_csv, read_object
from videochat_tools.evaluation.benchmarks.footage import Footage

__all__ = ["NExTQA"]

OPTIONS = 5
GROUPS = {"C": "causal", "T": "temporal", "D": "descriptive"}  # first letter of the type: CW, CH, TN, TC, TP, DC, …


class NExTQA(ChoiceBenchmark):
    """``val.csv`` (or ``test.csv``), ``map_vid_vidorID.json``, ``NExTVideo/…`` by that map, or ``videos/ID.mp4``."""

    name: ClassVar[str] = "next-qa"

    def __init__(self, data: Path) -> None:
        path = find_annotations(data, "val.csv", "test.csv")
        self.split = path.stem
        places = read_object(data / "map_vid_vidorID.json") if (data / "map_vid_vidorID.json").is_file() else {}
        super().__init__(check_ids([_item(row, places, data) for row in read_csv(path)], path))

    @property
    def settings(self) -> dict[str, Any]:
        """Which split."""
        return {"split": self.split}


def _item(row: Row, places: Mapping[str, Any], data: Path) -> ChoiceItem:
    video, kind = row.text("video"), row.text("type")
    if kind[:1] not in GROUPS:
        raise row.error(f"the type of a question begins with {', '.join(GROUPS)}, got {kind!r}")
    answer = row.whole("answer")
    if not 0 <= answer < OPTIONS:
        raise row.error(f"'answer' must be 0 to {OPTIONS - 1}, got {answer}")
    place = places.get(video, video)
    return ChoiceItem(
        id=f"{video}/{row.text('qid')}",
        video=video,
        footage=Footage(find_file(data, f"NExTVideo/{place}.mp4", f"videos/{place}.mp4", f"videos/{video}.mp4")),
        question=row.text("question"),
        options=tuple(row.text(f"a{number}") for number in range(OPTIONS)),
        answer=answer,
        groups={"kind": GROUPS[kind[:1]], "type": kind},
    )
