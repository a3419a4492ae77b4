"""One video into everything that a library keeps of it: shots, words, vectors, features, clip tokens.

Each stage is keyed by the content of the file and by what made it, and is kept as soon as it is finished, so that an
interrupted add goes on where it stopped. Nothing here touches the catalog.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import ClipWatcher, VideoEncoder
from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError
from videochat_tools.library.clips import ClipShape, clip_batches
from videochat_tools.library.token_cache import TokenCache, cache_key
from videochat_tools.media import open_video
from videochat_tools.segmenting import Segmenter
from videochat_tools.speech import Transcriber, transcribe
from videochat_tools.types import TimeSpan, Transcript, Utterance, VideoInfo

__all__ = ["FEATURES", "TOKENS", "WORK_KINDS", "Ingestor", "content_id"]

logger = logging.getLogger(__name__)

SHOTS, WORDS, VECTORS, FEATURES, TOKENS = "shots", "words", "vectors", "features", "tokens"
WORK_KINDS = (SHOTS, WORDS, VECTORS)  # only for going on after a crash: the catalog has them once the video is in

Report = Callable[[str, float], None]  # stage, seconds of the video that are done


def content_id(path: Path) -> str:
    """The id of a video: the first 16 hex digits of the SHA-256 of its bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except FileNotFoundError:
        raise MediaNotFoundError(f"no such file: {path}; check the name and the folder") from None
    except OSError as error:
        raise UnreadableMediaError(f"{path} cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class Ingestor:
    """The stages, with the models that they use."""

    cache: TokenCache
    encoder: VideoEncoder
    watcher: ClipWatcher | None
    segmenter: Segmenter
    transcriber: Transcriber | Literal["auto"] | None
    batch_size: int = 8  # segments a batch
    backend: str = "pyav"

    def spans(self, video_id: str, info: VideoInfo) -> list[TimeSpan]:
        """The segments of a video."""
        key = cache_key(repr(self.segmenter))
        kept = self.cache.read_json(video_id, SHOTS, key)
        if kept is not None:
            logger.info("%s: shots are here already", info.path.name)
            return [TimeSpan(start, end) for start, end in kept]
        with open_video(info.path, backend=self.backend) as reader:
            spans = self.segmenter.segment(reader)
        if not spans:
            raise UnreadableMediaError(f"{info.path} has no stretch of picture to cut into segments; copy it again")
        self.cache.write_json(video_id, SHOTS, key, [[span.start, span.end] for span in spans])
        return spans

    def transcript(self, video_id: str, path: Path) -> Transcript:
        """What is said in a video. Only what a model heard is kept: subtitles are read again at no cost."""
        name = self.transcriber if isinstance(self.transcriber, str) or not self.transcriber else self.transcriber.name
        key = cache_key(str(name))
        kept = self.cache.read_json(video_id, WORDS, key)
        if kept is not None:
            logger.info("%s: words are here already", path.name)
            said = tuple(Utterance(TimeSpan(start, end), text) for start, end, text in kept["utterances"])
            return Transcript(said, "whisper", kept["language"])
        made = transcribe(path, transcriber=self.transcriber)
        if made.source == "whisper":
            rows = [[item.span.start, item.span.end, item.text] for item in made.utterances]
            self.cache.write_json(video_id, WORDS, key, {"utterances": rows, "language": made.language})
        return made

    def space_key(self, spans: Sequence[TimeSpan]) -> str:
        """Names the encoder's vectors and features of these segments."""
        return cache_key(self.encoder.fingerprint, spans)

    def token_key(self, spans: Sequence[TimeSpan]) -> str | None:
        """Names the watcher's tokens of these segments; ``None`` without a watcher."""
        return None if self.watcher is None else cache_key(self.watcher.fingerprint, spans)

    def has_tokens(self, video_id: str, spans: Sequence[TimeSpan]) -> bool:
        """Whether nothing is left to watch."""
        key = self.token_key(spans)
        return key is None or self.cache.read_array(video_id, TOKENS, key) is not None

    def has_features(self, video_id: str, spans: Sequence[TimeSpan]) -> bool:
        """Whether the features are here, or are not kept with this encoder."""
        if not self.encoder.keeps_features:
            return True
        return self.cache.read_array(video_id, FEATURES, self.space_key(spans)) is not None

    def look(
        self, video_id: str, info: VideoInfo, spans: Sequence[TimeSpan], report: Report, *, embed: bool = True
    ) -> npt.NDArray[np.float32]:
        """Embed and watch all segments in one pass, as far as that is not done. Features and tokens go to the cache.

        Args:
            video_id: the video.
            info: what is known of its file.
            spans: its segments.
            report: told about the progress.
            embed: false when the vectors are in the catalog and only tokens are missing.

        Returns:
            The vectors, float32 [segments, rows, dimension]; of no segment without ``embed``.
        """
        space, tokens = self.space_key(spans), self.token_key(spans)
        kept = self.cache.read_array(video_id, VECTORS, space) if self.has_features(video_id, spans) else None
        encoder = self.encoder if embed and kept is None else None
        watcher = None if self.has_tokens(video_id, spans) else self.watcher
        wanted = [ClipShape.of(model) for model in (encoder, watcher) if model is not None]
        with contextlib.ExitStack() as files:
            # Closed in reverse: when the vectors get their name, the features have theirs.
            vectors = files.enter_context(self.cache.writer(video_id, VECTORS, space, len(spans)))
            features = files.enter_context(self.cache.writer(video_id, FEATURES, space, len(spans)))
            seen = files.enter_context(self.cache.writer(video_id, TOKENS, tokens or "", len(spans)))
            for batch in clip_batches(info, spans, wanted, batch_size=self.batch_size, backend=self.backend):
                if encoder is not None:
                    made = encoder.embed_clips(batch.clips[ClipShape.of(encoder)])
                    vectors.write(batch.rows, made.vectors)
                    if made.features is not None:
                        features.write(batch.rows, made.features)
                if watcher is not None:
                    seen.write(batch.rows, watcher.watch(batch.clips[ClipShape.of(watcher)]))
                report("watching", batch.seconds)
        made_now = self.cache.read_array(video_id, VECTORS, space) if embed else None
        shape = (self.encoder.rows, self.encoder.dimension)
        if made_now is None:
            return np.zeros((0, *shape), np.float32)
        # Reshaped because an add that an older version began may have left [segments, dimension].
        return np.array(made_now, np.float32).reshape(len(spans), *shape)
