"""One writer a library: a lock that ends with its process, whatever ends the process."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from videochat_tools.errors import LibraryError

__all__ = ["writing"]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the right to add and remove.

    The lock is an exclusive transaction on an empty SQLite file: held by the system on every platform, and let go
    by it when the process dies, so that there is no stale lock to clean up. Searching needs none.

    Raises:
        LibraryError: another process (or another store in this one) is adding or removing.
    """
    lock = sqlite3.connect(folder / "write.lock", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise LibraryError(
                f"another process is adding to or removing from the library {folder}; try again when it is done"
                if "locked" in str(error)
                else f"cannot write to the library {folder}: {error}"
            ) from error
        yield
    finally:
        lock.close()
