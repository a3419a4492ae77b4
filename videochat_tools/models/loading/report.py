"""What a network needs, what the files gave, and what is left over: counted by component."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from videochat_tools.errors import ModelLoadError

__all__ = ["Component", "ComponentCount", "Layout", "LoadReport", "attach_report", "counted"]

logger = logging.getLogger(__name__)

OTHER = "other tensors"
"""Where names are counted that no component of a layout claims."""


@dataclass(frozen=True)
class Component:
    """A part of a network that a user knows by name.

    Attributes:
        name: "vision tower", "Q-Former", ...
        pattern: Finds the tensors of this part by their names in the original files.
        files: The released files that hold it, as words for a message: "eva_vit_g.pth".
    """

    name: str
    pattern: re.Pattern[str]
    files: str


@dataclass(frozen=True)
class Layout:
    """The parts that the original files of one family are made of.

    Attributes:
        components: In the order in which the data flows; the first whose pattern fits a name claims it.
        command: Converts the released files: "videochat convert checkpoint ... --output DIR".
    """

    components: tuple[Component, ...]
    command: str

    def component(self, name: str) -> Component:
        """The part that an original name belongs to."""
        for component in self.components:
            if component.pattern.search(name):
                return component
        return Component(OTHER, re.compile(""), "the released files")


@dataclass(frozen=True)
class ComponentCount:
    """Tensors of one component, by their original names.

    Attributes:
        name: Of the component.
        expected: How many the network needs.
        missing: Those of them that no file holds.
        unexpected: Those in the files that the network has no place for.
    """

    name: str
    expected: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    @property
    def loaded(self) -> int:
        """How many of the expected ones the files hold."""
        return self.expected - len(self.missing)


@dataclass(frozen=True)
class LoadReport:
    """The outcome of loading; ``str(report)`` is a table.

    Attributes:
        source: Names of the files.
        counts: One entry a component.
        layout: What the components are.
    """

    source: str
    counts: tuple[ComponentCount, ...]
    layout: Layout = field(repr=False)

    @classmethod
    def count(
        cls,
        layout: Layout,
        source: str,
        *,
        expected: Iterable[str],
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
    ) -> LoadReport:
        """Sort original names into the components of ``layout``; components without any are left out."""
        names = tuple(dict.fromkeys([component.name for component in layout.components] + [OTHER]))
        columns: list[dict[str, list[str]]] = []
        for group in (expected, missing, unexpected):
            columns.append({name: [] for name in names})
            for original in group:
                columns[-1][layout.component(original).name].append(original)
        needed, absent, surplus = columns
        counts = (
            ComponentCount(name, len(needed[name]), tuple(absent[name]), tuple(surplus[name]))
            for name in names
            if needed[name] or surplus[name]
        )
        return cls(source, tuple(counts), layout)

    def __add__(self, other: LoadReport) -> LoadReport:
        """Both, one after the other: what was loaded into two parts of a model."""
        sources = dict.fromkeys([self.source, other.source])
        return LoadReport(", ".join(sources), self.counts + other.counts, self.layout)

    @property
    def complete(self) -> bool:
        """Whether every tensor is there and none is left over."""
        return not any(count.missing or count.unexpected for count in self.counts)

    def check(self) -> None:
        """Raise unless the report is complete.

        Raises:
            ModelLoadError: Something would stay random, or was left over: which component, the file that should hold
                it, and the command to run.
        """
        incomplete = [count for count in self.counts if count.missing]
        if incomplete:
            files = dict.fromkeys(self.layout.component(count.missing[0]).files for count in incomplete)
            raise self._error(
                f"{_listed([(count.name, len(count.missing)) for count in incomplete])} would stay random: missing in "
                f"{self.source}, first {incomplete[0].missing[0]}; released in {', '.join(files)}; "
                f"run: {self.layout.command}"
            )
        surplus = [count for count in self.counts if count.unexpected]
        if surplus:
            raise self._error(
                f"{_listed([(count.name, len(count.unexpected)) for count in surplus])} in {self.source} that this "
                f"network does not have, first {surplus[0].unexpected[0]}; give the file of the right stage, or the "
                "configuration that it was made with"
            )

    def _error(self, message: str) -> ModelLoadError:
        """The error, with the table and the list of names as a note."""
        names = [
            f"{what}: {name}"
            for count in self.counts
            for what, group in (("missing", count.missing), ("unexpected", count.unexpected))
            for name in group
        ]
        error = ModelLoadError(message)
        error.add_note("\n".join([str(self), *names]))
        return error

    def __str__(self) -> str:
        header = ("component", "expected", "loaded", "missing", "unexpected")
        rows = [
            (count.name, count.expected, count.loaded, len(count.missing), len(count.unexpected))
            for count in self.counts
        ]
        total = ("all", *(sum(int(row[column]) for row in rows) for column in range(1, len(header))))
        return _table([header, *rows, total])

    def to_dict(self) -> dict[str, object]:
        """The table as plain values, for JSON."""
        return {
            "source": self.source,
            "components": [
                {
                    "component": count.name,
                    "expected": count.expected,
                    "loaded": count.loaded,
                    "missing": list(count.missing),
                    "unexpected": list(count.unexpected),
                }
                for count in self.counts
            ],
        }


def attach_report(model: Any, report: LoadReport) -> None:
    """Log how a model was loaded, and leave the report at it as ``load_report``."""
    logger.info("loaded from %s\n%s", report.source, report)
    model.load_report = report


def counted(number: int) -> str:
    """As words: "1 tensor", "3 tensors"."""
    return f"{number} tensor{'s' * (number != 1)}"


def _listed(counts: Sequence[tuple[str, int]]) -> str:
    """As words: "vision tower: 3 tensors, Q-Former: 1 tensor"."""
    return ", ".join(f"{name}: {counted(number)}" for name, number in counts)


def _table(rows: Sequence[Sequence[object]]) -> str:
    """First column to the left, numbers to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in texts
    )
    return "\n".join(lines)
