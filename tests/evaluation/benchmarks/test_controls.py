"""What stands in for the video: which controls a benchmark has, and why it has not the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_benchmarks import write
from standins import RuleModel

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks import BENCHMARKS, benchmark_class, load_benchmark
from videochat_tools.evaluation.benchmarks.base import CONTROLS
from videochat_tools.evaluation.benchmarks.models import Models
from videochat_tools.evaluation.benchmarks.runner import check_control, run_benchmark
from videochat_tools.testing import COLORS, FakeVideoEncoder


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_every_control_or_says_why_not(name: str) -> None:
    kind = benchmark_class(name)
    assert kind.controls, "something can be shown in place of any video"
    assert sorted([*kind.controls, *kind.senseless]) == sorted(CONTROLS)
    for control in ("none", *kind.controls):
        check_control(kind, control)
    for control, reason in kind.senseless.items():
        with pytest.raises(BenchmarkError) as caught:
            check_control(kind, control)
        assert str(caught.value) == (
            f"{kind.name} has no control '{control}': {reason}; choose one of none, {', '.join(kind.controls)}"
        )


def test_the_documentation_names_the_controls_of_every_benchmark(repository: Path) -> None:
    """Its table of controls has a line a benchmark: names, and one mark for each control."""
    lines = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    marked = {
        name.strip(" `"): tuple(control for control, cell in zip(CONTROLS, row[1:], strict=True) if cell == "yes")
        for row in rows
        if len(row) == 1 + len(CONTROLS)
        for name in row[0].split(",")
    }
    assert {name: tuple(sorted(controls)) for name, controls in marked.items()} == {
        name: tuple(sorted(benchmark_class(name).controls)) for name in BENCHMARKS
    }


def test_an_unknown_control(tmp_path: Path) -> None:
    entry = {"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y"}
    write(tmp_path / "action_count.json", [entry])
    benchmark = load_benchmark("mvbench", tmp_path, tasks=("action_count",))
    with pytest.raises(BenchmarkError, match="no control 'dark'; choose one of none, blank, text-only"):
        run_benchmark(benchmark, tmp_path / "out", Models(RuleModel()), control="dark")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def said(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """Video-MME and LongVideoBench about one red video of eight seconds with subtitles, and one that is missing."""
    pictures = (np.full((48, 64, 3), COLORS["red"], np.uint8) for _ in range(40))
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "abc.mp4", pictures, fps=5)
    question = {"question": "Which?", "choices": ["A. one", "B. two"], "answer": "B", "task_type": "OCR Problems"}
    mme = [{"url": name, "duration": "short", "questions": [question]} for name in ("abc", "gone")]
    write(tmp_path / "mme" / "videomme.json", mme)
    (tmp_path / "mme" / "videos").symlink_to(tmp_path / "videos")
    (tmp_path / "mme" / "subtitle").mkdir()
    (tmp_path / "mme" / "subtitle" / "abc.srt").write_text("1\n00:00:00,000 --> 00:00:08,000\nit is two\n")
    entry = {
        "video_id": "abc", "video_path": "abc.mp4", "subtitle_path": "abc_en.json", "question": "Which?",
        "candidates": ["one", "two"], "correct_choice": 1, "position": [1], "question_category": "TOS", "level": "L1",
        "duration_group": 15, "starting_timestamp_for_subtitles": 0,
    }  # fmt: skip
    gone = {**entry, "video_id": "gone", "video_path": "gone.mp4", "subtitle_path": "gone_en.json"}
    write(tmp_path / "lvb" / "lvb_val.json", [{**entry, "id": "0"}, {**gone, "id": "1"}])
    (tmp_path / "lvb" / "videos").symlink_to(tmp_path / "videos")
    lines = [{"start": "00:00:00.000", "end": "00:00:08.000", "line": "it is two"}]
    write(tmp_path / "lvb" / "subtitles" / "abc_en.json", lines)
    return tmp_path


@pytest.mark.parametrize(("name", "folder"), [("video-mme-subtitles", "mme"), ("longvideobench-subtitles", "lvb")])
def test_black_frames_come_with_the_subtitles_that_the_video_has_there(said: Path, name: str, folder: str) -> None:
    model = RuleModel(lambda question, frames: "B)")
    models = Models(model, FakeVideoEncoder())
    benchmark = load_benchmark(name, said / folder)
    blank = run_benchmark(benchmark, said / "blank", models, control="blank")
    ((_, frames, before),) = model.asked
    assert frames is not None
    assert frames.shape == (4, 32, 32, 3)
    assert not frames.any()
    assert before == "This video's subtitles are listed below: it is two\n"
    assert blank.counts == {"answered": 1, "missing": 1}, "whose subtitles cannot be placed in time"
    assert blank.facts["questions asked with subtitles"] == 1
    assert blank.sections["right"][0].value == 0.5
    alone = run_benchmark(benchmark, said / "alone", models, control="text-only")
    assert alone.counts == {"answered": 2}
    assert model.asked[-1][1:] == (None, "")
    assert alone.facts["questions asked with subtitles"] == 0
    seen = run_benchmark(benchmark, said / "seen", models)
    assert seen.counts == {"answered": 1, "missing": 1}
    assert model.asked[-1][1].any()  # type: ignore[union-attr]
    assert model.asked[-1][2] == before


def test_without_subtitles_black_frames_need_no_video(said: Path) -> None:
    result = run_benchmark(
        load_benchmark("video-mme", said / "mme"), said / "out", Models(RuleModel()), control="blank"
    )
    assert result.counts == {"answered": 2}
    assert "questions asked with subtitles" not in result.facts
