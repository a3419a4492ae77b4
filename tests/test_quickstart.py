"""What `make quickstart` runs: it must tell right answers from wrong ones, and go through to the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from videochat_tools.quickstart import SampleQuestion, is_right, main, pick_questions
from videochat_tools.types import Answer, Evidence, SearchHit, TimeSpan

NANO = Path(__file__).resolve().parents[1] / "videochat_tools" / "models" / "nano"
TRUTH = SampleQuestion("colour", "what colour is the ring that spins?", "red", TimeSpan(42, 48))


def answered(text: str, start: float = 42, end: float = 48, *, found: bool = True) -> Answer:
    hit = SearchHit("abc", "talk.mp4", "file:///talk.mp4", TimeSpan(start, end), 0.9)
    return Answer(TRUTH.question, text, found, (Evidence(hit, cited=True),) if found else ())


@pytest.mark.parametrize("text", ["red", "Red.", "red [00:42–00:48]"])
def test_the_true_words_with_the_true_moment_are_right(text: str) -> None:
    assert is_right(answered(text), TRUTH)


@pytest.mark.parametrize(
    "answer",
    [
        answered("blue [00:42–00:48]"),
        answered("red or blue"),
        answered("red", 50, 60),
        answered("red", 0, 42.5),  # only touches the true moment
        answered("Not found in the video.", found=False),
    ],
)
def test_anything_else_is_wrong(answer: Answer) -> None:
    assert not is_right(answer, TRUTH)


def test_the_questions_are_of_many_kinds() -> None:
    questions = [
        SampleQuestion(kind, f"{kind} {number}?", "", TimeSpan(number, number + 1))
        for kind in ("which", "colour", "count")
        for number in range(9)
    ]
    assert [question.kind for question in pick_questions(questions, 5)] == [
        "which",
        "colour",
        "count",
        "which",
        "colour",
    ]
    assert len({question.span.start for question in pick_questions(questions, 3)}) == 3  # from all over the video
    assert len(pick_questions(questions, 100)) == 27
    assert pick_questions([], 5) == []


@pytest.mark.skipif(not (NANO / "chat" / "config.json").is_file(), reason="no nano weights in this tree yet")
def test_it_goes_through_and_counts_honestly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--folder", str(tmp_path / "my folder"), "--minutes", "0.5", "--questions", "4"])
    told = capsys.readouterr().out
    assert re.findall(r"^ +(RIGHT|WRONG)$", told, flags=re.MULTILINE).count("RIGHT") == int(
        re.findall(r"(\d+) of 4 right", told)[0]
    )
    assert told.count("truth     ") == 4
    assert (tmp_path / "my folder" / "answer.png").is_file()
    assert code == 0
