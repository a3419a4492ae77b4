"""MVBench (Li et al. 2024, arXiv 2311.17005): 20 tasks of 200 questions about short videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks.choices import (
    ChoiceBenchmark,
    ChoiceItem,
    Scorer,
    official_mvbench,
    official_mvbench_hd,
    strict_mvbench,
)
from videochat_tools.evaluation.benchmarks.files import Row, find_file, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage
from videochat_tools.models.videochat2.prompts import ChoicePrompt

__all__ = ["TASKS", "MVBench"]

_CHARADES, _CLEVRER, _PERCEPTION = "star/Charades_v1_480", "clevrer/video_validation", "perception/videos"

TASKS: dict[str, str] = {
    "action_sequence": _CHARADES,
    "action_prediction": _CHARADES,
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": _CLEVRER,
    "object_interaction": _CHARADES,
    "object_shuffle": _PERCEPTION,
    "moving_direction": _CLEVRER,
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": _PERCEPTION,
    "moving_count": _CLEVRER,
    "moving_attribute": _CLEVRER,
    "state_change": _PERCEPTION,
    "fine_grained_pose": "nturgbd",
    "character_order": _PERCEPTION,
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": _CLEVRER,
}
"""The tasks in the order of the paper, and where below ``video/`` the released archives put their videos."""

FOLDER_FPS = 3.0  # pictures a second of the frame folders


class MVBench(ChoiceBenchmark):
    """``json/TASK.json`` and ``video/…`` in the folder; the JSON files may also lie in the folder itself.

    The answer is scored three times: "strict", "official" as most of the released notebooks do it, and "official-hd" as
    that of VideoChat2-HD does.
    """

    name: ClassVar[str] = "mvbench"
    prompt: ClassVar[ChoicePrompt] = ChoicePrompt()
    scorers: ClassVar[Mapping[str, Scorer]] = {
        "strict": strict_mvbench,
        "official": official_mvbench,
        "official-hd": official_mvbench_hd,
    }

    def __init__(self, data: Path, *, tasks: Sequence[str] = ()) -> None:
        """Read the annotations.

        Args:
            data: The folder.
            tasks: Names of the tasks to take; default is all 20, which must then be there.

        Raises:
            BenchmarkError: Unknown or missing task, or malformed annotations.
        """
        folder = data / "json" if (data / "json").is_dir() else data
        present = {path.stem for path in folder.glob("*.json")}
        if unknown := sorted((set(tasks) or present) - TASKS.keys()):
            raise BenchmarkError(f"MVBench has no task {unknown[0]!r} ({folder}); its tasks are {', '.join(TASKS)}")
        self.tasks = [task for task in TASKS if not tasks or task in tasks]
        if absent := [task for task in self.tasks if task not in present]:
            raise BenchmarkError(
                f"{len(absent)} of {len(self.tasks)} tasks are not in {folder}: {', '.join(absent)}; download "
                "their JSON files, or name the tasks that you want"
            )
        super().__init__([_item(row, task, data) for task in self.tasks for row in read_rows(folder / f"{task}.json")])

    @property
    def settings(self) -> dict[str, Any]:
        """Which tasks."""
        return {} if len(self.tasks) == len(TASKS) else {"tasks": self.tasks}


def _item(row: Row, task: str, data: Path) -> ChoiceItem:
    video, options = row.text("video"), row.texts("candidates")
    bound = None
    if "start" in row.fields or "end" in row.fields:
        span = row.span(row.number_of("start"), row.number_of("end"))
        bound = (span.start, span.end)
    fps = row.number_of("fps") if "fps" in row.fields else FOLDER_FPS
    path = find_file(data / "video", f"{TASKS[task]}/{video}", f"{task}/{video}", video)
    return ChoiceItem(
        id=f"{task}/{row.number - 1}",
        video=f"{TASKS[task]}/{video}",  # tasks share videos
        footage=Footage(path, bound, fps),
        question=row.text("question"),
        options=options,
        answer=row.index_of(row.text("answer"), options),
        groups={"task": task},
    )
