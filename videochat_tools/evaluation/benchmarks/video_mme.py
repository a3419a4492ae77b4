"""Video-MME (Fu et al. 2024, arXiv 2405.21075): 2,700 questions about 900 videos of three lengths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks.base import check_ids
from videochat_tools.evaluation.benchmarks.choices import ChoiceItem
from videochat_tools.evaluation.benchmarks.files import Row, find_file, read_parquet, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage
from videochat_tools.evaluation.benchmarks.subtitles import Subtitled
from videochat_tools.types import Utterance

__all__ = ["VideoMME"]

_LETTERED = re.compile(r"\(?[A-Z][).:]\s*")


class VideoMME(Subtitled):
    """A ``.parquet`` (as released; below any folder) or ``.json`` file, ``data/ID.mp4``, ``subtitle/ID.srt``.

    With ``subtitles`` the model is told those that are on screen together with the frames that it is shown.
    """

    name: ClassVar[str] = "video-mme"

    def __init__(self, data: Path, *, subtitles: bool = False) -> None:
        self.subtitles = subtitles
        files = [*sorted(data.rglob("*.parquet")), *sorted(data.glob("*.json"))]
        if not files:
            raise BenchmarkError(f"no .parquet or .json file in {data}; download the annotations of Video-MME into it")
        rows = read_parquet(files[0]) if files[0].suffix == ".parquet" else _flat(read_rows(files[0]))
        super().__init__(check_ids([_item(row, data) for row in rows], files[0]))

    def utterances(self, item: ChoiceItem) -> list[Utterance]:
        """Those of its subtitle file."""
        from videochat_tools.subtitles import read_sidecar

        assert item.subtitles is not None
        return list(read_sidecar(item.subtitles).utterances)


def _item(row: Row, data: Path) -> ChoiceItem:
    video = row.text("videoID")
    options = tuple(_LETTERED.sub("", option, count=1) for option in row.texts("options"))
    return ChoiceItem(
        id=row.text("question_id"),
        video=video,
        footage=Footage(find_file(data, f"data/{video}.mp4", f"videos/{video}.mp4", f"video/{video}.mp4")),
        question=row.text("question"),
        options=options,
        answer=row.letter("answer", len(options)),
        groups={"length": row.text("duration"), "task": row.text("task_type")},
        subtitles=find_file(data, f"subtitle/{video}.srt", f"subtitle/{video}.vtt", f"subtitles/{video}.srt"),
    )


def _flat(videos: Sequence[Row]) -> list[Row]:
    """One row a question, named as in the Parquet file, from the older JSON with one entry a video."""
    rows = []
    for video in videos:
        name = video.text("url").partition("watch?v=")[2] or video.text("url")
        for number, question in enumerate(video.items("questions"), 1):
            if not isinstance(question, dict):
                raise video.error(f"question {number} must be an object, got {question!r}")
            fields = {
                "videoID": name,
                "question_id": question.get("question_id", f"{name}-{number}"),
                "duration": video.fields.get("duration_category", video.fields.get("duration", "unknown")),
                "options": question.get("choices", question.get("options")),
            }
            rows.append(Row(video.path, video.number, {**question, **fields}))
    return rows
