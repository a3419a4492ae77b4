"""Retrieval by what is said."""

from __future__ import annotations

from typing import ClassVar

from videochat_tools.retrievers.documents import LibraryRetriever

__all__ = ["TranscriptRetriever"]


class TranscriptRetriever(LibraryRetriever):
    """The stretches in which the words of the query are said, by full-text search (SQLite FTS5, BM25)."""

    channels: ClassVar[tuple[str, ...]] = ("speech",)
