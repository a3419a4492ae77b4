"""Rows told in words: what stands in the place of a clip while the language model goes to school without one.

A Q-Former gives each object and each event a row of its own (:mod:`~videochat_tools.training.slots`). Told in words,
such a row is the sum of the embeddings of the words that are true of it. To read it takes one step where a sentence
takes several, it is as long as a clip's, and any pair of colour and shape can be told. When clips take the place of
words, the projection is set so that what a Q-Former says of a clip is, as nearly as a linear map can, what would have
been told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from random import Random

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from videochat_tools.training.slots import EVENT_VALUES, OBJECT_VALUES, Held, tell_events, tell_objects
from videochat_tools.training.world.language import VERBS
from videochat_tools.training.world.scene import Scene

__all__ = ["Telling", "hold", "set_projection"]

log = logging.getLogger(__name__)

# Who does it is told as in the row of the object; what else an event has, with other signs, so that a word is not taken
# for the same word of the doer.
_ROLES = ("whom", "begin", "end")
_UNTOLD = frozenset({"none", "alone"})
_RIDGE = 1e-3  # of the variance of the rows
_EMPTY_WEIGHT = 0.02  # of rows that hold nothing: with 0 they come out as long as others, with 0.3 these come out short
_UNSURE = 0.5  # noise on told rows, at most, in the standard deviations of the channels of those that hold something


class Telling(nn.Module):
    """The words of every row, and the signs that tell roles apart.

    Args:
        tokenizer: Of the language model.
        width: Of its embeddings.
        queries: Rows of a clip that hold something, objects in the first half and events in the second.
        free: Further rows, in which nothing is told.
    """

    signs: Tensor

    def __init__(self, tokenizer: PreTrainedTokenizerBase, width: int, queries: int, free: int) -> None:
        super().__init__()
        self.queries, self.free = queries, free
        chance = torch.Generator("cpu").manual_seed(0)
        signs = torch.randint(0, 2, (1 + len(_ROLES), width), generator=chance, device="cpu") * 2.0 - 1.0
        signs[0] = 1.0
        self.register_buffer("signs", signs.to(torch.get_default_device()), persistent=False)
        self._words: dict[tuple[str, str], tuple[int, list[int]]] = {}
        for name, values in {**OBJECT_VALUES, **EVENT_VALUES}.items():
            role = name.split("_")[0]
            for value in values:
                if value not in _UNTOLD:
                    said = VERBS[value][0][0] if name == "kind" else value
                    ids = tokenizer(f" {said}" if name not in _ROLES else said, add_special_tokens=False)["input_ids"]
                    self._words[name, value] = 1 + _ROLES.index(role) if role in _ROLES else 0, ids

    def forward(self, table: Tensor, scenes: Sequence[Scene], held: Sequence[Held]) -> Tensor:
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

    def unsure(self, rng: Random, rows: Tensor) -> Tensor:
        """The rows with as much noise as they might be seen with, each with an amount of its own.

        That of rows which hold nothing is as large: to a projection they are never quite silent.
        """
        noise = torch.Generator(rows.device).manual_seed(rng.getrandbits(32))
        amount = _UNSURE * torch.rand(*rows.shape[:2], 1, generator=noise, device=rows.device)
        said = rows.detach() - rows.detach().flatten(0, 1).median(dim=0).values  # most rows hold nothing
        spread = said[said.abs().amax(dim=-1) > 1e-3 * said.abs().max()].std(dim=0)
        return rows + amount * spread * torch.randn(rows.shape, generator=noise, device=rows.device)


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
    weights = torch.full(tokens.shape[:2], _EMPTY_WEIGHT, dtype=torch.double, device=tokens.device)
    for clip, places in enumerate(held):
        weights[clip, [*places.values()]] = 1.0
    x, y, weight = tokens.flatten(0, 1).double(), told.flatten(0, 1).double(), weights.flatten()[:, None]
    mean, target = ((weight * rows).sum(dim=0) / weight.sum() for rows in (x, y))
    x, y = weight.sqrt() * (x - mean), weight.sqrt() * (y - target)
    ridge = _RIDGE * x.square().sum(dim=0).mean() * torch.eye(x.shape[1], dtype=x.dtype)
    matrix = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    projection.weight.copy_(matrix.T)
    projection.bias.copy_(target - mean @ matrix)
    kept = weight[:, 0] == 1.0
    return 1.0 - float((y - x @ matrix)[kept].square().sum() / y[kept].square().sum())
