"""The decision what a file needs: all of it, a part, or nothing; and the one transaction that it ends in."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from videochat_tools.errors import MediaError, VideoChatError
from videochat_tools.library.catalog import Catalog, NewVideo
from videochat_tools.library.ingest import WORK_KINDS, Ingestor, content_id
from videochat_tools.library.progress import ProgressMeter
from videochat_tools.types import VideoInfo, VideoRecord

__all__ = ["AddResult", "Adder"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of one file. ``record`` is there unless ``status`` is ``"failed"``; then ``error`` is."""

    source: Path
    status: Literal["added", "unchanged", "updated", "failed"]  # updated: made ready for another model
    record: VideoRecord | None = None
    error: VideoChatError | None = None
    replaced: VideoRecord | None = None  # the video that was at this path before the file was overwritten
    elapsed: float = 0.0  # seconds that it took

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in seconds."""
        return {
            "source": str(self.source),
            "status": self.status,
            **({"video": self.source.name} if self.record is None else self.record.to_dict()),
            "error": None if self.error is None else str(self.error),
            "seconds": round(self.elapsed, 2),
        }


@dataclass(frozen=True)
class Adder:
    """Adds one file after the other to an open catalog."""

    catalog: Catalog
    ingestor: Ingestor
    meter: ProgressMeter

    def add(self, path: Path, info: VideoInfo) -> AddResult:
        """Add one file. What is this file's fault is reported; what would stop every file is raised."""
        started = time.monotonic()
        video_id = None
        try:
            video_id = content_id(path)
            known = self.catalog.video(video_id)
            status: Literal["added", "unchanged", "updated"] = "unchanged"
            replaced = None
            if known is None:
                replaced, status = self._add_new(video_id, path, info), "added"
            elif self._refresh(known, path, info):
                status = "updated"
        except MediaError as error:
            if video_id is not None:
                self.ingestor.cache.forget(video_id, None if self.catalog.video(video_id) is None else WORK_KINDS)
            self.meter.finish(path.name, info.duration, counted=False)
            return AddResult(path, "failed", error=error, elapsed=time.monotonic() - started)
        self.meter.finish(path.name, info.duration, counted=status != "unchanged")
        record = self.catalog.video(video_id)
        return AddResult(path, status, record=record, replaced=replaced, elapsed=time.monotonic() - started)

    def _add_new(self, video_id: str, path: Path, info: VideoInfo) -> VideoRecord | None:
        """Everything about a new video. Returns the video whose file was overwritten by this one, if one was."""
        ingestor = self.ingestor

        def report(stage: str, seconds: float) -> None:
            self.meter.at(path.name, stage, seconds)

        report("segmenting", 0.0)
        spans = ingestor.spans(video_id, info)
        report("transcribing", 0.0)
        transcript = ingestor.transcript(video_id, path)
        report("watching", 0.0)
        vectors = ingestor.look(video_id, info, spans, report)
        # The same path with other content: what the library knows of the old content can no longer be shown.
        replaced = next((record for record in self.catalog.videos() if record.path == path), None)
        self.catalog.add_video(
            NewVideo(video_id, path, info, spans, transcript, ingestor.encoder.fingerprint, vectors),
            replaces=[] if replaced is None else [replaced.video_id],
        )
        ingestor.cache.forget(video_id, WORK_KINDS)
        if replaced is not None:
            logger.info("%s has new content; what the library held of the old one is removed", path)
            ingestor.cache.forget(replaced.video_id)
        return replaced

    def _refresh(self, known: VideoRecord, path: Path, info: VideoInfo) -> bool:
        """Follow the file of a video that is here, and make what the models still lack; whether anything was made."""
        if path != known.path and not known.path.exists():
            logger.info("%s is now at %s", known.path, path)
            self.catalog.move_video(known.video_id, path)
        ingestor = self.ingestor
        spans = [segment.span for segment in self.catalog.segments(known.video_id)]
        embedded = known.video_id not in self.catalog.not_embedded(ingestor.encoder.fingerprint)
        embedded = embedded and ingestor.has_features(known.video_id, spans)
        if embedded and ingestor.has_tokens(known.video_id, spans):
            return False
        vectors = ingestor.look(
            known.video_id, info, spans, lambda stage, done: self.meter.at(path.name, stage, done), embed=not embedded
        )
        if not embedded:
            self.catalog.add_vectors(known.video_id, ingestor.encoder.fingerprint, vectors)
        ingestor.cache.forget(known.video_id, WORK_KINDS)
        return True
