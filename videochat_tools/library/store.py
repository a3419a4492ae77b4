"""A library of videos in a folder: add, list, search, remove.

::

    lib/
      catalog.db     SQLite: videos, segments, vectors, words. The truth.
      index.faiss    the vectors once more, for searching; made again when missing or stale
      cache/         for every video its clip tokens and tower features, and what an interrupted add has finished
      write.lock     held while adding or removing
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import ClipWatcher, VideoEncoder, load_encoder
from videochat_tools.errors import LibraryError, LibraryNotFoundError, MediaError, VideoChatError
from videochat_tools.library.adding import Adder, AddResult
from videochat_tools.library.catalog import Catalog
from videochat_tools.library.ingest import TOKENS, Ingestor
from videochat_tools.library.lock import writing
from videochat_tools.library.lookup import find_video
from videochat_tools.library.progress import AddProgress, ProgressMeter
from videochat_tools.library.source import LibrarySource, said_during
from videochat_tools.library.sources import find_videos
from videochat_tools.library.token_cache import TokenCache, cache_key
from videochat_tools.library.vector_index import VectorIndex, drop_vectors
from videochat_tools.media import probe
from videochat_tools.retrievers.options import RetrievalOptions
from videochat_tools.retrievers.temporal import CHANNELS, HybridTemporalRetriever
from videochat_tools.segmenting import Segmenter, make_segmenter
from videochat_tools.types import SearchHit, Segment, TimeSpan, Utterance, VideoInfo, VideoRecord

if TYPE_CHECKING:
    from videochat_tools.speech import Transcriber

__all__ = ["AddResult", "LibraryStore"]

CATALOG, INDEX, CACHE = "catalog.db", "index.faiss", "cache"


class LibraryStore:
    """A library on disk. Several processes may search one library; one at a time may add or remove.

    Models are loaded when they are first needed: listing and removing need none.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        encoder: VideoEncoder | None = None,
        watcher: ClipWatcher | None = None,
        transcriber: Transcriber | Literal["auto"] | None = "auto",
        segmenter: Segmenter | None = None,
        create: bool = True,
        options: RetrievalOptions | None = None,
        backend: str = "pyav",
    ) -> None:
        """Open a library.

        Args:
            path: its folder. With ``create`` it is made when the first video is added.
            encoder: finds segments by text; default is the bundled nano.
            watcher: makes the clip tokens for a chat model; without one, none are kept.
            transcriber: hears what subtitles do not say; ``"auto"`` takes a Whisper that is installed, ``None`` none.
            segmenter: cuts videos into segments; default is by shots.
            create: whether a library that does not exist yet is meant; otherwise LibraryNotFoundError.
            options: settings of retrieval.
            backend: reader of the frames, as :func:`~videochat_tools.media.open_video` takes it.

        Raises:
            LibraryNotFoundError: no library there, and ``create`` is false.
            LibraryError: the path is no folder, or the catalog in it cannot be used.
        """
        self.path = Path(path).expanduser()
        self.cache = TokenCache(self.path / CACHE)
        self._given_encoder = encoder
        self._given_watcher = watcher
        self.transcriber = transcriber
        self.segmenter = segmenter or make_segmenter("shots")
        self.options = options or RetrievalOptions()
        self.backend = backend
        self._catalog: Catalog | None = None
        self._index: VectorIndex | None = None
        if self.path.exists() and not self.path.is_dir():
            raise LibraryError(f"{self.path} is a file; a library is a folder: give another path")
        if self._open() is None and not create:
            raise LibraryNotFoundError(
                f"no library at {self.path}; make one by adding a video to it, or give the folder of another"
            )

    # ------------------------------------------------------------------------------------------------------- models

    @property
    def encoder(self) -> VideoEncoder:
        """The video encoder, loaded at first use."""
        if self._given_encoder is None:
            self._given_encoder = self._load_encoder()
        return self._given_encoder

    @property
    def watcher(self) -> ClipWatcher | None:
        """The maker of clip tokens, loaded at first use; ``None`` when this store has none."""
        if self._given_watcher is None:
            self._given_watcher = self._load_watcher()
        return self._given_watcher

    def _load_encoder(self) -> VideoEncoder:
        return load_encoder()

    def _load_watcher(self) -> ClipWatcher | None:
        """For subclasses that answer questions; a store only finds."""
        return None

    # --------------------------------------------------------------------------------------------------- open, close

    def _open(self, *, create: bool = False) -> Catalog | None:
        """The catalog; opened, or made, when that has not happened yet."""
        if self._catalog is None and (create or (self.path / CATALOG).is_file()):
            if create:
                try:
                    self.path.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise LibraryError(f"cannot make the library {self.path}: {error.strerror or error}") from error
            self._catalog = Catalog(self.path / CATALOG, create=create)
        return self._catalog

    def close(self) -> None:
        """Let go of the files. The next use opens them again."""
        if self._catalog is not None:
            self._catalog.close()
        self._catalog = self._index = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    # ---------------------------------------------------------------------------------------------------------- add

    def add(
        self,
        sources: str | Path | Iterable[str | Path],
        *,
        progress: bool | Callable[[AddProgress], object] = False,
    ) -> builtins.list[AddResult]:
        """Add videos. What is in the library already is left alone; an interrupted add goes on where it stopped.

        Args:
            sources: files, folders (with all below them), patterns such as ``talks/*.mp4``, ``file:`` URIs.
            progress: true for a bar on standard error, or a function that is called with :class:`AddProgress`.

        Returns:
            One result a file. A file that cannot be used is ``failed`` with its error, and the rest goes on.

        Raises:
            LibraryError: the library cannot be written, or another process is adding to it.
            ModelLoadError: a model that every video needs cannot be loaded.
            MissingDependencyError: a package that every video needs is not installed.
        """
        plan: builtins.list[tuple[Path, VideoInfo | VideoChatError]] = []
        for found in find_videos(sources):
            path, error = found if isinstance(found, tuple) else (found, None)
            try:
                plan.append((path, error or probe(path)))
            except MediaError as unusable:
                plan.append((path, unusable))
        usable = [info for _, info in plan if isinstance(info, VideoInfo)]
        if not usable:  # nothing is written, not even an empty library
            return [AddResult(path, "failed", error=error) for path, error in plan if not isinstance(error, VideoInfo)]
        catalog = self._open(create=True)
        assert catalog is not None
        ingestor = Ingestor(
            self.cache, self.encoder, self.watcher, self.segmenter, self.transcriber, backend=self.backend
        )
        results = []
        with writing(self.path), ProgressMeter(sum(info.duration for info in usable), progress) as meter:
            adder = Adder(catalog, ingestor, meter)
            for path, info in plan:
                if isinstance(info, VideoInfo):
                    results.append(adder.add(path, info))
                else:
                    results.append(AddResult(path, "failed", error=info))
            self._vectors(catalog).current()
        return results

    # --------------------------------------------------------------------------------------------------- list, remove

    def list(self) -> list[VideoRecord]:
        """All videos by name."""
        catalog = self._open()
        return [] if catalog is None else catalog.videos()

    def get(self, video: str | Path) -> VideoRecord:
        """The video with this id, unique beginning of an id, path or name; UnknownVideoError when there is none."""
        catalog = self._open()
        exact = None if catalog is None else catalog.video(str(video))
        return exact or find_video(self.list(), str(video), self.path)

    def remove(self, video: str | Path) -> VideoRecord:
        """Delete a video from the library: rows, vectors, words, cached files. The video file itself is not touched.

        Args:
            video: id, unique beginning of an id, path or name.

        Raises:
            UnknownVideoError: no such video, or more than one.
            LibraryError: another process is adding or removing.
        """
        record = self.get(video)
        catalog = self._open()
        assert catalog is not None  # get() found a video in it
        with writing(self.path):
            ids = catalog.vector_ids(None, [record.video_id])
            self.cache.forget(record.video_id)  # first: should this be cut off, the video is still there to remove
            catalog.remove_video(record.video_id)
            drop_vectors(self.path / INDEX, ids)
        return record

    # -------------------------------------------------------------------------------------------------------- search

    def search(
        self,
        query: str | Sequence[str],
        *,
        k: int = 5,
        videos: Sequence[str] | None = None,
        span: TimeSpan | None = None,
        channels: Collection[str] = CHANNELS,
        options: RetrievalOptions | None = None,
    ) -> builtins.list[SearchHit]:
        """The stretches of video that a question or description is about, best first. Decodes no frame.

        Args:
            query: as a person writes it, "what happens after …?" included; or several wordings of one query.
            k: how many at most.
            videos: look only in these: ids, names or paths.
            span: look only at this window of time.
            channels: go by ``"visual"``, ``"speech"`` or both.
            options: further settings; default are those of the library.

        Raises:
            UnknownVideoError: one of ``videos`` is not here.
            LibraryError: videos lack what this store's encoder needs; the message says what to do.
        """
        records = self.list()
        chosen = None if videos is None else {find_video(records, str(video), self.path).video_id for video in videos}
        catalog = self._open()
        if catalog is None or not records:
            return []
        source = LibrarySource(catalog, self.cache, self._vectors(catalog), self.encoder)
        retriever = HybridTemporalRetriever(source, self.encoder, options or self.options)
        return retriever.search(query, k=k, videos=chosen, span=span, channels=channels)

    def clip_tokens(self, hit: SearchHit) -> npt.NDArray[np.float16]:
        """What the watcher made of a hit's segments: float16 [segments, queries, width]. Decodes no frame.

        Raises:
            UnknownVideoError: the video has been removed.
            LibraryError: this store has no watcher, or the video was added with another one.
        """
        watcher = self.watcher
        if watcher is None:
            raise LibraryError("this library was opened without a model that watches clips; open it with watcher=…")
        record = self.get(hit.video_id)
        catalog = self._open()
        assert catalog is not None
        spans = [segment.span for segment in catalog.segments(record.video_id)]
        tokens = self.cache.read_array(record.video_id, TOKENS, cache_key(watcher.fingerprint, spans))
        if tokens is None:
            raise LibraryError(f"{record.name} has no clip tokens of this chat model; add the video again to make them")
        return np.array(tokens[list(hit.segments)], np.float16)

    def segments_during(self, video: str | Path, span: TimeSpan) -> builtins.list[Segment]:
        """The segments of a video that overlap a span, in order of time; UnknownVideoError when it is not here."""
        record, catalog = self.get(video), self._open()
        assert catalog is not None
        return catalog.segments(record.video_id, span)

    def said_during(self, video: str | Path, span: TimeSpan) -> str:
        """The words of a video that belong to a span; UnknownVideoError when it is not here."""
        record, catalog = self.get(video), self._open()
        assert catalog is not None
        return said_during(catalog, record.video_id, span)

    def transcript(self, video: str | Path) -> builtins.list[Utterance]:
        """All that is said in a video, in order of time; UnknownVideoError when it is not here."""
        record, catalog = self.get(video), self._open()
        assert catalog is not None
        return catalog.utterances(record.video_id)

    def _vectors(self, catalog: Catalog) -> VectorIndex:
        if self._index is None:
            self._index = VectorIndex(self.path / INDEX, catalog, self.encoder)
        return self._index
