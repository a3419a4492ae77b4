"""Nearest vectors by inner product, with FAISS: exact, filtered by ids, on a GPU where there is one."""

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


def _faiss() -> Any:
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # faiss-gpu without its CUDA wheels raises RuntimeError
        raise MissingDependencyError("faiss", "faiss", "the vector index") from error
    return faiss


class FaissIndex:
    """Vectors of one embedding space under 64-bit ids.

    The index on the CPU is the truth. A GPU holds a copy of its vectors, made at the first search after a change,
    because FAISS can neither remove from an index on a GPU nor filter there; a filtered search runs on the CPU.
    """

    def __init__(self, dimension: int, *, use_gpu: bool | None = None) -> None:
        """Make an empty index.

        Args:
            dimension: length of every vector.
            use_gpu: ``None`` takes a GPU when faiss has one, ``False`` never, ``True`` insists on it.

        Raises:
            MissingDependencyError: faiss is not installed, or has no GPU although ``use_gpu`` is true.
        """
        faiss = _faiss()
        self._setup(faiss.IndexIDMap2(faiss.IndexFlatIP(dimension)), use_gpu)

    def _setup(self, index: Any, use_gpu: bool | None) -> None:
        faiss = _faiss()
        has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        if use_gpu and not has_gpu:
            raise MissingDependencyError("faiss-gpu with a visible GPU", "faiss-gpu", "a vector index on a GPU")
        self._index = index
        self._on_gpu = has_gpu and use_gpu is not False
        self._gpu_copy: Any = None
        self._gpu_resources: Any = None

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self._index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def ids(self) -> Ids:
        """The ids of all vectors, int64 [n], in the order they are stored."""
        return np.asarray(_faiss().vector_to_array(self._index.id_map), np.int64).copy()

    def vector(self, id: int) -> Vectors:
        """One stored vector, float32 [dimension]; KeyError when there is none."""
        try:
            return np.asarray(self._index.reconstruct(int(id)), np.float32)
        except RuntimeError:
            raise KeyError(id) from None

    def add(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add vectors [n, dimension] under new ids [n]; an id that is there already raises ValueError."""
        rows, keys = self._checked(vectors), np.ascontiguousarray(ids, np.int64)
        if keys.shape != (len(rows),):
            raise ValueError(f"{len(rows)} vectors need as many ids, got ids of shape {keys.shape}")
        if len(np.unique(keys)) != len(keys) or np.isin(keys, self.ids).any():
            raise ValueError("every id can be added once; remove the old vector first")
        if len(rows):
            self._index.add_with_ids(rows, keys)
            self._gpu_copy = None

    def remove(self, ids: npt.ArrayLike) -> int:
        """Remove the vectors of the given ids (unknown ones are ignored); returns how many there were."""
        removed = int(self._index.remove_ids(_faiss().IDSelectorBatch(np.ascontiguousarray(ids, np.int64))))
        if removed:
            self._gpu_copy = None
        return removed

    def search(self, vector: npt.ArrayLike, k: int, *, allowed: npt.ArrayLike | None = None) -> tuple[Vectors, Ids]:
        """The nearest vectors to one query.

        Args:
            vector: float32 [dimension].
            k: how many at most.
            allowed: ids to choose from; ``None`` means all.

        Returns:
            Inner products [m] and ids [m], best first, with m <= k.
        """
        query = self._checked(np.asarray(vector, np.float32)[None])
        k = min(k, len(self))
        if k < 1:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        if allowed is None:
            scores, ids = self._search_all(query, k)
        else:
            faiss = _faiss()
            keys = np.ascontiguousarray(allowed, np.int64)
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(keys))
            scores, ids = self._index.search(query, k, params=chosen)
        found = ids[0] >= 0  # FAISS fills up with -1 where fewer than k are allowed
        return scores[0][found], ids[0][found]

    def _search_all(self, query: Vectors, k: int) -> tuple[Vectors, Ids]:
        if not self._on_gpu:
            scores, ids = self._index.search(query, k)
            return scores, ids
        if self._gpu_copy is None:
            faiss = _faiss()
            self._gpu_resources = self._gpu_resources or faiss.StandardGpuResources()
            self._gpu_copy = (faiss.index_cpu_to_gpu(self._gpu_resources, 0, self._index.index), self.ids)
        index, keys = self._gpu_copy
        scores, places = index.search(query, k)
        return scores, np.where(places >= 0, keys[places], -1)

    def _checked(self, vectors: npt.ArrayLike) -> Vectors:
        rows = np.ascontiguousarray(vectors, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise ValueError(f"this index holds vectors of shape [n, {self.dimension}], got {list(rows.shape)}")
        if not np.isfinite(rows).all():
            raise ValueError("a vector with NaN or infinity cannot be compared with others")
        return rows

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
        made = cls.__new__(cls)
        made._setup(index, use_gpu)
        logger.debug("read %d vectors from %s", len(made), path)
        return made


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
