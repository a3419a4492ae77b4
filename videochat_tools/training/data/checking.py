"""Annotation files read from end to end, with everything that is wrong in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from videochat_tools.errors import MediaError, UnsupportedContentError
from videochat_tools.training.released.samples import CaptionSample, InstructionSample, read_sample

from .annotations import RawEntry, scan
from .corpora import FOLDER_FPS, Medium
from .decoding import DecodingPool
from .reading import Clip, ClipRequest, clip_seconds, read_clip
from .records import find_faults, unknown_keys
from .sampling import ClipSampling

__all__ = ["CheckOptions", "Counts", "Fault", "UnknownKey", "check_file", "lists_corpora"]

END_TOLERANCE = 1.0  # seconds that a part may end after its video: the lengths of videos are often rounded up

_LATELY = 1024  # clips that are remembered: entries about one clip mostly stand together

_LOOK = ClipSampling(sample="middle", size=32, augment=False)  # frames spread over the clip; nobody sees the pixels


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How thoroughly to look.

    Attributes:
        root: What paths are relative to; None does not look for media.
        medium: What the corpus shows; None takes any.
        folder_fps: Pictures a second of frame folders.
        decode: Decode some frames of every clip as training would, and compare spans with the length of the video.
        workers: Processes that decode.
        time_limit: Seconds that one clip may take.
    """

    root: Path | None = None
    medium: Medium | None = None
    folder_fps: float = FOLDER_FPS
    decode: bool = False
    workers: int = 2
    time_limit: float = 120.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with one entry."""

    entry: int  # counted from 1
    line: int  # of the file, counted from 1, where the entry begins
    reason: str


@dataclass(slots=True)
class UnknownKey:
    """A key that nobody reads: how often, and where first."""

    key: str
    count: int
    entry: int
    line: int


@dataclass(slots=True)
class Counts:
    """What a file holds."""

    entries: int = 0
    bad: int = 0
    missing: int = 0
    video: int = 0
    image: int = 0
    text: int = 0
    captions: int = 0
    conversations: int = 0
    turns: int = 0
    decoded: int = 0
    unknown: dict[str, UnknownKey] = field(default_factory=dict)


def check_file(
    path: Path, options: CheckOptions, counts: Counts, progress: Callable[[], object] | None = None
) -> Iterator[Fault]:
    """Every fault of every entry, in the order of the file.

    Args:
        path: An annotation file.
        options: How thoroughly to look.
        counts: Filled as the file is read.
        progress: Called for each entry that is done.

    Raises:
        TrainingDataError: The file cannot be opened.
    """
    pool = (
        DecodingPool(partial(_look_at, sampling=_LOOK), options.workers, options.time_limit) if options.decode else None
    )
    lately: dict[ClipRequest, Future[str | None]] = {}
    waiting: deque[tuple[RawEntry, Future[str | None] | None, list[str]]] = deque()

    def finish() -> Iterator[Fault]:
        entry, looked, faults = waiting.popleft()
        if looked is not None:
            counts.decoded += 1
            reason = looked.result()
            faults = faults if reason is None else [*faults, reason]
        counts.bad += bool(faults)
        if progress is not None:
            progress()
        yield from (Fault(entry.number, entry.line, reason) for reason in faults)

    try:
        exists = lru_cache(maxsize=1 << 16)(Path.exists)  # many entries are about the same few media
        for entry in scan(path):
            counts.entries += 1
            faults = [entry.fault] if entry.fault is not None else find_faults(entry.value, options.medium)
            _count_keys(entry, counts)
            looked = None
            if not faults:
                request = _request(entry.value, options, counts)
                if request is not None and not exists(request.path):
                    counts.missing += 1
                    faults.append(f"there is no {request.path}")
                elif request is not None and pool is not None:
                    looked = lately.get(request) or pool.submit(partial(_reason, pool, request))
                    lately[request] = looked
                    while len(lately) > _LATELY:
                        del lately[next(iter(lately))]
            waiting.append((entry, looked, faults))
            while len(waiting) > 4 * options.workers:
                yield from finish()
        while waiting:
            yield from finish()
    finally:
        if pool is not None:
            pool.close()


def lists_corpora(path: Path) -> bool:
    """Whether a file names annotation files, in place of holding samples."""
    if path.suffix != ".json":
        return path.suffix in (".toml", ".yaml", ".yml")
    first = next(scan(path), None)
    value = None if first is None else first.value
    if isinstance(value, list):  # the released form; samples are objects
        return len(value) > 1 and all(isinstance(part, str) for part in value)
    return isinstance(value, dict) and "annotation" in value


def _count_keys(entry: RawEntry, counts: Counts) -> None:
    for key in set(unknown_keys(entry.value)):
        known = counts.unknown.setdefault(key, UnknownKey(key, 0, entry.number, entry.line))
        known.count += 1


def _request(record: Any, options: CheckOptions, counts: Counts) -> ClipRequest | None:
    """Count a good entry; what it shows, if that is to be looked for."""
    sample: CaptionSample | InstructionSample = read_sample(record)
    setattr(counts, sample.kind or "text", getattr(counts, sample.kind or "text") + 1)
    span = None
    if isinstance(sample, CaptionSample):
        counts.captions += 1
    else:
        counts.conversations += 1
        counts.turns += len(sample.turns)
        if sample.start is not None and sample.end is not None:
            span = (sample.start, sample.end)
    if sample.kind is None or sample.path is None or options.root is None:
        return None
    return ClipRequest(options.root / sample.path, sample.kind, span, options.folder_fps)


def _reason(pool: DecodingPool, request: ClipRequest) -> str | None:
    try:
        pool.read(request)
    except MediaError as error:
        return str(error)
    return None


def _look_at(request: ClipRequest, sampling: ClipSampling) -> Clip:
    """The clip as training would read it; an error if it ends well after its video."""
    clip = read_clip(request, sampling)
    if request.span is not None:
        seconds = clip_seconds(request)
        if request.span[1] > seconds + END_TOLERANCE:
            raise UnsupportedContentError(
                f"the part ends at {request.span[1]:g} s, but {request.path} at {seconds:.1f} s"
            )
    return clip
