from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from videochat_tools.embeddings import Calibration
from videochat_tools.library import LibraryStore
from videochat_tools.media import frames_decoded_total
from videochat_tools.segmenting import make_segmenter
from videochat_tools.testing import FakeClipWatcher, FakeVideoEncoder
from videochat_tools.types import SearchHit, TimeSpan

OpenStore = Callable[..., LibraryStore]

FILMS = {"talk.mp4": ("red", "green", "blue"), "silent.mp4": ("yellow", "white", "black", "purple")}
SUBTITLES = """WEBVTT

00:00.500 --> 00:02.500
The harbour opens at nine.

00:03.200 --> 00:05.800
Please bring the old lamp,

00:06.100 --> 00:08.500
because "Anna's" bicycle is broken.
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_film: Callable[..., Path]) -> Iterator[LibraryStore]:
    """The library with both films, shared by the tests of this file, which change nothing in it."""
    folder = tmp_path_factory.mktemp("films")
    films = [make_film(folder / name, *colors) for name, colors in FILMS.items()]
    films[0].with_suffix(".vtt").write_text(SUBTITLES, encoding="utf-8")
    watcher = FakeClipWatcher(num_frames=6, frame_size=24)
    with LibraryStore(folder / "lib", encoder=FakeVideoEncoder(), watcher=watcher, transcriber=None) as made:
        made.add(films)
        yield made


def place(hit: SearchHit) -> tuple[str, float, float]:
    return hit.video, round(hit.span.start, 2), round(hit.span.end, 2)


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("red", ("talk.mp4", 0, 3)), ("green", ("talk.mp4", 3, 6)), ("blue", ("talk.mp4", 6, 9)),
        ("yellow", ("silent.mp4", 0, 3)), ("white", ("silent.mp4", 3, 6)), ("black", ("silent.mp4", 6, 9)),
        ("purple", ("silent.mp4", 9, 12)),
    ],
)  # fmt: skip
def test_every_scene_is_found_by_what_it_shows(
    store: LibraryStore, color: str, expected: tuple[str, float, float]
) -> None:
    for query in (f"something {color}", f"what shape is the {color} object?"):
        first, second = store.search(query, k=2)
        assert place(first) == expected
        assert first.score == first.visual > 0.9
        assert second.score < 0.5


def test_a_hit_says_where_it_is_and_what_is_said_there(store: LibraryStore) -> None:
    hit = store.search("green")[0]
    talk = store.get("talk").path
    assert hit.uri == talk.as_uri()
    assert hit.segments == (1,)
    assert hit.text == "Please bring the old lamp,"
    assert hit.to_dict()["uri"] == f"{talk.as_uri()}#t=3,6"


def test_searching_decodes_no_frame(store: LibraryStore) -> None:
    before = frames_decoded_total()
    for query in ("red", "what is said about the harbour?", "what is said when the green one is seen?"):
        for hit in store.search(query):
            store.clip_tokens(hit)
    assert frames_decoded_total() == before


def test_what_is_said_about_something(store: LibraryStore) -> None:
    (hit,) = store.search("what is said about the harbour?")
    assert place(hit) == ("talk.mp4", 0.5, 2.5)
    assert hit.text == "The harbour opens at nine."
    assert hit.visual is None
    assert hit.score == hit.speech > 0.5
    assert hit.segments == (0,)
    assert store.search("what is said about the volcano?") == []


def test_words_are_found_in_other_forms(store: LibraryStore) -> None:
    assert store.search("where does she talk about lamps?")[0].text == "Please bring the old lamp,"
    assert store.search("who mentions opening harbours?")[0].text == "The harbour opens at nine."


def test_the_more_of_the_words_the_better(store: LibraryStore) -> None:
    all_words = store.search("what is said about the broken bicycle?")[0]
    some = store.search("what is said about the broken telescope?")[0]
    assert all_words.speech > 0.7 > 0.5 > some.speech


def test_a_sentence_over_two_utterances_is_one_stretch(store: LibraryStore) -> None:
    hit = store.search("what is said about the lamp and the broken bicycle?")[0]
    assert place(hit) == ("talk.mp4", 3.2, 8.5)
    assert hit.text == 'Please bring the old lamp, because "Anna\'s" bicycle is broken.'
    assert hit.segments == (1, 2)
    assert hit.speech > 0.7


def test_what_is_said_at_a_moment_that_is_seen(store: LibraryStore) -> None:
    for joint in ("when", "while"):
        hit = store.search(f"what is said {joint} the green circle is seen?")[0]
        assert place(hit) == ("talk.mp4", 3, 6)
        assert hit.text == "Please bring the old lamp,"
        assert hit.visual > 0.9


def test_picture_and_words_together_beat_either(store: LibraryStore) -> None:
    hits = store.search("blue, bicycle", k=20)
    assert place(hits[0]) == ("talk.mp4", 6, 9)
    assert min(hits[0].visual, hits[0].speech) > 0.2
    assert len({(hit.video, hit.segments) for hit in hits}) == len(hits) == 7


def test_channels_can_be_chosen(store: LibraryStore) -> None:
    assert all(hit.speech is None for hit in store.search("the lamp is green", channels=["visual"]))
    heard = store.search("the lamp is green", channels=["speech"])
    assert [(hit.text, hit.visual) for hit in heard] == [("Please bring the old lamp,", None)]
    assert store.search("what is said about green?", channels=["visual"])[0].segments == (1,)
    with pytest.raises(ValueError, match="visual, speech"):
        store.search("red", channels=["smell"])


def test_only_the_chosen_videos(store: LibraryStore) -> None:
    assert {hit.video for hit in store.search("red, lamp", k=20, videos=["silent"])} == {"silent.mp4"}
    assert {hit.video for hit in store.search("yellow", k=20, videos=["talk.mp4"])} == {"talk.mp4"}
    assert len(store.search("yellow", k=20, videos=["talk", "silent"])) == 7
    assert store.search("yellow", videos=[]) == []


def test_only_the_chosen_window(store: LibraryStore) -> None:
    window = TimeSpan(4.0, 7.0)
    hits = store.search("red, lamp", k=20, span=window)
    assert len(hits) == 4  # the second and third scene of both
    assert all(window.start <= hit.span.start < hit.span.end <= window.end for hit in hits)
    assert store.search("red", videos=["talk"], span=TimeSpan(3.0, 9.0))[0].score < 0.5
    assert store.search("what is said about the harbour?", span=window) == []
    assert store.search("red", span=TimeSpan(500.0, 600.0)) == []
    assert place(store.search("green", span=TimeSpan(3.2, 3.4))[0]) == ("talk.mp4", 3.2, 3.4)


def test_k_bounds_the_answer(store: LibraryStore) -> None:
    assert [len(store.search("red", k=k)) for k in (1, 3, 50)] == [1, 3, 7]
    with pytest.raises(ValueError, match="at least 1"):
        store.search("red", k=0)


@pytest.mark.parametrize(
    "odd",
    ["", "  ", '"', "'", '"harbour', "AND", "harbour AND", "NOT lamp", "NEAR(harbour lamp, 2)", "harb*", "text:lamp",
     "^lamp", "(", "lamp)", "-lamp", "+", "{lamp}", "a", "what is said about?", "100 %", "ünïcode 日本語 🎬",
     "x" * 5000, "lamp " * 2000, "\x00", "; DROP TABLE videos; --"],
    ids=str.__len__,
)  # fmt: skip
def test_anything_may_be_typed(store: LibraryStore, odd: str) -> None:
    hits = store.search(odd)
    assert all(0 <= hit.score <= 1 for hit in hits)
    if "lamp" in odd:
        assert "Please bring the old lamp," in hits[0].text
    assert len(store.list()) == 2


def test_neighbours_that_show_the_same_become_one_hit(
    open_store: OpenStore, make_film: Callable[..., Path], tmp_path: Path
) -> None:
    store = open_store(segmenter=make_segmenter("fixed", seconds=2.0))
    store.add(make_film(tmp_path / "films" / "long.mp4", "red", "green", "red", seconds=4.0))
    first, second, *others = store.search("red", k=9)
    assert {place(first)[1:], place(second)[1:]} == {(0, 4), (8, 12)}
    assert {first.segments, second.segments} == {(0, 1), (4, 5)}
    assert store.clip_tokens(first).shape[0] == 2
    assert [len(hit.segments) for hit in others] == [1, 1]  # what does not fit the query is not joined


def test_overlapping_windows_give_one_hit_a_moment(
    open_store: OpenStore, make_film: Callable[..., Path], tmp_path: Path
) -> None:
    store = open_store(segmenter=make_segmenter("sliding", seconds=3.0, stride=1.0))
    store.add(make_film(tmp_path / "films" / "film.mp4", "green", "red", "blue"))
    first, *others = store.search("red", k=9)
    assert first.span.intersection(TimeSpan(3.0, 6.0)) == pytest.approx(3.0)
    assert all(first.span.iou(other.span) < 0.5 for other in others)


def test_an_encoder_without_features_goes_by_similarity(open_store: OpenStore, talk: Path) -> None:
    store = open_store(encoder=FakeVideoEncoder(keeps_features=False))
    store.add(talk)
    first, second = store.search("blue", k=2)
    assert place(first) == ("talk.mp4", 6, 9)
    assert first.visual > 0.9
    assert second.visual < 0.1
    assert not list((store.path / "cache").rglob("features*"))


def test_channels_are_weighed_by_how_sure_each_must_be(store: LibraryStore, open_store: OpenStore, talk: Path) -> None:
    assert store.search("blue, lamp")[0].span.start == pytest.approx(6)  # blue is seen with 0.95
    doubting = open_store(encoder=FakeVideoEncoder(calibration=Calibration(match_threshold=0.999)))
    doubting.add(talk)
    hit = doubting.search("blue, lamp")[0]  # which means nothing to an encoder that is sure from 0.999 on
    assert hit.text == "Please bring the old lamp."
    assert hit.speech is not None
