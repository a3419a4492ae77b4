"""Hours of rendered scenes that a library can be searched together with, without a video file for them.

Each scene is rendered straight to the frames that the encoder sees, and embedded; only the vectors are kept. What
the matching head or the chat model wants to look at later is rendered again from the scene's seed. Nothing here is
encoded as video or decoded.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import VideoEncoder, text_similarity
from videochat_tools.engine import ClipTokens, load_engine
from videochat_tools.library.source import LibrarySource
from videochat_tools.media import uniform_times
from videochat_tools.retrievers.temporal import CHANNELS, HybridTemporalRetriever, SpokenMatch, VisualCandidate
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import Scene, sample_scene
from videochat_tools.types import SearchHit, Segment, TimeSpan, VideoInfo, VideoRecord, parse_media_fragment
from videochat_tools.video_library import VideoLibrary

__all__ = ["Haystack", "HaystackLibrary"]

logger = logging.getLogger(__name__)

VIDEO_ID, NAME = "haystack", "haystack.mp4"  # stands for a video that is not there
CHUNK = 256  # scenes embedded and kept at a time

Frames = npt.NDArray[np.uint8]


class Haystack:
    """Scenes one after another, and their vectors.

    Args:
        folder: Where the vectors are kept, in files of :data:`CHUNK` scenes.
        encoder: Makes the vectors.
        seconds: Length of all scenes together, at least.
        seed: Source of chance.
        excluded: Scenes of which it is true are drawn again: those that a question could mean.
    """

    def __init__(
        self,
        folder: Path,
        encoder: VideoEncoder,
        seconds: float,
        *,
        seed: int = 0,
        excluded: Callable[[Scene], bool] = lambda scene: False,
    ) -> None:
        self.path = (folder / NAME).absolute()
        self._folder = folder
        self._encoder = encoder
        self.scenes: list[Scene] = []
        total = 0.0
        while total < seconds:
            rng = Random(f"{seed} haystack {len(self.scenes)}")
            scene = sample_scene(rng, held_out=None)
            while excluded(scene):
                scene = sample_scene(rng, held_out=None)
            self.scenes.append(scene)
            total += scene.duration
        self._ends = list(accumulate(scene.duration for scene in self.scenes))
        self.vectors = self._embed()

    @property
    def duration(self) -> float:
        """Seconds of all scenes."""
        return self._ends[-1] if self._ends else 0.0

    def segment(self, number: int) -> Segment:
        """A scene as a segment of the video that it stands for."""
        start = self._ends[number - 1] if number else 0.0
        return Segment(VIDEO_ID, number, TimeSpan(start, self._ends[number]))

    def scene_at(self, time: float) -> int:
        """The number of the scene at a time in seconds."""
        return min(bisect_right(self._ends, time), len(self._ends) - 1)

    def render(self, number: int, count: int, size: int) -> Frames:
        """A scene as a clip [count, size, size, 3], at the times that a library would look at."""
        scene = self.scenes[number]
        return render_clip(scene, uniform_times(TimeSpan(0.0, scene.duration), count), size, size)

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> list[VisualCandidate]:
        """The scenes most similar to the vector of a text, best first, with features if the encoder has any."""
        if not self.scenes:
            return []
        similarity = text_similarity(vector[None], self.vectors)[0]
        best = np.argsort(-similarity, kind="stable")[:k].tolist()
        features: Sequence[npt.NDArray[np.float16] | None] = [None] * len(best)
        if self._encoder.keeps_features:
            embedded = self._encoder.embed_clips(self._clips(best))
            features = list(embedded.features) if embedded.features is not None else features
        return [
            VisualCandidate(self.segment(number), float(similarity[number]), kept)
            for number, kept in zip(best, features, strict=True)
        ]

    def _clips(self, numbers: Sequence[int]) -> Frames:
        encoder = self._encoder
        return np.stack([self.render(number, encoder.num_frames, encoder.frame_size) for number in numbers])

    def _embed(self) -> npt.NDArray[np.float32]:
        """Vectors [n, rows, dimension], from the kept files as far as there are any."""
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = [np.zeros((0, self._encoder.rows, self._encoder.dimension), np.float32)]
        for start in range(0, len(self.scenes), CHUNK):
            numbers = range(start, min(start + CHUNK, len(self.scenes)))
            path = self._folder / f"{start:08d}-{len(numbers)}.npy"
            if not path.is_file():
                unfinished = path.with_suffix(".unfinished.npy")
                np.save(unfinished, self._encoder.embed_clips(self._clips(numbers)).vectors)
                os.replace(unfinished, path)
                logger.info("embedded %d of %d scenes", numbers[-1] + 1, len(self.scenes))
            parts.append(np.load(path, allow_pickle=False))
        return np.concatenate(parts)


class HaystackLibrary(VideoLibrary):
    """A library whose search also sees a haystack, and may well find something there."""

    haystack: Haystack

    def search(
        self,
        query: str,
        *,
        k: int = 5,
        videos: Sequence[str] | None = None,
        span: TimeSpan | None = None,
        channels: Collection[str] = CHANNELS,
    ) -> list[SearchHit]:
        """As in any library, over its videos and the haystack."""
        catalog = self._open()
        assert catalog is not None  # the videos with the needles were added
        source = _Both(LibrarySource(catalog, self.cache, self._vectors(catalog), self.encoder), self.haystack)
        return HybridTemporalRetriever(source, self.encoder, self.options).search(query, k=k, channels=channels)

    def segments_during(self, video: str | Path, span: TimeSpan) -> list[Segment]:
        """Segments of a video, or scenes of the haystack."""
        if video != VIDEO_ID:
            return super().segments_during(video, span)
        first, last = self.haystack.scene_at(span.start), self.haystack.scene_at(span.end)
        segments = [self.haystack.segment(number) for number in range(first, last + 1)]
        return [segment for segment in segments if segment.span.overlaps(span)]

    def said_during(self, video: str | Path, span: TimeSpan) -> str:
        """What is said in a video; the haystack is silent."""
        return "" if video == VIDEO_ID else super().said_during(video, span)

    def clip_source(self, name: str) -> ClipTokens:
        """Kept tokens of a segment, or those of a scene, which is rendered for it."""
        uri, span = parse_media_fragment(name)
        if uri != self.haystack.path.as_uri() or span is None:
            return super().clip_source(name)
        engine = load_engine(self._model)
        number = self.haystack.scene_at(span.middle)
        tokens: ClipTokens = engine.watch(self.haystack.render(number, engine.num_frames, engine.frame_size)[None])[0]
        return tokens


class _Both:
    """A :class:`~videochat_tools.retrievers.temporal.RetrievalSource` over a library and a haystack."""

    def __init__(self, library: LibrarySource, haystack: Haystack) -> None:
        self._library = library
        self._haystack = haystack

    def similar_segments(
        self, vector: npt.NDArray[np.float32], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> list[VisualCandidate]:
        found = [*self._library.similar_segments(vector, k, None, None), *self._haystack.nearest(vector, k)]
        return sorted(found, key=lambda candidate: -candidate.similarity)[:k]

    def spoken(
        self, words: Sequence[str], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> tuple[list[SpokenMatch], dict[str, float]]:
        return self._library.spoken(words, k, None, None)

    def segments_during(self, video_id: str, span: TimeSpan) -> list[Segment]:
        return [] if video_id == VIDEO_ID else self._library.segments_during(video_id, span)

    def said_during(self, video_id: str, span: TimeSpan) -> str:
        return "" if video_id == VIDEO_ID else self._library.said_during(video_id, span)

    def record(self, video_id: str) -> VideoRecord:
        if video_id != VIDEO_ID:
            return self._library.record(video_id)
        hay = self._haystack
        info = VideoInfo(hay.path, "rendered", hay.duration, 0.0, 0, 0, 0.0, 0, "none", None)
        return VideoRecord(VIDEO_ID, NAME, hay.path, info, len(hay.scenes), 0, "none")
