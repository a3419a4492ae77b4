"""Clips told with other looks: the words change, what was seen beside them stays."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import Tensor

from videochat_tools.training.bank import ClipRows
from videochat_tools.training.instruct import instruct_conversations
from videochat_tools.training.retelling import Retelling
from videochat_tools.training.slots import Held
from videochat_tools.training.world.looks import with_other_looks
from videochat_tools.training.world.scene import HELD_OUT, Scene, sample_scene

WIDTH, QUERIES = 48, 24


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = Random(1)
    return [sample_scene(rng) for _ in range(900)]


def test_a_clip_told_with_other_looks_has_their_rows_and_keeps_the_rest(scenes: list[Scene]) -> None:
    """Rows made of a vector for each word, and of noise: retold, they are made of other words and the same noise."""
    generator = torch.Generator().manual_seed(0)
    vectors: dict[tuple[str, str], Tensor] = {}

    def vector(role: str, word: str) -> Tensor:
        return vectors.setdefault((role, word), torch.randn(WIDTH, generator=generator))

    def rows(scene: Scene, held: Held) -> Tensor:
        made = torch.zeros(QUERIES, WIDTH)
        for (kind, number), row in held.items():
            if kind == "object":
                thing = scene.things[number]
                made[row] = vector("", thing.colour) + vector("", thing.shape) + vector("", thing.size)
            else:
                event = scene.events[number]
                doer = scene.things[event.subject]
                made[row] = vector("", event.kind) + vector("who", doer.colour) + vector("who", doer.shape)
                if event.target is not None:
                    target = scene.things[event.target]
                    made[row] += vector("whom", target.colour) + vector("whom", target.shape)
        return made

    rng = Random(3)
    held: list[Held] = []
    for scene in scenes:
        objects = zip(range(len(scene.things)), rng.sample(range(8), len(scene.things)), strict=True)
        events = zip(range(len(scene.events)), rng.sample(range(8, 16), len(scene.events)), strict=True)
        held.append({("object", n): row for n, row in objects} | {("event", n): row for n, row in events})
    noise = torch.randn(len(scenes), QUERIES, WIDTH, generator=generator)
    seen = torch.stack([rows(scene, places) for scene, places in zip(scenes, held, strict=True)]) + 0.3 * noise
    retelling = Retelling(seen[:800], scenes[:800], held[:800])
    before, places = scenes[800:], held[800:]
    after = [with_other_looks(rng, scene) for scene in before]
    told = retelling.change(seen[800:], before, after, places)
    wanted = torch.stack([rows(scene, where) for scene, where in zip(after, places, strict=True)]) + 0.3 * noise[800:]
    unchanged = torch.stack([rows(scene, where) for scene, where in zip(before, places, strict=True)])
    there = torch.zeros(len(after), QUERIES, dtype=torch.bool)
    for clip, where in enumerate(places):
        there[clip, list(where.values())] = True
    missed, apart = (
        (told - wanted)[there].square().mean(),
        (unchanged + 0.3 * noise[800:] - wanted)[there].square().mean(),
    )
    assert missed < 0.12 * apart
    same = retelling.change(seen[800:], before, before, places)
    assert torch.equal(same, seen[800:])


def test_only_what_is_retold_is_denied_pairs_that_no_clip_shows(scenes: list[Scene]) -> None:
    """Denied of clips as they are seen, such a pair would never be true of one."""

    def denied(shown: list[Scene], retold: bool) -> int:
        """Questions with such a pair that is in none of the conversation's clips."""
        rows = instruct_conversations(Random(5), ClipRows(torch.zeros(0), shown, (), [retold] * len(shown)), len(shown))
        count = 0
        for row in rows:
            about = [shown[piece.clip] for piece in row.pieces if piece.clip is not None]
            there = {(thing.colour, thing.shape) for scene in about for thing in scene.things}
            asked = " ".join(piece.text for piece in row.pieces if not piece.is_answer)
            count += sum(f"{colour} {shape}" in asked for colour, shape in HELD_OUT - there)
        return count

    rng = Random(4)
    assert denied(scenes[:300], retold=False) == 0
    assert denied([with_other_looks(rng, scene) for scene in scenes[:300]], retold=True) > 0
