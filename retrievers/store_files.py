"""A vector store in a folder: a FAISS file, the documents as lines of JSON, and a small file that names both.

Nothing is pickled. The two large files have a new name for every save; ``store.json`` is replaced last, so that a
crash leaves the old store or the new one.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from videochat_tools.errors import LibraryError
from videochat_tools.retrievers.faiss_index import FaissIndex

__all__ = ["SavedStore", "read_store", "write_store"]

STORE = "store.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class SavedStore:
    """What is kept of a store. ``documents`` stand under their numbers in the index, which is ``None`` without any."""

    metric: str
    space: str | None  # name of the space of the vectors, where the embeddings tell one
    next: int  # number of the next document: none is used twice
    documents: dict[int, Document]
    index: FaissIndex | None


def write_store(folder: Path, store: SavedStore) -> None:
    """Write a store, in place of the one that is there.

    Raises:
        LibraryError: metadata is no JSON, something else is in the folder, or it cannot be written.
    """
    tag = uuid.uuid4().hex[:12]
    try:
        lines = [
            json.dumps([key, document.id, document.page_content, document.metadata], ensure_ascii=False)
            for key, document in store.documents.items()
        ]
    except (TypeError, ValueError) as error:
        raise LibraryError(f"the metadata of a document cannot be saved as JSON: {error}") from error
    about = {
        "format": FORMAT, "tag": tag, "metric": store.metric, "space": store.space, "next": store.next,
        "documents": len(lines),
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _read_about(folder) if (folder / STORE).is_file() else None
        if store.index is not None and lines:
            store.index.save(_index_file(folder, tag))
        _documents_file(folder, tag).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        temporary = folder / f".{STORE}.{tag}.tmp"
        temporary.write_text(json.dumps(about, indent=2), encoding="utf-8")
        os.replace(temporary, folder / STORE)
        if before is not None:
            _index_file(folder, before["tag"]).unlink(missing_ok=True)
            _documents_file(folder, before["tag"]).unlink(missing_ok=True)
    except OSError as error:
        raise LibraryError(f"cannot write the store {folder}: {error.strerror or error}") from error


def read_store(folder: Path, *, use_gpu: bool | None) -> SavedStore:
    """Read what :func:`write_store` wrote.

    Raises:
        LibraryError: no store there, or a damaged one.
    """
    about = _read_about(folder)
    documents: dict[int, Document] = {}
    try:
        # Lines end with "\n" alone: other ends of lines may stand inside a text.
        with _documents_file(folder, about["tag"]).open(encoding="utf-8", newline="\n") as file:
            for line in file:
                key, id, text, metadata = json.loads(line)
                documents[int(key)] = Document(id=id, page_content=text, metadata=metadata)
    except (OSError, ValueError, TypeError) as error:
        raise LibraryError(f"the documents of the store {folder} cannot be read ({error}); make it again") from error
    index = None
    if about["documents"]:
        index = FaissIndex.load(_index_file(folder, about["tag"]), use_gpu=use_gpu)
    here = set() if index is None else set(index.ids.tolist())
    if here != set(documents) or len({document.id for document in documents.values()}) != about["documents"]:
        raise LibraryError(f"index and documents of the store {folder} do not belong together; make it again")
    return SavedStore(about["metric"], about["space"], about["next"], documents, index)


def _read_about(folder: Path) -> dict[str, Any]:
    """What the small file says; LibraryError when it is none of ours."""
    path = folder / STORE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LibraryError(f"no vector store in {folder}; give a folder that save_local wrote") from None
    except (OSError, ValueError) as error:
        raise LibraryError(f"{path} cannot be read ({error}); give another folder, or remove it") from error
    wanted = {"tag": str, "metric": str, "next": int, "documents": int}
    if (
        not isinstance(about, dict)
        or about.get("format") != FORMAT
        or not all(isinstance(about.get(name), kind) for name, kind in wanted.items())
        or not re.fullmatch(r"[0-9a-f]{12}", about["tag"])
    ):
        raise LibraryError(f"{path} is no store of this version of videochat-tools; give another folder")
    return {"space": None, **about}


def _index_file(folder: Path, tag: str) -> Path:
    return folder / f"index-{tag}.faiss"


def _documents_file(folder: Path, tag: str) -> Path:
    return folder / f"documents-{tag}.jsonl"
