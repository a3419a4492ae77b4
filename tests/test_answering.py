"""Answers are checked: what a model cites was retrieved, or it is taken out and reported."""

from __future__ import annotations

import pytest

from videochat_tools.answering import check_answer, parse_citations
from videochat_tools.context import NOT_FOUND
from videochat_tools.types import SearchHit, TimeSpan


def hit(start: float, end: float, score: float = 0.5, video: str = "talk.mp4") -> SearchHit:
    return SearchHit(video.split(".")[0], video, f"file:///{video}", TimeSpan(start, end), score)


HARBOUR = hit(42.3, 51.7, 0.9)
CLIPS = [HARBOUR, hit(51.7, 60.0, 0.5), hit(100, 110, 0.4), hit(3700, 3710, 0.3), hit(42, 50, 0.2, "boat.mp4")]


@pytest.mark.parametrize(
    ("written", "span"),
    [
        ("[00:42–00:51]", (42, 51)),
        ("[00:42-00:51]", (42, 51)),
        ("[00:42—00:51]", (42, 51)),
        ("[00:42 to 00:51]", (42, 51)),
        ("[ 00:42 – 00:51 ]", (42, 51)),
        ("(00:42–00:51)", (42, 51)),
        ("[0:00:42–0:00:51]", (42, 51)),
        ("[1:02:03–1:02:04]", (3723, 3724)),
        ("[00:42.5–00:51.25]", (42.5, 51.25)),
        ("[00:42]", (42, 42)),
        ("[at 00:42]", (42, 42)),
        ("[100:00–100:05]", (6000, 6005)),
    ],
)
def test_every_way_to_write_a_citation(written: str, span: tuple[float, float]) -> None:
    (citation,) = parse_citations(f"it is red {written}.")
    assert citation.span == TimeSpan(*span)


@pytest.mark.parametrize("text", ["", "red", "[music] red [1]", "in 16:9 (16:9, wide)", "at 4:30 pm (local 04:30)"])
def test_other_brackets_are_no_citations(text: str) -> None:
    assert parse_citations(text) == []


@pytest.mark.parametrize(
    ("written", "text", "cited", "dropped"),
    [
        # inside what was retrieved, to within a second
        ("red [00:42–00:51]", "red [00:42–00:51]", [(42.3, 51.7)], []),
        ("red [00:43-00:50].", "red [00:42–00:51].", [(42.3, 51.7)], []),
        ("red [00:45]", "red [00:42–00:51]", [(42.3, 51.7)], []),
        ("red [1:01:40–1:01:50]", "red [1:01:40–1:01:50]", [(3700, 3710)], []),
        ("[01:40–01:50]", "[01:40–01:50]", [(100, 110)], []),
        # several
        ("red [00:42–00:51] then blue [01:41 to 01:45]", "red [00:42–00:51] then blue [01:40–01:50]",
         [(42.3, 51.7), (100, 110)], []),
        ("red [00:42–00:51, 01:40–01:50]", "red [00:42–00:51] [01:40–01:50]", [(42.3, 51.7), (100, 110)], []),
        ("red [00:45–00:58]", "red [00:42–00:51] [00:51–01:00]", [(42.3, 51.7), (51.7, 60)], []),
        # by the name of the video
        ("red [boat.mp4 00:42–00:50]", "red [boat.mp4 00:42–00:50]", [(42, 50)], []),
        # in the running text, but not in what somebody says
        ("from 00:42 to 00:51", "from 00:42 to 00:51", [(42.3, 51.7)], []),
        ("from 00:43.5 to 00:51.0", "from 00:43.5 to 00:51.0", [(42.3, 51.7)], []),
        ("from 00:42 to 00:51 [00:42–00:51]", "from 00:42 to 00:51 [00:42–00:51]", [(42.3, 51.7)], []),
        ("it moves from 05:00 to 05:09 [00:42–00:51]", "it moves [00:42–00:51]", [(42.3, 51.7)], ["05:00 to 05:09"]),
        ('"open 10:30 to 11:00" [00:42–00:51]', '"open 10:30 to 11:00" [00:42–00:51]', [(42.3, 51.7)], []),
        # outside: taken out and reported
        ("red [05:00–05:09]", "red", [], ["05:00–05:09"]),
        ("red [05:00–05:09].", "red.", [], ["05:00–05:09"]),
        ("red [00:42–00:51] or blue [05:00]", "red [00:42–00:51] or blue", [(42.3, 51.7)], ["05:00"]),
        ("red [00:42–00:51, 05:00–05:09]", "red [00:42–00:51]", [(42.3, 51.7)], ["05:00–05:09"]),
        ("red [00:30–00:51]", "red", [], ["00:30–00:51"]),
        ("red [01:00–01:40]", "red", [], ["01:00–01:40"]),
        ("red [ship.mp4 00:42–00:50]", "red", [], ["ship.mp4 00:42–00:50"]),
        ("red [00:51–00:42]", "red", [], ["00:51–00:42"]),
        ("red [00:75–00:90]", "red", [], ["00:75–00:90"]),
    ],
)  # fmt: skip
def test_citations_are_snapped_or_dropped(
    written: str, text: str, cited: list[tuple[float, float]], dropped: list[str]
) -> None:
    answer = check_answer("what colour?", written, CLIPS)
    assert answer.found
    assert answer.text == text
    assert [(item.span.start, item.span.end) for item in answer.evidence if item.cited] == cited
    assert list(answer.dropped) == dropped
    assert all(item.hit in CLIPS for item in answer.evidence)


def test_an_answer_without_a_citation_rests_on_the_best_clip() -> None:
    answer = check_answer("what colour?", "red", CLIPS)
    assert [(item.hit, item.cited) for item in answer.evidence] == [(HARBOUR, False)]


def test_videos_with_the_same_times_are_told_apart_by_score() -> None:
    answer = check_answer("what colour?", "red [00:43–00:49]", [hit(42, 50, 0.9, "boat.mp4"), hit(42, 51, 0.8)])
    assert [item.video for item in answer.evidence] == ["boat.mp4"]


@pytest.mark.parametrize("written", [NOT_FOUND, "not found in the video", "Not found.", "[07:00–07:10]", "  ", ""])
def test_not_found(written: str) -> None:
    answer = check_answer("what colour?", written, CLIPS)
    assert (answer.text, answer.found, answer.evidence) == (NOT_FOUND, False, ())
    assert answer.to_dict()["evidence"] == []
