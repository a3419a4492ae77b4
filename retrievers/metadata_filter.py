"""Conditions on the metadata of documents, as :class:`FaissVideoStore` and others take them.

=========================================  =====================================================================
``{"video": "talk.mp4"}``                  equal; several keys must all hold
``{"start": {"$gte": 3, "$lt": 9}}``       also ``$eq``, ``$ne``, ``$gt``, ``$lte``; numbers with numbers, texts with
                                           texts
``{"video": {"$in": ["a.mp4", "b.mp4"]}}`` also ``$nin``
``{"label": {"$exists": True}}``           whether there is such a key
``{"$overlaps": [40, 50]}``                ``start`` .. ``end`` of the document shares time with this span (seconds)
``{"$or": [{...}, {...}]}``                also ``$and``; ``{"$not": {...}}``
=========================================  =====================================================================

A key that a document lacks fits only ``$ne``, ``$nin``, ``{"$exists": False}``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from videochat_tools.types import TimeSpan

__all__ = ["MetadataTable"]

Mask = npt.NDArray[np.bool_]

_ABSENT = object()
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_OPERATORS = ("$eq", "$ne", "$in", "$nin", "$exists", *_ORDERS)
_LOGICAL = ("$and", "$or", "$not", "$overlaps")


class MetadataTable:
    """The metadata of many documents by column, so that a condition costs a few passes over columns.

    A column is made when a condition first names it; the table is thrown away when a document changes.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = list(rows)
        self._values: dict[str, list[Any]] = {}
        self._numbers: dict[str, npt.NDArray[np.float64]] = {}

    def mask(self, condition: Mapping[str, Any]) -> Mask:
        """Which documents fit, bool [n].

        Raises:
            ValueError: the condition cannot be read.
        """
        if not isinstance(condition, Mapping):
            raise ValueError(f"a filter is a mapping of metadata keys to conditions, got {condition!r}")
        fits = np.ones(len(self._rows), bool)
        for key, wanted in condition.items():
            if not isinstance(key, str) or (key.startswith("$") and key not in _LOGICAL):
                raise ValueError(f"no filter {key!r}; give a metadata key, or one of {', '.join(_LOGICAL)}")
            fits &= self._logical(key, wanted) if key in _LOGICAL else self._key(key, wanted)
        return np.asarray(fits)

    def _logical(self, name: str, wanted: Any) -> Mask:
        if name == "$not":
            return ~self.mask(wanted)
        if name == "$overlaps":
            return self._overlaps(wanted)
        if not isinstance(wanted, Sequence) or isinstance(wanted, str) or not wanted:
            raise ValueError(f"{name} takes a list of at least one filter, got {wanted!r}")
        parts = np.stack([self.mask(part) for part in wanted])
        fits = parts.all(axis=0) if name == "$and" else parts.any(axis=0)
        return np.asarray(fits)

    def _overlaps(self, wanted: Any) -> Mask:
        span = wanted if isinstance(wanted, TimeSpan) else None
        try:
            span = span or TimeSpan(*map(float, wanted))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"$overlaps takes [start, end] in seconds with 0 <= start <= end, got {wanted!r}"
            ) from error
        start, end = self._column_of_numbers("start"), self._column_of_numbers("end")
        # A point in time, on either side, need only lie inside the other.
        shared = np.minimum(end, span.end) - np.maximum(start, span.start)
        return np.asarray((shared > 0) | ((shared == 0) & ((end == start) | (span.end == span.start))))

    def _key(self, key: str, wanted: Any) -> Mask:
        if not isinstance(wanted, Mapping) or not any(str(name).startswith("$") for name in wanted):
            return self._compared(key, "$eq", wanted)
        fits = np.ones(len(self._rows), bool)
        for name, value in wanted.items():
            if name not in _OPERATORS:
                raise ValueError(f"no operator {name!r} for {key!r}; choose one of {', '.join(_OPERATORS)}")
            fits &= self._compared(key, name, value)
        return np.asarray(fits)

    def _compared(self, key: str, name: str, value: Any) -> Mask:
        column = self._column(key)
        if name in _ORDERS:
            return self._ordered(key, name, value)
        if name == "$exists":
            return np.fromiter((item is not _ABSENT for item in column), bool, len(column)) == bool(value)
        if name in ("$in", "$nin"):
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise ValueError(f"{name} takes a list of values, got {value!r}")
            choice = list(value)
            found = np.fromiter((item in choice for item in column), bool, len(column))
            return found if name == "$in" else ~found
        equal = np.fromiter((bool(item == value) for item in column), bool, len(column))
        return equal if name == "$eq" else ~equal

    def _ordered(self, key: str, name: str, value: Any) -> Mask:
        compare = _ORDERS[name]
        if isinstance(value, str):
            column = self._column(key)
            return np.fromiter((isinstance(item, str) and compare(item, value) for item in column), bool, len(column))
        if not _is_number(value):
            raise ValueError(f"{name} compares with a number or a text, got {value!r}")
        return np.asarray(compare(self._column_of_numbers(key), value))  # NaN, where there is no number, fits nothing

    def _column(self, key: str) -> list[Any]:
        if key not in self._values:
            self._values[key] = [row.get(key, _ABSENT) for row in self._rows]
        return self._values[key]

    def _column_of_numbers(self, key: str) -> npt.NDArray[np.float64]:
        if key not in self._numbers:
            self._numbers[key] = np.array([item if _is_number(item) else math.nan for item in self._column(key)], float)
        return self._numbers[key]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
