"""Tools that find: which videos there are, where something is, what the answer to a question is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import ArgsSchema
from pydantic import Field

from videochat_tools.retrievers.query import analyse, content_words
from videochat_tools.retrievers.temporal import CHANNELS
from videochat_tools.tools.base import (
    MAX_QUOTED,
    Arguments,
    Artifact,
    Content,
    Name,
    Seconds,
    VideoTool,
    Words,
    bounded_lines,
    clip_entry,
    exact,
    shortened,
    window,
)
from videochat_tools.types import Answer, SearchHit, TimeSpan, VideoRecord, format_timecode

PAGE = 25  # videos listed at a time
MAX_K = 20


class ListArguments(Arguments):
    """Arguments of list_videos."""

    contains: Name | None = Field(default=None, description="Only videos whose name contains this text.")
    offset: int = Field(default=0, ge=0, description="How many videos to skip, to read a long list on.")


class ListVideos(VideoTool):
    """Which videos the library holds."""

    name: str = "list_videos"
    description: str = (
        "List the videos of the library: name, id, length, and whether anything is said in them. "
        "Call this first when you do not know which videos there are or how a video is called."
    )
    args_schema: ArgsSchema | None = ListArguments

    def use(self, contains: str | None = None, offset: int = 0) -> tuple[Content, Artifact]:
        """The list, a page at a time."""
        records = [record for record in self.library.list() if (contains or "").lower() in record.name.lower()]
        page = records[offset : offset + PAGE]
        lines = bounded_lines(_video_line(record) for record in page)
        shown = page[: len(lines)]
        artifact = {"videos": [record.to_dict() for record in shown], "total": len(records)}
        if not records:
            return (
                "The library is empty." if contains is None else f"No video has {contains!r} in its name."
            ), artifact
        if not shown:
            return f"There are {len(records)} videos; an offset of {offset} is behind the last.", artifact
        last = offset + len(shown)
        title = f"Videos {offset + 1}–{last} of {len(records)}:"
        if last < len(records):
            lines.append(f"… and {len(records) - last} more: call list_videos with offset={last}.")
        return "\n".join([title, *lines]), artifact


def _video_line(record: VideoRecord) -> str:
    said = "nothing is said" if not record.utterances else f"{record.utterances} utterances"
    duration = record.info.duration
    return f"- {record.name} (id {record.video_id}): {format_timecode(duration)} long ({duration:.1f} s), {said}"


class WhereArguments(Arguments):
    """Where to look, for the tools that search."""

    videos: list[Name] | None = Field(
        default=None, min_length=1, description="Look only in these videos, by name or id; all if left out."
    )
    start: Seconds | None = Field(default=None, description="Look only from this time on, in seconds of the video.")
    end: Seconds | None = Field(default=None, description="Look only up to this time, in seconds of the video.")
    k: int = Field(default=5, ge=1, le=MAX_K, description="How many stretches of video to find at most.")


class SearchArguments(WhereArguments):
    """Arguments of search_video."""

    query: Words = Field(
        description="What is seen or said, in a few plain words, as a caption would put it: 'a red circle spins'. "
        "Or what it comes after or before: 'what happens after a red circle spins?'."
    )
    channel: Literal["visual", "speech"] | None = Field(
        default=None, description="'visual': only what is seen. 'speech': only what is said. Left out: both."
    )


class SearchVideo(VideoTool):
    """Where something is seen or said."""

    name: str = "search_video"
    description: str = (
        "Find the moments of the videos in which something is seen or said. Returns stretches of time, best "
        "first, with the words that are said there. To learn more about a moment, call watch_clip with its video, "
        "start and end."
    )
    args_schema: ArgsSchema | None = SearchArguments

    def use(
        self,
        query: str,
        videos: list[str] | None = None,
        start: float | None = None,
        end: float | None = None,
        k: int = 5,
        channel: Literal["visual", "speech"] | None = None,
    ) -> tuple[Content, Artifact]:
        """The hits, with what is said in each."""
        span = _where(self, videos, start, end)
        hits = self.library.search(
            query, k=k, videos=videos, span=span, channels=CHANNELS if channel is None else (channel,)
        )
        unknown = self.library.encoder.calibration.has_not_learned(content_words(analyse(query).described))
        artifact = {
            "hits": [hit.to_dict() for hit in hits],
            "clips": [clip_entry(hit) for hit in hits],
            "unknown_words": unknown,
        }
        lines = bounded_lines(_hit_line(number, hit) for number, hit in enumerate(hits, start=1))
        if not hits:
            return f"Nothing found for {shortened(query)!r}. Try other words, or fewer limits.", artifact
        title = f"{len(hits)} found for {shortened(query)!r}, best first (score 0 to 1):"
        if len(lines) < len(hits):
            lines.append(f"… {len(hits) - len(lines)} more are cut: ask with a smaller k or a window of time.")
        if not any(self.library.convinces(hit) for hit in hits):
            lines.append("None of them is a sure match: it may not be in the videos.")
        if unknown:
            lines.append(f"The search has not learned what this looks like: {', '.join(unknown)}.")
        return "\n".join([title, *lines]), artifact


def _hit_line(number: int, hit: SearchHit) -> str:
    said = f' They say: "{shortened(hit.text)}"' if hit.text else ""
    more = " (call read_transcript for all of it)" if len(hit.text) > MAX_QUOTED else ""
    beside = ""
    if hit.anchor is not None:
        beside = f" {'after' if hit.anchor.start < hit.span.start else 'before'} what is at [{hit.anchor}]"
    return f"{number}. {hit.video} {exact(hit.span)}{beside} score {hit.score:.2f}{said}{more}"


def _where(tool: VideoTool, videos: list[str] | None, start: float | None, end: float | None) -> TimeSpan | None:
    """The window to look in; an unknown video, or a window behind the end of all that are meant, is an error."""
    records = tool.library.list() if videos is None else [tool.library.get(video) for video in videos]
    return window(records, start, end) if records else None


class AskArguments(WhereArguments):
    """Arguments of ask_video."""

    question: Words = Field(
        description="A whole question that can be understood by itself: 'What colour is the ring that spins?', "
        "not 'what colour is it?'."
    )


class AskVideo(VideoTool):
    """An answer with its evidence."""

    name: str = "ask_video"
    description: str = (
        "Answer a question about the videos: finds the moment, watches it, and gives a short answer with the times "
        "that prove it. Every time it cites was really looked at. Says so when the answer is not in the videos. "
        "The best tool for most questions."
    )
    args_schema: ArgsSchema | None = AskArguments
    model: BaseChatModel | None = Field(default=None, exclude=True, repr=False)
    """The chat model that answers; default is the library's own."""
    ask: Callable[..., Answer] | None = Field(default=None, exclude=True, repr=False)
    """What answers in place of :meth:`VideoLibrary.ask`; called with ``question``, ``k``, ``videos`` and ``span``."""

    def use(
        self,
        question: str,
        videos: list[str] | None = None,
        start: float | None = None,
        end: float | None = None,
        k: int = 5,
    ) -> tuple[Content, Artifact]:
        """The answer, checked against what was retrieved."""
        span = _where(self, videos, start, end)
        if self.ask is not None:
            answer = self.ask(question, k=k, videos=videos, span=span)
        else:
            answer = self.library.ask(question, k=k, videos=videos, span=span, model=self.model)
        return answer_content(answer), answer_artifact(answer)


def answer_content(answer: Answer) -> str:
    """An answer for a model that goes on working with it."""
    text = shortened(answer.text, characters=2000)
    if not answer.found:
        return f"{text} Try search_video with other words, or read_transcript."
    lines = []
    for evidence in answer.evidence:
        said = f' They say: "{shortened(evidence.hit.text)}"' if evidence.hit.text else ""
        lines.append(f"- {evidence.video} {exact(evidence.span)}{said}")
    lines = bounded_lines(lines)
    if len(lines) < len(answer.evidence):
        lines.append(f"… {len(answer.evidence) - len(lines)} more are cut.")
    return "\n".join([f"Answer: {text}", "Evidence:", *lines])


def answer_artifact(answer: Answer) -> dict[str, Any]:
    """An answer as plain JSON, with its clips."""
    return {"answer": answer.to_dict(), "clips": [clip_entry(evidence.hit) for evidence in answer.evidence]}
