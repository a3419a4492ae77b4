"""Search hits as LangChain documents, and what the retrievers over a library have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from videochat_tools.retrievers.temporal import CHANNELS
from videochat_tools.types import SearchHit, TimeSpan, media_fragment

__all__ = ["LibraryRetriever", "Searchable", "hit_document"]


@runtime_checkable
class Searchable(Protocol):
    """What a retriever needs of a library: ``VideoLibrary`` and ``LibraryStore`` have it."""

    def search(
        self,
        query: str,
        *,
        k: int,
        videos: Sequence[str] | None,
        span: TimeSpan | None,
        channels: Collection[str],
    ) -> list[SearchHit]:
        """The stretches of video that a query is about, best first."""
        ...


def hit_document(hit: SearchHit) -> Document:
    """A hit as a document, in plain JSON values; times in seconds.

    ``page_content`` is what a text model can read: name, time and words. ``id`` and ``metadata["file_id"]`` are the
    media fragment by which a video block, or VideoEmbeddings, take the clip. Further metadata: ``source`` (URI of the
    file), ``video``, ``video_id``, ``start``, ``end``, ``score`` and ``scores`` by channel (0..1; ``None`` where a
    channel did not find it), ``transcript``.
    """
    said = f" {hit.text}" if hit.text else ""
    name = media_fragment(hit.uri, hit.span)
    return Document(
        id=name,
        page_content=f"[{hit.video} {hit.span}]{said}",
        metadata={
            "source": hit.uri,
            "file_id": name,
            "video": hit.video,
            "video_id": hit.video_id,
            "start": round(hit.span.start, 3),
            "end": round(hit.span.end, 3),
            "score": hit.score,
            "scores": {"visual": hit.visual, "speech": hit.speech},
            "transcript": hit.text,
        },
    )


class LibraryRetriever(BaseRetriever):
    """Searches a library of videos by :attr:`channels`.

    Every setting can be given to ``invoke`` too: ``retriever.invoke("a red circle", k=3, videos=["talk.mp4"])``.
    """

    channels: ClassVar[tuple[str, ...]] = CHANNELS

    library: Searchable
    k: int = Field(default=5, ge=1)
    """Documents at most."""
    videos: list[str] | None = None
    """Ids, names or paths of the videos to look in; ``None`` means all."""
    span: TimeSpan | None = None
    """Window of time, in seconds, that hits lie in; ``(start, end)`` will do in ``invoke``."""
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further options of the library's ``search``."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        settings = {"k": self.k, "videos": self.videos, "span": self.span, **self.search_kwargs, **kwargs}
        span = settings["span"]
        if span is not None and not isinstance(span, TimeSpan):
            settings["span"] = TimeSpan(*map(float, span))
        return [hit_document(hit) for hit in self.library.search(query, channels=self.channels, **settings)]
