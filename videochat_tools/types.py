"""The values that travel between the parts of the package: spans of time, segments, hits, answers.

All times are seconds of *absolute presentation time* of the source file, as floats. Every value is frozen.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

__all__ = [
    "Answer",
    "AudioClip",
    "Evidence",
    "Frame",
    "SearchHit",
    "Segment",
    "TimeSpan",
    "Transcript",
    "Utterance",
    "VideoInfo",
    "VideoRecord",
    "format_timecode",
    "media_fragment",
    "parse_media_fragment",
    "parse_timecode",
    "split_media_fragment",
]


def format_timecode(seconds: float, *, tenths: bool = False) -> str:
    """Write seconds as ``mm:ss``, or ``h:mm:ss`` from one hour on; fractions are cut off.

    ``tenths``: as ``mm:ss.t``, with what is finer cut off.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"a timecode needs a finite time of at least 0 s, got {seconds!r}")
    whole, tenth = divmod(int(seconds * 10 + 1e-6), 10) if tenths else (int(seconds), 0)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    written = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
    return f"{written}.{tenth}" if tenths else written


_TIMECODE = re.compile(r"(?:(\d+):)?(\d{1,3}):([0-5]?\d(?:\.\d+)?)")


def parse_timecode(text: str) -> float:
    """Read ``mm:ss`` or ``h:mm:ss`` (a fraction of the second is allowed) as seconds."""
    match = _TIMECODE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a timecode: {text!r}; write mm:ss or h:mm:ss")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)


@dataclass(frozen=True, order=True, slots=True)
class TimeSpan:
    """A half-open span ``[start, end)`` of absolute presentation time, in seconds."""

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)) or self.start < 0 or self.end < self.start:
            raise ValueError(f"a time span needs 0 <= start <= end, got start={self.start!r}, end={self.end!r}")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    @property
    def middle(self) -> float:
        """The time half-way, in seconds."""
        return (self.start + self.end) / 2

    def intersection(self, other: TimeSpan) -> float:
        """Seconds that both spans share (0 if they are apart)."""
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))

    def overlaps(self, other: TimeSpan) -> bool:
        """Whether both spans share more than a point in time."""
        return self.intersection(other) > 0

    def iou(self, other: TimeSpan) -> float:
        """Intersection over union, 0..1."""
        shared = self.intersection(other)
        union = self.duration + other.duration - shared
        return shared / union if union > 0 else 0.0

    def union(self, other: TimeSpan) -> TimeSpan:
        """The shortest span that holds both (and whatever lies between them)."""
        return TimeSpan(min(self.start, other.start), max(self.end, other.end))

    def __str__(self) -> str:
        return f"{format_timecode(self.start)}–{format_timecode(self.end)}"


def media_fragment(uri: str, span: TimeSpan) -> str:
    """The public name of a piece of video: a W3C media fragment such as ``file:///talk.mp4#t=42,51``."""
    return f"{uri.split('#', 1)[0]}#t={_seconds(span.start)},{_seconds(span.end)}"


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


_FRAGMENT = re.compile(r"(?:^|&)t=(?:npt:)?(\d+\.?\d*|\.\d+)?(?:,(\d*\.?\d+))?(?:&|$)")


def split_media_fragment(name: str) -> tuple[str, float | None, float | None]:
    """Split a media fragment into its source, its start and its end in seconds (``None`` where it names none)."""
    source, _, fragment = name.partition("#")
    match = _FRAGMENT.search(fragment)
    start, end = (None, None) if match is None else match.groups()
    return source, None if start is None else float(start), None if end is None else float(end)


def parse_media_fragment(name: str) -> tuple[str, TimeSpan | None]:
    """Split a media fragment into its source and its span (``None`` where it names no end or no time)."""
    source, start, end = split_media_fragment(name)
    return source, None if end is None else TimeSpan(start or 0.0, end)


