"""Clips told with other looks: what a clip's rows would be, were its objects of other colours and shapes.

A linear map from words to rows is fitted to watched clips: from the looks and deeds that a row holds, and those of the
whole scene. By the difference of two tellings a clip's rows are changed, and the rest of them, what words do not say,
stays as it was seen. So the language model can be told of every pair of colour and shape in the rows that it has to
read, as it is in texts; what it is told of a pair that no clip shows was put together from clips of others.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from videochat_tools.training.slots import EVENT_VALUES, OBJECT_VALUES, Held, tell_events, tell_objects
from videochat_tools.training.world.scene import Scene

__all__ = ["Retelling"]

log = logging.getLogger(__name__)

_FITTED = 4_096  # clips, at most
_RIDGE = 3.0  # in clips
_COUNTS = 3  # objects of a scene, at most
_OBJECT, _EVENT = (sum(map(len, values.values())) for values in (OBJECT_VALUES, EVENT_VALUES))


class Retelling:
    """What words make of the rows of a clip.

    Args:
        tokens: Of watched clips [clips, Q, h].
        scenes: What they show.
        held: Of every clip, which of its rows holds each object and event.
    """

    def __init__(self, tokens: Tensor, scenes: Sequence[Scene], held: Sequence[Held]) -> None:
        tokens, scenes, held = tokens[:_FITTED], scenes[:_FITTED], held[:_FITTED]
        words = _words(scenes, held, tokens.shape[1])
        maps, missed = [], 0.0
        for query in range(tokens.shape[1]):
            x, y = words[:, query].double(), tokens[:, query].double()
            normal = x.T @ x + _RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
            maps.append(torch.linalg.solve(normal, x.T @ y).float())
            missed += float((y - x @ maps[-1].double()).square().sum())
        spread = float((tokens.double() - tokens.double().mean(dim=0)).square().sum())
        log.info("words explain %.2f of the rows of %d clips", 1.0 - missed / spread, len(scenes))
        self.maps = torch.stack(maps)  # [Q, words, h]

    def change(self, tokens: Tensor, before: Sequence[Scene], after: Sequence[Scene], held: Sequence[Held]) -> Tensor:
        """Rows [clips, Q, h] of scenes as they were seen, told as other scenes with as many objects and events."""
        queries = tokens.shape[1]
        difference = _words(after, held, queries) - _words(before, held, queries)
        return tokens + torch.einsum("cqw,qwh->cqh", difference, self.maps).to(tokens)


def _words(scenes: Sequence[Scene], held: Sequence[Held], queries: int) -> Tensor:
    """What is true of each row, then of its whole scene: [clips, queries, words], mostly zeros and ones."""
    own = torch.zeros(len(scenes), queries, _OBJECT + _EVENT)
    whole = torch.zeros(len(scenes), _OBJECT + _COUNTS + 2 * _EVENT + 1)
    for clip, (scene, places) in enumerate(zip(scenes, held, strict=True)):
        objects = _ones(OBJECT_VALUES, tell_objects(scene))
        events = _ones(EVENT_VALUES, tell_events(scene))
        for (kind, number), row in places.items():
            if kind == "object":
                own[clip, row, :_OBJECT] = objects[number]
            else:
                own[clip, row, _OBJECT:] = events[number]
        count = F.one_hot(torch.tensor(len(objects) - 1), _COUNTS)
        parts = [objects.sum(dim=0), count, events.flatten(), torch.zeros((2 - len(events)) * _EVENT), torch.ones(1)]
        whole[clip] = torch.cat(parts)
    # A query that holds nothing tells of the scene in another way than one that holds something.
    holds = own.any(dim=-1, keepdim=True).float()
    return torch.cat([own, holds * whole[:, None], (1.0 - holds) * whole[:, None]], dim=-1)


def _ones(values: Mapping[str, tuple[str, ...]], rows: Sequence[Mapping[str, str]]) -> Tensor:
    """The values of each row as zeros and ones, [rows, all values]."""
    columns = [F.one_hot(torch.tensor([v.index(row[n]) for row in rows]), len(v)) for n, v in values.items() if rows]
    return torch.cat(columns, dim=-1).float() if rows else torch.zeros(0, sum(map(len, values.values())))
