"""Nearest things by the inner product of their best vector, with FAISS: exact, filtered by ids, on a GPU if any."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import LibraryError, MissingDependencyError

__all__ = ["FaissIndex"]

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_GPU_MOST = 2048  # neighbours that faiss finds at a time on a GPU


def _faiss() -> Any:
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # faiss-gpu without its CUDA wheels raises RuntimeError
        raise MissingDependencyError("faiss", "faiss", "the vector index") from error
    return faiss


class FaissIndex:
    """Vectors of one embedding space under 64-bit ids; every id has the same number of them, its rows.

    The rows of an id are entries of the FAISS index one after the other, all under that id: filters and removals
    need to know nothing of rows, and with one row the file is a plain index.

    The index on the CPU is the truth. A GPU holds a copy of its vectors, made at the first search after a change,
    because FAISS can neither remove from an index on a GPU nor filter there; a filtered search runs on the CPU.
    """

    def __init__(self, dimension: int, *, rows: int = 1, use_gpu: bool | None = None) -> None:
        """Make an empty index.

        Args:
            dimension: length of every vector.
            rows: vectors of an id.
            use_gpu: ``None`` takes a GPU when faiss has one, ``False`` never, ``True`` insists on it.

        Raises:
            MissingDependencyError: faiss is not installed, or has no GPU although ``use_gpu`` is true.
        """
        faiss = _faiss()
        self._setup(faiss.IndexIDMap2(faiss.IndexFlatIP(dimension)), rows, use_gpu)

    def _setup(self, index: Any, rows: int, use_gpu: bool | None) -> None:
        faiss = _faiss()
        has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        if use_gpu and not has_gpu:
            raise MissingDependencyError("faiss-gpu with a visible GPU", "faiss-gpu", "a vector index on a GPU")
        self._index = index
        self._row_count = rows
        self._on_gpu = has_gpu and use_gpu is not False
        self._gpu_copy: Any = None
        self._gpu_resources: Any = None

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self._index.d)

    @property
    def rows(self) -> int:
        """Vectors of an id. An empty index that was loaded has one: its file does not say."""
        return self._row_count

    def __len__(self) -> int:
        """How many ids there are."""
        return int(self._index.ntotal) // self.rows

    @property
    def ids(self) -> Ids:
        """All ids, int64 [n], in the order they are stored."""
        return _keys(self._index)[:: self.rows].copy()

    def vectors(self, ids: npt.ArrayLike) -> Vectors:
        """What is stored under some ids, float32 [n, rows, dimension]; KeyError when one is not here."""
        wanted, here = np.asarray(ids, np.int64), self.ids
        absent = np.setdiff1d(wanted, here)
        if len(absent):
            raise KeyError(int(absent[0]))
        order = np.argsort(here)
        places = order[np.searchsorted(here, wanted, sorter=order)]
        entries = (places[:, None] * self.rows + np.arange(self.rows)).ravel()
        stored = self._index.index.reconstruct_batch(entries)
        return np.asarray(stored, np.float32).reshape(len(wanted), self.rows, self.dimension)

    def add(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add vectors under new ids [n]; an id that is there already raises ValueError.

        Args:
            ids: int64 [n].
            vectors: float32 [n, rows, dimension]; with one row an id, [n, dimension] will do.
        """
        given, keys = np.asarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64)
        if given.ndim == 2 and self.rows == 1:
            given = given[:, None]
        self._check(given, self.rows, self.dimension)
        if keys.shape != (len(given),):
            raise ValueError(f"the vectors of {len(given)} things need as many ids, got ids of shape {keys.shape}")
        if len(np.unique(keys)) != len(keys) or np.isin(keys, self.ids).any():
            raise ValueError("every id can be added once; remove the old vectors first")
        if len(keys):
            entries = np.ascontiguousarray(given.reshape(-1, self.dimension))
            self._index.add_with_ids(entries, np.repeat(keys, self.rows))
            self._gpu_copy = None

    def remove(self, ids: npt.ArrayLike) -> int:
        """Remove the given ids with their vectors (unknown ones are ignored); returns how many there were."""
        removed = int(self._index.remove_ids(_faiss().IDSelectorBatch(np.ascontiguousarray(ids, np.int64))))
        if removed:
            self._gpu_copy = None
        return removed // self.rows

    def search(self, vector: npt.ArrayLike, k: int, *, allowed: npt.ArrayLike | None = None) -> tuple[Vectors, Ids]:
        """The ids whose best vector is nearest to one query.

        Args:
            vector: float32 [dimension].
            k: how many at most.
            allowed: ids to choose from; ``None`` means all.

        Returns:
            Inner products [m] and different ids [m], best first, with m <= k.
        """
        query = np.ascontiguousarray(vector, np.float32)[None]
        self._check(query, self.dimension)
        k = min(k, len(self))
        if k < 1:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        entries = k * self.rows  # no id has more than its rows among them, so that k ids are
        if allowed is None:
            scores, ids = self._search_all(query, entries)
        else:
            faiss = _faiss()
            keys = np.ascontiguousarray(allowed, np.int64)
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(keys))
            scores, ids = self._index.search(query, entries, params=chosen)
        found = ids[0] >= 0  # FAISS fills up with -1 where fewer are allowed
        scores, ids = scores[0][found], ids[0][found]
        best = np.sort(np.unique(ids, return_index=True)[1])[:k]  # where each id comes first
        return scores[best], ids[best]

    def _search_all(self, query: Vectors, k: int) -> tuple[Vectors, Ids]:
        if not self._on_gpu or k > _GPU_MOST:
            scores, ids = self._index.search(query, k)
            return scores, ids
        if self._gpu_copy is None:
            faiss = _faiss()
            self._gpu_resources = self._gpu_resources or faiss.StandardGpuResources()
            self._gpu_copy = (faiss.index_cpu_to_gpu(self._gpu_resources, 0, self._index.index), _keys(self._index))
        index, keys = self._gpu_copy
        scores, places = index.search(query, k)
        return scores, np.where(places >= 0, keys[places], -1)

    def _check(self, vectors: Vectors, *shape: int) -> None:
        if vectors.shape[1:] != shape:
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"this index takes vectors of shape [n, {wanted}], got {list(vectors.shape)}")
        if not np.isfinite(vectors).all():
            raise ValueError("a vector with NaN or infinity cannot be compared with others")

    def save(self, path: Path) -> None:
        """Write the index so that a crash leaves the old file or the new one, never half of it."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Through Python and not faiss.write_index, whose file names are bytes of the C locale.
            temporary.write_bytes(_faiss().serialize_index(self._index).tobytes())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, *, use_gpu: bool | None = None) -> FaissIndex:
        """Read what :meth:`save` wrote; LibraryError when it is no such file."""
        faiss = _faiss()
        try:
            index = faiss.deserialize_index(np.frombuffer(path.read_bytes(), np.uint8))
        except (RuntimeError, OSError, ValueError) as error:
            raise LibraryError(f"cannot read the vector index {path}: {_first_line(error)}") from error
        if not isinstance(index, faiss.IndexIDMap2):
            raise LibraryError(f"{path} is no vector index of this package; remove it, and it is made again")
        keys = _keys(index)
        rows = max(1, len(keys) // max(1, len(np.unique(keys))))
        ids = keys[::rows]
        if len(np.unique(ids)) != len(ids) or not np.array_equal(keys, np.repeat(ids, rows)):
            raise LibraryError(f"{path} does not hold as many vectors for every id; remove it, and it is made again")
        made = cls.__new__(cls)
        made._setup(index, rows, use_gpu)
        logger.debug("read %d ids with %d vectors each from %s", len(made), rows, path)
        return made


def _keys(index: Any) -> Ids:
    """The id of every entry of a FAISS index, int64 [n * rows]."""
    return np.asarray(_faiss().vector_to_array(index.id_map), np.int64)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
