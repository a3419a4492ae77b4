"""MSR-VTT 1k-A (Xu et al. 2016; split of Yu et al. 2018): 1,000 videos and a sentence each, found by one another."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import VideoChat2Encoder, text_similarity
from videochat_tools.errors import BenchmarkError, MediaError
from videochat_tools.evaluation.benchmarks.base import (
    ANSWERED,
    SPREAD_ANYWAY,
    Benchmark,
    Context,
    Record,
    Sections,
    share_of,
)
from videochat_tools.evaluation.benchmarks.files import Row, find_annotations, find_file, read_rows
from videochat_tools.evaluation.benchmarks.footage import Footage, blank_frames, read_frames

__all__ = ["MSRVTT", "rank_again", "rank_of"]

logger = logging.getLogger(__name__)

RERANKED = 128  # best by similarity that the matching head puts in order
RANKS = (1, 5, 10)
DIRECTIONS = {"text to video": "text_to_video", "video to text": "video_to_text"}
WAYS = {"embeddings only": "similarity", f"best {RERANKED} re-ranked by matching": "matching"}


@dataclass(frozen=True, slots=True)
class PairItem:
    """A sentence and its video."""

    id: str
    video: str
    path: Path
    question: str  # the sentence


class MSRVTT(Benchmark[PairItem]):
    """``msrvtt_test1k.json`` (a list of ``video`` and ``caption``) and ``videos/…``.

    All videos are embedded first (kept in ``embeddings/`` of the output); a limit asks fewer questions of the same
    pool. Where the encoder has a matching head, it puts the best 128 in order again.
    """

    name: ClassVar[str] = "msrvtt"
    uses: ClassVar[tuple[str, ...]] = ("encoder",)
    controls: ClassVar[tuple[str, ...]] = ("blank",)
    senseless: ClassVar[Mapping[str, str]] = {
        "text-only": "sentences and videos are compared, and without videos there is nothing to compare with",
        "uniform": SPREAD_ANYWAY,
    }

    def __init__(self, data: Path) -> None:
        path = find_annotations(data, "msrvtt_test1k.json", "msrvtt_ret_test1k.json")
        self._items = [_item(row, data) for row in read_rows(path)]
        self._failed: dict[str, MediaError] = {}

    @property
    def items(self) -> Sequence[PairItem]:
        """All pairs."""
        return self._items

    def is_there(self, item: PairItem) -> bool:
        """Whether its video is on this machine."""
        return item.path.is_file()

    def prepare(self, context: Context) -> None:
        """Embed every video that has not been embedded yet."""
        encoder, blank = context.models.encoder, context.control == "blank"
        if isinstance(encoder, VideoChat2Encoder):
            encoder.keeps_features = True  # a library keeps no large ones, but matching needs them
        self._folder = context.place("embeddings")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._pool = []
        for place, item in enumerate(self._items):
            path = self._file(place)
            if not path.is_file() and (blank or self.is_there(item)):
                try:
                    shown = (
                        blank_frames(encoder.num_frames, encoder.frame_size)
                        if blank
                        else read_frames(Footage(item.path), encoder.num_frames, encoder.frame_size)
                    )
                except MediaError as error:
                    self._failed[item.id] = error
                    continue
                embedded = encoder.embed_clips(shown.frames[None])
                none = np.zeros(0, np.float16)
                _save(path, embedded.vectors[0], none if embedded.features is None else embedded.features[0])
            if path.is_file():
                self._pool.append(place)
        logger.info("%d of %d videos are embedded", len(self._pool), len(self._items))
        if not self._pool:
            raise BenchmarkError(f"none of the {len(self._items)} videos is there, such as {self._items[0].path}")
        self._vectors = np.stack([self._load(place, "vectors") for place in self._pool])
        self._texts = encoder.embed_texts([item.question for item in self._items])

    def measure(self, item: PairItem, context: Context) -> Record:
        """Ranks of the right video among all videos, and of the right sentence among all sentences."""
        if item.id in self._failed:
            raise self._failed[item.id]
        encoder, place = context.models.encoder, int(item.id)
        row = self._pool.index(place)
        to_videos = text_similarity(self._texts[[place]], self._vectors)[0]
        to_texts = text_similarity(self._texts, self._vectors[[row]])[:, 0]
        ranks = {
            "text_to_video": {"similarity": rank_of(to_videos, row)},
            "video_to_text": {"similarity": rank_of(to_texts, place)},
        }
        features = self._load(place, "features")
        if features.size:
            best = np.argsort(-to_videos, kind="stable")[:RERANKED]
            matched = encoder.match(item.question, np.stack([self._load(self._pool[n], "features") for n in best]))
            ranks["text_to_video"]["matching"] = rank_again(to_videos, best, matched, row)
            best = np.argsort(-to_texts, kind="stable")[:RERANKED]
            matched = np.concatenate([encoder.match(self._items[n].question, features[None]) for n in best])
            ranks["video_to_text"]["matching"] = rank_again(to_texts, best, matched, place)
        return {"ranks": ranks, "pool": len(self._pool)}

    def score(self, items: Sequence[PairItem], records: Mapping[str, Record]) -> Sections:
        """Recall in both directions."""
        sections: Sections = {}
        for direction, key in DIRECTIONS.items():
            for way, kind in WAYS.items():
                if not any(kind in record.get("ranks", {}).get(key, {}) for record in records.values()):
                    continue
                sections[f"{direction}, {way}"] = [
                    share_of(
                        f"R@{k}",
                        items,
                        partial(_is_within, records=records, direction=key, way=kind, k=k),
                        k / len(self._items),
                    )
                    for k in RANKS
                ]
        return sections

    def facts(self, items: Sequence[PairItem], records: Mapping[str, Record]) -> dict[str, Any]:
        """Median ranks, and the videos that were searched."""
        answered = [records[item.id] for item in items if records[item.id]["status"] == ANSWERED]
        facts: dict[str, Any] = {"videos in the pool": f"{len(self._pool)} of {len(self._items)}"}
        for direction, key in DIRECTIONS.items():
            for way, kind in WAYS.items():
                ranks = [record["ranks"][key][kind] for record in answered if kind in record["ranks"][key]]
                if ranks:
                    facts[f"median rank, {direction}, {way}"] = median(ranks)
        return facts

    def _file(self, place: int) -> Path:
        return self._folder / f"{place:05d}.npz"

    def _load(self, place: int, name: str) -> npt.NDArray[Any]:
        with np.load(self._file(place), allow_pickle=False) as kept:
            array: npt.NDArray[Any] = kept[name]
            return array


def rank_of(values: npt.NDArray[np.floating[Any]], right: int) -> int:
    """Rank of one entry, from 1; equal ones stand before it, so that knowing nothing gains nothing."""
    return int((values >= values[right]).sum())


def rank_again(
    similarity: npt.NDArray[np.floating[Any]], best: npt.NDArray[np.int64], matched: npt.NDArray[Any], right: int
) -> int:
    """Rank after the best were put in a new order; who is not among them keeps its place."""
    among = np.flatnonzero(best == right)
    return rank_of(matched, int(among[0])) if len(among) else max(len(best) + 1, rank_of(similarity, right))


def _is_within(item: PairItem, *, records: Mapping[str, Record], direction: str, way: str, k: int) -> bool:
    return bool(records[item.id].get("ranks", {}).get(direction, {}).get(way, np.inf) <= k)


def _save(path: Path, vectors: npt.NDArray[np.float32], features: npt.NDArray[np.float16]) -> None:
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, vectors=vectors, features=features)
    os.replace(unfinished, path)


def _item(row: Row, data: Path) -> PairItem:
    video, caption = row.text("video"), row.fields.get("caption")
    text = row.texts("caption")[0] if isinstance(caption, list) else row.text("caption")
    path = find_file(data, f"videos/{video}", f"MSRVTT_Videos/{video}", f"videos/all/{video}", video)
    return PairItem(str(row.number - 1), video, path, text)
