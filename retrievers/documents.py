"""Search hits as LangChain documents, and what the retrievers over a library have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever
from pydantic import BeforeValidator, ConfigDict, Field

from videochat_tools.retrievers.options import RetrievalOptions
from videochat_tools.retrievers.rephrasing import rephrased
from videochat_tools.retrievers.temporal import CHANNELS
from videochat_tools.types import SearchHit, TimeSpan, media_fragment

__all__ = ["LibraryRetriever", "Searchable", "hit_document"]


@runtime_checkable
class Searchable(Protocol):
    """What a retriever needs of a library: ``VideoLibrary`` and ``LibraryStore`` have it."""

    def search(
        self,
        query: str | Sequence[str],
        *,
        k: int,
        videos: Sequence[str] | None,
        span: TimeSpan | None,
        channels: Collection[str],
        options: RetrievalOptions | None,
    ) -> list[SearchHit]:
        """The stretches of video that a query is about, best first."""
        ...


def hit_document(hit: SearchHit) -> Document:
    """A hit as a document, in plain JSON values; times in seconds.

    ``page_content`` is what a text model can read: name, time and words. ``id`` and ``metadata["file_id"]`` are the
    media fragment by which a video block, or VideoEmbeddings, take the clip. Further metadata: ``source`` (URI of the
    file), ``video``, ``video_id``, ``start``, ``end``, ``score`` and ``scores`` by channel (0..1; ``None`` where a
    channel did not find it), ``transcript``, ``anchor`` (start and end of what it comes after or before, where that was
    asked for).
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
            "anchor": None if hit.anchor is None else [round(hit.anchor.start, 3), round(hit.anchor.end, 3)],
        },
    )


def _as_span(value: Any) -> TimeSpan | None:
    """A span as people write it; ValueError where it is none."""
    if value is None or isinstance(value, TimeSpan):
        return value
    try:
        start, end = map(float, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"span must be (start, end) in seconds, got {value!r}") from error
    return TimeSpan(start, end)


_OPTIONS = ("per_video", "before", "after", "rerank")


class LibraryRetriever(BaseRetriever):
    """Searches a library of videos by :attr:`channels`.

    Every setting can be given to ``invoke`` too: ``retriever.invoke("a red circle", k=3, videos=["talk.mp4"])``.
    "What happens after X?" finds X and gives what comes after it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")  # a mistyped setting is an error

    channels: ClassVar[tuple[str, ...]] = CHANNELS

    library: Searchable
    k: int = Field(default=5, ge=1)
    """Documents at most."""
    videos: list[str] | None = None
    """Ids, names or paths of the videos to look in; ``None`` means all."""
    span: Annotated[TimeSpan | None, BeforeValidator(_as_span)] = None
    """Window of time, in seconds, that hits lie in; ``(start, end)`` will do."""
    per_video: int | None = None
    """Documents of one video at most, so that one video cannot fill the list; ``None``: any number."""
    before: float = 0.0
    """Seconds of context that every document begins earlier."""
    after: float = 0.0
    """Seconds of context that every document ends later."""
    rerank: bool = True
    """Whether the matching head of the library's encoder judges what its vectors have found, where it has one."""
    options: RetrievalOptions | None = None
    """Finer settings; default are those of the library."""
    rephrase: BaseChatModel | Callable[[str], Sequence[str]] | None = None
    """Makes further wordings of a query, which are searched with it and fused: a chat model, or a function."""
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Settings once more, as a mapping: they go before those above, as vector stores' retrievers take them."""

    def model_post_init(self, context: Any, /) -> None:
        """ValueError, when the retriever is made, where a setting is out of its range."""
        self._search_options({})

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        settings = {**self.search_kwargs, **kwargs}
        options = self._search_options(settings)
        rephrase = settings.pop("rephrase", self.rephrase)
        search = {"k": self.k, "videos": self.videos, "span": self.span, "channels": self.channels, **settings}
        search["span"] = _as_span(search["span"])
        wordings = query if rephrase is None else rephrased(query, rephrase, run_manager.get_child())
        return [hit_document(hit) for hit in self.library.search(wordings, **search, options=options)]

    def _search_options(self, settings: dict[str, Any]) -> RetrievalOptions:
        """The library's options under those of this retriever under those of the call, which are taken out."""
        given = settings.pop("options", None) or self.options
        base = given or getattr(self.library, "options", None) or RetrievalOptions()
        # What is set in the finer settings holds until a plain one says otherwise.
        plain = {name: getattr(self, name) for name in _OPTIONS if name in self.model_fields_set}
        called = {name: settings.pop(name) for name in _OPTIONS if name in settings}
        return replace(base, **{**plain, **called})
