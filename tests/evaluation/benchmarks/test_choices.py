"""When a multiple-choice answer counts, on answers made by hand and on the published annotations."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from videochat_tools.evaluation.benchmarks import load_benchmark
from videochat_tools.evaluation.benchmarks.choices import (
    ChoiceBenchmark,
    ChoiceItem,
    chance,
    chosen_option,
    official_mvbench,
    official_mvbench_hd,
    right_letter,
    strict_mvbench,
)
from videochat_tools.evaluation.benchmarks.footage import Footage
from videochat_tools.evaluation.benchmarks.mvbench import TASKS

ITEM = ChoiceItem("0", "v", Footage(Path("v.mp4")), "Which?", ("the cat.", "a dog", "two"), 1)


@pytest.mark.parametrize(
    ("prediction", "official", "official_hd", "strict"),
    [
        ("(B) a dog", True, True, True),
        ("(B)", True, True, True),
        ("B) a dog", True, True, True),
        ("(b) a dog", True, True, False),
        ("(B", True, True, False),  # a part of "(b)"
        ("B", True, True, False),
        ("(", True, False, False),  # the flaws of the released scorer: these are right for every item
        (")", True, False, False),
        ("", True, False, False),
        ("Bananas", False, True, False),  # the flaw of that of VideoChat2-HD: any word with the letter in it
        ("(A) the cat.", False, False, False),
        ("(D) none of them", False, False, False),
        ("(Z)", False, False, False),
        ("a dog", False, False, False),
        ("The answer is (B)", False, False, False),
    ],
)
def test_the_scorers_of_mvbench_side_by_side(prediction: str, official: bool, official_hd: bool, strict: bool) -> None:
    assert official_mvbench(prediction, ITEM) is official
    assert official_mvbench_hd(prediction, ITEM) is official_hd
    assert strict_mvbench(prediction, ITEM) is strict


@pytest.mark.parametrize(
    ("prediction", "chosen"),
    [
        ("(B) a dog", 1),
        ("B.", 1),
        ("C", 2),
        (" (A)", 0),
        ("A: the cat", 0),
        ("A dog", None),  # a word, not a letter
        ("(D) the fourth of three", None),
        ("", None),
        ("(", None),
        ("b)", None),
    ],
)
def test_the_option_that_an_answer_names(prediction: str, chosen: int | None) -> None:
    assert chosen_option(prediction, 3) == chosen
    assert right_letter(prediction, ITEM) is (chosen == 1)


def test_questions_are_written_as_the_released_notebooks_write_them() -> None:
    assert ITEM.text == "Question: Which?\nOptions:\n(A) the cat.\n(B) a dog\n(C) two"


def test_what_was_not_answered_counts_as_wrong() -> None:
    items = [ChoiceItem(str(n), f"v{n // 2}", ITEM.footage, "Which?", ("x", "y"), 0) for n in range(8)]
    records = {str(n): {"status": "answered", "prediction": "(A)" if n < 3 else "(B)", "chosen": "A"} for n in range(5)}
    records |= {"5": {"status": "missing"}, "6": {"status": "unreadable"}, "7": {"status": "too long"}}
    (score,) = ChoiceBenchmark(items).score(items, records)["right"]
    assert (score.correct, score.total, score.chance) == (3, 8, 0.5)  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------- the published annotations


def everywhere(benchmark: ChoiceBenchmark, prediction: str) -> dict[str, dict[str, object]]:
    return {item.id: {"status": "answered", "prediction": prediction, "chosen": None} for item in benchmark.items}


def test_mvbench(shared: Path) -> None:
    benchmark = load_benchmark("mvbench", shared / "annotations" / "mvbench")
    items = benchmark.items
    assert len(items) == 4000
    assert Counter(item.groups["task"] for item in items) == dict.fromkeys(TASKS, 200)
    assert chance(items) == pytest.approx(0.2829, abs=5e-5)
    counts = [len(item.options) for item in items]
    assert {n: counts.count(n) for n in set(counts)} == {1: 5, 2: 118, 3: 1301, 4: 2376, 5: 200}
    assert sum(item.footage.bound is not None for item in items) == 5 * 200
    assert {item.footage.fps for item in items if item.groups["task"] == "episodic_reasoning"} == {3}

    def share(prediction: str, scorer: str) -> float:
        return benchmark.score(items, everywhere(benchmark, prediction))[scorer][0].value

    assert share("(A)", "strict") == share("(A)", "official") == pytest.approx(0.297, abs=5e-4)
    assert share("", "official") == share("(", "official") == 1.0, "the known flaw: 4,000 of 4,000"
    assert [share(nothing, scorer) for scorer in ("strict", "official-hd") for nothing in ("", "(")] == [0.0] * 4
    assert share("(F) none", "strict") == share("(F) none", "official") == 0.0
    truths = {item.id: {"status": "answered", "prediction": item.named(item.answer), "chosen": "A"} for item in items}
    assert {scores[0].value for scores in benchmark.score(items, truths).values()} == {1.0}


@pytest.mark.parametrize(
    ("name", "folder", "questions", "videos", "options", "guessing", "always_a"),
    [
        ("lvbench", "lvbench", 1519, 101, {4: 1519}, 0.25, 374 / 1519),
        ("longvideobench", "longvideobench", 1337, 753, {3: 1, 4: 353, 5: 983}, 0.2133, 291 / 1337),
        ("video-mme", "video_mme", 2700, 900, {4: 2700}, 0.25, 677 / 2700),
    ],
)
def test_the_other_annotations(
    shared: Path,
    name: str,
    folder: str,
    questions: int,
    videos: int,
    options: dict[int, int],
    guessing: float,
    always_a: float,
) -> None:
    if name == "video-mme":
        pytest.importorskip("pyarrow")
    benchmark = load_benchmark(name, shared / "annotations" / folder)
    items = benchmark.items
    assert (len(items), len({item.video for item in items})) == (questions, videos)
    assert Counter(len(item.options) for item in items) == options
    lengths = Counter(item.groups.get("length") for item in items)
    if name == "longvideobench":
        assert lengths == {"15 s": 189, "60 s": 172, "600 s": 412, "3600 s": 564}
    if name == "video-mme":
        assert lengths == {"short": 900, "medium": 900, "long": 900}
    assert chance(items) == pytest.approx(guessing, abs=5e-5)
    assert benchmark.score(items, everywhere(benchmark, "(A)"))["right"][0].value == pytest.approx(always_a)
    assert not any(option.startswith(("(A)", "A. ")) for item in items for option in item.options)


def test_the_time_references_of_lvbench(shared: Path) -> None:
    benchmark = load_benchmark("lvbench", shared / "annotations" / "lvbench")
    lengths = sorted(item.windows[0].duration for item in benchmark.items if item.windows)
    assert len(lengths) == 1504, "2 are no times, 13 end before they start"
    assert lengths[len(lengths) // 2] == 18.0
    records = everywhere(benchmark, "(A)")
    assert benchmark.facts(benchmark.items, records)["questions without a usable time reference"] == 15


def test_the_public_answers_of_egoschema(shared: Path, tmp_path: Path) -> None:
    import json

    answers = shared / "annotations" / "egoschema" / "subset_answers.json"
    names = list(json.loads(answers.read_text()))
    (tmp_path / "subset_answers.json").write_bytes(answers.read_bytes())
    asked = [{"q_uid": name, "question": "what?", **{f"option {n}": f"{n}." for n in range(5)}} for name in names]
    hidden = [{**asked[0], "q_uid": "hidden"}]
    (tmp_path / "questions.json").write_text(json.dumps(hidden + asked))
    benchmark = load_benchmark("egoschema", tmp_path)
    assert len(benchmark.items) == 500
    assert benchmark.score(benchmark.items, everywhere(benchmark, "(A)"))["right"][0].value == 101 / 500
    full = load_benchmark("egoschema-full", tmp_path)
    assert len(full.items) == 501
    facts = full.facts(full.items, everywhere(full, "(A)"))
    assert facts["items without a public answer, not scored"] == 1
    assert full.items[0].question == "What?"
