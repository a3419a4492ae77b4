"""What the Q-Former is asked to tell while it trains: what its queries hold of a clip, and what a text speaks of.

Every object and every event is given to the query that describes it best so far (the matching of DETR, arXiv
2005.12872) and that query learns to describe it: its attributes belong together because they stand in one row. Without
this the rows become copies of one another (mean cosine 0.86), which tell a question what is there but not what
belongs to what. The vector of a text is asked in the same terms who does what to whom; from the contrast alone, doer
and done-to are told apart late. Used in training only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videochat_tools.training.clips import UNNAMED
from videochat_tools.training.world.language import Text
from videochat_tools.training.world.questions import Source
from videochat_tools.training.world.scene import (
    ACTIONS,
    COLOURS,
    FRAMES,
    INTERACTIONS,
    SHAPES,
    SIZES,
    STILL,
    TEXTURES,
    Event,
    Fact,
    Look,
    Scene,
)

__all__ = [
    "EVENT_VALUES",
    "OBJECT_VALUES",
    "Held",
    "PlotHeads",
    "SlotHeads",
    "TextHeads",
    "tell_events",
    "tell_objects",
    "tell_source",
    "tells_plot",
]

Held = Mapping[Source, int]  # the row of each object and event of a clip

_NONE = "none"
_UNSEEN: Look = (None,) * 4
_WEIGHTS = {"kind": 2.0, "place": 3.0}  # learned later than what can be seen in one picture
_PLACES = ("alone", "first", "second")

OBJECT_VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "texture": TEXTURES,
}
EVENT_VALUES: dict[str, tuple[str, ...]] = {
    "kind": (*ACTIONS, *INTERACTIONS),
    **{f"who_{name}": values for name, values in OBJECT_VALUES.items()},
    **{f"whom_{name}": (_NONE, *values) for name, values in OBJECT_VALUES.items()},
    "place": _PLACES,
    "begin": tuple(map(str, range(FRAMES + 1))),
    "end": tuple(map(str, range(FRAMES + 1))),
}
TEXT_VALUES: dict[str, tuple[str, ...]] = {
    "deed": (_NONE, STILL, "move", *ACTIONS, *INTERACTIONS),
    **{f"{role}_{name}": (_NONE, *values) for role in ("who", "whom") for name, values in OBJECT_VALUES.items()},
}
_ABSENT_WEIGHT = 0.3  # of a query that holds nothing; most do


@dataclass(frozen=True, slots=True)
class _Group:
    """One kind of thing that is looked for: its questions, and the truth about each clip."""

    name: Literal["object", "event"]
    values: dict[str, tuple[str, ...]]

    def encode(self, rows: Sequence[dict[str, str]]) -> Tensor:
        """Value numbers [n, questions], of a colour without a name ``UNNAMED``."""
        numbers = [[_number(options, row[name]) for name, options in self.values.items()] for row in rows]
        return torch.tensor(numbers)


def _number(options: Sequence[str], value: str) -> int:
    return options.index(value) if value in options else UNNAMED


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
        losses: list[Tensor] = []
        shown: dict[str, float | Tensor] = {}
        for group, rows, truths in self._parts(scenes):
            loss, right = self._group_loss(group, states[:, rows], truths)
            losses.append(loss)
            shown |= {f"s_{name}": value for name, value in right.items()}
        return torch.stack(losses).sum(), shown

    @torch.no_grad()
    def find(self, states: Tensor, scenes: Sequence[Scene]) -> list[dict[Source, int]]:
        """Which of the rows [B, Q, h] holds each object and each event of the scenes that they saw."""
        found: list[dict[Source, int]] = [{} for _ in scenes]
        for group, rows, truths in self._parts(scenes):
            present, answers = self._ask(group, states[:, rows])
            for clip, truth in enumerate(truths):
                if truth:
                    held = _match(present[clip], [answer[clip] for answer in answers], group.encode(truth)).tolist()
                    found[clip] |= {(group.name, number): rows.start + row for number, row in enumerate(held)}
        return found

    def directions(self) -> Iterator[tuple[slice, Tensor]]:
        """Of both groups which rows they are, and the directions [d, h], orthonormal, that their head goes by."""
        for group, rows in self._rows():
            weight = self.get_parameter(f"heads.{group.name}.weight")
            _, sizes, directions = torch.linalg.svd(weight.detach(), full_matrices=False)
            yield rows, directions[sizes > 1e-3 * sizes[0]]

    def _rows(self) -> Iterator[tuple[_Group, slice]]:
        half = self.queries // 2
        for number, group in enumerate(self.groups):
            yield group, slice(number * half, (number + 1) * half)

    def _parts(self, scenes: Sequence[Scene]) -> Iterator[tuple[_Group, slice, list[list[dict[str, str]]]]]:
        """Each group, its rows, and what is true of the scenes."""
        for group, rows in self._rows():
            tell = tell_objects if group.name == "object" else tell_events
            yield group, rows, [tell(scene) for scene in scenes]

    def _ask(self, group: _Group, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits of whether a row [B, Q, h] holds anything [B, Q], and of every question's values [B, Q, values]."""
        logits = self.heads[group.name](rows).float()
        return logits[..., 0], logits[..., 1:].split([len(v) for v in group.values.values()], dim=-1)

    def _group_loss(
        self, group: _Group, rows: Tensor, truths: Sequence[Sequence[dict[str, str]]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        present, answers = self._ask(group, rows)
        clips, queries, targets = [], [], []
        for clip, truth in enumerate(truths):
            if not truth:
                continue
            wanted = group.encode(truth)
            chosen = _match(present[clip], [answer[clip] for answer in answers], wanted)
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
                named = target[:, i] != UNNAMED
                if not bool(named.any()):
                    continue
                chosen_answers, values = answer[clips, queries][named], target[named, i]
                loss = loss + _WEIGHTS.get(name, 1.0) * F.cross_entropy(chosen_answers, values)
                right[name] = (chosen_answers.argmax(dim=-1) == values).float().mean()
        return loss, right


@cache
def _assignments(queries: int, things: int) -> Tensor:
    """Every way to give each thing a query of its own, [ways, things]."""
    return torch.tensor(list(permutations(range(queries), things)))


def _cheapest(cost: Tensor) -> Tensor:
    """The query of each thing, [things], for a cost [queries, things]; all ways are tried, since a clip holds three."""
    ways = _assignments(*cost.shape)
    return ways[cost.gather(0, ways).sum(dim=1).argmin()]


@torch.no_grad()
def _match(present: Tensor, answers: Sequence[Tensor], wanted: Tensor) -> Tensor:
    """The row that describes each thing of a clip best [things], by the logits of its rows; ``wanted``: its values."""
    logs = [
        answer.log_softmax(dim=-1)[:, wanted[:, i].clamp(min=0)] * (wanted[:, i] != UNNAMED)
        for i, answer in enumerate(answers)
    ]
    return _cheapest(-torch.stack(logs).sum(dim=0) - F.logsigmoid(present)[:, None])


def tell_objects(scene: Scene) -> list[dict[str, str]]:
    """Of every object its values of :data:`OBJECT_VALUES`."""
    return [{name: getattr(thing, name) for name in OBJECT_VALUES} for thing in scene.things]


def tell_events(scene: Scene) -> list[dict[str, str]]:
    """Of every event its values of :data:`EVENT_VALUES`."""
    places = _PLACES[:1] if len(scene.events) == 1 else _PLACES[1:]
    return [_event(scene, event, place) for event, place in zip(scene.events, places, strict=False)]


def tell_source(scene: Scene, source: Source) -> dict[str, str]:
    """What is true of one object or event."""
    kind, number = source
    return (tell_objects if kind == "object" else tell_events)(scene)[number]


def _event(scene: Scene, event: Event, place: str) -> dict[str, str]:
    whom = None if event.target is None else scene.things[event.target]
    return {
        "kind": event.kind,
        **_described("who", scene.things[event.subject].look),
        **_described("whom", _UNSEEN if whom is None else whom.look),
        "place": place,
        "begin": str(scene.eighth(event.start)),
        "end": str(scene.eighth(event.end)),
    }


def _described(role: str, look: Look) -> dict[str, str]:
    return {f"{role}_{name}": value or _NONE for name, value in zip(OBJECT_VALUES, look, strict=True)}


class TextHeads(nn.Module):
    """Linear heads on the vector of a text: the deed that it tells of, who does it, and to whom.

    Args:
        width: Of the vectors, P.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**0.5  # the vectors have length one
        self.head = nn.Linear(width, sum(map(len, TEXT_VALUES.values())))

    def forward(self, embeds: Tensor, texts: Sequence[Text]) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of vectors [N, P] of texts, and shares of right values; texts with several deeds are left out."""
        told = [(row, _told(text)) for row, text in enumerate(texts)]
        rows = [row for row, values in told if values is not None]
        values = [values for _, values in told if values is not None]
        answers = self.head(self.scale * embeds[rows]).float().split([len(v) for v in TEXT_VALUES.values()], dim=-1)
        losses, right = [], {}
        for (name, options), answer in zip(TEXT_VALUES.items(), answers, strict=True):
            target = torch.tensor([options.index(value[name]) for value in values])
            losses.append(F.cross_entropy(answer, target))
            right[f"t_{name}"] = (answer.argmax(dim=-1) == target).float().mean()
        return torch.stack(losses).sum(), {name: right[name] for name in ("t_deed", "t_who_colour", "t_whom_shape")}


def _told(text: Text) -> dict[str, str] | None:
    """The one deed (or the one look) that a text tells of."""
    by_form: dict[str, list[Fact]] = {"is": [], "does": [], "meets": []}
    for fact in text.facts:
        if fact[0] not in by_form:
            return None
        by_form[fact[0]].append(fact)
    if len(by_form["meets"]) == 1 and len(by_form["does"]) <= 1:
        _, deed, who, whom = by_form["meets"][0]
    elif len(by_form["does"]) == 1 and not by_form["meets"]:
        (_, deed, who), whom = by_form["does"][0], _UNSEEN
    elif len(by_form["is"]) == 1 and not by_form["does"] and not by_form["meets"]:
        deed, who, whom = _NONE, by_form["is"][0][1], _UNSEEN
    else:
        return None
    return {"deed": deed, **_described("who", who), **_described("whom", whom)}


PLOT_VALUES: dict[str, tuple[str, ...]] = {
    f"{place}_{name}": values
    for place in _PLACES[1:]
    for name, values in (
        ("deed", (STILL, "move", *ACTIONS, *INTERACTIONS)),
        ("colour", (_NONE, *COLOURS)),
        ("shape", (_NONE, *SHAPES)),
    )
}


class PlotHeads(nn.Module):
    """Linear heads that ask a vector which of two events comes first: the same for texts and for clips.

    The contrast alone does not tell a caption from the one with its events exchanged: every word of both is true.

    Args:
        width: Of the vectors, P.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**0.5  # the vectors have length one
        self.head = nn.Linear(width, sum(map(len, PLOT_VALUES.values())))

    def forward(self, embeds: Tensor, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """Loss of vectors [N, P], each of a text that :func:`tells_plot`, and the share of right deeds."""
        plots = [next(fact for fact in text.facts if fact[0] == "then") for text in texts]
        answers = self.head(self.scale * embeds).float().split([len(v) for v in PLOT_VALUES.values()], dim=-1)
        losses, right = [], []
        for (name, options), answer in zip(PLOT_VALUES.items(), answers, strict=True):
            place, part = name.split("_")
            deed, look = (1, 2) if place == "first" else (3, 4)
            values = [plot[deed] if part == "deed" else plot[look][part == "shape"] or _NONE for plot in plots]
            target = torch.tensor([options.index(value) for value in values])
            losses.append(F.cross_entropy(answer, target))
            if part == "deed":
                right.append((answer.argmax(dim=-1) == target).float().mean())
        return torch.stack(losses).sum(), torch.stack(right).mean()


def tells_plot(text: Text) -> bool:
    """Whether the text says what comes first and what then."""
    return any(fact[0] == "then" for fact in text.facts)
