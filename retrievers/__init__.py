"""Finding the moments of a library that a question is about: by picture, by words, and by both."""

if __name__ == "retrievers":
    raise ImportError("this folder is no package of its own; import videochat_tools.retrievers")

from videochat_tools.retrievers.faiss_index import FaissIndex
from videochat_tools.retrievers.query import Query, analyse
from videochat_tools.retrievers.temporal import HybridTemporalRetriever, RetrievalOptions

__all__ = ["FaissIndex", "HybridTemporalRetriever", "Query", "RetrievalOptions", "analyse"]
