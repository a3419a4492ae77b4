"""Retrievers over a library: what their documents say, and what can be set where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from pydantic import ValidationError
from small_library import Scripted

from videochat_tools.errors import UnknownVideoError
from videochat_tools.library import LibraryStore
from videochat_tools.media import frames_decoded_total
from videochat_tools.retrievers import HybridRetriever, RetrievalOptions, TranscriptRetriever, VisualRetriever
from videochat_tools.types import TimeSpan, parse_media_fragment, uri_to_path


def test_the_picture_is_found_by_what_it_shows(film: Any, library: LibraryStore) -> None:
    retriever = VisualRetriever(library=library, k=1)
    before = frames_decoded_total()
    right = 0
    for caption, span in zip(film.captions, film.spans, strict=True):
        (document,) = retriever.invoke(caption)
        right += abs(document.metadata["start"] - span.start) < 0.2
        scores = document.metadata["scores"]
        assert scores["speech"] is None
        assert document.metadata["score"] == scores["visual"]
    assert right >= len(film.spans) - 1
    assert frames_decoded_total() == before


def test_words_are_found_where_they_are_said(film: Any, library: LibraryStore) -> None:
    said = "paul lost the hammer near the river"
    (document,) = TranscriptRetriever(library=library).invoke("who lost the hammer?")
    assert document.metadata["transcript"] == said
    assert document.metadata["scores"]["visual"] is None
    assert document.metadata["score"] == document.metadata["scores"]["speech"] > 0.5
    assert TranscriptRetriever(library=library).invoke("submarine") == []


def test_a_document_says_all_that_a_chain_needs(film: Any, library: LibraryStore) -> None:
    (document,) = HybridRetriever(library=library).invoke("what is said about the hammer?", k=1)
    metadata = document.metadata
    assert metadata["source"] == film.path.as_uri()
    assert metadata["video"] == film.path.name
    assert metadata["video_id"] == library.list()[0].video_id
    source, span = parse_media_fragment(metadata["file_id"])
    assert uri_to_path(source) == film.path
    assert span == TimeSpan(metadata["start"], metadata["end"])
    assert document.id == metadata["file_id"]
    assert document.page_content.startswith(f"[{film.path.name} 00:27–00:")
    assert document.page_content.endswith("paul lost the hammer near the river")
    assert json.loads(json.dumps(metadata)) == metadata


def test_settings_hold_until_a_call_says_otherwise(film: Any, library: LibraryStore) -> None:
    window = TimeSpan(10.7, 23.1)
    retriever = VisualRetriever(library=library, k=2, span=window, videos=[film.path.name])
    inside = retriever.invoke("a circle")
    assert len(inside) == 2
    assert all(10.7 <= d.metadata["start"] < d.metadata["end"] <= 23.1 for d in inside)
    everywhere = retriever.invoke("a circle", k=9, span=None)
    assert {d.metadata["start"] for d in everywhere} > {d.metadata["start"] for d in inside}
    (early,) = retriever.invoke("a circle", span=(0, 4), k=5)
    assert VisualRetriever(library=library, span=(0, 4)).invoke("a circle") == [early]
    assert (early.metadata["start"], early.metadata["end"]) == (0, 4)
    with pytest.raises(UnknownVideoError):
        retriever.invoke("a circle", videos=["gone.mp4"])


def test_every_setting_is_taken_here_and_there(film: Any, library: LibraryStore) -> None:
    plain = VisualRetriever(library=library, k=1).invoke(film.captions[1])[0].metadata
    for retriever, settings in (
        (VisualRetriever(library=library, k=1, before=1.0, after=0.5), {}),
        (VisualRetriever(library=library, k=1, before=9.0), {"before": 1.0, "after": 0.5}),
        (VisualRetriever(library=library, options=RetrievalOptions(before=1.0, after=0.5)), {"k": 1}),
        (VisualRetriever(library=library, search_kwargs={"k": 1, "before": 1.0, "after": 0.5}), {}),
    ):
        wide = retriever.invoke(film.captions[1], **settings)[0].metadata
        assert wide["start"] == pytest.approx(plain["start"] - 1.0)
        assert wide["end"] == pytest.approx(plain["end"] + 0.5)
    assert len(VisualRetriever(library=library, per_video=2).invoke("a circle", k=9)) == 2
    unjudged = VisualRetriever(library=library, rerank=False).invoke(film.captions[1])
    assert unjudged[0].metadata["score"] != plain["score"]


def test_what_comes_after_something(film: Any, library: LibraryStore) -> None:
    first = HybridRetriever(library=library, k=1).invoke("what is said about the hammer?")[0].metadata
    (document,) = TranscriptRetriever(library=library, k=1).invoke("what happens before they mention the hammer?")
    assert document.metadata["anchor"] == [first["start"], first["end"]]
    assert document.metadata["end"] <= first["start"]


@pytest.mark.parametrize(
    "rephrase",
    [
        lambda query: [query.replace("thing", "circle"), " ", query],
        Scripted(replies=["1. a circle flashes\n- a circle flashes\n\n"] * 2),
    ],
    ids=["function", "chat model"],
)
def test_several_wordings_of_a_query(film: Any, library: LibraryStore, rephrase: Any) -> None:
    searched: list[Any] = []

    class Listening(LibraryStore):
        def search(self, query: Any, **options: Any) -> Any:
            searched.append(query)
            return super().search(query, **options)

    listening = Listening(library.path, encoder=library.encoder)
    found = VisualRetriever(library=listening, k=3, rephrase=rephrase).invoke("a thing flashes")
    assert searched.pop() == ["a thing flashes", "a circle flashes"]
    assert len(found) == 3
    VisualRetriever(library=listening).invoke("a thing flashes", rephrase=rephrase)
    assert searched == [["a thing flashes", "a circle flashes"]]


def test_what_cannot_be_set() -> None:
    with pytest.raises(ValidationError, match="library"):
        HybridRetriever(library="a folder")


def test_a_mistyped_setting_is_an_error(library: LibraryStore) -> None:
    with pytest.raises(ValidationError, match="per_vidoe"):
        HybridRetriever(library=library, per_vidoe=1)
    with pytest.raises(TypeError, match="per_vidoe"):
        HybridRetriever(library=library).invoke("a circle", per_vidoe=1)


def test_k_must_be_positive(library: LibraryStore) -> None:
    with pytest.raises(ValidationError, match="k"):
        HybridRetriever(library=library, k=0)
    with pytest.raises(ValueError, match="k must be"):
        HybridRetriever(library=library).invoke("a circle", k=0)


@pytest.mark.parametrize("wrong", [{"per_video": 0}, {"before": -1.0}, {"after": float("inf")}, {"span": 3}])
def test_settings_out_of_range_are_told_at_once(library: LibraryStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        HybridRetriever(library=library, **wrong)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HybridRetriever(library=library).invoke("a circle", **wrong)


async def test_any_chain_takes_it(library: LibraryStore) -> None:
    context = TranscriptRetriever(library=library, k=1) | RunnableLambda(lambda found: found[0].page_content)
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    chain = {"context": context, "question": RunnablePassthrough()} | prompt
    question = "when does the theatre close?"
    assert "the theatre closes at nine" in chain.invoke(question).to_string()
    assert (await chain.ainvoke(question)) == chain.invoke(question)


def test_importing_the_search_loads_no_langchain(repository: Path) -> None:

    code = (
        f"import sys; sys.path.insert(0, {str(repository)!r}); import videochat_tools.library; "
        "print('langchain_core' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
