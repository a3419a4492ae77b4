"""Files of benchmarks in their published formats, and files that are broken."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from small_benchmarks import write

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks import BENCHMARKS, RENDERED, load_benchmark
from videochat_tools.evaluation.benchmarks.longvideobench import read_subtitles
from videochat_tools.evaluation.benchmarks.lvbench import parse_window
from videochat_tools.evaluation.benchmarks.models import thinned
from videochat_tools.evaluation.benchmarks.subtitles import subtitles_at
from videochat_tools.types import TimeSpan, Utterance

ENTRY = {"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y"}


def error(name: str, folder: Path, **options: object) -> str:
    with pytest.raises(BenchmarkError) as caught:
        load_benchmark(name, folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_benchmark_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    assert all(name in error("mvbenhc", tmp_path) for name in BENCHMARKS)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in RENDERED])
def test_every_benchmark_says_what_is_missing(name: str, tmp_path: Path) -> None:
    assert str(tmp_path) in error(name, tmp_path)
    if name != "mvbench":
        assert "nowhere" in error(name, tmp_path / "nowhere")
    with pytest.raises(BenchmarkError, match="needs its files"):
        load_benchmark(name)


def test_unknown_and_missing_tasks_of_mvbench(tmp_path: Path) -> None:
    write(tmp_path / "json" / "action_count.json", [ENTRY])
    assert "'juggling'" in error("mvbench", tmp_path, tasks=("juggling",))
    assert "19 of 20 tasks are not in" in error("mvbench", tmp_path)
    assert len(load_benchmark("mvbench", tmp_path, tasks=("action_count",)).items) == 1
    write(tmp_path / "json" / "juggling.json", [ENTRY])
    assert "'juggling'" in error("mvbench", tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[{", "line 1"),
        ("", "no JSON"),
        ("{}", "list"),
        ("[]", "at least one entry"),
        ("[1]", "entry 1"),
        (json.dumps([ENTRY, {**ENTRY, "answer": "z"}]), "entry 2: the answer 'z' is none of the options"),
        (json.dumps([{**ENTRY, "candidates": []}]), "'candidates' must be a list with at least one"),
        (json.dumps([{**ENTRY, "candidates": ["x", 3]}]), "'candidates' must be a list of texts"),
        (json.dumps([{**ENTRY, "question": None}]), "'question' must be a text"),
        (json.dumps([{key: value for key, value in ENTRY.items() if key != "video"}]), "'video' is missing"),
        (json.dumps([{**ENTRY, "start": 5, "end": 2}]), "5.0 to 2.0"),
        (json.dumps([{**ENTRY, "start": "soon", "end": 2}]), "'start' must be a number"),
    ],
)
def test_malformed_annotations_are_told_with_their_place(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "action_count.json").write_text(content)
    message = error("mvbench", tmp_path, tasks=("action_count",))
    assert "action_count.json" in message
    assert told in message


def test_video_mme_in_both_of_its_formats(tmp_path: Path) -> None:
    old = {
        "url": "https://www.youtube.com/watch?v=abc",
        "duration_category": "short",
        "questions": [
            {"question": "Which?", "choices": ["A. one", "B. two"], "answer": "B", "task_type": "Counting Problem"}
        ],
    }
    write(tmp_path / "old" / "videomme.json", [old])
    (item,) = load_benchmark("video-mme", tmp_path / "old").items
    assert (item.video, item.options, item.answer) == ("abc", ("one", "two"), 1)
    assert item.groups == {"length": "short", "task": "Counting Problem"}
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    row = {
        "videoID": "abc", "question_id": "001-1", "duration": "long", "task_type": "OCR", "question": "Which?",
        "options": ["A. one", "B. two"], "answer": "B",
    }  # fmt: skip
    (tmp_path / "new" / "videomme").mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "new" / "videomme" / "test.parquet")
    (item,) = load_benchmark("video-mme", tmp_path / "new").items
    assert (item.id, item.options, item.answer, item.groups["length"]) == ("001-1", ("one", "two"), 1, "long")
    parquet.write_table(
        pyarrow.Table.from_pylist([{**row, "answer": "E"}]), tmp_path / "new" / "videomme" / "test.parquet"
    )
    assert "'answer' must be a letter from A to B, got 'E'" in error("video-mme", tmp_path / "new")
    (tmp_path / "new" / "videomme" / "test.parquet").write_bytes(b"PAR1 is not enough")
    assert "no Parquet file" in error("video-mme", tmp_path / "new")


def test_next_qa(tmp_path: Path) -> None:
    header = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    (tmp_path / "val.csv").write_text(header + '3238737531,10,640,480,"why, though",2,6,CW,a,b,c,d,e\n')
    write(tmp_path / "map_vid_vidorID.json", {"3238737531": "1150/3238737531"})
    (tmp_path / "NExTVideo" / "1150").mkdir(parents=True)
    (tmp_path / "NExTVideo" / "1150" / "3238737531.mp4").touch()
    benchmark = load_benchmark("next-qa", tmp_path)
    (item,) = benchmark.items
    assert (item.question, item.options, item.answer) == ("why, though", ("a", "b", "c", "d", "e"), 2)
    assert item.groups == {"kind": "causal", "type": "CW"}
    assert benchmark.is_there(item)
    (tmp_path / "val.csv").write_text(header + "1,10,640,480,why,2,6,CW,a,b\n")
    assert "'a2' is missing" in error("next-qa", tmp_path)
    (tmp_path / "val.csv").write_text(header + "1,10,640,480,why,5,6,CW,a,b,c,d,e\n")
    assert "'answer' must be 0 to 4, got 5" in error("next-qa", tmp_path)


def test_star_reports_the_mean_of_its_kinds(tmp_path: Path) -> None:
    choices = [{"choice_id": n, "choice": text} for n, text in enumerate(("the cup.", "the bag."))]
    entries = [
        {
            "question_id": f"{kind}_T1_{n}", "question": "Which?", "video_id": "6H78U", "start": 11.1, "end": 19.6,
            "answer": "the bag.", "choices": choices,
        }
        for kind, count in (("Interaction", 3), ("Feasibility", 1))
        for n in range(count)
    ]  # fmt: skip
    write(tmp_path / "STAR_val.json", entries)
    benchmark = load_benchmark("star", tmp_path)
    assert benchmark.items[0].footage.bound == (11.1, 19.6)
    right = {
        item.id: {"status": "answered", "prediction": "(B)" if "Feas" in item.id else "(A)", "chosen": "B"}
        for item in benchmark.items
    }
    assert benchmark.score(benchmark.items, right)["right"][0].value == 0.25
    assert benchmark.facts(benchmark.items, right)["mean of the kinds"] == 0.5
    write(tmp_path / "STAR_val.json", [entries[0], entries[0]])
    assert "more than once" in error("star", tmp_path)


def test_lvbench_as_released(tmp_path: Path) -> None:
    asked = {
        "uid": "1", "question": "What year is it?\n(A) 1636\n(B) 1366", "answer": "B", "question_type": ["reasoning"],
        "time_reference": "01:00:15-01:00:19",
    }  # fmt: skip
    line = {"key": "Cm73ma6Ibcs", "type": "cartoon", "qa": [asked]}
    (tmp_path / "video_info.meta.jsonl").write_text(json.dumps(line) + "\n")
    (item,) = load_benchmark("lvbench", tmp_path).items
    assert (item.question, item.options, item.answer) == ("What year is it?", ("1636", "1366"), 1)
    assert item.windows == (TimeSpan(3615, 3619),)
    (tmp_path / "video_info.meta.jsonl").write_text(json.dumps(line) + "\n{broken\n")
    assert "line 2 is no JSON" in error("lvbench", tmp_path)


@pytest.mark.parametrize("text", ["None-None", "08:17-None", "33:52-33:46", "soon", ""])
def test_time_references_that_name_no_window(text: str) -> None:
    assert parse_window(text) is None


def test_subtitles_of_longvideobench_in_both_forms(tmp_path: Path) -> None:
    lines = [{"start": "00:00:10.500", "end": "00:00:12.000", "line": "hello"}]
    assert read_subtitles(write(tmp_path / "a.json", lines), offset=10.0) == [Utterance(TimeSpan(0.5, 2.0), "hello")]
    timed = [{"timestamp": [1.0, None], "text": "hello"}, {"timestamp": [3.0, 4.5], "text": "you"}]
    assert [each.span.start for each in read_subtitles(write(tmp_path / "b.json", timed))] == [1.0, 3.0]
    with pytest.raises(BenchmarkError, match="'start' must be a time"):
        read_subtitles(write(tmp_path / "c.json", [{"start": "now", "end": "00:00:01", "line": ""}]))


def test_subtitles_that_are_too_long_are_thinned_evenly() -> None:
    lines = [f"line {n}\n" for n in range(100)]
    kept = thinned("".join(lines), lambda text: len(text.split()), 60).splitlines()
    assert len(kept) <= 30
    numbers = [int(line.split()[1]) for line in kept]
    assert numbers[0] == 0
    assert numbers[-1] > 90
    assert max(b - a for a, b in pairwise(numbers)) <= 5
    assert thinned("".join(lines), lambda text: len(text.split()), 200) == "".join(lines)
    assert thinned("".join(lines), lambda text: len(text.split()), 0) == ""


def test_only_subtitles_on_screen_with_a_frame_are_told() -> None:
    said = [Utterance(TimeSpan(n, n + 1.0), f"line {n // 2}") for n in range(0, 10, 2)]
    assert subtitles_at(said, (0.5, 4.2, 5.5)) == "This video's subtitles are listed below: line 0\nline 2\n"
    assert subtitles_at(said, (1.5,)) == ""
