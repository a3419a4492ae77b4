"""Search in and among videos, with an encoder that knows colours; citations on records made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_benchmarks import write
from standins import RuleModel

from videochat_tools.evaluation.benchmarks import load_benchmark
from videochat_tools.evaluation.benchmarks.footage import Frames
from videochat_tools.evaluation.benchmarks.models import Models
from videochat_tools.evaluation.benchmarks.msrvtt import RERANKED, rank_again, rank_of
from videochat_tools.evaluation.benchmarks.runner import RunResult, run_benchmark
from videochat_tools.testing import COLORS, FakeVideoEncoder

NAMES = ("red", "green", "blue", "yellow")


def plain(*names: str, seconds: int = 4, fps: int = 5) -> list[np.ndarray]:
    return [np.full((48, 64, 3), COLORS[name], np.uint8) for name in names for _ in range(seconds * fps)]


def figures(result: RunResult, section: str) -> dict[str, float]:
    return {score.name: round(score.value, 4) for score in result.sections[section]}


# ------------------------------------------------------------------------------------------------------------ MSR-VTT


def test_videos_and_sentences_find_one_another(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    data = tmp_path / "data"
    (data / "videos").mkdir(parents=True)
    for name in NAMES:
        write_video(data / "videos" / f"{name}.mp4", plain(name), fps=5)
    pairs = [{"video": f"{name}.mp4", "caption": f"something {name}"} for name in (*NAMES, "purple")]
    write(data / "msrvtt_test1k.json", pairs)
    models = Models(encoder=FakeVideoEncoder())
    result = run_benchmark(load_benchmark("msrvtt", data), tmp_path / "out", models)
    assert result.counts == {"answered": 4, "missing": 1}
    assert len(result.sections) == 4, "two directions, with and without matching"
    for section in result.sections:
        assert figures(result, section) == {"R@1": 0.8, "R@5": 0.8, "R@10": 0.8}
    assert result.facts["videos in the pool"] == "4 of 5"
    assert result.facts["median rank, text to video, embeddings only"] == 1

    without = Models(encoder=FakeVideoEncoder(keeps_features=False))
    plain_only = run_benchmark(load_benchmark("msrvtt", data), tmp_path / "plain", without)
    assert list(plain_only.sections) == ["text to video, embeddings only", "video to text, embeddings only"]

    blank = run_benchmark(load_benchmark("msrvtt", data), tmp_path / "blank", models, control="blank")
    assert figures(blank, "text to video, embeddings only")["R@1"] == 0.0, "all alike: nothing is gained by order"

    stored = sorted((tmp_path / "out" / "embeddings").iterdir())
    times = [path.stat().st_mtime_ns for path in stored]
    run_benchmark(load_benchmark("msrvtt", data), tmp_path / "out", models)
    assert [path.stat().st_mtime_ns for path in stored] == times, "nothing is embedded twice"


def test_ranks_count_equals_as_better() -> None:
    values = np.array([0.3, 0.9, 0.3, 0.1])
    assert [rank_of(values, place) for place in range(4)] == [3, 1, 3, 4]


def test_only_the_best_by_similarity_are_put_in_a_new_order() -> None:
    similarity = np.linspace(1.0, 0.0, 300)  # the n-th video is the n-th best
    best = np.argsort(-similarity)[:RERANKED]
    matched = np.linspace(0.0, 1.0, RERANKED)  # the head thinks the opposite
    assert RERANKED == 128
    assert rank_again(similarity, best, matched, 127) == 1
    assert rank_again(similarity, best, matched, 0) == 128
    assert rank_again(similarity, best, matched, 128) == 129, "who is not among them stays behind them"
    assert rank_again(similarity, best, matched, 200) == 201


# -------------------------------------------------------------------------------------------------------- long videos


def sees_blue(question: str, frames: Frames | None) -> str:
    """B where all that is shown is blue."""
    if frames is None:
        return "A)"
    return "B)" if (np.abs(frames.astype(int) - COLORS["blue"]).max(axis=-1) < 60).mean() > 0.9 else "A)"


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    """Ten seconds each of five colours; blue from 20 s on."""
    path = tmp_path_factory.mktemp("long") / "videos" / "abc.mp4"
    path.parent.mkdir()
    return write_video(path, plain("red", "green", "blue", "yellow", "white", seconds=10), fps=5)


def test_lvbench_searches_for_the_moment(long_video: Path, tmp_path: Path) -> None:
    data = long_video.parents[1]
    entry = {
        "video": "abc", "type": "cartoon", "question": "When something blue is on screen, what happens?",
        "candidates": ["(A) nothing", "(B) blue"], "answer": "(B) blue", "question_type": ["reasoning"],
        "time_reference": "00:21-00:28",
    }  # fmt: skip
    write(data / "lvbench_clean.json", [entry, {**entry, "time_reference": "None-None"}, {**entry, "video": "gone"}])
    models = Models(RuleModel(sees_blue), FakeVideoEncoder())
    found = run_benchmark(load_benchmark("lvbench", data), tmp_path / "found", models)
    assert found.counts == {"answered": 2, "missing": 1}
    assert figures(found, "moment found")["recall@1"] == 0.5, "one of two questions with a time; the other is missing"
    assert found.facts["questions without a usable time reference"] == 1
    first = json.loads((tmp_path / "found" / "items.jsonl").read_text().splitlines()[0])
    assert first["found"][0] == pytest.approx([20.0, 30.0], abs=0.3)

    for control, folder in (("uniform", "uniform"), ("blank", "blank"), ("text-only", "text")):
        result = run_benchmark(load_benchmark("lvbench", data), tmp_path / folder, models, control=control)
        assert figures(result, "right")["all"] == 0.0
        assert "moment found" not in result.sections
    shown = [frames for _, frames, _ in models.chat.asked if frames is not None]
    assert {frames.shape for frames in shown} == {(4, 32, 32, 3)}, "the same number of frames in every control"


def test_longvideobench_counts_evidence_frames(long_video: Path, tmp_path: Path) -> None:
    data = long_video.parents[1]
    entry = {
        "id": "abc_0", "video_id": "abc", "video_path": "abc.mp4", "subtitle_path": "abc_en.json",
        "question": "When something blue is on screen, what happens?", "candidates": ["nothing", "blue"],
        "correct_choice": 1, "position": [110, 140, 240, 61_388_250], "question_category": "TOS", "level": "L1",
        "duration_group": 60, "starting_timestamp_for_subtitles": 0, "duration": 50.0,
    }  # fmt: skip
    write(data / "lvb_val.json", [entry])
    write(data / "subtitles" / "abc_en.json", [{"start": "00:00:20.000", "end": "00:00:30.000", "line": "how blue"}])
    model = RuleModel(sees_blue)
    models = Models(model, FakeVideoEncoder())
    result = run_benchmark(load_benchmark("longvideobench", data), tmp_path / "out", models)
    assert figures(result, "evidence frames found")["recall@1"] == 0.5, "frames 110 and 140 are blue, at 5 a second"
    assert result.facts["evidence frames behind the end of their video"] == 1
    assert result.sections["evidence frames found"][0].chance == pytest.approx(0.2, abs=0.01)
    assert model.asked[-1][2] == ""
    run_benchmark(load_benchmark("longvideobench-subtitles", data), tmp_path / "said", models)
    assert "how blue" in model.asked[-1][2]


def test_subtitles_of_video_mme_go_with_the_frames(long_video: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    question = {"question": "Which?", "choices": ["A. one", "B. two"], "answer": "A", "task_type": "OCR Problems"}
    write(data / "videomme.json", [{"url": "abc", "duration": "long", "questions": [question]}])
    (data / "data").mkdir()
    (data / "data" / "abc.mp4").write_bytes(long_video.read_bytes())
    (data / "subtitle").mkdir()
    cues = ("1\n00:00:05,000 --> 00:00:07,000\nat the start\n", "2\n00:00:10,000 --> 00:00:11,000\nbetween\n")
    (data / "subtitle" / "abc.srt").write_text("\n".join(cues))
    model = RuleModel()
    result = run_benchmark(load_benchmark("video-mme-subtitles", data), tmp_path / "with", Models(model))
    # 4 frames of 50 s: the first at 6 s
    assert model.asked[-1][2] == "This video's subtitles are listed below: at the start\n"
    assert result.facts["questions asked with subtitles"] == 1
    run_benchmark(load_benchmark("video-mme", data), tmp_path / "without", Models(model))
    assert model.asked[-1][2] == ""


# ---------------------------------------------------------------------------------------------------------- citations


def test_precision_and_recall_of_citations(tmp_path: Path) -> None:
    asked = {"type": "colour", "question": "what colour?", "answer": "red", "start": 10.0, "end": 16.0}
    nowhere = {**asked, "answer": "Not found in the video.", "start": None, "end": None}
    write(tmp_path / "v.timeline.json", {"questions": [asked] * 3, "absent_questions": [nowhere] * 2})
    benchmark = load_benchmark("citations", tmp_path)
    said = [
        {"answer": "red", "found": True, "cited": [[10, 16]], "dropped": []},
        {"answer": "red", "found": True, "cited": [[10, 16], [40, 46]], "dropped": ["[99:00–99:09]"]},
        {"answer": "blue", "found": True, "cited": [], "dropped": []},
        {"answer": "red", "found": True, "cited": [[0, 6]], "dropped": []},
        {"answer": "Not found in the video.", "found": False, "cited": [], "dropped": []},
    ]
    records = {item.id: {"status": "answered", **entry} for item, entry in zip(benchmark.items, said, strict=True)}
    scores = {
        score.name: (score.correct, score.total)  # type: ignore[union-attr]
        for scores in benchmark.score(benchmark.items, records).values()
        for score in scores
    }
    assert scores == {
        "precision: citations that are right": (2, 5),
        "recall: questions whose moment is cited": (2, 3),
        "right words": (2, 3),
        "right words with a right citation": (2, 3),
        "not there, and said so": (1, 2),
    }
