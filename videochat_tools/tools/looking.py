"""Tools that look closer at a part of one video: watch it, read what is said in it, see pictures of it."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import ArgsSchema
from pydantic import Field

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.stills import take_stills
from videochat_tools.tools.base import (
    Arguments,
    Artifact,
    Content,
    Seconds,
    VideoName,
    VideoTool,
    Words,
    bounded_lines,
    clip_entry,
    exact,
    stretch,
    window,
)
from videochat_tools.tools.finding import answer_artifact, answer_content
from videochat_tools.types import TimeSpan, VideoRecord, format_timecode

MAX_WATCHED = 60.0  # seconds of one clip: a model looks at a handful of frames, however long the clip
MAX_FRAMES = 8


def _part(tool: VideoTool, video: str, start: float | None, end: float | None) -> tuple[VideoRecord, TimeSpan]:
    """The video that is meant, and the part of it; an error where there is no such video or part."""
    record = tool.library.get(video)
    return record, window([record], start, end) or TimeSpan(0.0, record.info.duration)


class WatchArguments(Arguments):
    """Arguments of watch_clip."""

    video: VideoName
    start: Seconds = Field(description="Where the clip begins, in seconds of the video.")
    end: Seconds = Field(description="Where the clip ends, in seconds of the video.")
    question: Words = Field(
        default="what happens in the video?",
        description="What to look for, as a whole question: 'what colour is the ring?'.",
    )


class WatchClip(VideoTool):
    """What is seen in one stretch of one video."""

    name: str = "watch_clip"
    description: str = (
        "Watch one short part of a video (up to a minute) and answer a question about what is seen there. "
        "Use it after search_video to check a moment, or when you know the time already."
    )
    args_schema: ArgsSchema | None = WatchArguments
    model: BaseChatModel | None = Field(default=None, exclude=True, repr=False)
    """The chat model that watches; default is the library's own."""

    def use(self, video: str, start: float, end: float, question: str) -> tuple[Content, Artifact]:
        """What the model says about exactly this part."""
        record, span = _part(self, video, start, end)
        if not 0 < span.duration <= MAX_WATCHED:
            raise UnsupportedContentError(
                f"a clip to watch is longer than 0 s and at most {MAX_WATCHED:.0f} s long, got {span.duration:.0f} s; "
                "find the moment with search_video, or watch a long part bit by bit"
            )
        answer = self.library.watch(record.video_id, span, question, model=self.model)
        artifact = {**answer_artifact(answer), "clips": [clip_entry(stretch(record, span))]}
        if not answer.found:
            return (
                f"It is not to be seen in {record.name} {exact(span)}. Watch another part, or search again.",
                artifact,
            )
        return answer_content(answer), artifact


class TranscriptArguments(Arguments):
    """Arguments of read_transcript."""

    video: VideoName
    start: Seconds | None = Field(default=None, description="Read from this time on, in seconds; else from the start.")
    end: Seconds | None = Field(default=None, description="Read up to this time, in seconds; else to the end.")


class ReadTranscript(VideoTool):
    """What is said in a video, word for word."""

    name: str = "read_transcript"
    description: str = (
        "Read what is said in a video, word for word and with times, all of it or between two times. "
        "A long transcript comes in parts; the last line says how to read on."
    )
    args_schema: ArgsSchema | None = TranscriptArguments

    def use(self, video: str, start: float | None = None, end: float | None = None) -> tuple[Content, Artifact]:
        """The utterances of the window, as many as a result may hold."""
        record, span = _part(self, video, start, end)
        said = [each for each in self.library.transcript(record.video_id) if each.span.overlaps(span)]
        lines = bounded_lines(f"[{each.span}] {each.text}" for each in said)
        shown = said[: len(lines)]
        read = TimeSpan(span.start, max(span.start, min(span.end, shown[-1].span.end))) if shown else span
        artifact = {
            "video": record.to_dict(),
            "utterances": [
                {"start": round(each.span.start, 3), "end": round(each.span.end, 3), "text": each.text}
                for each in shown
            ],
            "clips": [clip_entry(stretch(record, read))],
        }
        if not said:
            return f"Nothing is said in {record.name} {exact(span)}.", artifact
        title = f"{record.name} {exact(span)}, transcript from {record.transcript_source}:"
        if len(shown) < len(said):
            following = round(said[len(shown)].span.start, 2)
            lines.append(
                f"… {len(said) - len(shown)} more utterances are cut, up to {format_timecode(span.end)}: "
                f"call read_transcript with start={following:g} to read on."
            )
        return "\n".join([title, *lines]), artifact


class FramesArguments(Arguments):
    """Arguments of get_frames."""

    video: VideoName
    start: Seconds = Field(description="Time of the first picture, in seconds of the video.")
    end: Seconds | None = Field(default=None, description="Time of the last; left out: one picture, at the start.")
    count: int = Field(default=4, ge=1, le=MAX_FRAMES, description="How many pictures, spread evenly.")


class GetFrames(VideoTool):
    """Pictures of a part of a video."""

    name: str = "get_frames"
    description: str = (
        "See still pictures of a video, at one time or spread over a part of it. "
        "Use it when you want to look for yourself instead of asking watch_clip."
    )
    args_schema: ArgsSchema | None = FramesArguments

    def use(self, video: str, start: float, end: float | None = None, count: int = 4) -> tuple[Content, Artifact]:
        """Each picture after its time, as image blocks."""
        record, span = _part(self, video, start, start if end is None else end)
        stills = take_stills(record.path, span, count if span.duration else 1)
        content: list[str | dict[str, Any]] = [
            {"type": "text", "text": f"{record.name} {exact(span)}, {len(stills)} of at most {MAX_FRAMES} pictures:"}
        ]
        for still in stills:
            time = f"[{format_timecode(still.time)}] ({still.time:.2f} s)"
            content += [{"type": "text", "text": time}, still.image_block()]
        frames = [{"time": round(still.time, 3), "width": still.width, "height": still.height} for still in stills]
        return content, {"video": record.to_dict(), "frames": frames, "clips": [clip_entry(stretch(record, span))]}
