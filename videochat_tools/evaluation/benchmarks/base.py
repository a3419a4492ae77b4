"""What all benchmarks have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks.models import Models
from videochat_tools.evaluation.statistics import Mean, Score, cluster_mean, cluster_rate

__all__ = [
    "ANSWERED",
    "CONTROLS",
    "MISSING",
    "SPREAD_ANYWAY",
    "Benchmark",
    "Context",
    "Item",
    "Record",
    "Sections",
    "by_video",
    "mean_of",
    "share_of",
]

Record = dict[str, Any]
"""One line of a log: ``id``, ``video``, ``status``, and what the benchmark measured."""
Sections = dict[str, Sequence[Score | Mean]]

ANSWERED, MISSING = "answered", "missing"

CONTROLS = ("blank", "text-only", "uniform")
"""What a model can be shown in place of what a benchmark shows it: black frames; no video; as many frames, spread
evenly over all that was searched."""
SPREAD_ANYWAY = "its frames are spread evenly over the video to begin with, so that it would change nothing"


class Item(Protocol):
    """One question."""

    @property
    def id(self) -> str:
        """Its name in logs, one of a kind."""
        ...

    @property
    def video(self) -> str:
        """What it is about; intervals take the items of one video together."""
        ...


ItemT = TypeVar("ItemT", bound=Item)
V = TypeVar("V")


@dataclass(frozen=True)
class Context:
    """What a benchmark may use while it measures.

    Attributes:
        models: Those under test.
        control: "none", or which of :data:`CONTROLS`.
        folder: Where files may be kept that make a run that is gone on with faster; None keeps none.
        cache: Where files may be kept that serve other runs too; None is ``cache`` in that folder.
    """

    models: Models = field(default_factory=Models)
    control: str = "none"
    folder: Path | None = None
    cache: Path | None = None

    def place(self, name: str) -> Path:
        """A folder for files of this run."""
        if self.folder is None:
            raise BenchmarkError("this benchmark keeps files; give a folder for its output")
        return self.folder / name

    def shared(self, name: str) -> Path:
        """A folder for files that other runs can use."""
        return (self.place("cache") if self.cache is None else self.cache) / name


class Benchmark(Generic[ItemT]):
    """Items, one measurement of each, and the scores of all.

    Attributes:
        name: As :func:`~videochat_tools.evaluation.benchmarks.load_benchmark` takes it.
        uses: Which of the models it asks: "chat", "encoder".
        controls: Which of :data:`CONTROLS` make sense for it.
        senseless: Why the others make none.
        shows_frames: Whether it chooses the frames that the chat model is shown, so that another number of them makes
            sense; a library chooses them itself.
    """

    name: ClassVar[str]
    uses: ClassVar[tuple[str, ...]] = ("chat",)
    controls: ClassVar[tuple[str, ...]] = ("blank", "text-only")
    senseless: ClassVar[Mapping[str, str]] = {"uniform": SPREAD_ANYWAY}
    shows_frames: ClassVar[bool] = False

    @property
    def items(self) -> Sequence[ItemT]:
        """All questions, in a fixed order."""
        raise NotImplementedError

    @property
    def identity(self) -> Sequence[Any]:
        """What makes up the items, without the place of files: a moved folder is still the same benchmark."""
        return [
            (item.id, item.video, getattr(item, "question", None), getattr(item, "options", None))
            for item in self.items
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides about the results; a run that is gone on with must have the same."""
        return {}

    def is_there(self, item: ItemT) -> bool:
        """Whether the video of an item is on this machine."""
        raise NotImplementedError

    def looks(self, control: str) -> bool:
        """Whether it needs the video of an item under a control; where it does, a missing one counts as wrong."""
        return control not in ("blank", "text-only")

    def prepare(self, context: Context) -> None:
        """Called once before the items; whatever must be kept goes into the context's folders."""

    def measure(self, item: ItemT, context: Context) -> Record:
        """Ask about one item; the fields for its line of the log. A MediaError is logged as the item's status."""
        raise NotImplementedError

    def score(self, items: Sequence[ItemT], records: Mapping[str, Record]) -> Sections:
        """Scores of the items. What has no record of status "answered" counts as wrong."""
        raise NotImplementedError

    def facts(self, items: Sequence[ItemT], records: Mapping[str, Record]) -> dict[str, Any]:
        """Further figures for the results."""
        return {}

    def finish(self, items: Sequence[ItemT], records: Mapping[str, Record], folder: Path) -> None:
        """Called once after a whole run, to write further files."""


def by_video(items: Iterable[ItemT], value: Callable[[ItemT], V]) -> dict[str, list[V]]:
    """A value of each item, grouped by video."""
    clusters: dict[str, list[V]] = {}
    for item in items:
        clusters.setdefault(item.video, []).append(value(item))
    return clusters


def share_of(name: str, items: Sequence[ItemT], right: Callable[[ItemT], bool], chance: float | None = None) -> Score:
    """How many items are right, with an interval clustered by video."""
    return cluster_rate(name, by_video(items, right), chance)


def mean_of(name: str, items: Sequence[ItemT], value: Callable[[ItemT], float], chance: float | None = None) -> Mean:
    """The mean over the items, with an interval clustered by video."""
    return cluster_mean(name, by_video(items, value), chance)


def check_ids(items: Sequence[ItemT], where: Path) -> Sequence[ItemT]:
    """The items, if no two share an id."""
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise BenchmarkError(f"{where} holds {len(twice)} ids more than once, such as {twice[0]}; download it again")
    return items
