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
    with pytest.raises(KeyError, match="37"):
        index.vectors([47, 37])
    index.add([37], vectors[3:4])
    assert index.search(vectors[3], 1)[1].tolist() == [37]


def test_survives_the_disk(index: FaissIndex, vectors: np.ndarray, tmp_path: Path) -> None:
    index.remove([7])
    index.save(tmp_path / "wörter index.faiss")
    loaded = FaissIndex.load(tmp_path / "wörter index.faiss")
    assert sorted(loaded.ids.tolist()) == sorted(index.ids.tolist())
    assert loaded.search(vectors[50], 3)[1].tolist() == index.search(vectors[50], 3)[1].tolist()
    assert np.array_equal(loaded.vectors([507, 17])[:, 0], vectors[[50, 1]])
    assert loaded.remove([507]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["wörter index.faiss"]


@pytest.mark.parametrize("content", [b"", b"no index", bytes(100)], ids=["empty", "text", "zeros"])
def test_a_damaged_file_is_an_error_of_ours(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(content)
    with pytest.raises(LibraryError, match="index"):
        FaissIndex.load(tmp_path / "index.faiss")


def test_wrong_vectors_are_refused(index: FaissIndex, vectors: np.ndarray) -> None:
    for wrong in ((1, 8), (1, 2, DIMENSION), (1, 1, 8)):
        with pytest.raises(ValueError, match=r"\[n, 1, 16\]"):
            index.add([1], np.zeros(wrong, np.float32))
    with pytest.raises(ValueError, match=r"\[n, 16\]"):
        index.search(np.zeros(8, np.float32), 1)
    with pytest.raises(ValueError, match="as many ids"):
        index.add([1, 2], vectors[:1])
    with pytest.raises(ValueError, match="once"):
        index.add([7], vectors[:1])
    with pytest.raises(ValueError, match="NaN"):
        index.search(np.full(DIMENSION, np.nan), 1)


def test_an_empty_index_finds_nothing() -> None:
    scores, ids = FaissIndex(4).search(np.ones(4), 3)
    assert len(scores) == len(ids) == 0


# ---------------------------------------------------------------------------------------------- several rows an id

ROWS = 5
IDS = np.arange(40) * 3 + 2


@pytest.fixture
def rows(vectors: np.ndarray) -> np.ndarray:
    """Vectors of forty things, [40, 5, 16]; the rows of one are near each other, so that they come in a crowd."""
    made = vectors[::ROWS, None] + 0.2 * vectors.reshape(40, ROWS, DIMENSION)
    return made / np.linalg.norm(made, axis=-1, keepdims=True)


@pytest.fixture
def row_index(rows: np.ndarray) -> FaissIndex:
    made = FaissIndex(DIMENSION, rows=ROWS)
    made.add(IDS[:25], rows[:25])
    made.add(IDS[25:], rows[25:])
    return made


def best(rows: np.ndarray, query: np.ndarray, among: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Ids and scores of some things, best first, by a full comparison of every row."""
    scores = np.einsum("nrd,d->nr", rows, query).max(axis=1)[among]
    order = np.argsort(-scores)
    return IDS[among][order].tolist(), scores[order]


@pytest.mark.parametrize("k", [1, 7, 39, 40, 500])
def test_k_different_ids_come_back_by_their_best_row(row_index: FaissIndex, rows: np.ndarray, k: int) -> None:
    assert (len(row_index), row_index.rows, row_index.ids.tolist()) == (40, ROWS, IDS.tolist())
    for query in rows[11, 3], rows[2, 0] - rows[30, 4]:
        scores, ids = row_index.search(query, k)
        expected, values = best(rows, query, np.arange(40))
        assert ids.tolist() == expected[:k]
        assert np.allclose(scores, values[:k], atol=1e-5)


def test_filters_and_removal_take_whole_ids(row_index: FaissIndex, rows: np.ndarray) -> None:
    query, some = rows[11, 3], np.array([4, 11, 12, 30, 39])
    assert row_index.search(query, 40, allowed=[*IDS[some], 9999])[1].tolist() == best(rows, query, some)[0]
    assert row_index.search(query, 2, allowed=IDS[some])[1].tolist() == best(rows, query, some)[0][:2]
    assert len(row_index.search(query, 2, allowed=[])[1]) == 0
    assert row_index.remove([IDS[11], IDS[30], 9999]) == 2
    left = np.setdiff1d(np.arange(40), [11, 30])
    assert (len(row_index), row_index.ids.tolist()) == (38, IDS[left].tolist())
    assert row_index.search(query, 40)[1].tolist() == best(rows, query, left)[0]
    row_index.add([IDS[11]], rows[11:12])
    assert row_index.search(query, 1)[1].tolist() == [IDS[11]]
    assert np.array_equal(row_index.vectors(IDS[[39, 11, 12]]), rows[[39, 11, 12]])
    assert row_index.vectors([]).shape == (0, ROWS, DIMENSION)


def test_the_file_tells_how_many_rows_there_are(row_index: FaissIndex, rows: np.ndarray, tmp_path: Path) -> None:
    row_index.remove(IDS[:3])
    row_index.save(tmp_path / "index.faiss")
    loaded = FaissIndex.load(tmp_path / "index.faiss")
    assert (len(loaded), loaded.rows, loaded.ids.tolist()) == (37, ROWS, IDS[3:].tolist())
    assert np.array_equal(loaded.vectors(IDS[3:]), rows[3:])
    assert loaded.search(rows[20, 1], 9)[1].tolist() == row_index.search(rows[20, 1], 9)[1].tolist()
    assert loaded.remove(IDS) == 37
    loaded.save(tmp_path / "index.faiss")
    assert len(FaissIndex.load(tmp_path / "index.faiss")) == 0


@pytest.mark.parametrize("keys", [[1, 1, 2], [1, 2, 1, 2], [1, 1, 2, 2, 2, 3]], ids=str)
def test_a_file_with_a_part_of_the_rows_is_damaged(keys: list[int], vectors: np.ndarray, tmp_path: Path) -> None:
    import faiss

    odd = faiss.IndexIDMap2(faiss.IndexFlatIP(DIMENSION))
    odd.add_with_ids(vectors[: len(keys)], np.array(keys, np.int64))
    faiss.write_index(odd, str(tmp_path / "index.faiss"))
    with pytest.raises(LibraryError, match="as many vectors for every id"):
        FaissIndex.load(tmp_path / "index.faiss")


def test_every_id_needs_all_its_rows(row_index: FaissIndex, rows: np.ndarray) -> None:
    for wrong in (rows[:1, :4], rows[:1, 0], rows[:1, :, :8]):
        with pytest.raises(ValueError, match=r"\[n, 5, 16\]"):
            row_index.add([1], wrong)
    with pytest.raises(ValueError, match="as many ids"):
        row_index.add([1, 3], rows[:1])
    with pytest.raises(ValueError, match="once"):
        row_index.add(IDS[:1], rows[:1])


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


def test_a_gpu_holds_a_copy_that_follows_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU a clone on the CPU stands in for the copy; what is kept, asked and thrown away is the same."""
    import faiss

    copies: list[int] = []

    def to_gpu(resources: object, device: int, index: Any) -> Any:
        copies.append(index.ntotal)
        return faiss.clone_index(index)

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(900, 3, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    on_gpu, on_cpu = (FaissIndex(8, rows=3, use_gpu=use) for use in (True, False))
    for index in (on_gpu, on_cpu):
        index.add(np.arange(900) * 7, vectors)

    def same(k: int, **options: Any) -> None:
        (one, ids), (other, expected) = (index.search(query, k, **options) for index in (on_gpu, on_cpu))
        assert ids.tolist() == expected.tolist()
        assert one == pytest.approx(other)

    same(5)
    same(600)
    assert copies == [2700]  # one copy for both
    same(5, allowed=[7, 14, 21])  # FAISS cannot filter on a GPU
    same(899)  # 2697 entries: more than FAISS finds at a time on a GPU
    assert copies == [2700]
    for index in (on_gpu, on_cpu):
        assert index.remove([0, 7]) == 2
    same(5)
    assert copies == [2700, 2694]
