"""Retrieval by what is seen."""

from __future__ import annotations

from typing import ClassVar

from videochat_tools.retrievers.documents import LibraryRetriever

__all__ = ["VisualRetriever"]


class VisualRetriever(LibraryRetriever):
    """The segments whose picture fits the query, by the library's video encoder and its matching head."""

    channels: ClassVar[tuple[str, ...]] = ("visual",)
