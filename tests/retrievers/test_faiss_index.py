from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videochat_tools.errors import LibraryError, MissingDependencyError
from videochat_tools.retrievers.faiss_index import FaissIndex

DIMENSION = 16


@pytest.fixture
def vectors() -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(200, DIMENSION)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def index(vectors: np.ndarray) -> FaissIndex:
    made = FaissIndex(DIMENSION)
    made.add(np.arange(200) * 10 + 7, vectors)
    return made


def test_finds_what_a_full_comparison_finds(index: FaissIndex, vectors: np.ndarray) -> None:
    query = vectors[3] + 0.1 * vectors[9]
    scores, ids = index.search(query, 5)
    truth = np.argsort(-(vectors @ query))[:5]
    assert ids.tolist() == (truth * 10 + 7).tolist()
    assert np.allclose(scores, np.sort(vectors @ query)[::-1][:5], atol=1e-5)


def test_only_allowed_ids_come_back(index: FaissIndex, vectors: np.ndarray) -> None:
    _, ids = index.search(vectors[3], 5, allowed=[57, 107, 9999])
    assert sorted(ids.tolist()) == [57, 107]
    assert len(index.search(vectors[3], 5, allowed=[])[1]) == 0


def test_what_was_removed_is_not_found(index: FaissIndex, vectors: np.ndarray) -> None:
    assert index.remove([37, 9999]) == 1
    assert len(index) == 199
    assert 37 not in index.search(vectors[3], 199)[1]
    with pytest.raises(KeyError):
        index.vector(37)
    index.add([37], vectors[3:4])
    assert index.search(vectors[3], 1)[1].tolist() == [37]


def test_survives_the_disk(index: FaissIndex, vectors: np.ndarray, tmp_path: Path) -> None:
    index.remove([7])
    index.save(tmp_path / "wörter index.faiss")
    loaded = FaissIndex.load(tmp_path / "wörter index.faiss")
    assert sorted(loaded.ids.tolist()) == sorted(index.ids.tolist())
    assert loaded.search(vectors[50], 3)[1].tolist() == index.search(vectors[50], 3)[1].tolist()
    assert np.array_equal(loaded.vector(507), vectors[50])
    assert loaded.remove([507]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["wörter index.faiss"]


@pytest.mark.parametrize("content", [b"", b"no index", bytes(100)], ids=["empty", "text", "zeros"])
def test_a_damaged_file_is_an_error_of_ours(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(content)
    with pytest.raises(LibraryError, match="index"):
        FaissIndex.load(tmp_path / "index.faiss")


def test_wrong_vectors_are_refused(index: FaissIndex, vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[n, 16\]"):
        index.add([1], np.zeros((1, 8), np.float32))
    with pytest.raises(ValueError, match="as many ids"):
        index.add([1, 2], vectors[:1])
    with pytest.raises(ValueError, match="once"):
        index.add([7], vectors[:1])
    with pytest.raises(ValueError, match="NaN"):
        index.search(np.full(DIMENSION, np.nan), 1)


def test_an_empty_index_finds_nothing() -> None:
    scores, ids = FaissIndex(4).search(np.ones(4), 3)
    assert len(scores) == len(ids) == 0


@pytest.mark.parametrize("problem", [ImportError("no faiss"), RuntimeError("no CUDA library")])
def test_without_faiss_the_message_says_what_to_install(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "faiss":
            raise problem
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(MissingDependencyError, match=r"pip install 'videochat-tools\[faiss\]'"):
        FaissIndex(4)


def test_a_gpu_that_is_not_there_is_not_silently_replaced() -> None:
    import faiss

    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        pytest.skip("this machine has a GPU that faiss can use")
    with pytest.raises(MissingDependencyError, match="faiss-gpu"):
        FaissIndex(4, use_gpu=True)


def test_the_folder_is_no_package_of_its_own(repository: Path) -> None:
    run = subprocess.run([sys.executable, "-c", "import retrievers"], cwd=repository, capture_output=True, text=True)
    assert run.returncode != 0
    assert "import videochat_tools.retrievers" in run.stderr
