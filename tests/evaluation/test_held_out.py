from __future__ import annotations

from random import Random

import numpy as np
import pytest

from videochat_tools.evaluation.held_out import (
    PROBES,
    VIEWS,
    draw_probe,
    held_out_scenes,
    render_views,
    unique_captions,
)
from videochat_tools.evaluation.retrieval import embed, pool_scores, probe_scores
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.training.world.scene import HELD_OUT


def test_the_two_groups_keep_the_pairs_apart() -> None:
    known, new = (held_out_scenes(200, new_pairs=new_pairs) for new_pairs in (False, True))
    assert known == held_out_scenes(200, new_pairs=False)
    for scene in known:
        assert not {(thing.colour, thing.shape) for thing in scene.things} & HELD_OUT
    for scene in new:
        assert {(thing.colour, thing.shape) for thing in scene.things} & HELD_OUT


def test_views_show_the_same_frames_in_another_order_or_nothing() -> None:
    scenes = held_out_scenes(6, new_pairs=False)
    video, shuffled, blank = (render_views(scenes, view, 8, 48) for view in VIEWS)
    assert video.shape == shuffled.shape == blank.shape == (6, 8, 48, 48, 3)
    assert not blank.any()
    for one, other in zip(video, shuffled, strict=True):
        assert sorted(frame.tobytes() for frame in one) == sorted(frame.tobytes() for frame in other)
        assert not np.array_equal(one, other)
    with pytest.raises(ValueError, match="shuffled"):
        render_views(scenes, "upside down", 8, 48)


def test_a_caption_is_true_of_one_clip_of_the_pool() -> None:
    scenes = held_out_scenes(300, new_pairs=False)
    captions = unique_captions(Random(0), scenes)
    found = [caption for caption in captions if caption is not None]
    assert len(found) > 290
    assert len(set(found)) == len(found)
    doubled = unique_captions(Random(0), [scenes[0], scenes[1], scenes[0]])
    assert doubled[0] is doubled[2] is None
    assert doubled[1] is not None


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_offers_one_true_caption_among_false_ones(kind: str) -> None:
    rng, places = Random(kind), set()
    for scene in held_out_scenes(1500 if kind in ("interaction", "roles") else 300, new_pairs=False):
        probe = draw_probe(rng, scene, kind)
        if probe is None:
            continue
        places.add(probe.right)
        assert len(set(probe.options)) == len(probe.options) == PROBES[kind]
        words = [option.split() for option in probe.options]
        if kind in ("colour", "shape", "size", "texture"):
            differing = [len(set(column)) > 1 for column in zip(*words, strict=True)]
            assert 1 <= sum(differing) <= 2 + len(scene.events), probe
        if kind == "swap":
            one, other = (set(option.replace(",", "").split()) - {"a", "an"} for option in probe.options)
            assert one == other
    assert places == set(range(PROBES[kind]))


def test_an_encoder_that_knows_colours_is_found_to_know_colours() -> None:
    """The stand-in sees plain colours and nothing else, and that is what the probes must say."""
    encoder, scenes = FakeVideoEncoder(), held_out_scenes(300, new_pairs=False)
    scores = {}
    for view in ("video", "blank"):
        embeddings = embed(encoder, scenes, view)
        for score in (
            *pool_scores(encoder, scenes, embeddings, 100),
            *probe_scores(encoder, scenes, embeddings, limit=120),
        ):
            scores[view, score.name] = score
    assert scores["video", "colour by similarity"].low > 0.25
    assert scores["video", "colour by matching"].low > 0.25
    assert scores["video", "recall similarity @5, pool 100"].low > 0.05
    for blind in (
        ("video", "shape by similarity"),
        ("video", "direction by similarity"),
        ("blank", "colour by similarity"),
    ):
        assert scores[blind].low < scores[blind].chance < scores[blind].high, scores[blind]
    assert scores["blank", "recall similarity @1, pool 100"].low < 0.02
    assert scores["video", "recall re-ranked @1, pool 100"].total > 290


def test_of_several_vectors_a_clip_the_best_counts(mirrored: FakeVideoEncoder) -> None:
    scenes = held_out_scenes(60, new_pairs=False)
    measured = []
    for encoder in (mirrored, FakeVideoEncoder()):
        embeddings = embed(encoder, scenes, "video")
        assert embeddings.vectors.shape == (60, encoder.rows, encoder.dimension)
        pools = pool_scores(encoder, scenes, embeddings, 30)
        measured.append([*pools, *probe_scores(encoder, scenes, embeddings, limit=40)])
    assert measured[0] == measured[1]
    blank = embed(mirrored, scenes, "blank")
    assert blank.vectors.shape == (60, 2, mirrored.dimension)
