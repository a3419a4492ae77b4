"""Finding the moments of a library that a question is about: by picture, by words, and by both.

The classes that are LangChain's (store and retrievers) are imported when they are first used: a library that only
searches does not load LangChain.
"""

if __name__ == "retrievers":
    raise ImportError("this folder is no package of its own; import videochat_tools.retrievers")

import importlib
from typing import TYPE_CHECKING, Any

from videochat_tools.retrievers.faiss_index import FaissIndex
from videochat_tools.retrievers.options import RetrievalOptions
from videochat_tools.retrievers.query import Query, analyse
from videochat_tools.retrievers.temporal import HybridTemporalRetriever

if TYPE_CHECKING:
    from videochat_tools.retrievers.documents import hit_document
    from videochat_tools.retrievers.hybrid import HybridRetriever
    from videochat_tools.retrievers.transcript import TranscriptRetriever
    from videochat_tools.retrievers.video_store import FaissVideoStore
    from videochat_tools.retrievers.visual import VisualRetriever

__all__ = [
    "FaissIndex",
    "FaissVideoStore",
    "HybridRetriever",
    "HybridTemporalRetriever",
    "Query",
    "RetrievalOptions",
    "TranscriptRetriever",
    "VisualRetriever",
    "analyse",
    "hit_document",
]

_HOME = {
    "FaissVideoStore": "video_store",
    "HybridRetriever": "hybrid",
    "TranscriptRetriever": "transcript",
    "VisualRetriever": "visual",
    "hit_document": "documents",
}


def __getattr__(name: str) -> Any:
    """Import one of LangChain's classes on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
