"""What all tools have in common: how they take arguments, how they fail, how long a result may be."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from videochat_tools.errors import UnknownVideoError, UnsupportedContentError, VideoChatError
from videochat_tools.types import SearchHit, TimeSpan, VideoRecord, media_fragment, parse_timecode
from videochat_tools.video_library import VideoLibrary
from videochat_tools.visuals import part_of_video

MAX_CHARACTERS = 6000  # of one result, about 1500 tokens; what is cut off can be asked for
MAX_QUOTED = 300  # characters of what is said, or of an argument that is quoted back

Content = str | list[str | dict[str, Any]]
Artifact = dict[str, Any]  # plain JSON: it is written into every checkpoint


def _seconds(value: object) -> object:
    """Models copy timecodes from what they have read: ``"01:10"`` will do for 70."""
    return parse_timecode(value) if isinstance(value, str) and ":" in value else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
VideoName = Annotated[Name, Field(description="Name or id of one video, as list_videos and search_video give it.")]


class Arguments(BaseModel):
    """The arguments of a tool. One that does not exist is an error, not a wish that nobody hears."""

    model_config = ConfigDict(extra="forbid")


def explain_arguments(error: ValidationError) -> str:
    """Every wrong argument: what was given and what is allowed."""
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"there is no argument {name!r}")
        elif problem["type"] == "missing":
            problems.append(f"the argument {name!r} is missing")
        else:
            problems.append(f"{name}: {problem['msg']}, given {shortened(repr(problem['input']))}")
    return f"Error: {'; '.join(problems)}. Correct the arguments and call the tool again."


class VideoTool(BaseTool):
    """A tool over one library.

    Its result is text or blocks for the model, and an artifact of plain JSON for the program. Whatever goes wrong
    with what was asked comes back as a message (status ``"error"``) that says what to do next. The asynchronous form
    runs in a thread.
    """

    library: VideoLibrary = Field(exclude=True, repr=False)
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool | str | Callable[[ToolException], str] | None = True
    handle_validation_error: Any = explain_arguments

    def _run(self, **arguments: Any) -> tuple[Content, Artifact]:
        try:
            return self.use(**arguments)
        except UnknownVideoError as error:
            raise ToolException(f"Error: {error}; call list_videos for all names.") from error
        except VideoChatError as error:
            raise ToolException(f"Error: {error}.") from error

    @abstractmethod
    def use(self, *_: Any, **arguments: Any) -> tuple[Content, Artifact]:
        """Do it: content for the model, artifact for the program. Errors of this package become messages."""


def shortened(text: str, characters: int = MAX_QUOTED) -> str:
    """The beginning of a text, and a sign where the rest was cut off."""
    return text if len(text) <= characters else f"{text[:characters].rstrip()} …"


def bounded_lines(lines: Iterable[str], characters: int = MAX_CHARACTERS) -> list[str]:
    """As many whole lines from the first on as the bound allows; at least one, which is cut if it must be."""
    kept: list[str] = []
    left = characters
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            return kept or [shortened(line, characters)]
        kept.append(line)
    return kept


def window(records: Sequence[VideoRecord], start: float | None, end: float | None) -> TimeSpan | None:
    """The window of time that is meant; without an end, up to that of the longest of the videos.

    Raises:
        UnsupportedContentError: it lies behind the end of every one of them, or its end before its start.
    """
    if start is None and end is None:
        return None
    if end is not None and end < (start or 0.0):
        raise UnsupportedContentError(f"the end, {end:g} s, lies before the start, {start:g} s; give start < end")
    return part_of_video(start, end, max((record.info.duration for record in records), default=0.0))


def exact(span: TimeSpan) -> str:
    """A span as people read it and in the seconds that tools take: ``[00:42–00:51] (42.04–51.2 s)``."""
    return f"[{span}] ({round(span.start, 2):g}–{round(span.end, 2):g} s)"


def clip_entry(hit: SearchHit) -> dict[str, Any]:
    """A stretch that a tool has looked at, as every artifact lists them under ``clips``."""
    return {
        "video": hit.video,
        "video_id": hit.video_id,
        "uri": media_fragment(hit.uri, hit.span),
        "start": round(hit.span.start, 3),
        "end": round(hit.span.end, 3),
    }


def stretch(record: VideoRecord, span: TimeSpan) -> SearchHit:
    """A part of a video as if it had been searched for and found."""
    return SearchHit(record.video_id, record.name, record.path.absolute().as_uri(), span, 1.0)
