"""Charades-STA (Gao et al. 2017, ICCV): one moment a sentence in videos of half a minute."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks.base import Benchmark, Context, Record, Sections, mean_of, share_of
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_lines, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage, blank_frames, read_frames
from videochat_tools.evaluation.benchmarks.moments import (
    MomentBenchmark,
    MomentItem,
    overlaps,
    predicted_windows,
    true_windows,
)
from videochat_tools.models.videochat2.prompts import ChoicePrompt

__all__ = ["CharadesSTA", "CharadesSTAPrompt", "parse_moment"]

LEVELS = (0.3, 0.5, 0.7)  # of intersection over union
PROMPT = ChoicePrompt(
    system="", repeat_system=False, question_end="", answer_start="The event happens in the", return_start=""
)
QUESTION = (
    "Please find the visual event described by a sentence in the video, determining its starting and ending times. "
    "The format should be: 'The event happens in the start time - end time'. For example, The event happens in the "
    "24.3 - 30.4 seconds. Now I will give you the textual sentence: {sentence} Please return its start time and end "
    "time."
)

_TIMES = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s|sec|seconds)?\s*(?:-|–|to|and)\s*(\d+(?:\.\d+)?)")
_LINE = re.compile(r"(\S+) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)##(.+)")


class CharadesSTA(MomentBenchmark):
    """``temporal_grounding_charades.json`` or the released ``charades_sta_test.txt``; ``Charades_v1_480/ID.mp4``.

    The encoder looks for the moment among windows of several lengths.
    """

    name: ClassVar[str] = "charades-sta"

    def __init__(self, data: Path) -> None:
        path = find_annotations(data, "temporal_grounding_charades.json", "charades_sta_test.txt")
        rows = read_rows(path) if path.suffix == ".json" else _lines(path)
        super().__init__([_item(row, data) for row in rows])

    def score(self, items: Sequence[MomentItem], records: Mapping[str, Record]) -> Sections:
        """R1 at several overlaps, and the mean overlap."""

        def overlap(item: MomentItem) -> float:
            first = predicted_windows(records[item.id])[:1]
            return float(overlaps(first, true_windows(item)).max()) if len(first) else 0.0

        def reaches(item: MomentItem, level: float) -> bool:
            return overlap(item) >= level

        levels = [share_of(f"R1@{level}", items, partial(reaches, level=level)) for level in LEVELS]
        return {"windows": [*levels, mean_of("mean IoU", items, overlap)]}


class CharadesSTAPrompt(CharadesSTA):
    """The same, but the chat model is asked, and writes the times. An answer without times overlaps nothing."""

    name: ClassVar[str] = "charades-sta-prompt"
    uses: ClassVar[tuple[str, ...]] = ("chat",)
    controls: ClassVar[tuple[str, ...]] = Benchmark.controls
    senseless: ClassVar[Mapping[str, str]] = Benchmark.senseless
    shows_frames: ClassVar[bool] = True

    def measure(self, item: MomentItem, context: Context) -> Record:
        """Ask for the times and read them."""
        chat, frames = context.models.chat, None
        if context.control == "blank":
            frames = blank_frames(chat.num_frames, chat.frame_size).frames
        elif context.control != "text-only":
            frames = read_frames(Footage(item.path), chat.num_frames, chat.frame_size).frames
        output = chat.answer(PROMPT, QUESTION.format(sentence=item.question), frames, max_tokens=40)
        found = parse_moment(output)
        return {"output": output, "predicted": [] if found is None else [[*found, 1.0]]}

    def facts(self, items: Sequence[MomentItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """How many answers name no times."""
        answered = [records[item.id] for item in items if "output" in records[item.id]]
        return {"answers that name no times": sum(not record["predicted"] for record in answered)}


def parse_moment(text: str) -> tuple[float, float] | None:
    """Two times in seconds, such as ``24.3 - 30.4 seconds``; None where the text holds none, or the wrong way round."""
    found = _TIMES.search(text)
    if found is None or float(found[1]) > float(found[2]):
        return None
    return float(found[1]), float(found[2])


def _lines(path: Path) -> list[Row]:
    rows = []
    for number, line in read_lines(path):
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise BenchmarkError(f"{path}, line {number} must be 'ID START END##SENTENCE', got {line[:60]!r}")
        fields = {"video": f"{found[1]}.mp4", "caption": found[4], "timestamp": [float(found[2]), float(found[3])]}
        rows.append(Row(path, number, fields))
    return rows


def _item(row: Row, data: Path) -> MomentItem:
    times, video = row.items("timestamp"), row.text("video")
    if len(times) != 2:
        raise row.error(f"'timestamp' must be two times in seconds, got {times!r}")
    path = find_file(data, f"Charades_v1_480/{video}", f"videos/{video}", f"Charades_v1/{video}")
    return MomentItem(f"{row.number - 1}", video, path, row.text("caption"), (row.span(*times),))
