"""Batches of several corpora, one medium each, in an order that follows from the seed alone."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from videochat_tools.errors import TrainingDataError, UnsupportedContentError, VideoChatError
from videochat_tools.training.released.samples import CaptionSample, InstructionSample, read_sample

from .annotations import AnnotationFile
from .corpora import MEDIA, Corpus, Medium
from .decoding import DecoderLostError, DecodingPool
from .failures import Failures
from .reading import Clip, ClipRequest, read_clip
from .sampling import ClipSampling

__all__ = ["Mixture", "SampleBatch"]

_REPLACEMENTS = 100  # other samples tried in place of one that cannot be read


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """What one process sees in one step.

    Attributes:
        medium: What all its samples show.
        samples: Conversations with their turns shuffled, or captions.
        ids: Identity of what is shown: equal for two samples of one video (and one part of it). 63 bits.
        pixels: One [T, 3, H, W] float32 each, of equal sizes unless there are tiles; empty for text.
        times: Seconds of the frames of each, from the start of the whole video; empty for images and text.
    """

    medium: Medium
    samples: tuple[CaptionSample | InstructionSample, ...]
    ids: tuple[int, ...]
    pixels: tuple[Tensor, ...]
    times: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    """One sample of a batch."""

    sample: CaptionSample | InstructionSample
    id: int
    clip: Clip | None
    failed: tuple[tuple[str, str], ...]  # what could not be read before it: place and reason


class Mixture:
    """An endless supply of epochs over several corpora.

    Everything about batch i of an epoch (its samples, their frames, augmentation and order of turns) is a function of
    the seed, the epoch, i and the place in the global batch, which is ``world_size`` times as large as that of one
    process: process r takes the places from r times its size on. So any epoch can be entered anywhere without decoding
    what comes before, and two processes see together what one sees at twice the batch size.

    A batch shows one medium. The order of the media is drawn anew for each epoch, each as often as it fills batches;
    samples that do not fill the last one are left out, others each epoch. A sample that cannot be read is replaced by
    another of its corpus and counted in ``failures``.

    Args:
        corpora: At least one.
        sampling: How clips become pixels.
        batch_size: Samples of one process in one step; one number, or one for each medium.
        seed: Of all that chance decides.
        rank: Number of this process, from 0.
        world_size: How many processes there are.
        workers: Processes that decode, for each process that trains; they change nothing about the batches. 0 decodes
            in this one, which a file that crashes or hangs the decoder then takes with it.
        prefetch: Batches that the workers are ahead.
        time_limit: Seconds that a worker may take for one clip, before it is ended and the sample counts as unreadable.

    Raises:
        TrainingDataError: An annotation file cannot be used, or a medium does not fill one batch.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        sampling: ClipSampling,
        *,
        batch_size: int | Mapping[str, int],
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        time_limit: float = 120.0,
    ) -> None:
        if not corpora:
            raise TrainingDataError("there is nothing to train on; give at least one corpus")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be one of 0 .. {world_size - 1}, got {rank}")
        self.corpora = tuple(corpora)
        self.sampling = sampling
        self.failures = Failures()
        self._files = [AnnotationFile(corpus.annotation) for corpus in self.corpora]
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._prefetch = max(1, prefetch)
        self._read_clip = partial(read_clip, sampling=sampling)
        self._pool = DecodingPool(self._read_clip, workers, time_limit) if workers > 0 else None
        self._lost: dict[Path, str] = {}  # what crashed or hung a decoder is not given to another one
        self._sizes: dict[Medium, int] = {}  # of one process's batch
        self._batches: dict[Medium, int] = {}  # in an epoch
        for medium in MEDIA:
            total = sum(len(self._files[number]) for number in self._numbers(medium))
            if not total:
                continue
            size = self._sizes[medium] = _size_of(batch_size, medium)
            self._batches[medium] = total // (size * world_size)
            if not self._batches[medium]:
                raise TrainingDataError(
                    f"{total} {medium} samples do not fill one batch of {size} x {world_size} processes; "
                    "lower the batch size or add a corpus"
                )

    def __len__(self) -> int:
        """Batches of an epoch, the same for every process."""
        return sum(self._batches.values())

    @property
    def counts(self) -> dict[Medium, int]:
        """Batches of an epoch by medium."""
        return dict(self._batches)

    @property
    def samples(self) -> dict[str, int]:
        """Entries by name of the corpus."""
        return {corpus.name: len(file) for corpus, file in zip(self.corpora, self._files, strict=True)}

    @property
    def worker_pids(self) -> list[int]:
        """Numbers of the decoding processes that have been started and are running."""
        return [] if self._pool is None else self._pool.pids

    def epoch(self, number: int, start: int = 0) -> Iterator[SampleBatch]:
        """The batches of one epoch.

        Args:
            number: Which, from 0.
            start: Begin with this batch, counted from 0; what comes before it is not read.
        """
        planned = self._plan(number, start)
        if self._pool is None:
            for medium, items in planned:
                yield self._batch(medium, [self._show(*item) for item in items])
            return
        ahead: deque[tuple[Medium, list[Future[_Shown]]]] = deque()
        try:
            while True:
                for medium, items in islice(planned, 1 + self._prefetch - len(ahead)):
                    ahead.append((medium, [self._pool.submit(partial(self._show, *item)) for item in items]))
                if not ahead:
                    return
                medium, futures = ahead[0]
                shown = [future.result() for future in futures]
                ahead.popleft()
                yield self._batch(medium, shown)
        finally:
            for _, futures in ahead:
                for future in futures:
                    future.cancel()

    def close(self) -> None:
        """End the worker processes. No epoch can be read afterwards."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Which samples

    def _numbers(self, medium: Medium) -> list[int]:
        return [number for number, corpus in enumerate(self.corpora) if corpus.medium == medium]

    def _plan(self, epoch: int, start: int) -> Iterator[tuple[Medium, list[tuple[int, int, str]]]]:
        """The batches from ``start`` on: medium, and for each of this process's samples corpus, entry and draws."""
        order = [medium for medium, count in self._batches.items() for _ in range(count)]
        random.Random(f"{self._seed}:{epoch}:order").shuffle(order)
        shuffled = {medium: self._permutation(epoch, medium) for medium in self._batches}
        used: dict[Medium, int] = dict.fromkeys(self._batches, 0)
        for index, medium in enumerate(order):
            size = self._sizes[medium]
            if index >= start:
                places = range(self._rank * size, (self._rank + 1) * size)  # in the global batch
                chosen = [self._locate(medium, int(shuffled[medium][used[medium] + place])) for place in places]
                draws = f"{self._seed}:{epoch}:{index}"
                yield medium, [(*each, f"{draws}:{place}") for each, place in zip(chosen, places, strict=True)]
            used[medium] += size * self._world_size

    def _permutation(self, epoch: int, medium: Medium) -> npt.NDArray[np.int64]:
        total = sum(len(self._files[number]) for number in self._numbers(medium))
        entropy = hashlib.sha256(f"{self._seed}:{epoch}:{medium}".encode()).digest()
        # RandomState keeps its numbers for ever, unlike numpy's newer generators.
        state = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(int.from_bytes(entropy, "big"))))
        return state.permutation(total)

    def _locate(self, medium: Medium, position: int) -> tuple[int, int]:
        """Corpus and entry of one of all samples of a medium."""
        for number in self._numbers(medium):
            if position < len(self._files[number]):
                return number, position
            position -= len(self._files[number])
        raise IndexError(position)

    def _batch(self, medium: Medium, shown: Sequence[_Shown]) -> SampleBatch:
        for each in shown:
            for place, reason in each.failed:
                self.failures.add(place, reason)
        clips = [each.clip for each in shown if each.clip is not None]
        return SampleBatch(
            medium,
            tuple(each.sample for each in shown),
            tuple(each.id for each in shown),
            tuple(clip.pixels for clip in clips),
            tuple(clip.times for clip in clips),
        )

    # One sample

    def _show(self, number: int, entry: int, draws: str) -> _Shown:
        """A sample, or the first of others of the same corpus that can be read."""
        corpus, total = self.corpora[number], len(self._files[number])
        step = _coprime(random.Random(f"{draws}:step").randrange(1, max(2, total)), total)
        failed: list[tuple[str, str]] = []
        for attempt in range(min(total, _REPLACEMENTS)):
            other = (entry + attempt * step) % total
            place = f"{corpus.annotation}, entry {other + 1}"
            try:
                sample, request = self._request(number, other, f"{draws}:{attempt}")
                if request is None:
                    return _Shown(sample, _identity(place), None, tuple(failed))
                place = str(request.path)
                clip = self._read(request)
                return _Shown(sample, _identity(f"{request.path}\0{request.span}"), clip, tuple(failed))
            except TrainingDataError:
                raise
            except (VideoChatError, OSError) as error:
                failed.append((place, str(error)))
        raise TrainingDataError(
            f"none of {len(failed)} samples of {corpus.name} could be read; the last: {failed[-1][1]}"
        )

    def _read(self, request: ClipRequest) -> Clip:
        if self._pool is None:
            return self._read_clip(request)
        if request.path in self._lost:
            raise DecoderLostError(self._lost[request.path])
        try:
            return self._pool.read(request)
        except DecoderLostError as error:
            self._lost[request.path] = str(error)
            raise

    def _request(
        self, number: int, entry: int, draws: str
    ) -> tuple[CaptionSample | InstructionSample, ClipRequest | None]:
        """A sample with its turns shuffled, and what is to be shown with it."""
        corpus = self.corpora[number]
        sample = read_sample(self._files[number][entry])
        if (sample.kind or "text") != corpus.medium:
            raise UnsupportedContentError(
                f"{corpus.annotation}, entry {entry + 1} shows {sample.kind or 'nothing'}, but its corpus is of "
                f"{corpus.medium}; split the file"
            )
        if isinstance(sample, InstructionSample) and corpus.shuffle_turns:
            sample = sample.shuffled(random.Random(f"{draws}:turns"))
        if sample.kind is None or sample.path is None:
            return sample, None
        span = None
        if isinstance(sample, InstructionSample) and sample.start is not None and sample.end is not None:
            span = (sample.start, sample.end)
        return sample, ClipRequest(corpus.root / sample.path, sample.kind, span, corpus.folder_fps, draws)


def _size_of(batch_size: int | Mapping[str, int], medium: Medium) -> int:
    size = batch_size if isinstance(batch_size, int) else batch_size.get(medium)
    if not isinstance(size, int) or size < 1:
        raise TrainingDataError(f"the batch size of {medium} must be at least 1, got {size!r}")
    return size


def _coprime(step: int, total: int) -> int:
    """The first number from ``step`` on whose multiples reach every entry of ``total``."""
    while np.gcd(step, total) != 1:
        step += 1
    return step


def _identity(what: str) -> int:
    return int.from_bytes(hashlib.blake2b(what.encode(), digest_size=8).digest(), "big") >> 1
