"""Multiple choice about long videos: the moment is searched for, then the model sees frames of what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from videochat_tools.evaluation.answers import same_place
from videochat_tools.evaluation.benchmarks.base import ANSWERED, CONTROLS, Context, Record, Sections, mean_of, share_of
from videochat_tools.evaluation.benchmarks.choices import ChoiceBenchmark, ChoiceItem, chance, right_letter
from videochat_tools.evaluation.benchmarks.footage import Shown, frames_at
from videochat_tools.library import LibraryStore
from videochat_tools.media import uniform_times
from videochat_tools.types import TimeSpan

__all__ = ["LongChoiceBenchmark", "found_windows"]

RANKS = (1, 5, 10)  # of recall
SHOWN = 4  # stretches that share the frames of the model, best first


class LongChoiceBenchmark(ChoiceBenchmark):
    """The video goes into a library of its own, is searched with the question, and the best stretches are shown.

    The control "uniform" shows as many frames, spread over the whole video: what the search adds is the difference.
    """

    uses: ClassVar[tuple[str, ...]] = ("chat", "encoder")
    controls: ClassVar[tuple[str, ...]] = CONTROLS
    senseless: ClassVar[Mapping[str, str]] = {}

    def show(self, item: ChoiceItem, context: Context) -> tuple[Shown, dict[str, Any]]:
        """Frames of the stretches found, shared equally; in order of time."""
        if context.control != "none":
            return super().show(item, context)
        chat = context.models.chat
        with LibraryStore(context.place("library"), encoder=context.models.encoder, transcriber=None) as library:
            spans, duration = _search(library, item, max(RANKS))
        seen = sorted(spans[:SHOWN])
        if not seen:  # nothing to search: too short for a segment
            return super().show(item, context)
        share = [chat.num_frames // len(seen) + (n < chat.num_frames % len(seen)) for n in range(len(seen))]
        times = [time for span, count in zip(seen, share, strict=True) if count for time in uniform_times(span, count)]
        shown = frames_at(item.footage.path, sorted(times), chat.frame_size)
        return shown, {"found": [[round(s.start, 3), round(s.end, 3)] for s in spans], "duration": round(duration, 3)}

    def score(self, items: Sequence[ChoiceItem], records: Mapping[str, Record]) -> Sections:
        """Answers; where the video was searched also how well the moment was found, and what finding it is worth."""
        sections = super().score(items, records)
        if not any("found" in record for record in records.values()):
            return sections

        def found(item: ChoiceItem, k: int) -> bool:
            return _is_found(item, records[item.id], k)

        def right(item: ChoiceItem) -> bool:
            return _is_right(item, records[item.id])

        timed = [item for item in items if item.windows]
        sections["moment found"] = [
            *(share_of(f"recall@{k}", timed, partial(found, k=k)) for k in RANKS),
            mean_of("IoU of the first", timed, lambda item: _best_iou(item, records[item.id])),
        ]
        known = [item for item in timed if item.answer is not None]
        hit = [item for item in known if found(item, SHOWN)]
        missed = [item for item in known if not found(item, SHOWN)]
        sections["right, by what was shown"] = [
            share_of("the moment among it", hit, right, chance(hit)),
            share_of("not the moment", missed, right, chance(missed)),
        ]
        return sections


def found_windows(record: Record) -> list[TimeSpan]:
    """The stretches that a search found, best first; none where there was no search."""
    return [TimeSpan(*span) for span in record.get("found", ())]


def _search(library: LibraryStore, item: ChoiceItem, k: int) -> tuple[list[TimeSpan], float]:
    """The best stretches of the item's video and its length; it is added to the library when it is new."""
    path = item.footage.path.absolute()
    record = next((known for known in library.list() if known.path == path), None)
    if record is None:
        (result,) = library.add(path)
        if result.error is not None:
            raise result.error
        record = library.get(path)
    hits = library.search(item.question, k=k, videos=[record.video_id])
    return [hit.span for hit in hits], record.info.duration


def _is_found(item: ChoiceItem, record: Record, k: int) -> bool:
    found = found_windows(record)[:k]
    return any(same_place(span, window) for span in found for window in item.windows)


def _best_iou(item: ChoiceItem, record: Record) -> float:
    found = found_windows(record)[:1]
    return max((span.iou(window) for span in found for window in item.windows), default=0.0)


def _is_right(item: ChoiceItem, record: Record) -> bool:
    return record["status"] == ANSWERED and right_letter(str(record["prediction"]), item)
