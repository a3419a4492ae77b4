"""Moving in time from what is found, and what else a search can be told; on two tiny films of plain colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_library import Scripted, open_small_library

from videochat_tools.embeddings import Calibration
from videochat_tools.retrievers import RetrievalOptions
from videochat_tools.segmenting import make_segmenter
from videochat_tools.testing import FakeClipWatcher, FakeVideoEncoder
from videochat_tools.types import SearchHit, TimeSpan
from videochat_tools.video_library import VideoLibrary


@pytest.fixture(scope="module")
def library(colours: Path) -> VideoLibrary:
    """``colours.mp4``: red, green, blue; ``more.mp4``: yellow, yellow, black; 2 s each."""
    return open_small_library(colours, watcher=FakeClipWatcher())


def places(hits: list[SearchHit]) -> list[tuple[str, int, int]]:
    return [(hit.video, round(hit.span.start), round(hit.span.end)) for hit in hits]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("what happens after the screen is red?", ("colours.mp4", 2, 4)),
        ("what is shown right before the screen is blue?", ("colours.mp4", 2, 4)),
        ("after the green screen, what comes?", ("colours.mp4", 4, 6)),
        ("what happens after the yellow screen?", ("more.mp4", 2, 4)),
        ("what follows the good morning that they say?", ("colours.mp4", 2, 4)),
    ],
)
def test_what_comes_after_or_before_is_found_by_moving(
    library: VideoLibrary, question: str, expected: tuple[str, int, int]
) -> None:
    hit = library.search(question)[0]
    assert places([hit]) == [expected]
    assert hit.anchor is not None
    assert hit.anchor.intersection(hit.span) == 0
    assert hit.score > 0.5  # as sure as the anchor is
    assert hit.to_dict()["anchor"] == [round(hit.anchor.start, 3), round(hit.anchor.end, 3)]


def test_from_a_word_it_moves_to_the_rest_of_the_shot(library: VideoLibrary) -> None:
    (hit,) = library.search("what happens before they mention the harbour?", channels=["speech"])
    assert (hit.span.start, hit.span.end) == pytest.approx((2, 4), abs=0.11)  # half a second of blue is next to nothing
    assert hit.anchor == TimeSpan(4.5, 5.5)
    assert hit.text == ""
    (said,) = library.search("what is said before they mention the harbour?", channels=["speech"])
    assert said.text == "Good morning everybody."


def test_what_is_looked_for_beside_it_may_be_described(library: VideoLibrary) -> None:
    first, *others = library.search("which blue thing appears after the screen is red?")
    assert places([first]) == [("colours.mp4", 4, 6)]
    assert first.visual > 0.9 > 0.5 > max(hit.score for hit in others)
    near = RetrievalOptions(reach=1.0)
    assert all(
        hit.score < 0.5 for hit in library.search("which blue thing appears after the screen is red?", options=near)
    )
    assert not any(
        hit.score > 0.5 for hit in library.search("which red thing appears after the screen is green?")
    )  # red is there before, not after


def test_nothing_comes_after_the_end_or_out_of_the_window(library: VideoLibrary) -> None:
    assert library.search("what happens after the screen is blue?") == []
    assert library.search("what happens before the screen is red?") == []
    assert library.search("what happens after the screen is red?", span=TimeSpan(0, 2)) == []
    (hit,) = library.search("what happens after the screen is red?", span=TimeSpan(3, 6), videos=["colours"])
    assert places([hit]) == [("colours.mp4", 3, 4)]  # the anchor lies outside the window, the hit within


def test_what_was_not_found_is_not_moved_from_with_confidence(library: VideoLibrary) -> None:
    hits = library.search("what happens after the screen is purple?")
    assert all(hit.score < 0.5 for hit in hits)
    described = library.search("which green thing appears after the screen is purple?")
    assert all(hit.score < 0.5 for hit in described)


def test_answers_move_too(library: VideoLibrary) -> None:
    model = Scripted(replies=["It turns green [00:02–00:04]."], profile={"image_inputs": True})
    answer = library.ask("what happens after the screen is red?", model=model)
    assert answer.found
    assert places([evidence.hit for evidence in answer.evidence]) == [("colours.mp4", 2, 4)]
    shown = [block["text"] for block in model.heard[0][-1].content if block["type"] == "text"]
    # Red and green in order of time, so that the question makes sense.
    assert [text[:25] for text in shown[:2]] == ["colours.mp4 [00:00–00:02]", "colours.mp4 [00:02–00:04]"]


def test_the_last_shot_may_hold_what_follows_in_itself(library: VideoLibrary) -> None:
    model = Scripted(replies=["nothing else [00:04–00:06]"])
    answer = library.ask("what happens after the screen is blue?", model=model)
    assert places([evidence.hit for evidence in answer.evidence]) == [("colours.mp4", 4, 6)]


# -------------------------------------------------------------------------------------------------------- the options


def test_one_video_cannot_fill_the_list(library: VideoLibrary) -> None:
    everything = library.search("a red, green, blue and yellow screen", k=6)
    assert len(everything) == 6
    each = library.search("a red, green, blue and yellow screen", k=6, options=RetrievalOptions(per_video=1))
    assert sorted(hit.video for hit in each) == ["colours.mp4", "more.mp4"]
    assert each[0] == everything[0]


def test_context_before_and_after(library: VideoLibrary) -> None:
    (plain,) = library.search("green", k=1)
    (wide,) = library.search("green", k=1, options=RetrievalOptions(before=1.5, after=30.0))
    assert wide.span.start == pytest.approx(plain.span.start - 1.5)
    assert wide.span.end == library.get("colours").info.duration
    assert (plain.text, wide.text) == ("", "Good morning everybody. The harbour opens at nine.")
    assert wide.segments == plain.segments  # what was found stays what it is
    (cut,) = library.search("green", k=1, span=TimeSpan(1, 5), options=RetrievalOptions(before=9, after=9))
    assert cut.span == TimeSpan(1, 5)


def test_judging_by_the_matching_head_is_optional(colours: Path) -> None:
    calls: list[str] = []

    class Counting(FakeVideoEncoder):
        def match(self, text: str, features: Any) -> Any:
            calls.append(text)
            return super().match(text, features)

    library = open_small_library(colours, watcher=FakeClipWatcher(), encoder=Counting())
    judged = library.search("a green screen", k=3)
    assert calls == ["a green screen"]
    unjudged = library.search("a green screen", k=3, options=RetrievalOptions(rerank=False))
    assert len(calls) == 1
    assert places(judged[:1]) == places(unjudged[:1]) == [("colours.mp4", 2, 4)]
    assert judged[0].score != unjudged[0].score


def test_overlapping_windows_are_thinned_as_far_as_one_likes(tmp_path: Path, colours: Path) -> None:
    segmenter = make_segmenter("sliding", seconds=2.0, stride=0.5)
    library = VideoLibrary(
        tmp_path, encoder=FakeVideoEncoder(), watcher=FakeClipWatcher(), transcriber=None, segmenter=segmenter
    )
    library.add(colours / "colours.mp4")
    counts = {
        overlap: len(library.search("green", k=50, options=RetrievalOptions(overlap=overlap, merge_longest=0.0)))
        for overlap in (0.2, 0.5, 1.0)
    }
    assert counts[0.2] < counts[0.5] < counts[1.0] == library.list()[0].segments


def test_several_wordings_of_one_query(library: VideoLibrary) -> None:
    assert library.search(["a green screen"]) == library.search("a green screen")
    both = library.search(["a green screen", "a black screen"], k=2)
    assert sorted(places(both)) == [("colours.mp4", 2, 4), ("more.mp4", 4, 6)]
    assert all(hit.score > 0.9 for hit in both)
    agreed = library.search(["a green screen", "a black screen", "something green"], k=2)
    assert places(agreed)[0] == ("colours.mp4", 2, 4)  # two of three mean it
    with pytest.raises(ValueError, match="at least one wording"):
        library.search([])


@pytest.mark.parametrize(
    "wrong", [{"per_video": 0}, {"before": -1.0}, {"after": float("nan")}, {"reach": float("inf")}, {"overlap": 0.0}]
)
def test_settings_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetrievalOptions(**wrong)


def test_who_is_an_object_to_an_encoder_that_never_saw_people() -> None:
    learned = Calibration(known_words=frozenset({"object", "square", "bumps"}))
    assert learned.in_known_words("a person bumps the square") == "an object bumps into the square"
    assert learned.in_known_words("the star bumps into the ring") == "the star bumps into the ring"
    assert Calibration().in_known_words("a person bumps the square") == "a person bumps the square"
