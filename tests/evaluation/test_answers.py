from __future__ import annotations

import pytest

from videochat_tools.evaluation.answers import majority_share, normalise, same_answer, same_place, word_overlap
from videochat_tools.types import TimeSpan


def test_citations_articles_case_and_digits_do_not_matter() -> None:
    assert normalise("The red Circle. [00:42–00:51]") == normalise("red circle") == "red circle"
    assert normalise("3") == normalise("Three!") == "three"


@pytest.mark.parametrize(
    ("answer", "truth", "kind", "right"),
    [
        ("red [00:01–00:05]", "red", "colour", True),
        ("dark red", "red", "colour", False),
        ("", "red", "colour", False),
        ("two", "three", "count", False),
        ("The harbour opens at nine on Monday.", "the harbour opens at nine on monday", "said", True),
        ('They say: "the harbour opens at nine on monday"', "the harbour opens at nine on monday", "said", True),
        ("the harbour opens at nine on sunday", "the harbour opens at nine on monday", "said", True),
        ("the harbour closes at six", "the harbour opens at nine on monday", "said", False),
        ("", "the harbour opens at nine", "said", False),
    ],
)
def test_when_an_answer_is_right(answer: str, truth: str, kind: str, right: bool) -> None:
    assert same_answer(answer, truth, kind) is right


def test_repeated_words_count_as_often_as_they_stand_there() -> None:
    assert word_overlap("red red red red", "red blue green white") == pytest.approx(0.25)
    assert word_overlap("", "") == 0.0


def test_neighbours_that_touch_are_not_the_same_place() -> None:
    scene = TimeSpan(10, 16)
    assert same_place(TimeSpan(10.1, 15.9), scene)
    assert same_place(TimeSpan(12, 13), scene)  # something said within it
    assert same_place(TimeSpan(4, 16), scene)  # merged with its neighbour
    assert not same_place(TimeSpan(15.8, 21), scene)
    assert not same_place(TimeSpan(16, 21), scene)
    assert not same_place(TimeSpan(12, 12), scene)  # a time, not a span


def test_always_saying_the_most_frequent_answer() -> None:
    assert majority_share(["yes", "Yes", "no", "yes."]) == 0.75
    assert majority_share([]) == 0.0
