"""Broken annotations and useless answers: told with their place, counted as wrong, never left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_benchmarks import write
from standins import RuleModel

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks import BENCHMARKS, RENDERED, load_benchmark
from videochat_tools.evaluation.benchmarks.choices import ChoiceBenchmark
from videochat_tools.evaluation.benchmarks.models import Models
from videochat_tools.evaluation.benchmarks.runner import run_benchmark
from videochat_tools.testing import FakeVideoEncoder

TASK = {"tasks": ("action_count",)}
QUESTION = {"question": "Which?", "candidates": ["one", "two", "three"]}
LONG = {
    **QUESTION, "id": "0", "video_id": "v", "video_path": "v.mp4", "subtitle_path": "v.json", "correct_choice": 1,
    "position": [1], "question_category": "TOS", "level": "L1", "duration_group": 15,
    "starting_timestamp_for_subtitles": 0,
}  # fmt: skip
LVBENCH = {
    "video": "v", "type": "cartoon", "question": "Which?", "candidates": ["(A) one", "(B) two", "(C) three"],
    "answer": "(B) two", "question_type": ["reasoning"], "time_reference": "00:21-00:28",
}  # fmt: skip
MME = {"question": "Which?", "choices": ["A. one", "B. two", "C. three"], "answer": "B", "task_type": "OCR Problems"}
STAR = {
    "question_id": "Sequence_T1_1", "question": "Which?", "video_id": "v", "start": 0, "end": 5, "answer": "two",
    "choices": [{"choice": "one"}, {"choice": "two"}, {"choice": "three"}],
}  # fmt: skip
EGO = {"q_uid": "v", "question": "which?", **{f"option {n}": str(n) for n in range(5)}}
HIGHLIGHTS = {
    "qid": 0, "vid": "v", "query": "red", "duration": 10, "relevant_windows": [[0, 4]],
    "relevant_clip_ids": [0, 1], "saliency_scores": [[4, 4, 2]] * 2,
}  # fmt: skip
TIMED = {"type": "colour", "question": "what colour?", "answer": "red", "start": 1.0, "end": 4.0}
NEXT_QA = "video,question,answer,qid,type,a0,a1,a2,a3,a4\nv,which,1,0,CW,a,b,c,d,e\n"

FILES: dict[str, tuple[str, Any]] = {
    "mvbench": ("action_count.json", [{**QUESTION, "video": "v.mp4", "answer": "two"}]),
    "video-mme": ("videomme.json", [{"url": "v", "duration": "short", "questions": [MME]}]),
    "egoschema": ("questions.json", [EGO]),
    "longvideobench": ("lvb_val.json", [LONG]),
    "lvbench": ("lvbench_clean.json", [LVBENCH]),
    "next-qa": ("map_vid_vidorID.json", {"v": "1/v"}),
    "star": ("STAR_val.json", [STAR]),
    "qvhighlights": ("highlight_val_release.jsonl", HIGHLIGHTS),
    "charades-sta": ("temporal_grounding_charades.json", [{"video": "v.mp4", "caption": "red", "timestamp": [0, 4]}]),
    "msrvtt": ("msrvtt_test1k.json", [{"video": "v.mp4", "caption": "red"}]),
    "citations": ("v.timeline.json", {"questions": [TIMED], "absent_questions": []}),
}
"""One entry of each format. Benchmarks that share their files stand here once."""

CHOICES = ("mvbench", "video-mme", "egoschema", "longvideobench", "lvbench", "next-qa", "star")


def options(name: str) -> dict[str, Any]:
    return TASK if name == "mvbench" else {}


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def data(name: str, tmp_path: Path) -> Path:
    """A folder with one entry; its video is missing."""
    file, content = FILES[name]
    write(tmp_path / "data" / file, content)
    if name == "egoschema":
        write(tmp_path / "data" / "subset_answers.json", {"v": 1})
    if name == "next-qa":
        (tmp_path / "data" / "val.csv").write_text(NEXT_QA)
    return tmp_path / "data"


def test_every_format_is_here() -> None:
    names = {name.partition("-subtitles")[0].partition("-full")[0].partition("-prompt")[0] for name in BENCHMARKS}
    assert set(FILES) == names - set(RENDERED)


def test_malformed_json_is_told_with_its_file(name: str, data: Path) -> None:
    assert len(load_benchmark(name, data, **options(name)).items) == 1
    path = data / FILES[name][0]
    for broken, told in (("[{", "no JSON"), ("", ""), ("3", ""), ("\udcff", "cannot be read")):
        path.write_bytes(broken.encode("utf-8", "surrogateescape"))
        with pytest.raises(BenchmarkError) as caught:
            load_benchmark(name, data, **options(name))
        assert path.name in str(caught.value)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_video_counts_as_wrong(name: str, data: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark(name, data, **options(name))
    models = Models(RuleModel(lambda question, frames: "B) two"), FakeVideoEncoder())
    if name == "msrvtt":
        with pytest.raises(BenchmarkError, match="none of the 1 videos is there"):
            run_benchmark(benchmark, tmp_path / "out", models)
        return
    if name == "citations":
        models = Models(None, FakeVideoEncoder())
    result = run_benchmark(benchmark, tmp_path / "out", models)
    assert result.counts == {"missing": 1}
    assert len(result.absent) == 1
    assert "1 missing; what is not answered counts as wrong; 1 videos are missing" in result.markdown
    first = next(iter(result.sections.values()))[0]
    assert (first.total, first.value) == (1, 0.0)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("answer", ["", "Z) none of them", "E) the fifth", "no idea"])
def test_an_answer_without_an_option_is_wrong_and_told(name: str, answer: str, data: Path, tmp_path: Path) -> None:
    """Shown nothing, so that no video is needed."""
    benchmark = load_benchmark(name, data, **options(name))
    assert isinstance(benchmark, ChoiceBenchmark)
    fifth = answer.startswith("E") and len(benchmark.items[0].options) == 5
    model = Models(RuleModel(lambda question, frames: answer), FakeVideoEncoder())
    result = run_benchmark(benchmark, tmp_path / "out", model, control="text-only")
    assert result.counts == {"answered": 1}
    first = next(iter(result.sections.values()))[0]
    assert (first.total, first.value) == (1, 0.0)
    assert result.facts["answers that name no option"] == (0 if fifth else 1)
    right = Models(RuleModel(lambda question, frames: "B) two"), FakeVideoEncoder())
    assert (
        next(iter(run_benchmark(benchmark, tmp_path / "right", right, control="text-only").sections.values()))[0].value
        == 1
    )


@pytest.mark.parametrize(
    ("name", "changed", "told"),
    [
        ("longvideobench", {"correct_choice": 3}, "'correct_choice' must be 0 to 2, got 3"),
        ("longvideobench", {"position": ["soon"]}, "'position' must be a list of whole numbers"),
        ("lvbench", {"answer": "(D) four"}, "the answer '(D) four' is none of the options"),
        ("star", {"answer": "four"}, "the answer 'four' is none of the options"),
        ("star", {"choices": ["one", "two"]}, "'choices' must be objects"),
        ("star", {"question_id": "Juggling_T1_1"}, "must begin with Interaction"),
        ("qvhighlights", {"saliency_scores": [[4, 4, 2], ["much", 4, 2]]}, "must be whole numbers"),
        ("qvhighlights", {"saliency_scores": [[4, 4, 2]]}, "as many scores"),
        ("qvhighlights", {"relevant_windows": [[4, 0]]}, "0 <= start <= end"),
        ("charades-sta", {"timestamp": [0]}, "must be two times"),
        ("msrvtt", {"caption": None}, "'caption' must be a text"),
    ],
)
def test_entries_that_make_no_sense(name: str, changed: dict[str, Any], told: str, data: Path) -> None:
    file, content = FILES[name]
    entry = {**(content[0] if isinstance(content, list) else content), **changed}
    write(data / file, [entry] if isinstance(content, list) else entry)
    with pytest.raises(BenchmarkError, match=file) as caught:
        load_benchmark(name, data)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["egoschema"])
@pytest.mark.parametrize("answer", [5, -1, True, "1"])
def test_answers_of_egoschema_that_are_no_option(answer: object, data: Path) -> None:
    write(data / "subset_answers.json", {"v": answer})
    with pytest.raises(BenchmarkError, match="must be 0 to 4"):
        load_benchmark("egoschema", data)


@pytest.mark.parametrize("name", ["star"])
def test_star_without_public_answers_is_asked_and_not_scored(data: Path, tmp_path: Path) -> None:
    hidden = {field: value for field, value in STAR.items() if field != "answer"}
    write(data / "STAR_val.json", [hidden])
    result = run_benchmark(load_benchmark("star", data), tmp_path / "out", Models(RuleModel()), control="text-only")
    assert result.facts == {"answers that name no option": 0, "items without a public answer, not scored": 1}
    assert result.sections["right"][0].total == 0
    assert json.loads(result.json)["scores"]["right"]["all"]["value"] is None
