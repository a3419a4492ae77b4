"""What the Q-Former's queries are asked to hold while it trains: the objects and the events of the clip, as a set.

Every object and every event is given to the query that describes it best so far (the matching of DETR, arXiv
2005.12872) and that query learns to describe it: its attributes belong together because they stand in one row. Without
this the rows become copies of one another (mean cosine 0.86), which tell a question what is there but not what
belongs to what. Used in training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videochat_tools.training.world.scene import (
    ACTIONS,
    COLOURS,
    INTERACTIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Event,
    Scene,
)

__all__ = ["SlotHeads"]

_NONE = "none"
_PLACES = ("alone", "first", "second")

OBJECT_VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "texture": TEXTURES,
}
EVENT_VALUES: dict[str, tuple[str, ...]] = {
    "kind": (*ACTIONS, *INTERACTIONS),
    "who_colour": tuple(COLOURS),
    "who_shape": SHAPES,
    "whom_colour": (_NONE, *COLOURS),
    "whom_shape": (_NONE, *SHAPES),
    "place": _PLACES,
}
_ABSENT_WEIGHT = 0.3  # of a query that holds nothing; most do


@dataclass(frozen=True, slots=True)
class _Group:
    """One kind of thing that is looked for: its questions, and the truth about each clip."""

    name: str
    values: dict[str, tuple[str, ...]]

    def encode(self, rows: Sequence[dict[str, str]]) -> Tensor:
        """Value numbers [n, questions]."""
        return torch.tensor([[self.values[name].index(row[name]) for name in self.values] for row in rows])


class SlotHeads(nn.Module):
    """Linear heads on the query rows; the first half of the rows holds objects, the second half events.

    Args:
        width: Of the query rows, h.
        queries: Number of rows Q that take part; further rows are left free.
    """

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.groups = (_Group("object", OBJECT_VALUES), _Group("event", EVENT_VALUES))
        self.heads = nn.ModuleDict(
            {group.name: nn.Linear(width, 1 + sum(map(len, group.values.values()))) for group in self.groups}
        )

    def forward(self, states: Tensor, scenes: Sequence[Scene]) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of query rows [B, Q, h] that saw the scenes, and the shares of right values of each kind."""
        half = self.queries // 2
        losses: list[Tensor] = []
        shown: dict[str, float | Tensor] = {}
        for number, group in enumerate(self.groups):
            rows = states[:, number * half : (number + 1) * half]
            truths = [_objects(scene) if group.name == "object" else _events(scene) for scene in scenes]
            loss, right = self._group_loss(group, rows, truths)
            losses.append(loss)
            shown |= {f"s_{name}": value for name, value in right.items()}
        return torch.stack(losses).sum(), shown

    def _group_loss(
        self, group: _Group, rows: Tensor, truths: Sequence[Sequence[dict[str, str]]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.heads[group.name](rows).float()
        present, answers = logits[..., 0], logits[..., 1:].split([len(v) for v in group.values.values()], dim=-1)
        logs = [answer.log_softmax(dim=-1) for answer in answers]
        clips, queries, targets = [], [], []
        for clip, truth in enumerate(truths):
            if not truth:
                continue
            wanted = group.encode(truth)
            with torch.no_grad():
                cost = -torch.stack([log[clip][:, wanted[:, i]] for i, log in enumerate(logs)]).sum(dim=0)
                chosen = _cheapest(cost - F.logsigmoid(present[clip])[:, None])
            clips += [clip] * len(truth)
            queries += chosen.tolist()
            targets.append(wanted)
        taken = torch.zeros_like(present)
        taken[clips, queries] = 1.0
        weight = taken + _ABSENT_WEIGHT * (1.0 - taken)
        loss = F.binary_cross_entropy_with_logits(present, taken, weight)
        right = {f"{group.name}s": ((present > 0).sum(dim=1) == taken.sum(dim=1)).float().mean()}
        if targets:
            target = torch.cat(targets)
            for i, (name, answer) in enumerate(zip(group.values, answers, strict=True)):
                chosen_answers = answer[clips, queries]
                loss = loss + F.cross_entropy(chosen_answers, target[:, i])
                right[name] = (chosen_answers.argmax(dim=-1) == target[:, i]).float().mean()
        return loss, right


@cache
def _assignments(queries: int, things: int) -> Tensor:
    """Every way to give each thing a query of its own, [ways, things]."""
    return torch.tensor(list(permutations(range(queries), things)))


def _cheapest(cost: Tensor) -> Tensor:
    """The query of each thing, [things], for a cost [queries, things]; all ways are tried, since a clip holds three."""
    ways = _assignments(*cost.shape)
    return ways[cost.gather(0, ways).sum(dim=1).argmin()]


def _objects(scene: Scene) -> list[dict[str, str]]:
    return [{name: getattr(thing, name) for name in OBJECT_VALUES} for thing in scene.things]


def _events(scene: Scene) -> list[dict[str, str]]:
    places = _PLACES[:1] if len(scene.events) == 1 else _PLACES[1:]
    return [_event(scene, event, place) for event, place in zip(scene.events, places, strict=False)]


def _event(scene: Scene, event: Event, place: str) -> dict[str, str]:
    who = scene.things[event.subject]
    whom = None if event.target is None else scene.things[event.target]
    return {
        "kind": event.kind,
        "who_colour": who.colour,
        "who_shape": who.shape,
        "whom_colour": _NONE if whom is None else whom.colour,
        "whom_shape": _NONE if whom is None else whom.shape,
        "place": place,
    }
