"""The suites of langchain-tests, with the bundled nano where they need a model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from videochat_tools.embeddings import VideoEncoder
from videochat_tools.library import LibraryStore
from videochat_tools.retrievers import FaissVideoStore, HybridRetriever, TranscriptRetriever, VisualRetriever
from videochat_tools.video_embeddings import VideoEmbeddings


class _Nano:
    @pytest.fixture(autouse=True)
    def _encoder(self, encoder: VideoEncoder) -> None:
        self.encoder = encoder

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return VideoEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": self.encoder}


class TestEmbeddingsUnit(_Nano, EmbeddingsUnitTests):
    pass


class TestEmbeddings(_Nano, EmbeddingsIntegrationTests):
    pass


class TestVectorStore(VectorStoreIntegrationTests):
    """On the suite's own embeddings: the store is a general one."""

    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return FaissVideoStore(self.get_embeddings())


class TestVectorStoreOfTheNano(VectorStoreIntegrationTests):
    """The suite's words in the nano's space. It knows none of them, and yet tells them apart."""

    @pytest.fixture
    def vectorstore(self, embeddings: VideoEmbeddings) -> VectorStore:
        return FaissVideoStore(embeddings)


class _OfALibrary(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _library(self, library: LibraryStore) -> None:
        self.library = library

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"library": self.library}


class TestVisualRetriever(_OfALibrary):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return VisualRetriever

    @property
    def retriever_query_example(self) -> str:
        return "a blue circle"


class TestTranscriptRetriever(_OfALibrary):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return TranscriptRetriever

    @property
    def retriever_query_example(self) -> str:
        return "seven, nine, six, river"


class TestHybridRetriever(_OfALibrary):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return HybridRetriever

    @property
    def retriever_query_example(self) -> str:
        return "what happens when the purple triangle bumps into the circle?"
