"""Rows told in words: what stands in the place of a clip while the language model goes to school without one.

A Q-Former gives each object and each event a row of its own (:mod:`~videochat_tools.training.slots`). Told in words,
such a row is the sum of the embeddings of the words that are true of it. To read it takes one step where a sentence
takes several, it is as long as a clip's, and any pair of colour and shape can be told. When clips take the place of
words, the projection is set so that what a Q-Former says of a clip is, as nearly as a linear map can, what would have
been told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from videochat_tools.training.slots import EVENT_VALUES, OBJECT_VALUES, Held, tell_events, tell_objects
from videochat_tools.training.world.language import VERBS
from videochat_tools.training.world.scene import Scene

__all__ = ["Telling", "blurred", "hold", "set_projection"]

# Who does it is told as in the row of the object; what else an event has, with other signs, so that a word is not taken
# for the same word of the doer.
_ROLES = ("whom", "begin", "end")
_UNTOLD = frozenset({"none", "alone"})
_RIDGE = 1e-3  # of the variance of the rows
_EMPTY_WEIGHT = 0.02  # of rows that hold nothing: with 0 they come out as long as others, with 0.3 these come out short
_UNSURE = 0.5  # noise on told rows, at most, in the standard deviations of the channels of those that hold something


class Telling:
    """The words of every row, and the signs that tell roles apart.

    Args:
        tokenizer: Of the language model.
        width: Of its embeddings.
        queries: Rows of a clip that hold something, objects in the first half and events in the second.
        free: Further rows, in which nothing is told.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, width: int, queries: int, free: int) -> None:
        self.queries, self.free = queries, free
        chance = torch.Generator("cpu").manual_seed(0)
        signs = torch.randint(0, 2, (1 + len(_ROLES), width), generator=chance, device="cpu") * 2.0 - 1.0
        signs[0] = 1.0
        self.signs = signs.to(torch.get_default_device())
        self._words: dict[tuple[str, str], tuple[int, list[int]]] = {}
        for name, values in {**OBJECT_VALUES, **EVENT_VALUES}.items():
            part = name.split("_")[0]
            role = 1 + _ROLES.index(part) if part in _ROLES else 0
            for value in values:
                if value not in _UNTOLD:
                    said = VERBS[value][0][0] if name == "kind" else value
                    text = said if said.isdigit() else f" {said}"  # as answers have it; digits are tokens of their own
                    self._words[name, value] = role, tokenizer(text, add_special_tokens=False)["input_ids"]

    def __call__(self, table: Tensor, scenes: Sequence[Scene], held: Sequence[Held]) -> Tensor:
        """Rows [clips, queries + free, h] of scenes, from a table of embeddings [V, h]."""
        count = self.queries + self.free
        rows: list[int] = []
        roles: list[int] = []
        words: list[int] = []
        for clip, (scene, places) in enumerate(zip(scenes, held, strict=True)):
            told = {"object": tell_objects(scene), "event": tell_events(scene)}
            for (kind, number), row in places.items():
                for role, ids in self._of(told[kind][number]):
                    rows += [clip * count + row] * len(ids)
                    roles += [role] * len(ids)
                    words += ids
        mean = table.detach().mean(dim=0)
        said = (table[words] - mean) * self.signs[roles]
        return (mean.expand(len(scenes) * count, -1)).index_add(0, torch.tensor(rows), said).unflatten(0, (-1, count))

    def _of(self, values: Mapping[str, str]) -> list[tuple[int, list[int]]]:
        return [self._words[pair] for pair in values.items() if pair[1] not in _UNTOLD]


def blurred(rng: Random, rows: Tensor, held: Sequence[Held]) -> Tensor:
    """Told rows with as much noise as they might be seen with, each with an amount of its own.

    That of rows which hold nothing is as large: to a projection they are never quite silent.
    """
    noise = torch.Generator(rows.device).manual_seed(rng.getrandbits(32))
    amount = _UNSURE * torch.rand(*rows.shape[:2], 1, generator=noise, device=rows.device)
    spread = rows.detach()[_holding(rows, held)].std(dim=0)
    return rows + amount * spread * torch.randn(rows.shape, generator=noise, device=rows.device)


def _holding(rows: Tensor, held: Sequence[Held]) -> Tensor:
    """Which of the rows [clips, Q, …] hold something, bool [clips, Q]."""
    holding = torch.zeros(rows.shape[:2], dtype=torch.bool, device=rows.device)
    for clip, places in enumerate(held):
        holding[clip, [*places.values()]] = True
    return holding


def hold(rng: Random, scenes: Sequence[Scene], queries: int) -> list[Held]:
    """Give every object and event of scenes a row by chance, as a Q-Former does."""
    half = queries // 2
    held: list[Held] = []
    for scene in scenes:
        objects = zip(range(len(scene.things)), rng.sample(range(half), len(scene.things)), strict=True)
        events = zip(range(len(scene.events)), rng.sample(range(half, queries), len(scene.events)), strict=True)
        held.append({("object", n): row for n, row in objects} | {("event", n): row for n, row in events})
    return held


@torch.no_grad()
def set_projection(projection: nn.Linear, tokens: Tensor, told: Tensor, held: Sequence[Held]) -> float:
    """Set a projection to the linear map from a Q-Former's rows to told ones, by least squares.

    Most rows hold nothing. A linear map cannot silence all of these without drowning the others, so they count little.

    Args:
        projection: Of the chat model.
        tokens: What the Q-Former says of clips [clips, Q, h].
        told: The same clips told in words [clips, Q, H].
        held: Of every clip, which of its rows holds each object and event.

    Returns:
        Share of the variance of the told rows which hold something that the map explains.
    """
    holding = _holding(tokens, held).flatten()
    x, y = tokens.flatten(0, 1).double(), told.flatten(0, 1).double()
    weight = holding.double().clamp(min=_EMPTY_WEIGHT)[:, None]
    mean, target = ((weight * rows).sum(dim=0) / weight.sum() for rows in (x, y))
    x, y = weight.sqrt() * (x - mean), weight.sqrt() * (y - target)
    ridge = _RIDGE * x.square().sum(dim=0).mean() * torch.eye(x.shape[1], dtype=x.dtype)
    matrix = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    projection.weight.copy_(matrix.T)
    projection.bias.copy_(target - mean @ matrix)
    return 1.0 - float((y - x @ matrix)[holding].square().sum() / y[holding].square().sum())
