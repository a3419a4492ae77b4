"""The library on disk: a folder with a catalog, an index and a cache."""

from __future__ import annotations

from videochat_tools.library.progress import AddProgress
from videochat_tools.library.store import AddResult, LibraryStore

__all__ = ["AddProgress", "AddResult", "LibraryStore"]
