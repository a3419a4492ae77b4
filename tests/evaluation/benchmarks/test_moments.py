"""Windows: metrics against the released ones and by hand, and the whole way with an encoder that knows colours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_benchmarks import write
from standins import RuleModel

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks import load_benchmark
from videochat_tools.evaluation.benchmarks.charades_sta import parse_moment
from videochat_tools.evaluation.benchmarks.models import Models
from videochat_tools.evaluation.benchmarks.moments import (
    average_precisions,
    candidate_windows,
    overlaps,
    without_overlaps,
)
from videochat_tools.evaluation.benchmarks.qvhighlights import read_predictions
from videochat_tools.evaluation.benchmarks.runner import RunResult, run_benchmark
from videochat_tools.testing import COLORS, FakeVideoEncoder
from videochat_tools.types import TimeSpan


def test_the_released_predictions_get_the_released_figures(shared: Path) -> None:
    folder = shared / "annotations" / "qvhighlights"
    benchmark = load_benchmark("qvhighlights", folder)
    assert len(benchmark.items) == 1550
    assert sum(len(item.windows) > 1 for item in benchmark.items) == 530
    sections = benchmark.score(benchmark.items, read_predictions(folder / "sample_val_preds.jsonl"))
    ours = {
        section: {score.name: round(100 * score.value, 2) for score in scores} for section, scores in sections.items()
    }
    released = json.loads((folder / "sample_val_preds_metrics_raw.json").read_text())
    parts = {"windows": "full", "windows, short": "short", "windows, middle": "middle", "windows, long": "long"}
    for section, part in parts.items():
        precision, recall = released[part]["MR-mAP"], released[part]["MR-R1"]
        assert ours[section] == {
            "R1@0.5": recall["0.5"], "R1@0.7": recall["0.7"], "mAP@0.5": precision["0.5"],
            "mAP@0.75": precision["0.75"], "mAP": precision["average"],
        }  # fmt: skip
    for name, key in (("fair", "Fair"), ("good", "Good"), ("very good", "VeryGood")):
        assert ours["highlights"][f"mAP, {name}"] == released[f"HL-min-{key}"]["HL-mAP"]
        assert ours["highlights"][f"Hit@1, {name}"] == released[f"HL-min-{key}"]["HL-Hit1"]


def test_the_queries_of_charades(shared: Path) -> None:
    benchmark = load_benchmark("charades-sta", shared / "annotations" / "charades_sta")
    assert (len(benchmark.items), len({item.video for item in benchmark.items})) == (3720, 1334)
    truth = {
        i.id: {"status": "answered", "predicted": [[i.windows[0].start, i.windows[0].end]]} for i in benchmark.items
    }
    assert {score.value for score in benchmark.score(benchmark.items, truth)["windows"]} == {1.0}
    silent = {item.id: {"status": "missing"} for item in benchmark.items}
    assert {score.value for score in benchmark.score(benchmark.items, silent)["windows"]} == {0.0}


def test_overlaps_by_hand() -> None:
    shared = overlaps(np.array([[0.0, 4.0], [4.0, 6.0]]), np.array([[2.0, 6.0], [9.0, 9.0]]))
    assert shared == pytest.approx(np.array([[2 / 6, 0.0], [0.5, 0.0]]))


@pytest.mark.parametrize(
    ("predicted", "precision"),
    [
        ([[0, 10], [20, 30]], 1.0),
        ([[40, 50], [0, 10], [20, 30]], 2 / 3),  # (2/3 + 2/3) / 2, interpolated from 1/2 and 2/3
        ([[0, 10], [40, 50], [20, 30]], (1 + 2 / 3) / 2),
        ([[0, 10], [0, 10], [20, 30]], (1 + 2 / 3) / 2),  # the same window twice is wrong the second time
        ([[0, 10]], 0.5),
        ([[40, 50]], 0.0),
        ([], 0.0),
    ],
)
def test_average_precision_by_hand(predicted: list[list[float]], precision: float) -> None:
    truth = np.array([[0.0, 10.0], [20.0, 30.0]])
    given = np.array(predicted, float).reshape(-1, 2)
    assert average_precisions(truth, given, (0.5,)) == pytest.approx([precision])


def test_candidate_windows_cover_the_video() -> None:
    windows = candidate_windows(9.0)
    assert windows[-1] == TimeSpan(0.0, 9.0)
    assert [each for each in windows if each.duration == 2.0] == [
        TimeSpan(start, start + 2.0) for start in (0.0, 2.0, 4.0, 6.0, 7.0)
    ]
    assert all(0 <= each.start < each.end <= 9.0 for each in windows)
    assert candidate_windows(1.0) == [TimeSpan(0.0, 1.0)]
    assert without_overlaps([TimeSpan(0, 4), TimeSpan(1, 4), TimeSpan(3, 8)], 5) == [0, 2]


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("The event happens in the 24.3 - 30.4 seconds.", (24.3, 30.4)),
        (" 5 to 7", (5.0, 7.0)),
        ("0.0s-3s", (0.0, 3.0)),
        ("30 - 12 seconds", None),
        ("at the end", None),
        ("", None),
    ],
)
def test_times_in_answers(text: str, times: tuple[float, float] | None) -> None:
    assert parse_moment(text) == times


# ------------------------------------------------------------------------------------------------------ the whole way


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    """A video of eight seconds each of red, green and blue, and queries about them in both formats."""
    folder = tmp_path_factory.mktemp("moments")
    (folder / "videos").mkdir()
    pictures = (np.full((48, 64, 3), COLORS[name], np.uint8) for name in ("red", "green", "blue") for _ in range(40))
    write_video(folder / "videos" / "abc_0.0_24.0.mp4", pictures, fps=5)
    common = {"vid": "abc_0.0_24.0", "duration": 24}
    lines = [
        {
            **common, "qid": number, "query": f"something {name}", "relevant_windows": [[8 * number, 8 * number + 8]],
            "relevant_clip_ids": [4 * number + n for n in range(4)], "saliency_scores": [[4, 4, 2]] * 4,
        }
        for number, name in enumerate(("red", "green", "blue"))
    ]  # fmt: skip
    lines.append({**lines[0], "qid": 3, "vid": "gone_0.0_24.0"})
    (folder / "highlight_val_release.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entries = [
        {"video": f"{line['vid']}.mp4", "caption": line["query"], "timestamp": line["relevant_windows"][0]}
        for line in lines
    ]
    write(folder / "temporal_grounding_charades.json", entries)
    return folder


def figures(result: RunResult, section: str) -> dict[str, float]:
    return {score.name: round(score.value, 4) for score in result.sections[section]}


def test_an_encoder_finds_the_windows(data: Path, tmp_path: Path) -> None:
    models = Models(encoder=FakeVideoEncoder())
    found = run_benchmark(load_benchmark("qvhighlights", data), tmp_path / "qv", models)
    assert found.counts == {"answered": 3, "missing": 1}
    assert figures(found, "windows") == {"R1@0.5": 0.75, "R1@0.7": 0.75, "mAP@0.5": 0.75, "mAP@0.75": 0.75, "mAP": 0.75}
    assert figures(found, "highlights")["Hit@1, very good"] == 0.75
    assert figures(found, "highlights")["mAP, fair"] == 0.75
    charades = run_benchmark(load_benchmark("charades-sta", data), tmp_path / "sta", models)
    assert figures(charades, "windows") == {"R1@0.3": 0.75, "R1@0.5": 0.75, "R1@0.7": 0.75, "mean IoU": 0.75}
    blank = run_benchmark(load_benchmark("qvhighlights", data), tmp_path / "blank", models, control="blank")
    assert blank.counts == {"answered": 4}
    assert figures(blank, "windows")["R1@0.5"] == 0.0


def test_a_chat_model_writes_the_times(data: Path, tmp_path: Path) -> None:
    def rule(question: str, frames: object) -> str:
        return " 8.0 - 16.0 seconds." if "green" in question else "no idea"

    model = RuleModel(rule)
    result = run_benchmark(load_benchmark("charades-sta-prompt", data), tmp_path, Models(model))
    assert figures(result, "windows") == {"R1@0.3": 0.25, "R1@0.5": 0.25, "R1@0.7": 0.25, "mean IoU": 0.25}
    assert result.facts == {"answers that name no times": 2}


def test_charades_as_released(tmp_path: Path) -> None:
    path = tmp_path / "charades_sta_test.txt"
    path.write_text("3MSZA 24.3 30.4##person turn a light on.\n")
    (item,) = load_benchmark("charades-sta", tmp_path).items
    assert (item.video, item.question, item.windows) == (
        "3MSZA.mp4",
        "person turn a light on.",
        (TimeSpan(24.3, 30.4),),
    )
    path.write_text("3MSZA 24.3##person turn a light on.\n")
    with pytest.raises(BenchmarkError, match="line 1 must be"):
        load_benchmark("charades-sta", tmp_path)


def test_highlights_that_are_no_clips_of_the_video(data: Path, tmp_path: Path) -> None:
    line = json.loads((data / "highlight_val_release.jsonl").read_text().splitlines()[0])
    (tmp_path / "highlight_val_release.jsonl").write_text(json.dumps({**line, "relevant_clip_ids": [0, 1, 2, 12]}))
    with pytest.raises(BenchmarkError, match="must be 0 to 11, got 12"):
        load_benchmark("qvhighlights", tmp_path)
