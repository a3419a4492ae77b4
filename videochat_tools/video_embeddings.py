"""Texts and stretches of video as vectors of one space, for any LangChain vector store.

A document is a video, or a piece of one by its media-fragment name; a query is what a person writes::

    store = InMemoryVectorStore(VideoEmbeddings())
    store.add_texts(["file:///talk.mp4#t=0,8", "file:///talk.mp4#t=8,16"])
    store.similarity_search("a red circle bumps into a blue square")
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings

from videochat_tools.embeddings import Aggregation, VideoEncoder, load_encoder
from videochat_tools.errors import ModelLoadError, UnsupportedContentError
from videochat_tools.library.clips import ClipShape, clip_batches
from videochat_tools.library.sources import VIDEO_SUFFIXES
from videochat_tools.media import probe
from videochat_tools.types import TimeSpan, VideoInfo, parse_media_fragment, uri_to_path
from videochat_tools.visuals import part_of_video

__all__ = ["VideoEmbeddings"]

Vectors = npt.NDArray[np.float32]

_NORM_TOLERANCE = 1e-3  # by which rounding, in half precision too, may make a unit vector longer


@dataclass(frozen=True, slots=True)
class _Clip:
    """A document that names a video. ``span``: ``None`` for all of it."""

    path: Path
    span: TimeSpan | None


class VideoEmbeddings(Embeddings):
    """A video encoder as LangChain embeddings.

    A document counts as a video when it is one line that is a ``file:`` URI, has a time fragment (``#t=42,51``), or
    ends like a video file; what it names must then be there. Any other document is plain text and is embedded as a
    query is, so that captions and clips can stand in one store.

    All vectors have length one. The similarity of an encoder is an inner product, and the vector of a clip may be
    shorter than one (the mean over the queries of a Q-Former is); a further coordinate completes it, which is 0 for
    texts. So the inner product stays exactly the encoder's similarity, and a store that goes by the cosine or by
    the Euclidean distance ranks the same way.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        encoder: VideoEncoder | None = None,
        device: str | None = None,
        aggregation: Aggregation | None = None,
        batch_size: int = 8,
        backend: str = "pyav",
    ) -> None:
        """Nothing is loaded before the first text or video.

        Args:
            model: folder of a video encoder, as :func:`~videochat_tools.embeddings.load_encoder` takes it; default
                is the bundled nano.
            encoder: a loaded encoder in place of ``model``.
            device: as torch names it; default is a GPU when there is one.
            aggregation: of a VideoChat2 stage-1 model: ``"mean"`` over the similarities of its queries, the protocol of
                the released ones, or ``"max"``, their best; default is what its configuration says.
            batch_size: clips that are decoded and embedded at a time.
            backend: reader of the frames, as :func:`~videochat_tools.media.open_video` takes it.
        """
        if encoder is not None and (model, device, aggregation) != (None, None, None):
            raise ValueError("give either a loaded encoder, or the model to load, its device and its aggregation")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.device = device
        self.aggregation = aggregation
        self.batch_size = batch_size
        self.backend = backend
        self._encoder = encoder
        self._loading = threading.Lock()

    @property
    def encoder(self) -> VideoEncoder:
        """The video encoder, loaded at first use.

        Raises:
            ModelLoadError: the model cannot be loaded.
        """
        with self._loading:
            if self._encoder is None:
                self._encoder = load_encoder(self.model, device=self.device, aggregation=self.aggregation)
            return self._encoder

    @property
    def dimension(self) -> int:
        """Length of a vector: one more than the encoder's."""
        return self.encoder.dimension + 1

    @property
    def rows(self) -> int:
        """Vectors of a document; more than one for an encoder that goes by the best of several, as the nano does."""
        return self.encoder.rows

    @property
    def fingerprint(self) -> str:
        """Name of the space: vectors of equal ones are comparable."""
        return self.encoder.fingerprint

    def relevance(self, similarity: float) -> float:
        """A similarity as the probability, 0..1, that the text describes the clip, by the encoder's calibration.

        An encoder without a calibration of its own keeps the order; its numbers mean nothing in themselves.
        """
        logit = self.encoder.calibration.similarity_logit(np.array([similarity], np.float32))
        return float(1 / (1 + np.exp(-logit[0])))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text."""
        return self._texts([text])[0].tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector for each video, piece of video, or plain text, in the order given.

        Each file is opened and decoded once, however many pieces of it are named, and wherever they stand. Where the
        encoder keeps several vectors of a clip, this is the direction of their mean, an approximation;
        ``FaissVideoStore`` holds all of them and is exact.

        Raises:
            MediaError: a file is missing, unreadable, or no video.
            UnsupportedContentError: a piece lies outside its video, or the name cannot be read.
            ModelLoadError: the model cannot be loaded.
        """
        rows = self.embed_document_rows(texts)
        if self.rows == 1:
            return rows[:, 0].tolist()
        mean = rows.mean(axis=1)
        unit: Vectors = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.float32(1e-12))
        return unit.tolist()

    def embed_document_rows(self, texts: Sequence[str]) -> Vectors:
        """As :meth:`embed_documents` with all vectors of each, float32 [n, rows, dimension].

        The similarity with a query is the inner product with the best row.
        """
        clips = [_named_clip(text) for text in texts]
        rows = np.zeros((len(texts), self.rows, self.dimension), np.float32)
        plain = [number for number, clip in enumerate(clips) if clip is None]
        by_video: dict[Path, dict[int, TimeSpan | None]] = {}
        for number, clip in enumerate(clips):
            if clip is not None:
                by_video.setdefault(clip.path, {})[number] = clip.span
        # All files and spans are checked before the first one is decoded.
        work = [(probe(path), pieces) for path, pieces in by_video.items()]
        spans = {number: _span(info, span) for info, pieces in work for number, span in pieces.items()}
        if plain:
            rows[plain] = self._texts([texts[number] for number in plain])[:, None]
        for info, pieces in work:
            places: dict[TimeSpan, int] = {}
            for number in pieces:
                places.setdefault(spans[number], len(places))
            vectors = self._clips(info, list(places))
            for number in pieces:
                rows[number] = vectors[places[spans[number]]]
        return rows

    def _texts(self, texts: Sequence[str]) -> Vectors:
        """Float32 [n, dimension]."""
        vectors = self.encoder.embed_texts(texts)
        return np.pad(vectors, ((0, 0), (0, 1)))

    def _clips(self, info: VideoInfo, spans: Sequence[TimeSpan]) -> Vectors:
        """Float32 [n, rows, dimension] of pieces of one video."""
        encoder, shape = self.encoder, ClipShape.of(self.encoder)
        made = np.empty((len(spans), self.rows, self.dimension), np.float32)
        for batch in clip_batches(info, spans, [shape], batch_size=self.batch_size, backend=self.backend):
            vectors = encoder.embed_clips(batch.clips[shape]).vectors
            made[list(batch.rows)] = _completed(vectors)
        return made


