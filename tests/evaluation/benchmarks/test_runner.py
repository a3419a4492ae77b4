"""Logs that go on where they stopped, and what counts when a video is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_benchmarks import MVBENCH_TASKS, mvbench, write
from standins import RuleModel

from videochat_tools.errors import BenchmarkError, ContextTooLongError
from videochat_tools.evaluation.benchmarks import load_benchmark
from videochat_tools.evaluation.benchmarks.models import Models
from videochat_tools.evaluation.benchmarks.mvbench import MVBench
from videochat_tools.evaluation.benchmarks.runner import RunResult, run_benchmark, spread


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    return mvbench(tmp_path_factory.mktemp("mvbench"), write_video)


@pytest.fixture
def four_tasks(data: Path) -> MVBench:
    return load_benchmark("mvbench", data, tasks=MVBENCH_TASKS)  # type: ignore[return-value]


def answers_b(question: str, frames: object) -> str:
    return "B) it is"


def log(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def values(result: RunResult) -> dict[str, object]:
    entries = json.loads(result.json)
    return {name: entries[name] for name in ("scores", "counts", "absent_videos")}


def test_a_run_is_logged_scored_and_told(four_tasks: MVBench, tmp_path: Path) -> None:
    model = RuleModel(answers_b)
    result = run_benchmark(four_tasks, tmp_path, Models(model))
    assert result.counts == {"answered": 7, "missing": 1}
    strict, official = result.sections["strict"][0], result.sections["official"][0]
    assert (strict.correct, strict.total) == (official.correct, official.total) == (7, 8)  # type: ignore[union-attr]
    assert strict.low < 7 / 8 < strict.high
    assert result.absent == ("clevrer/video_validation/nowhere.mp4",)
    assert "1 missing; what is not answered counts as wrong" in result.markdown
    assert (tmp_path / "result.md").read_text() == result.markdown
    assert json.loads((tmp_path / "result.json").read_text())["scores"]["strict"]["all"]["correct"] == 7
    assert [line["id"] for line in log(tmp_path)] == [item.id for item in four_tasks.items]
    assert {frames.shape for _, frames, _ in model.asked if frames is not None} == {(4, 32, 32, 3)}


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(four_tasks: MVBench, tmp_path: Path) -> None:
    def stopping(question: str, frames: object) -> str:
        if len(stopped.asked) == 4:
            raise KeyboardInterrupt
        return answers_b(question, frames)

    stopped = RuleModel(stopping)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(four_tasks, tmp_path / "stopped", Models(stopped))
    assert len(log(tmp_path / "stopped")) == 3
    with (tmp_path / "stopped" / "items.jsonl").open("a") as file:  # killed in the middle of a line
        file.write('{"id": "action_count/1", "vid')
    later = RuleModel(answers_b)
    gone_on = run_benchmark(four_tasks, tmp_path / "stopped", Models(later))
    assert len(later.asked) == 7 - 3, "what is in the log is not asked again"
    whole = run_benchmark(four_tasks, tmp_path / "whole", Models(RuleModel(answers_b)))
    assert values(gone_on) == values(whole)
    assert {line["id"] for line in log(tmp_path / "stopped")} == {item.id for item in four_tasks.items}


def test_a_missing_video_is_tried_again_when_it_has_come(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    entry = {"video": "late.mp4", "question": "What?", "candidates": ["this", "that"], "answer": "that"}
    write(folder / "action_antonym.json", [entry])
    task = {"tasks": ("action_antonym",)}
    first = run_benchmark(load_benchmark("mvbench", folder, **task), tmp_path / "out", Models(RuleModel(answers_b)))
    assert first.sections["strict"][0].value == 0.0
    late = folder / "video" / "ssv2_video" / "late.mp4"
    late.parent.mkdir(parents=True)
    late.write_bytes(b"no video at all")
    second = run_benchmark(load_benchmark("mvbench", folder, **task), tmp_path / "out", Models(RuleModel(answers_b)))
    assert second.counts == {"unreadable": 1}
    (told,) = second.failed.values()
    assert "late.mp4" in told
    assert json.loads(second.json)["failed_items"] == {"action_antonym/0": told}
    late.write_bytes(next((data / "video").rglob("*.mp4")).read_bytes())
    third = run_benchmark(load_benchmark("mvbench", folder, **task), tmp_path / "out", Models(RuleModel(answers_b)))
    assert third.counts == {"answered": 1}
    assert third.sections["strict"][0].value == 1.0
    assert len(log(tmp_path / "out")) == 3, "the log keeps what happened"


def test_a_question_that_does_not_fit_the_model_is_wrong_and_told(four_tasks: MVBench, tmp_path: Path) -> None:
    def too_long(question: str, frames: object) -> str:
        raise ContextTooLongError("too long")

    result = run_benchmark(four_tasks, tmp_path, Models(RuleModel(too_long)))
    assert result.counts == {"too long": 7, "missing": 1}
    assert result.sections["official"][0].value == 0.0


def test_another_run_in_the_same_folder_is_refused(four_tasks: MVBench, data: Path, tmp_path: Path) -> None:
    run_benchmark(four_tasks, tmp_path, Models(RuleModel()), limit=1, control="blank")
    with pytest.raises(BenchmarkError, match="control 'blank' instead of 'none'"):
        run_benchmark(four_tasks, tmp_path, Models(RuleModel()))
    with pytest.raises(BenchmarkError, match="model 'rule' instead of 'other'"):
        run_benchmark(four_tasks, tmp_path, Models(RuleModel(name="other")), control="blank")
    fewer = load_benchmark("mvbench", data, tasks=("action_count",))
    with pytest.raises(BenchmarkError, match="annotations"):
        run_benchmark(fewer, tmp_path, Models(RuleModel()), control="blank")


def test_a_damaged_log_is_told_by_its_line(four_tasks: MVBench, tmp_path: Path) -> None:
    run_benchmark(four_tasks, tmp_path, Models(RuleModel()), control="text-only")
    lines = (tmp_path / "items.jsonl").read_text().splitlines()
    (tmp_path / "items.jsonl").write_text("\n".join([lines[0], "{half", *lines[2:]]) + "\n")
    with pytest.raises(BenchmarkError, match="line 2 is damaged"):
        run_benchmark(four_tasks, tmp_path, Models(RuleModel()), control="text-only")


def test_controls_show_no_video_and_need_none(four_tasks: MVBench, tmp_path: Path) -> None:
    blank, alone = RuleModel(), RuleModel()
    assert run_benchmark(four_tasks, tmp_path / "blank", Models(blank), control="blank").counts == {"answered": 8}
    assert all(frames is not None and not np.any(frames) for _, frames, _ in blank.asked)
    assert run_benchmark(four_tasks, tmp_path / "text", Models(alone), control="text-only").counts == {"answered": 8}
    assert {frames for _, frames, _ in alone.asked} == {None}
    with pytest.raises(BenchmarkError, match="no control 'uniform': its frames are spread evenly"):
        run_benchmark(four_tasks, tmp_path / "uniform", Models(RuleModel()), control="uniform")


def test_a_limit_spreads_over_all_tasks_and_can_be_raised(four_tasks: MVBench, tmp_path: Path) -> None:
    first = run_benchmark(four_tasks, tmp_path, Models(RuleModel(answers_b)), limit=4)
    assert sum(first.counts.values()) == 4
    assert len({str(line["id"]).split("/")[0] for line in log(tmp_path)}) == 3
    model = RuleModel(answers_b)
    run_benchmark(four_tasks, tmp_path, Models(model))
    assert len(model.asked) == 8 - 4
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 9) == [0, 1, 2]
    with pytest.raises(BenchmarkError, match="at least 1"):
        spread(range(3), 0)
