"""From what a model wrote to an answer whose every cited span was really retrieved.

A citation is a time or a span in square brackets or parentheses: ``[00:42–00:51]``, also with a hyphen, an em
dash or "to", with hours, with fractions, several in one bracket, or after the name of a video
(``[talk.mp4 00:42–00:51]``). It is snapped to the retrieved clips that it lies in; what lies in none is taken
out of the text and reported in :attr:`Answer.dropped`. A span in the running text ("from 00:42 to 00:51") is
verified in the same way, but not within quotation marks: there somebody else may speak of opening hours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from videochat_tools.context import NOT_FOUND, citation
from videochat_tools.types import Answer, Evidence, SearchHit, TimeSpan, parse_timecode

SNAP_TOLERANCE = 1.0  # seconds: timecodes are written in whole seconds, with the fraction cut off

_TIME = r"\d+(?::\d\d){1,2}(?:\.\d+)?"
_SPAN = rf"{_TIME}(?:\s*(?:[-\u2010-\u2015\u2212~]|to|until)\s*{_TIME})?"
_RANGE = re.compile(_SPAN.replace(_TIME, f"({_TIME})"))
# Square brackets may hold other words too; parentheses only times, because prose has (16:9) and (at 4:30 pm).
_CITED = re.compile(
    rf"\[(?P<square>[^\[\]]*?{_TIME}[^\[\]]*)\]"
    rf"|\(\s*(?P<round>{_SPAN}(?:\s*(?:[,;]|and)\s*{_SPAN})*)\s*\)"
    rf"|(?P<quoted>\"[^\"]*\"|“[^”]*”)"
    rf"|(?:\b(?:from|between|at)\s+)?(?P<bare>(?<![\d:.]){_TIME}\s*(?:[-\u2010-\u2015\u2212~]|to|until|and)\s*{_TIME})"
)
_LABEL_EDGE = " \t,;:@#=&|"


@dataclass(frozen=True, slots=True)
class Citation:
    """One cited time, as written. ``span`` is ``None`` where the writing names no possible span of time."""

    raw: str  # with the label that stood before it, without brackets
    span: TimeSpan | None  # a single time has start == end
    label: str  # the words before it in its bracket: perhaps the name of a video


def parse_citations(text: str) -> list[Citation]:
    """All citations of a text in the order written."""
    return [cited for match in _CITED.finditer(text) for cited in _citations(match)]


def _citations(written: re.Match[str]) -> list[Citation]:
    inner = written["square"] or written["round"] or written["bare"] or ""
    found, label, position = [], "", 0
    for match in _RANGE.finditer(inner):
        before = inner[position : match.start()].strip(_LABEL_EDGE)
        label = before if before.lower() not in ("", "and", "or") else label  # holds for the whole list after it
        found.append(Citation(f"{label} {match[0]}".strip(), _span(match[1], match[2]), label))
        position = match.end()
    return found


def _span(start: str, end: str | None) -> TimeSpan | None:
    try:
        first = parse_timecode(start)
        return TimeSpan(first, first if end is None else parse_timecode(end))
    except ValueError:  # 00:75, or the end before the start
        return None


def without_citations(text: str) -> str:
    """A text without the times that are cited in brackets."""
    return _tidy(_CITED.sub(lambda written: written[0] if written["quoted"] or written["bare"] else "", text))


def says_not_found(text: str) -> bool:
    """Whether the model itself says that the answer is not there."""
    words = " ".join(re.findall(r"[a-z]+", text.lower()))
    return words.startswith("not found")


def not_found(question: str, dropped: Sequence[str] = (), *, unknown_words: Sequence[str] = ()) -> Answer:
    """The explicit answer that the evidence does not hold one; it admits which words the model has not learned."""
    admitted = (
        f" (The model has not learned what this looks like: {', '.join(unknown_words)}.)" if unknown_words else ""
    )
    return Answer(question, NOT_FOUND + admitted, found=False, dropped=tuple(dropped))


def check_answer(question: str, text: str, clips: Sequence[SearchHit], *, tolerance: float = SNAP_TOLERANCE) -> Answer:
    """Verify what a model wrote against the clips it was given.

    Args:
        question: what was asked.
        text: what the model wrote.
        clips: the clips that it watched, best first; only their spans may be cited.
        tolerance: seconds that a citation may reach over the ends of a clip.

    Returns:
        The answer with the citations written as the spans they were snapped to. Its evidence is the cited clips
        in the order cited, or, where the model cites none of them, the best clip with ``cited`` false.
    """
    if not clips:
        raise ValueError("an answer is checked against the clips that were watched, got none")
    evidence: list[SearchHit] = []
    dropped: list[str] = []

    def verified(written: re.Match[str]) -> str:
        if written["quoted"]:
            return written[0]
        kept: list[str] = []
        for cited in _citations(written):
            supporting = _supporting(cited, clips, tolerance)
            if not supporting:
                dropped.append(cited.raw)
            for clip in supporting:
                if clip not in evidence:
                    evidence.append(clip)
                name = f"[{clip.video} {clip.span}]" if _names(cited.label, clip) else citation(clip.span)
                if name not in kept:
                    kept.append(name)
        return written[0] if kept and written["bare"] else " ".join(kept)

    checked = _tidy(_CITED.sub(verified, text))
    if says_not_found(checked) or not re.search(r"\w", checked):  # a citation alone does answer "when …?"
        return not_found(question, dropped)
    if evidence:
        return Answer(question, checked, True, tuple(Evidence(clip, cited=True) for clip in evidence), tuple(dropped))
    return Answer(question, checked, True, (Evidence(clips[0], cited=False),), tuple(dropped))


def _supporting(cited: Citation, clips: Sequence[SearchHit], tolerance: float) -> list[SearchHit]:
    """The clips that a citation lies in: one, or neighbours of one video which cover it together.

    Where videos share the timecode and the citation names none of them, the video of the best clip is meant.
    """
    span = cited.span
    if span is None:
        return []
    for video_id in _meant(cited.label, clips):
        group = sorted((clip for clip in clips if clip.video_id == video_id), key=lambda clip: clip.span)
        inside = [clip for clip in group if _within(span, clip.span, tolerance)]
        if inside:
            return [max(inside, key=lambda clip: (_shared(span, clip.span), clip.score))]
        run: list[SearchHit] = []
        for clip in group:
            if run and clip.span.start - run[-1].span.end > tolerance:
                run = []
            run.append(clip)
            if _within(span, run[0].span.union(clip.span), tolerance):
                return [part for part in run if part.span.overlaps(span)]
    return []


def _meant(label: str, clips: Sequence[SearchHit]) -> list[str]:
    """Ids of the videos that a citation may be about, that of the best clip first."""
    ids = list(dict.fromkeys(clip.video_id for clip in clips))
    named = [clip.video_id for clip in clips if _names(label, clip)]
    if named:
        return list(dict.fromkeys(named))
    looks_like_file = re.search(r"\.\w{2,4}$", label) is not None
    return [] if looks_like_file else ids


def _names(label: str, clip: SearchHit) -> bool:
    return label.lower() in (clip.video.lower(), PurePath(clip.video).stem.lower(), clip.video_id.lower())


def _within(inner: TimeSpan, outer: TimeSpan, tolerance: float) -> bool:
    return inner.start >= outer.start - tolerance and inner.end <= outer.end + tolerance


def _shared(cited: TimeSpan, clip: TimeSpan) -> float:
    """Seconds in common; a single time counts as a second, so that it prefers the clip it is inside of."""
    return clip.intersection(TimeSpan(cited.start, max(cited.end, cited.start + 1.0)))


def _tidy(text: str) -> str:
    """Close the gaps that a citation leaves: doubled spaces, a space before a full stop, empty brackets."""
    text = re.sub(r"\(\s*\)|\[\s*\]", "", text)
    text = re.sub(r"[ \t]{2,}", " ", text)
    return re.sub(r"[ \t]+([.,;:!?])", r"\1", text).strip()
