"""The FAISS file of a library, kept in step with its catalog. It is derived: without it, it is made again."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import VideoEncoder
from videochat_tools.errors import LibraryError, MissingDependencyError
from videochat_tools.library.catalog import Catalog
from videochat_tools.retrievers.faiss_index import FaissIndex

__all__ = ["VectorIndex"]

logger = logging.getLogger(__name__)

_CHUNK = 50_000  # vectors read from the catalog at a time
_SAMPLE = 16  # segments compared with the catalog when a file is read


class VectorIndex:
    """The vectors of one encoder in memory, and on disk for the next start."""

    def __init__(self, path: Path, catalog: Catalog, encoder: VideoEncoder) -> None:
        self.path = path
        self._catalog = catalog
        self._fingerprint = encoder.fingerprint
        self._rows = encoder.rows
        self._dimension = encoder.dimension
        self._index: FaissIndex | None = None
        self._generation = -1
        self._missing: dict[str, str] = {}
        self._lock = threading.Lock()

    def current(self) -> tuple[FaissIndex, dict[str, str]]:
        """The index as the catalog is now, and the videos (id to name) that lack vectors of this encoder."""
        with self._lock:
            generation = self._catalog.generation
            if self._index is None or generation != self._generation:
                self._index = self._follow(self._index or self._read())
                self._missing = self._catalog.not_embedded(self._fingerprint)
                self._generation = generation
            return self._index, self._missing

    def _read(self) -> FaissIndex:
        """What is on disk, if it can be trusted to hold this encoder's vectors; else an empty index."""
        if self.path.is_file():
            try:
                index = FaissIndex.load(self.path)
            except LibraryError as error:
                logger.warning("%s; making it again from the catalog", error)
            else:
                if (index.rows, index.dimension) == (self._rows, self._dimension) and self._agrees(index):
                    return index
                logger.info("%s holds other vectors; making it again from the catalog", self.path)
        return FaissIndex(self._dimension, rows=self._rows)

    def _agrees(self, index: FaissIndex) -> bool:
        """Whether a sample of the ids that both have stand for the same vectors."""
        shared = np.intersect1d(index.ids, self._catalog.vector_ids(self._fingerprint))
        sample = shared[:: max(1, len(shared) // _SAMPLE)]
        return np.array_equal(index.vectors(sample), self._catalog.vectors(sample, self._rows, self._dimension))

    def _follow(self, index: FaissIndex) -> FaissIndex:
        """Take out what the catalog lacks and add what the index lacks."""
        wanted, here = self._catalog.vector_ids(self._fingerprint), index.ids
        gone, new = np.setdiff1d(here, wanted), np.setdiff1d(wanted, here)
        if not len(gone) and not len(new):
            return index
        if len(gone):
            index.remove(gone)
        chunk = max(1, _CHUNK // self._rows)
        for start in range(0, len(new), chunk):
            ids = new[start : start + chunk]
            index.add(ids, self._catalog.vectors(ids, self._rows, self._dimension))
        logger.info("vector index: %d segments added, %d removed, %d in all", len(new), len(gone), len(index))
        try:
            index.save(self.path)
        except OSError as error:  # searching a library that may only be read is fine; it costs the next start time
            logger.warning("the vector index %s cannot be written: %s", self.path, error)
        return index


def drop_vectors(path: Path, ids: npt.NDArray[np.int64]) -> None:
    """Take vectors out of an index file, whatever encoder they are of."""
    if not path.is_file():
        return
    try:
        index = FaissIndex.load(path)
        if index.remove(ids):
            index.save(path)
    except (LibraryError, MissingDependencyError) as error:
        logger.info("removing the index %s as a whole, it is made again when needed: %s", path, error)
        path.unlink(missing_ok=True)
