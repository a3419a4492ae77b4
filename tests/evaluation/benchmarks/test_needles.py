"""What needles and haystacks are made of, without any model."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks import load_benchmark
from videochat_tools.evaluation.benchmarks.haystack import CHUNK, Haystack
from videochat_tools.evaluation.benchmarks.needle import NeedleInHaystack
from videochat_tools.evaluation.benchmarks.needles import KINDS, needle_pairs
from videochat_tools.retrievers.query import analyse, content_words
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.training.world.language import VERBS
from videochat_tools.training.world.narration import narrate
from videochat_tools.training.world.questions import holds
from videochat_tools.training.world.scene import COLOURS, SHAPES, SIZES, TEXTURES, Scene, Thing
from videochat_tools.types import TimeSpan


@pytest.fixture(scope="module")
def needles() -> NeedleInHaystack:
    return load_benchmark("needle", hours=(0.1, 1), needles=6)  # type: ignore[return-value]


def pairs(scene: Scene) -> set[tuple[str, str]]:
    return {(thing.colour, thing.shape) for thing in scene.things}


def test_a_needle_is_unlike_all_else_in_its_video(needles: NeedleInHaystack) -> None:
    for needle in needles._needles:
        others = [place for place in needle.plan.scenes if place is not needle.place]
        assert len(others) == len(needle.plan.scenes) - 1
        assert needle.look[:2] in needle_pairs(0)
        assert not any(pairs(place.scene) & needle_pairs(0) for place in others)
        assert sum(pair in needle_pairs(0) for pair in pairs(needle.place.scene)) == 1
        assert needle.place.scene.duration == pytest.approx(needle.place.end - needle.place.start)
        for question in needle.questions:
            assert holds(question, needle.place.scene)
            assert not any(holds(question, place.scene) for place in others)
            assert all(word in question.question for word in needle.look if word), "it is described in full"
        said, seen = needle.questions
        assert (said.kind, said.answer) == ("said", needle.place.spoken.text)  # type: ignore[union-attr]
        assert analyse(said.question).asks_speech
        assert seen.kind in KINDS


def test_the_questions_are_asked_of_every_length(needles: NeedleInHaystack) -> None:
    items = needles.items
    assert len(items) == 2 * 6 * 2
    assert len({item.id for item in items}) == len(items)
    assert [item.hours for item in items] == [0.1] * 12 + [1] * 12
    assert [item.question for item in items[:12]] == [item.question for item in items[12:]]
    assert len({item.video for item in items}) == 6, "intervals take the questions about one needle together"
    assert needles.identity == load_benchmark("needle", hours=10, needles=6).identity


def test_scores_by_hand(needles: NeedleInHaystack) -> None:
    records = {}
    for number, item in enumerate(needles.items):
        answer = item.answer if number % 2 else "never"
        rank, proved = ((1, True), (3, True), (None, False))[number % 3]
        records[item.id] = {"status": "answered", "answer": answer, "rank": rank, "proved": proved}
    scores = needles.score(needles.items, records)
    rows = {score.name: (score.correct, score.total) for score in scores["needles"]}  # type: ignore[union-attr]
    assert {name: row for name, row in rows.items() if name.startswith("1 h")} == {
        "1 h: found @1": (4, 12),
        "1 h: found @5": (8, 12),
        "1 h: right words": (6, 12),
        "1 h: found and answered": (4, 12),
    }
    chances = {score.name: score.chance for score in scores["needles"]}
    assert chances["1 h: found @1"] is None
    assert 0 < chances["1 h: right words"] < 0.7  # type: ignore[operator]
    assert all(score.total in (3, 6) for score in scores["found and answered, by kind"])


@pytest.mark.parametrize("options", [{"hours": -1}, {"hours": ()}, {"needles": 0}, {"seconds": 2}])
def test_haystacks_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(BenchmarkError, match="a haystack needs hours of at least 0, a needle"):
        load_benchmark("needle", **options)


# ------------------------------------------------------------------------------------------------------- the haystack


class Counting(FakeVideoEncoder):
    """Counts the clips that it embeds."""

    embedded = 0

    def embed_clips(self, clips: np.ndarray) -> object:  # type: ignore[override]
        self.embedded += len(clips)
        return super().embed_clips(clips)


def test_a_shorter_haystack_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    encoder = Counting()
    vector = encoder.embed_texts(["something red"])[0]
    short, long = Haystack(tmp_path, encoder, 600), Haystack(tmp_path, encoder, 1800)
    assert encoder.embedded == 0, "before anything is searched"
    found = short.nearest(vector, 5)
    assert encoder.embedded == CHUNK
    assert 600 <= short.duration < 608
    best = long.nearest(vector, 5)
    assert encoder.embedded == len(long.scenes) == 2 * CHUNK, "the first chunk is kept"
    assert [each.similarity for each in best] == sorted((each.similarity for each in best), reverse=True)
    assert long.scenes[: short.count] == short.scenes[: short.count]
    long.use(600)
    assert (long.count, long.duration) == (short.count, short.duration)
    assert [each.segment for each in long.nearest(vector, 5)] == [each.segment for each in found]
    Haystack(tmp_path, encoder, 60, seed=1).nearest(vector, 1)
    Haystack(tmp_path, encoder, 60, name="of another kind").nearest(vector, 1)
    assert encoder.embedded == 4 * CHUNK, "another seed or kind has files of its own"
    assert Haystack(tmp_path, encoder, 0).nearest(vector, 5) == []


def test_what_is_said_in_a_haystack_belongs_to_its_scenes(tmp_path: Path) -> None:
    hay = Haystack(tmp_path, FakeVideoEncoder(), 600)
    said = [hay.said_during(hay.segment(number).span) for number in range(hay.count)]
    assert 0.4 < sum(map(bool, said)) / len(said) < 0.8
    number = next(number for number, sentence in enumerate(said) if sentence)
    span = hay.segment(number).span
    assert hay.said_during(TimeSpan(span.start, span.middle)) == said[number]
    assert hay.scene_at(span.middle) == number


def test_no_sentence_of_the_world_has_words_that_describe_a_needle() -> None:
    """Which is why a haystack need not be searched for words."""
    looks = {word for verbs in VERBS.values() for pair in verbs for words in pair for word in content_words(words)}
    looks |= {*COLOURS, *SHAPES, *SIZES, *TEXTURES, "object", "objects"}
    rng = Random(0)
    spoken = {word for _ in range(20_000) for word in narrate(rng).text.split()}
    assert not looks & spoken


def test_near_needles_are_meant_by_no_scene_of_the_haystack() -> None:
    near = load_benchmark("needle-near", hours=0, needles=4)
    assert isinstance(near, NeedleInHaystack)
    assert near.name == "needle-near"
    for needle in near._needles:
        assert near._is_meant(needle.place.scene)
    needle = near._needles[0]
    thing = next(thing for thing in needle.place.scene.things if (thing.colour, thing.shape) == needle.look[:2])
    still = Scene((thing,), (), 5.0, 0)
    assert near._shows_needle(still)
    assert not near._is_meant(still), "it does not do what the needle does"
    other = Scene((Thing("white", "star", "small", "plain", 0.5, 0.5),), (), 5.0, 0)
    assert near._shows_needle(other) is (("white", "star") in near._pairs)
