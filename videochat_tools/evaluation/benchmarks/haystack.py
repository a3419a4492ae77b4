"""Hours of rendered scenes that a library can be searched together with, without a video file for them.

Each scene is rendered straight to the frames that the encoder sees, and embedded; only the vectors are kept. What
the matching head or the chat model wants to look at later is rendered again from the scene's seed, and what is said
over a scene is known from its number. Nothing here is encoded as video or decoded.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from videochat_tools.embeddings import VideoEncoder, text_similarity
from videochat_tools.evaluation.benchmarks.asking import BlindableLibrary
from videochat_tools.library.lookup import find_video
from videochat_tools.library.source import LibrarySource, words_within
from videochat_tools.media import uniform_times
from videochat_tools.retrievers.options import RetrievalOptions
from videochat_tools.retrievers.temporal import CHANNELS, HybridTemporalRetriever, SpokenMatch, VisualCandidate
from videochat_tools.training.world.long_video import SPOKEN_SHARE
from videochat_tools.training.world.narration import narrate
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import Scene, sample_scene
from videochat_tools.types import (
    SearchHit,
    Segment,
    TimeSpan,
    Utterance,
    VideoInfo,
    VideoRecord,
    parse_media_fragment,
)

__all__ = ["Haystack", "HaystackLibrary"]

VIDEO_ID, NAME = "haystack", "haystack.mp4"  # stands for a video that is not there
CHUNK = 256  # scenes in a file of vectors
BATCH = 16  # scenes embedded at a time; the nano on a CPU is fastest with as many

Frames = npt.NDArray[np.uint8]


class Haystack:
    """Scenes one after another, and their vectors. A shorter one is the beginning of a longer one.

    The vectors are kept in files of :data:`CHUNK` scenes, in a folder whose name says what decides about them: the
    encoder, how scenes are drawn and how they look. Another run, of another length too, goes on with these.

    Args:
        folder: Where such folders are.
        encoder: Makes the vectors.
        seconds: Length of all scenes together, at least.
        seed: Source of chance.
        excluded: Scenes of which it is true are drawn again: those that a question could mean.
        name: Says what is excluded; another name means other files.
    """

    def __init__(
        self,
        folder: Path,
        encoder: VideoEncoder,
        seconds: float,
        *,
        seed: int = 0,
        excluded: Callable[[Scene], bool] = lambda scene: False,
        name: str = "",
    ) -> None:
        self.path = (folder / NAME).absolute()
        self._encoder = encoder
        self._seed = seed
        self.scenes: list[Scene] = []
        self._ends: list[float] = []
        self._draw(seconds, excluded)
        self.use(seconds)
        self._folder = folder / self._key(name)
        self.last_found: tuple[Any, list[VisualCandidate]] = (None, [])

    def _draw(self, seconds: float, excluded: Callable[[Scene], bool]) -> None:
        """Whole chunks of scenes, so that the files of a shorter haystack serve a longer one."""
        total = 0.0
        while total < seconds or len(self.scenes) % CHUNK:
            rng = Random(f"{self._seed} haystack {len(self.scenes)}")
            scene = sample_scene(rng, held_out=None)
            while excluded(scene):
                scene = sample_scene(rng, held_out=None)
            self.scenes.append(scene)
            total += scene.duration
        self._ends = list(accumulate(scene.duration for scene in self.scenes))

    def use(self, seconds: float) -> None:
        """Let the haystack be so long, to the end of a scene, at most as long as it was made."""
        self.count = min(bisect_left(self._ends, seconds) + 1, len(self._ends)) if seconds > 0 else 0

    @property
    def duration(self) -> float:
        """Seconds of the scenes in use."""
        return self._ends[self.count - 1] if self.count else 0.0

    def segment(self, number: int) -> Segment:
        """A scene as a segment of the video that it stands for."""
        start = self._ends[number - 1] if number else 0.0
        return Segment(VIDEO_ID, number, TimeSpan(start, self._ends[number]))

    def segments_during(self, span: TimeSpan) -> list[Segment]:
        """The scenes in use that overlap a span."""
        first, last = self.scene_at(span.start), self.scene_at(span.end)
        segments = [self.segment(number) for number in range(first, last + 1)] if self.count else []
        return [segment for segment in segments if segment.span.overlaps(span)]

    def scene_at(self, time: float) -> int:
        """The number of the scene at a time in seconds."""
        return min(bisect_right(self._ends, time), self.count - 1)

    def said_during(self, span: TimeSpan) -> str:
        """The words that belong to a span: over some of the scenes a sentence is said, in any video of the world."""
        return words_within(
            (
                Utterance(segment.span, sentence)
                for segment in self.segments_during(span)
                if (sentence := self._said(segment.index))
            ),
            span,
        )

    def _said(self, number: int) -> str:
        rng = Random(f"{self._seed} haystack {number} says")
        return narrate(rng).text if rng.random() < SPOKEN_SHARE else ""

    def render(self, number: int, count: int, size: int) -> Frames:
        """A scene as a clip [count, size, size, 3], at the times that a library would look at."""
        scene = self.scenes[number]
        times = uniform_times(TimeSpan(0.0, scene.duration), count)
        return render_clip(scene, times, size, size)

    def nearest(self, vector: npt.NDArray[np.float32], k: int, span: TimeSpan | None = None) -> list[VisualCandidate]:
        """The scenes most similar to the vector of a text, best first, without features."""
        parts = [text_similarity(vector[None], np.asarray(chunk))[0] for chunk in self._chunks]
        similarity = np.concatenate([np.zeros(0, np.float32), *parts])[: self.count]
        if span is not None:
            inside = [segment.index for segment in self.segments_during(span)]
            outside = np.ones(self.count, bool)
            outside[inside] = False
            similarity[outside] = -np.inf
            k = min(k, len(inside))
        best = np.argsort(-similarity, kind="stable")[:k].tolist()
        return [VisualCandidate(self.segment(number), float(similarity[number]), None) for number in best]

    def features(self, numbers: Sequence[int]) -> list[npt.NDArray[np.float16] | None]:
        """What the matching head reads of scenes; None where the encoder has none."""
        made: list[npt.NDArray[np.float16] | None] = []
        for start in range(0, len(numbers), BATCH) if self._encoder.keeps_features else ():
            embedded = self._encoder.embed_clips(self._clips(numbers[start : start + BATCH]))
            made += list(embedded.features) if embedded.features is not None else []
        return made or [None] * len(numbers)

    def _clips(self, numbers: Sequence[int]) -> Frames:
        encoder = self._encoder
        return np.stack([self.render(number, encoder.num_frames, encoder.frame_size) for number in numbers])

    def _key(self, name: str) -> str:
        """Says what decides about the vectors; a picture of the first scene stands for the code that renders."""
        digest = hashlib.sha256(json.dumps([self._encoder.fingerprint, self._seed, name]).encode())
        if self.scenes:
            digest.update(self._clips([0]).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _chunks(self) -> list[npt.NDArray[np.float32]]:
        """The vectors of all scenes, made when they are first searched."""
        return [self._chunk(start) for start in range(0, len(self.scenes), CHUNK)]

    def _chunk(self, start: int) -> npt.NDArray[np.float32]:
        """Vectors [CHUNK, rows, dimension], kept in a file and read from there when they are needed."""
        path = self._folder / f"{start:08d}.npy"
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            numbers = range(start, start + CHUNK)
            batches = tqdm(
                [numbers[first : first + BATCH] for first in range(0, CHUNK, BATCH)],
                desc=f"haystack, scenes {start} to {numbers[-1]} of {len(self.scenes)}",
                disable=None,
                leave=False,
            )
            made = [self._encoder.embed_clips(self._clips(batch)).vectors for batch in batches]
            unfinished = path.with_name(f"{start:08d}-{os.getpid()}.unfinished.npy")
            np.save(unfinished, np.concatenate(made))
            os.replace(unfinished, path)
        vectors: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
        return vectors


class HaystackLibrary(BlindableLibrary):
    """A library whose search also sees a haystack, and may well find something there."""

    haystack: Haystack

    def search(
        self,
        query: str | Sequence[str],
        *,
        k: int = 5,
        videos: Sequence[str] | None = None,
        span: TimeSpan | None = None,
        channels: Collection[str] = CHANNELS,
        options: RetrievalOptions | None = None,
    ) -> list[SearchHit]:
        """As in any library, over the haystack and its videos; ``videos`` leaves some of the latter out."""
        catalog = self._open()
        assert catalog is not None  # the videos with the needles were added
        records = self.list()
        chosen = None if videos is None else [find_video(records, video, self.path).video_id for video in videos]
        source = _Both(LibrarySource(catalog, self.cache, self._vectors(catalog), self.encoder), self.haystack)
        return HybridTemporalRetriever(source, self.encoder, options or self.options).search(
            query, k=k, videos=None if chosen is None else [*chosen, VIDEO_ID], span=span, channels=channels
        )

    def segments_during(self, video: str | Path, span: TimeSpan) -> list[Segment]:
        """Segments of a video, or scenes of the haystack."""
        return self.haystack.segments_during(span) if video == VIDEO_ID else super().segments_during(video, span)

    def said_during(self, video: str | Path, span: TimeSpan) -> str:
        """What is said in a video or over a scene."""
        return self.haystack.said_during(span) if video == VIDEO_ID else super().said_during(video, span)

    def clip_source(self, name: str) -> npt.NDArray[np.float16]:
        """Kept tokens of a segment, or those of a scene, which is rendered for it."""
        uri, span = parse_media_fragment(name)
        if self.blind or uri != self.haystack.path.as_uri() or span is None:
            return super().clip_source(name)
        number, engine = self.haystack.scene_at(span.middle), self.engine
        tokens: npt.NDArray[np.float16] = engine.watch(
            self.haystack.render(number, engine.num_frames, engine.frame_size)[None]
        )[0]
        return tokens


class _Both:
    """A :class:`~videochat_tools.retrievers.temporal.RetrievalSource` over a library and a haystack."""

    def __init__(self, library: LibrarySource, haystack: Haystack) -> None:
        self._library = library
        self._haystack = haystack

    def similar_segments(
        self, vector: npt.NDArray[np.float32], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> list[VisualCandidate]:
        key = vector.tobytes(), k, videos and sorted(videos), span, self._haystack.count
        if self._haystack.last_found[0] != key:  # to ask is to search again
            self._haystack.last_found = key, self._find(vector, k, videos, span)
        return self._haystack.last_found[1]

    def _find(
        self, vector: npt.NDArray[np.float32], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> list[VisualCandidate]:
        others = None if videos is None else [video for video in videos if video != VIDEO_ID]
        found = [] if others == [] else self._library.similar_segments(vector, k, others, span)
        if videos is None or VIDEO_ID in videos:
            found = sorted([*found, *self._haystack.nearest(vector, k, span)], key=lambda each: -each.similarity)[:k]
        rendered = [each.segment.index for each in found if each.segment.video_id == VIDEO_ID]
        features = dict(zip(rendered, self._haystack.features(rendered), strict=True))
        return [
            VisualCandidate(each.segment, each.similarity, features[each.segment.index])
            if each.segment.video_id == VIDEO_ID
            else each
            for each in found
        ]

    def spoken(
        self, words: Sequence[str], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> tuple[list[SpokenMatch], dict[str, float]]:
        """Of the library alone: needles are described by how they look, in words that no sentence of the hay has."""
        return self._library.spoken(words, k, None if videos is None else [v for v in videos if v != VIDEO_ID], span)

    def segments_during(self, video_id: str, span: TimeSpan) -> list[Segment]:
        hay = video_id == VIDEO_ID
        return self._haystack.segments_during(span) if hay else self._library.segments_during(video_id, span)

    def said_during(self, video_id: str, span: TimeSpan) -> str:
        hay = video_id == VIDEO_ID
        return self._haystack.said_during(span) if hay else self._library.said_during(video_id, span)

    def record(self, video_id: str) -> VideoRecord:
        if video_id != VIDEO_ID:
            return self._library.record(video_id)
        hay = self._haystack
        info = VideoInfo(hay.path, "rendered", hay.duration, 0.0, 0, 0, 0.0, 0, "none", None)
        return VideoRecord(VIDEO_ID, NAME, hay.path, info, hay.count, 0, "none")
