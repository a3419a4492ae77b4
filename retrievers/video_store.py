"""A LangChain vector store over FAISS: exact, in memory, filtered inside the search, saved without pickle."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from videochat_tools.errors import LibraryError
from videochat_tools.retrievers.faiss_index import FaissIndex
from videochat_tools.retrievers.metadata_filter import MetadataTable
from videochat_tools.retrievers.store_files import SavedStore, read_store, write_store

__all__ = ["FaissVideoStore", "RowEmbeddings"]

Vectors = npt.NDArray[np.float32]
METRICS = ("cosine", "inner_product")
Filter = Mapping[str, Any] | Callable[[Document], bool]


@runtime_checkable
class RowEmbeddings(Protocol):
    """Embeddings that hold a document in several vectors; the best of them counts. VideoEmbeddings are."""

    def embed_document_rows(self, texts: Sequence[str]) -> Vectors:
        """Float32 [n, rows, dimension]."""
        ...


@runtime_checkable
class _HasRelevance(Protocol):
    def relevance(self, similarity: float) -> float: ...


class FaissVideoStore(VectorStore):
    """Documents and their vectors. With :class:`~videochat_tools.video_embeddings.VideoEmbeddings`, an index of videos.

    Works with any LangChain embeddings. Everything is exact: every vector that the filter admits is compared. Adding
    under an id that is there replaces the document. Methods with an ``a`` before their name run in a thread.

    *Score*: the cosine of query and document, -1..1, higher is better (``metric="inner_product"``: their inner
    product); with embeddings of several rows that of the best row. *Relevance*, 0..1: the probability that
    the text describes the clip, as far as the embeddings say one (``relevance``), else ``(1 + cosine) / 2``, where 0.5
    means unrelated.

    ``filter`` is a condition on the metadata (:mod:`~videochat_tools.retrievers.metadata_filter`), or a
    function of a document; ``k`` counts only what fits.
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        metric: str = "cosine",
        use_gpu: bool | None = None,
        relevance_score_fn: Callable[[float], float] | None = None,
    ) -> None:
        """An empty store.

        Args:
            embedding: makes the vectors.
            metric: ``"cosine"``, or ``"inner_product"`` for embeddings whose lengths mean something.
            use_gpu: ``None`` takes a GPU when faiss has one, ``False`` never, ``True`` insists on it. A filtered search
                runs on the CPU.
            relevance_score_fn: score to relevance, in place of what is said above.

        Raises:
            MissingDependencyError: faiss is not installed, or has no GPU although ``use_gpu`` is true.
        """
        if metric not in METRICS:
            raise ValueError(f"metric must be 'cosine' or 'inner_product', got {metric!r}")
        FaissIndex(1, use_gpu=use_gpu)  # says now what is missing, not at the first document
        self._embedding = embedding
        self._metric = metric
        self._use_gpu = use_gpu
        self._relevance_score_fn = relevance_score_fn
        self._index: FaissIndex | None = None  # made with the first vector, which tells its shape
        self._keys: dict[str, int] = {}  # id to the number under which the index has it
        self._documents: dict[int, Document] = {}
        self._next = 0
        self._table: tuple[npt.NDArray[np.int64], MetadataTable] | None = None
        self._lock = threading.RLock()

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    def __len__(self) -> int:
        return len(self._documents)

    # ------------------------------------------------------------------------------------------- add, get, delete

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and store texts, or replace those whose ids are there.

        Args:
            texts: for VideoEmbeddings the media-fragment names of clips.
            metadatas: one for each text.
            ids: one for each text; ``None`` makes a new one. Of equal ones the last counts.
            **kwargs: not used.

        Returns:
            The ids, in the order of the texts.
        """
        given = list(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if values is not None and len(values) != len(given):
                raise ValueError(f"{len(given)} texts need as many {name}, got {len(values)}")
        names = [id or str(uuid.uuid4()) for id in (ids or [None] * len(given))]
        if not given:
            return []
        vectors = self._embed(given)
        documents = [
            Document(id=name, page_content=text, metadata=dict(metadata))
            for name, text, metadata in zip(names, given, metadatas or [{}] * len(given), strict=True)
        ]
        last = {name: number for number, name in enumerate(names)}
        with self._lock:
            index = (
                self._index
                if self._index is not None
                else FaissIndex(vectors.shape[2], rows=vectors.shape[1], use_gpu=self._use_gpu)
            )
            keys = np.arange(self._next, self._next + len(last))
            # First the new ones: vectors that do not fit are refused before anything is taken away.
            index.add(keys, vectors[list(last.values())])
            self._index = index
            self.delete(list(last))
            self._next += len(last)
            for key, (name, number) in zip(keys.tolist(), last.items(), strict=True):
                self._keys[name] = key
                self._documents[key] = documents[number]
            self._table = None
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Remove documents; ids that are not here are ignored. ``None`` removes all. Always true."""
        with self._lock:
            keys = [
                self._keys.pop(name) for name in dict.fromkeys(self._keys if ids is None else ids) if name in self._keys
            ]
            for key in keys:
                del self._documents[key]
            if self._index is not None and keys:
                self._index.remove(keys)
            self._table = None
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in this order; ids that are not here are left out."""
        with self._lock:
            return [_copy(self._documents[self._keys[id]]) for id in ids if id in self._keys]

    # ----------------------------------------------------------------------------------------------------- search

    def similarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """The ``k`` documents nearest to a query, best first."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter=filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The ``k`` documents nearest to a query with their scores, best first."""
        return self.similarity_search_with_score_by_vector(self._embedding.embed_query(query), k, filter=filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """The ``k`` documents nearest to a vector, best first."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter=filter)]

    def similarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The ``k`` documents nearest to a vector with their scores, best first."""
        with self._lock:
            scores, keys = self._nearest(self._scaled(np.asarray(embedding, np.float32)), k, filter)
            found = zip(keys.tolist(), scores.tolist(), strict=True)
            return [(_copy(self._documents[key]), score) for key, score in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Documents that are near to a query and far from each other; arguments as below."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter=filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Maximal marginal relevance (Carbonell and Goldstein, 1998) among the ``fetch_k`` nearest documents.

        Args:
            embedding: vector of the query.
            k: how many at most.
            fetch_k: how many to choose from; never fewer than ``k``.
            lambda_mult: 1 goes by nearness to the query alone, 0 by distance from what is chosen alone.
            filter: what may be chosen.
            **kwargs: not used.
        """
        if not 0 <= lambda_mult <= 1:
            raise ValueError(f"lambda_mult must be in 0..1, got {lambda_mult!r}")
        with self._lock:
            scores, keys = self._nearest(self._scaled(np.asarray(embedding, np.float32)), max(k, fetch_k), filter)
            if self._index is None or not len(keys):
                return []
            rows = self._index.vectors(keys)  # [m, rows, dimension]
            documents = [_copy(self._documents[key]) for key in keys.tolist()]
        alike = np.einsum("ird,jsd->ijrs", rows, rows).max(axis=(2, 3))  # [m, m]
        chosen = [0]
        while len(chosen) < min(k, len(documents)):
            value = lambda_mult * scores - (1 - lambda_mult) * alike[:, chosen].max(axis=1)
            value[chosen] = -np.inf
            chosen.append(int(value.argmax()))
        return [documents[number] for number in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._relevance_score_fn is not None:
            return self._relevance_score_fn
        if isinstance(self._embedding, _HasRelevance):
            return self._embedding.relevance
        if self._metric == "cosine":
            return lambda score: min(max((1 + score) / 2, 0.0), 1.0)
        raise ValueError("an inner product says nothing on a scale of 0..1; give the store a relevance_score_fn")

    def _nearest(self, query: Vectors, k: int, filter: Filter | None) -> tuple[Vectors, npt.NDArray[np.int64]]:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if self._index is None:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        return self._index.search(query, k, allowed=None if filter is None else self._admitted(filter))

    def _admitted(self, condition: Filter) -> npt.NDArray[np.int64]:
        """The numbers of the documents that fit."""
        if callable(condition):
            return np.array([key for key, document in self._documents.items() if condition(_copy(document))], np.int64)
        if self._table is None:
            keys = np.fromiter(self._documents, np.int64, len(self._documents))
            self._table = keys, MetadataTable(document.metadata for document in self._documents.values())
        keys, table = self._table
        return keys[table.mask(condition)]

    def _embed(self, texts: list[str]) -> Vectors:
        """Float32 [n, rows, dimension]."""
        if isinstance(self._embedding, RowEmbeddings):
            return self._scaled(np.asarray(self._embedding.embed_document_rows(texts), np.float32))
        vectors = np.asarray(self._embedding.embed_documents(texts), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(f"the embeddings made something of shape {list(vectors.shape)} of {len(texts)} texts")
        return self._scaled(vectors[:, None])

    def _scaled(self, vectors: Vectors) -> Vectors:
        if self._metric == "inner_product":
            return vectors
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12))

    # ------------------------------------------------------------------------------------------------ make, save, load

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store of these texts; ``kwargs`` are those of the constructor."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def save_local(self, folder: str | Path) -> None:
        """Write the store into a folder, a FAISS file and JSON; a crash leaves the old store or the new one.

        Raises:
            LibraryError: metadata is no JSON, something else is in the folder, or it cannot be written.
        """
        with self._lock:
            saved = SavedStore(self._metric, self._space(), self._next, self._documents, self._index)
            write_store(Path(folder), saved)

    @classmethod
    def load_local(cls, folder: str | Path, embedding: Embeddings, **kwargs: Any) -> Self:
        """Read what :meth:`save_local` wrote; ``kwargs`` are those of the constructor, but for the metric.

        Raises:
            LibraryError: no store there, damaged, or made with other video embeddings.
        """
        saved = read_store(Path(folder), use_gpu=kwargs.get("use_gpu"))
        store = cls(embedding, metric=saved.metric, **kwargs)
        if saved.space is not None and saved.space != store._space():
            raise LibraryError(
                f"the store {folder} was made with the embeddings {saved.space}, not {store._space()}; open it with "
                "those, or add its documents to a new store"
            )
        store._index, store._documents, store._next = saved.index, saved.documents, saved.next
        store._keys = {str(document.id): key for key, document in saved.documents.items()}
        return store

    def _space(self) -> str | None:
        """Name of the space of the vectors, where the embeddings tell one."""
        name = getattr(self._embedding, "fingerprint", None)
        return None if name is None else str(name)


def _copy(document: Document) -> Document:
    """What a caller changes in a found document must not change the store."""
    return document.model_copy(update={"metadata": dict(document.metadata)})
