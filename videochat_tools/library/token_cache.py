"""Files derived from videos: clip tokens, tower features, and the finished stages of an interrupted add.

``cache/<video id>/<kind>-<key>.npy`` (or ``.json``): the key is made of everything that the content depends on
besides the video itself. Every file appears whole or not at all. Plain NumPy arrays and JSON; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from videochat_tools.types import TimeSpan

__all__ = ["ArrayWriter", "TokenCache", "cache_key"]

logger = logging.getLogger(__name__)


def cache_key(*parts: str | Sequence[TimeSpan]) -> str:
    """16 hex digits for the given texts and spans (times count to the microsecond)."""
    plain = [
        part if isinstance(part, str) else [[round(span.start, 6), round(span.end, 6)] for span in part]
        for part in parts
    ]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


class TokenCache:
    """The cache folder of one library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, video_id: str, kind: str, key: str, suffix: str = ".npy") -> Path:
        """Where a file is or would be."""
        return self.folder / video_id / f"{kind}-{key}{suffix}"

    def read_array(self, video_id: str, kind: str, key: str) -> npt.NDArray[Any] | None:
        """An array, mapped into memory and read as it is used; ``None`` when it is not here (or is damaged)."""
        path = self.path(video_id, kind, key)
        try:
            array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (ValueError, OSError, EOFError) as error:
            logger.warning("%s is damaged (%s) and is made again by the next add", path, error)
            return None
        return array

    def writer(self, video_id: str, kind: str, key: str, rows: int) -> ArrayWriter:
        """Write an array of ``rows`` rows piece by piece."""
        return ArrayWriter(self.path(video_id, kind, key), rows)

    def read_json(self, video_id: str, kind: str, key: str) -> Any:
        """What was stored, or ``None``."""
        try:
            return json.loads(self.path(video_id, kind, key, ".json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def write_json(self, video_id: str, kind: str, key: str, value: Any) -> None:
        """Store a JSON value."""
        path = self.path(video_id, kind, key, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        temporary.write_text(json.dumps(value), encoding="utf-8")
        os.replace(temporary, path)

    def forget(self, video_id: str, kinds: Sequence[str] | None = None) -> None:
        """Remove the files of one video: all, or those of some kinds, and what a crash left half-written."""
        folder = self.folder / video_id
        if kinds is None:
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.is_dir():
            for path in folder.iterdir():
                if path.name.startswith(".") or path.name.split("-", 1)[0] in kinds:
                    path.unlink(missing_ok=True)


class ArrayWriter:
    """Fills an array on disk row by row in any order, so that memory does not grow with the video.

    A context manager: the file gets its name when the block ends without an error, and all rows were written.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self.rows = rows
        self._temporary = _temporary(path)
        self._array: np.memmap[Any, Any] | None = None
        self._written = np.zeros(rows, bool)

    def write(self, rows: Sequence[int], values: npt.NDArray[Any]) -> None:
        """Put ``values`` [n, ...] at the given rows."""
        if self._array is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._array = np.lib.format.open_memmap(
                self._temporary, mode="w+", dtype=values.dtype, shape=(self.rows, *values.shape[1:])
            )
        self._array[list(rows)] = values
        self._written[list(rows)] = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._array is None:
            return
        self._array.flush()
        self._array = None  # lets go of the mapping: a mapped file cannot be renamed everywhere
        if error is None and self._written.all():
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
