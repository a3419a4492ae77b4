"""Videos as LangChain documents, one a segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import BaseDocumentTransformer, Document

from videochat_tools.library.source import words_within
from videochat_tools.library.sources import find_videos
from videochat_tools.media import open_video
from videochat_tools.segmenting import Segmenter, make_segmenter
from videochat_tools.speech import transcribe
from videochat_tools.types import TimeSpan, Utterance, media_fragment

if TYPE_CHECKING:
    from videochat_tools.speech import Transcriber

__all__ = ["VideoLoader", "VideoSplitter"]


class VideoLoader(BaseLoader):
    """Cuts videos into segments and says what is said in each; no model looks at the pictures.

    ::

        FaissVideoStore.from_documents(VideoLoader("talks/*.mp4").load(), VideoEmbeddings())  # by what is seen
        VideoLoader("talks/*.mp4", content="transcript").load()                               # by what is said

    Metadata, in plain JSON values: ``source`` (URI of the file), ``file_id`` (media fragment of the segment, as is the
    document's ``id``), ``video``, ``segment``, ``start``, ``end``, ``duration`` of the video (seconds), ``transcript``.
    """

    def __init__(
        self,
        sources: str | Path | Iterable[str | Path],
        *,
        content: Literal["fragment", "transcript"] = "fragment",
        segmenter: Segmenter | None = None,
        transcriber: Transcriber | Literal["auto"] | None = "auto",
        backend: str = "pyav",
    ) -> None:
        """Nothing is opened yet.

        Args:
            sources: files, folders (with all below them), patterns such as ``talks/*.mp4``, ``file:`` URIs.
            content: what ``page_content`` is: the media-fragment name of the segment, which VideoEmbeddings embed, or
                what is said in it (empty where nothing is).
            segmenter: cuts videos into segments; default is by shots.
            transcriber: hears what subtitles do not say, as :func:`~videochat_tools.speech.transcribe` takes it.
            backend: reader of the frames, as :func:`~videochat_tools.media.open_video` takes it.
        """
        if content not in ("fragment", "transcript"):
            raise ValueError(f"content must be 'fragment' or 'transcript', got {content!r}")
        self.sources = [sources] if isinstance(sources, str | Path) else list(sources)
        self.content = content
        self.segmenter = segmenter or make_segmenter("shots")
        self.transcriber = transcriber
        self.backend = backend

    def lazy_load(self) -> Iterator[Document]:
        """The documents of one video after the other, in order of time; the next video is opened when it is reached.

        Raises:
            MediaError: a file is missing, unreadable, or no video.
        """
        for found in find_videos(self.sources):
            if isinstance(found, Path):
                yield from self._segments(found)
            else:
                raise found[1]

    def _segments(self, path: Path) -> Iterator[Document]:
        with open_video(path, backend=self.backend) as reader:
            spans = self.segmenter.segment(reader)
            duration = reader.info.duration
        utterances = transcribe(path, transcriber=self.transcriber).utterances
        uri = path.as_uri()
        for number, span in enumerate(spans):
            name, said = media_fragment(uri, span), words_within(_near(utterances, span), span)
            yield Document(
                id=name,
                page_content=name if self.content == "fragment" else said,
                metadata={
                    "source": uri,
                    "file_id": name,
                    "video": path.name,
                    "segment": number,
                    "start": round(span.start, 3),
                    "end": round(span.end, 3),
                    "duration": round(duration, 3),
                    "transcript": said,
                },
            )


def _near(utterances: Iterable[Utterance], span: TimeSpan) -> list[Utterance]:
    return [item for item in utterances if item.span.start < span.end and item.span.end >= span.start]


class VideoSplitter(BaseDocumentTransformer):
    """Cuts documents that stand for whole videos into segments, as :class:`VideoLoader` does, and keeps their metadata.

    ::

        talks = [Document("talks/ann.mp4", metadata={"speaker": "Ann"})]
        VideoSplitter(segmenter=make_segmenter("fixed", seconds=30)).split_documents(talks)

    The video is ``metadata["source"]``, or else what the document says: a path or a ``file:`` URI.
    """

    def __init__(self, **options: Any) -> None:
        """Options are those of :class:`VideoLoader` but for its sources."""
        VideoLoader((), **options)  # says now what cannot be
        self._options = options

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """The segments of all videos, in the order given.

        Raises:
            MediaError: a file is missing, unreadable, or no video.
        """
        return [segment for document in documents for segment in self._segments(document)]

    split_documents = transform_documents  # as text splitters call it

    def _segments(self, document: Document) -> Iterator[Document]:
        source = document.metadata.get("source") or document.page_content
        for segment in VideoLoader(str(source), **self._options).lazy_load():
            yield segment.model_copy(update={"metadata": {**document.metadata, **segment.metadata}})
