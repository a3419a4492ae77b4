"""Our own vector store: filters inside the search, scores, diversity, saving; with any embeddings."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from videochat_tools.errors import LibraryError, MissingDependencyError
from videochat_tools.retrievers import FaissVideoStore
from videochat_tools.retrievers.metadata_filter import MetadataTable
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.types import TimeSpan
from videochat_tools.video_embeddings import VideoEmbeddings

EMBEDDINGS = DeterministicFakeEmbedding(size=8)
COUNT = 60


class Numbers(Embeddings):
    """A text is the vector that it spells: ``"1 0 2"``."""

    def embed_query(self, text: str) -> list[float]:
        return [float(word) for word in text.split()]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def texts_of(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


@pytest.fixture(scope="module")
def store() -> FaissVideoStore:
    """Sixty texts of three videos, 4 seconds each."""
    return FaissVideoStore.from_texts(
        [f"text {number}" for number in range(COUNT)],
        EMBEDDINGS,
        [
            {"video": f"{'abc'[number % 3]}.mp4", "start": 4.0 * (number // 3), "end": 4.0 * (number // 3) + 4}
            for number in range(COUNT)
        ],
        ids=[str(number) for number in range(COUNT)],
    )


FILTERS: list[tuple[Any, Callable[[dict[str, Any]], bool]]] = [
    ({"video": "a.mp4"}, lambda row: row["video"] == "a.mp4"),
    ({"video": {"$in": ["a.mp4", "c.mp4"]}, "start": 8}, lambda row: row["video"] != "b.mp4" and row["start"] == 8),
    ({"start": {"$gte": 12, "$lt": 24}}, lambda row: 12 <= row["start"] < 24),
    ({"video": {"$gt": "a.mp4"}}, lambda row: row["video"] > "a.mp4"),
    ({"$overlaps": [10, 12.5]}, lambda row: row["start"] < 12.5 and row["end"] > 10),
    ({"$overlaps": TimeSpan(8, 12)}, lambda row: row["start"] == 8),
    ({"$or": [{"start": 0}, {"$not": {"video": {"$ne": "b.mp4"}}}]}, lambda r: not r["start"] or r["video"] == "b.mp4"),
    (lambda document: document.metadata["end"] > 70, lambda row: row["end"] > 70),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "fits"), FILTERS)
def test_a_filter_works_inside_the_search(
    store: FaissVideoStore, condition: Any, fits: Callable[[dict[str, Any]], bool]
) -> None:
    ranked = store.similarity_search_with_score("question", k=COUNT)
    expected = [(document.id, score) for document, score in ranked if fits(document.metadata)]
    assert 0 < len(expected) < COUNT
    found = store.similarity_search_with_score("question", k=COUNT, filter=condition)
    assert [document.id for document, _ in found] == [id for id, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)
    # k counts what fits: the two best of these, however many others are nearer to the query.
    assert [document.id for document in store.similarity_search("question", k=2, filter=condition)] == [
        id for id, _ in expected[:2]
    ]
    assert {d.id for d in store.max_marginal_relevance_search("question", k=4, filter=condition)} <= {
        id for id, _ in expected
    }


def test_keys_that_are_missing_and_values_of_other_kinds() -> None:
    rows = [{"n": 1}, {"n": "1"}, {"n": True}, {"n": None}, {}, {"n": [1, 2]}, {"n": 2**60 + 1}]
    table = MetadataTable(rows)

    def fitting(condition: dict[str, Any]) -> list[int]:
        return np.flatnonzero(table.mask(condition)).tolist()

    assert fitting({"n": {"$lt": 2}}) == [0]
    assert fitting({"n": {"$gte": "0"}}) == [1]
    assert fitting({"n": {"$exists": False}}) == [4]
    assert fitting({"n": None}) == [3]
    assert fitting({"n": [1, 2]}) == [5]
    assert fitting({"n": 2**60}) == []
    assert fitting({"n": {"$nin": ["1", None]}}) == [0, 2, 4, 5, 6]
    assert fitting({"$overlaps": [0, 9]}) == []
    assert fitting({}) == list(range(len(rows)))


def test_a_point_in_time_overlaps_what_holds_it() -> None:
    table = MetadataTable([{"start": 0, "end": 4}, {"start": 4, "end": 8}, {"start": 5, "end": 5}])
    assert table.mask({"$overlaps": [5, 5]}).tolist() == [False, True, True]
    assert table.mask({"$overlaps": [2, 4]}).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "condition",
    [
        {"$near": 3}, {"start": {"$about": 3}}, {"start": {"$gt": None}}, {"video": {"$in": "a.mp4"}}, {"$or": []},
        {"$overlaps": [9, 3]}, {"$overlaps": 4}, {"$and": {"start": 3}}, ["start"], {3: 4},
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_is_an_error(store: FaissVideoStore, condition: Any) -> None:
    with pytest.raises(ValueError, match=r"filter|operator|takes|compares"):
        store.similarity_search("question", filter=condition)


def test_filters_follow_every_change() -> None:
    store = FaissVideoStore.from_texts(["a", "b"], EMBEDDINGS, [{"n": 1}, {"n": 2}], ids=["a", "b"])
    assert texts_of(store.similarity_search("q", filter={"n": 1})) == ["a"]
    store.add_texts(["c", "a again"], [{"n": 1}, {"n": 3}], ids=["c", "a"])
    assert texts_of(store.similarity_search("q", filter={"n": 1})) == ["c"]
    store.delete(["c"])
    assert store.similarity_search("q", filter={"n": 1}) == []
    assert len(store) == 2


def test_the_score_is_the_cosine_and_relevance_its_place_between_opposites() -> None:
    store = FaissVideoStore.from_texts(["3 0", "0 2", "-1 0"], Numbers())
    assert [(d.page_content, s) for d, s in store.similarity_search_with_score("7 0")] == [
        ("3 0", 1.0), ("0 2", 0.0), ("-1 0", -1.0),
    ]  # fmt: skip
    relevance = [score for _, score in store.similarity_search_with_relevance_scores("7 0")]
    assert relevance == pytest.approx([1, 0.5, 0])
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.4})
    assert texts_of(retriever.invoke("7 0")) == ["3 0", "0 2"]


def test_inner_products_keep_the_lengths() -> None:
    store = FaissVideoStore.from_texts(["1 0", "3 1"], Numbers(), metric="inner_product")
    assert [(d.page_content, s) for d, s in store.similarity_search_with_score("2 0")] == [("3 1", 6.0), ("1 0", 2.0)]
    with pytest.raises(ValueError, match="relevance_score_fn"):
        store.similarity_search_with_relevance_scores("2 0")
    store = FaissVideoStore(Numbers(), metric="inner_product", relevance_score_fn=lambda score: score / 10)
    store.add_texts(["3 1"])
    assert store.similarity_search_with_relevance_scores("2 0")[0][1] == 0.6


def test_relevance_is_the_encoder_s_probability_where_it_has_one(film: Any, embeddings: VideoEmbeddings) -> None:
    store = FaissVideoStore.from_texts(film.names, embeddings)
    (_, score), (_, relevance) = (
        search(film.captions[1], k=1)[0]
        for search in (store.similarity_search_with_score, store.similarity_search_with_relevance_scores)
    )
    assert relevance == pytest.approx(embeddings.relevance(score))


def test_marginal_relevance_trades_nearness_for_variety() -> None:
    texts = ["1 0 0", "1 0.1 0", "1 0.2 0", "0.6 0 1"]
    store = FaissVideoStore.from_texts(texts, Numbers())
    query = "1 0 0"
    assert texts_of(store.max_marginal_relevance_search(query, k=2, lambda_mult=1)) == texts[:2]
    assert texts_of(store.max_marginal_relevance_search(query, k=2, lambda_mult=0.3)) == [texts[0], texts[3]]
    assert texts_of(store.max_marginal_relevance_search(query, k=2, fetch_k=3, lambda_mult=0)) == [texts[0], texts[2]]
    assert len(store.max_marginal_relevance_search(query, k=9)) == 4
    assert texts_of(store.as_retriever(search_type="mmr", search_kwargs={"k": 2}).invoke(query))[0] == texts[0]
    with pytest.raises(ValueError, match="lambda_mult"):
        store.max_marginal_relevance_search(query, lambda_mult=1.5)
    assert FaissVideoStore(Numbers()).max_marginal_relevance_search(query) == []


async def test_async_search_by_vector_and_by_marginal_relevance(store: FaissVideoStore) -> None:
    vector = EMBEDDINGS.embed_query("question")
    condition = {"video": "a.mp4"}
    expected = store.similarity_search("question", k=3, filter=condition)
    assert await store.asimilarity_search_by_vector(vector, k=3, filter=condition) == expected
    assert [d for d, _ in await store.asimilarity_search_with_score("question", k=3, filter=condition)] == expected
    assert await store.amax_marginal_relevance_search("question", k=3, lambda_mult=1, filter=condition) == expected


def test_ids_texts_and_metadata_must_go_together() -> None:
    store = FaissVideoStore(EMBEDDINGS)
    for wrong in ({"metadatas": [{}]}, {"ids": ["1"]}):
        with pytest.raises(ValueError, match="2 texts need as many"):
            store.add_texts(["a", "b"], **wrong)
    assert store.add_texts([]) == []
    assert store.add_texts(["old", "new"], ids=["1", "1"]) == ["1", "1"]  # of equal ids the last counts
    assert texts_of(store.get_by_ids(["1", "2"])) == ["new"]
    with pytest.raises(ValueError, match="k must be"):
        store.similarity_search("a", k=0)
    with pytest.raises(ValueError, match="metric"):
        FaissVideoStore(EMBEDDINGS, metric="euclidean")


def test_vectors_that_do_not_fit_change_nothing() -> None:
    store = FaissVideoStore.from_texts(["1 0"], Numbers(), ids=["1"])
    for wrong in ("1 0 0", "nan 0"):
        with pytest.raises(ValueError, match=r"vectors? "):
            store.add_texts([wrong], ids=["1"])
    assert texts_of(store.similarity_search("1 0")) == ["1 0"]
    with pytest.raises(ValueError, match="shape"):
        store.similarity_search("1 0 0")


def test_what_is_found_can_be_changed_without_changing_the_store(store: FaissVideoStore) -> None:
    store.get_by_ids(["3"])[0].metadata["video"] = "changed"
    assert store.get_by_ids(["3"])[0].metadata["video"] == "a.mp4"


def test_delete_without_ids_removes_all() -> None:
    store = FaissVideoStore.from_texts(["a", "b"], EMBEDDINGS)
    assert store.delete()
    assert store.similarity_search("a") == []
    assert store.add_texts(["c"]) and texts_of(store.similarity_search("a")) == ["c"]


def test_threads_may_add_and_search_at_once() -> None:
    store = FaissVideoStore(EMBEDDINGS)
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                store.add_texts([f"{number} {turn}"], [{"n": turn}], ids=[f"{number}"])
                store.similarity_search("q", k=3, filter={"n": {"$gte": 0}})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(texts_of(store.similarity_search("q", k=9))) == [f"{number} 19" for number in range(4)]


def test_no_gpu_is_said_at_once() -> None:
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        texts = ["1 0", "0 1", "1 1"]
        on_gpu, on_cpu = (FaissVideoStore.from_texts(texts, Numbers(), use_gpu=use) for use in (True, False))
        assert texts_of(on_gpu.similarity_search("2 1")) == texts_of(on_cpu.similarity_search("2 1"))
    else:
        with pytest.raises(MissingDependencyError, match="faiss-gpu"):
            FaissVideoStore(EMBEDDINGS, use_gpu=True)


class TestSaving:
    def test_a_store_comes_back_as_it_was(self, store: FaissVideoStore, tmp_path: Path) -> None:
        folder = tmp_path / "a store" / "within"
        store.save_local(folder)
        loaded = FaissVideoStore.load_local(folder, EMBEDDINGS)
        for condition in (None, {"video": "b.mp4"}):
            one, other = (s.similarity_search_with_score("question", k=9, filter=condition) for s in (store, loaded))
            assert one == other
        loaded.add_texts(["more"], ids=["more"])
        loaded.delete(["5"])
        loaded.save_local(folder)
        assert len(list(folder.iterdir())) == 3  # nothing is left of the first
        again = FaissVideoStore.load_local(folder, EMBEDDINGS)
        assert len(again) == COUNT
        assert texts_of(again.get_by_ids(["5", "more"])) == ["more"]
        assert texts_of(again.similarity_search("more", k=1)) == ["more"]

    def test_nothing_is_pickled(self, store: FaissVideoStore, tmp_path: Path) -> None:
        store.save_local(tmp_path)
        for path in tmp_path.iterdir():
            if path.suffix != ".faiss":
                for line in (
                    path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
                ):
                    json.loads(line)
        assert {path.suffix for path in tmp_path.iterdir()} == {".faiss", ".json", ".jsonl"}

    def test_an_empty_store_and_an_inner_product(self, tmp_path: Path) -> None:
        FaissVideoStore(Numbers(), metric="inner_product").save_local(tmp_path)
        store = FaissVideoStore.load_local(tmp_path, Numbers())
        assert store.similarity_search("1 0") == []
        store.add_texts(["3 1"])
        assert store.similarity_search_with_score("2 0")[0][1] == 6.0

    def test_another_encoder_is_refused(self, color_video: Path, tmp_path: Path) -> None:
        one, other = (VideoEmbeddings(encoder=FakeVideoEncoder(version=version)) for version in "12")
        FaissVideoStore.from_texts([str(color_video)], one).save_local(tmp_path)
        assert len(FaissVideoStore.load_local(tmp_path, one)) == 1
        with pytest.raises(LibraryError, match=r"fake-encoder-1.*not fake-encoder-2"):
            FaissVideoStore.load_local(tmp_path, other)

    def test_what_cannot_be_saved_leaves_the_old_store(self, tmp_path: Path) -> None:
        store = FaissVideoStore.from_texts(["a"], EMBEDDINGS)
        store.save_local(tmp_path)
        store.add_texts(["b"], [{"when": object()}])
        with pytest.raises(LibraryError, match="JSON"):
            store.save_local(tmp_path)
        assert len(FaissVideoStore.load_local(tmp_path, EMBEDDINGS)) == 1

    def test_damage_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(LibraryError, match="no vector store"):
            FaissVideoStore.load_local(tmp_path / "nothing", EMBEDDINGS)
        store = FaissVideoStore.from_texts(["a", "b"], EMBEDDINGS)

        changes: list[tuple[str, Callable[[bytes], bytes]]] = [
            ("store.json", lambda data: data.replace(b'"tag": "', b'"tag": "../')),
            ("store.json", lambda data: data[:-5]),
            ("*.jsonl", lambda data: data.splitlines()[0]),
            ("*.jsonl", lambda data: b"{}"),
            ("*.faiss", lambda data: b"no index"),
        ]
        for number, (name, change) in enumerate(changes):
            folder = tmp_path / str(number)
            store.save_local(folder)
            assert len(FaissVideoStore.load_local(folder, EMBEDDINGS)) == 2
            (file,) = folder.glob(name)
            file.write_bytes(change(file.read_bytes()))
            with pytest.raises(LibraryError, match=re.escape(str(folder))):
                FaissVideoStore.load_local(folder, EMBEDDINGS)


def test_langchain_s_indexing_keeps_it_in_step_with_its_source() -> None:
    from langchain_core.indexing import InMemoryRecordManager, index

    records, store = InMemoryRecordManager(namespace="films"), FaissVideoStore(EMBEDDINGS)
    records.create_schema()

    def load(*texts: str) -> dict[str, int]:
        documents = [Document(page_content=text, metadata={"source": text[0]}) for text in texts]
        result = index(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")
        return {name: count for name, count in result.items() if count}

    assert load("a 1", "b 1") == {"num_added": 2}
    assert load("a 1", "b 1") == {"num_skipped": 2}
    assert load("a 2", "c 1") == {"num_added": 2, "num_deleted": 2}
    assert sorted(texts_of(store.similarity_search("a", k=9))) == ["a 2", "c 1"]
