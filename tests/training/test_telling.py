"""Rows that are told in words, as the language model reads them before it sees a clip."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import pytest
import torch
from torch import Tensor, nn

from videochat_tools.training.instruct import instruct_conversations, tell_scenes
from videochat_tools.training.slots import Held
from videochat_tools.training.telling import Telling, hold, set_projection
from videochat_tools.training.tokenizers import build_llm_tokenizer
from videochat_tools.training.world.scene import COLOURS, Scene, sample_scene

WIDTH, QUERIES, FREE = 256, 16, 8


@pytest.fixture(scope="module")
def words():
    return build_llm_tokenizer()


@pytest.fixture(scope="module")
def telling(words) -> Telling:
    return Telling(words, WIDTH, QUERIES, FREE)


@pytest.fixture(scope="module")
def table(words) -> Tensor:
    return torch.randn(len(words), WIDTH, generator=torch.Generator().manual_seed(0))


def drawn(count: int) -> tuple[list[Scene], list[Held]]:
    rng = Random(0)
    scenes = [sample_scene(rng, held_out=None) for _ in range(count)]
    return scenes, hold(rng, scenes, QUERIES)


def nearest(words, table: Tensor, row: Tensor, count: int) -> Collection[str]:
    mean = table.mean(dim=0)
    found = ((row - mean) @ (table - mean).T).topk(count).indices.tolist()
    return {words.convert_ids_to_tokens(token).strip("▁") for token in found}


def test_an_object_is_told_by_its_words(words, telling: Telling, table: Tensor) -> None:
    scenes, held = drawn(20)
    rows = telling(table, scenes, held)
    assert rows.shape == (20, QUERIES + FREE, WIDTH)
    for clip, (scene, places) in enumerate(zip(scenes, held, strict=True)):
        for number, thing in enumerate(scene.things):
            told = nearest(words, table, rows[clip, places["object", number]], 4)
            assert told == {thing.colour, thing.shape, thing.size, thing.texture}


def test_whom_something_is_done_to_is_not_taken_for_the_doer(words, telling: Telling, table: Tensor) -> None:
    scenes, held = drawn(300)
    mean = table.mean(dim=0)
    rows = telling(table, scenes, held) - mean
    colours = table[[words(f" {colour}", add_special_tokens=False)["input_ids"][0] for colour in COLOURS]] - mean
    right = []
    for clip, (scene, places) in enumerate(zip(scenes, held, strict=True)):
        for number, event in enumerate(scene.events):
            row, doer = rows[clip, places["event", number]], scene.things[event.subject]
            right.append([*COLOURS][int((colours @ row).argmax())] == doer.colour)
            if event.target is not None:
                told = [*COLOURS][int((colours @ (row * telling.signs[1])).argmax())]
                right.append(told == scene.things[event.target].colour)
    assert len(right) > 200
    assert sum(right) / len(right) > 0.95


def test_rows_that_hold_nothing_tell_nothing(telling: Telling, table: Tensor) -> None:
    scenes, held = drawn(8)
    rows = telling(table, scenes, held)
    for clip, places in enumerate(held):
        assert len({*places.values()}) == len(places)
        for (kind, _), row in places.items():
            assert (row < QUERIES // 2) is (kind == "object")
        empty = [row for row in range(QUERIES + FREE) if row not in places.values()]
        assert torch.equal(rows[clip, empty], table.mean(dim=0).expand(len(empty), -1))


def test_a_projection_is_set_to_what_would_have_been_told(words, telling: Telling, table: Tensor) -> None:
    scenes, held = drawn(400)
    told = telling(table, scenes, held)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(400, QUERIES + FREE, 96, generator=generator)
    seen = told @ torch.randn(WIDTH, 96, generator=generator) + noise
    projection = nn.Linear(96, WIDTH)
    explained = set_projection(projection, seen, told, held)
    assert 0.9 < explained < 1.0
    with torch.no_grad():
        read = projection(seen)
    right = [
        thing.colour in nearest(words, table, read[clip, held[clip]["object", number]], 5)
        for clip in range(40)
        for number, thing in enumerate(scenes[clip].things)
    ]
    assert sum(right) / len(right) > 0.9


def test_told_scenes_are_talked_about_like_clips(words, telling: Telling, table: Tensor) -> None:
    shown = tell_scenes(Random(3), telling, table, 6)
    clean = telling(table, shown.scenes, shown.held)
    holds = torch.zeros(clean.shape[:2], dtype=torch.bool)
    for clip, places in enumerate(shown.held):
        holds[clip, [*places.values()]] = True
    noise, said = (shown.tokens - clean)[~holds].std(), clean[holds].std()  # rows that hold nothing are noisy too
    assert 0.1 * said < noise < 0.5 * said
    rows = instruct_conversations(Random(4), shown, 6)
    clips = {piece.clip for row in rows for piece in row.pieces if piece.clip is not None}
    assert clips == set(range(6))