def _completed(vectors: Vectors) -> Vectors:
    """Vectors [..., dimension] with the coordinate that makes their length one, [..., dimension + 1]."""
    squares = np.square(vectors.astype(np.float64)).sum(axis=-1, keepdims=True)
    if squares.max(initial=0) > 1 + _NORM_TOLERANCE:
        raise ModelLoadError(
            f"this video encoder makes clip vectors of length {np.sqrt(squares.max()):.3f}; VideoEmbeddings needs one "
            "whose vectors are no longer than 1"
        )
    return np.concatenate([vectors, np.sqrt(np.maximum(0, 1 - squares))], axis=-1).astype(np.float32)


_TIME_FRAGMENT = re.compile(r"#(?:[^#\s]*&)?t=[^#]*$")


def _named_clip(text: str) -> _Clip | None:
    """The video that a document names; ``None`` for plain text."""
    timed = _TIME_FRAGMENT.search(text)
    source = text[: timed.start()] if timed else text
    is_video = Path(source).suffix.lower() in VIDEO_SUFFIXES
    scheme = source.partition(":")[0].lower()
    if "\n" in text or not (timed or is_video or scheme == "file"):
        return None
    if scheme in ("http", "https"):
        raise UnsupportedContentError(f"remote files are not fetched, got {text}; download the video and give its path")
    try:
        span = parse_media_fragment(timed[0])[1] if timed else None
    except ValueError as error:
        raise UnsupportedContentError(f"cannot read the time of {text}: {error}") from error
    if timed and span is None:
        raise UnsupportedContentError(
            f"{text} does not name a start and an end; write it as video.mp4#t=42,51 (seconds)"
        )
    return _Clip(uri_to_path(source).expanduser().absolute(), span)


def _span(info: VideoInfo, span: TimeSpan | None) -> TimeSpan:
    """The part of the video that is meant; UnsupportedContentError when it lies outside, or has no length."""
    part = part_of_video(span.start if span else None, span.end if span else None, info.duration)
    if span is not None and part.duration <= 0:
        raise UnsupportedContentError(f"a clip of {info.path} needs start < end, got {span.start} s to {span.end} s")
    return part
