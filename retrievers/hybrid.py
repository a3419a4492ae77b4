"""Retrieval by what is seen and what is said, fused."""

from __future__ import annotations

from videochat_tools.retrievers.documents import LibraryRetriever

__all__ = ["HybridRetriever"]


class HybridRetriever(LibraryRetriever):
    """Both channels, fused by weighted reciprocal rank and merged in time: the library's own search."""