def uri_to_path(uri: str) -> Path:
    """The local path of a ``file://`` URI or of a plain path."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(uri)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file holds, as read from its container and first frames.

    Width and height are those of the picture as shown, after rotation. ``start`` is the presentation time of
    the first frame in the file's own clock; every other time in this package counts from it, so that the first
    frame is at 0 s.
    """

    path: Path
    container: str
    duration: float  # seconds
    start: float  # seconds, in the file's own clock
    width: int
    height: int
    fps: float  # average; 0.0 where unknown. Never used to place a frame in time.
    rotation: int  # degrees clockwise that were applied: 0, 90, 180 or 270
    video_codec: str
    audio_codec: str | None
    subtitle_codecs: tuple[str, ...] = ()

    @property
    def has_audio(self) -> bool:
        """Whether the file carries sound."""
        return self.audio_codec is not None


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: ``image`` is uint8 RGB of shape [height, width, 3], shown from ``time`` seconds on."""

    time: float
    image: npt.NDArray[np.uint8] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AudioClip:
    """Sound as float32 mono samples in [-1, 1] of shape [n]; the first sample is heard at ``start`` seconds."""

    samples: npt.NDArray[np.float32] = field(repr=False, compare=False)
    start: float = 0.0
    sample_rate: int = 16_000  # Hz, what Whisper expects

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something said, in the speaker's words."""

    span: TimeSpan
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """All utterances of one video in order of time, and where they come from.

    ``source`` is ``"subtitles"``, ``"whisper"`` or ``"none"``.
    """

    utterances: tuple[Utterance, ...]
    source: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of one video in a library, the unit that is embedded and retrieved."""

    video_id: str
    index: int  # 0-based, in order of time
    span: TimeSpan


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video of a library. ``video_id`` is derived from the content of the file."""

    video_id: str
    name: str  # file name, as shown to people
    path: Path
    info: VideoInfo
    segments: int
    utterances: int
    transcript_source: str  # "subtitles" | "whisper" | "none"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in seconds."""
        return {
            "video": self.name,
            "video_id": self.video_id,
            "path": str(self.path),
            "duration": round(self.info.duration, 3),
            "segments": self.segments,
            "utterances": self.utterances,
            "transcript": self.transcript_source,
        }


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One retrieved stretch of one video, best first. ``score`` is in 0..1; higher is better.

    ``visual`` is the probability-like match of the picture, ``speech`` that of the words; ``None`` where the
    channel did not find it. ``segments`` are the indices of the merged segments, ``text`` what is said there.
    ``anchor`` is what the hit comes after or before, where that was asked for; the probabilities then hold for both.
    """

    video_id: str
    video: str
    uri: str
    span: TimeSpan
    score: float
    visual: float | None = None
    speech: float | None = None
    segments: tuple[int, ...] = ()
    text: str = ""
    anchor: TimeSpan | None = None

    def __str__(self) -> str:
        said = f"  “{self.text}”" if self.text else ""
        return f"{self.video} [{self.span}] {self.score:.2f}{said}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in seconds."""
        return {
            "video": self.video,
            "video_id": self.video_id,
            "uri": media_fragment(self.uri, self.span),
            "start": round(self.span.start, 3),
            "end": round(self.span.end, 3),
            "score": round(self.score, 4),
            "visual": None if self.visual is None else round(self.visual, 4),
            "speech": None if self.speech is None else round(self.speech, 4),
            "text": self.text,
            "anchor": None if self.anchor is None else [round(self.anchor.start, 3), round(self.anchor.end, 3)],
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """A retrieved stretch of video that an answer rests on. ``cited``: the model itself named it."""

    hit: SearchHit
    cited: bool

    @property
    def video(self) -> str:
        """Name of the video."""
        return self.hit.video

    @property
    def span(self) -> TimeSpan:
        """Where in the video, in seconds."""
        return self.hit.span

    def __str__(self) -> str:
        return str(self.hit)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in seconds."""
        return {**self.hit.to_dict(), "cited": self.cited}


@dataclass(frozen=True, slots=True)
class Answer:
    """A checked answer. Every span in ``evidence`` was really retrieved.

    ``found`` is false when the evidence was too weak; the text then says so and ``evidence`` is empty.
    ``dropped`` holds the citations of the model that lie outside the retrieved spans, as it wrote them.
    """

    question: str
    text: str
    found: bool
    evidence: tuple[Evidence, ...] = ()
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in seconds."""
        return {
            "question": self.question,
            "text": self.text,
            "found": self.found,
            "evidence": [item.to_dict() for item in self.evidence],
            "dropped": list(self.dropped),
        }
