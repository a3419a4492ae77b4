"""The options that several commands share, each with its help in one place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from videochat_tools.types import TimeSpan
    from videochat_tools.video_library import VideoLibrary

__all__ = ["DEFAULT_LIBRARY", "Count", "End", "Json", "Library", "Model", "Start", "Videos", "chosen_span"]

DEFAULT_LIBRARY = Path("videochat-library")


def _seconds(text: str) -> float:
    """``42``, ``42.5``, ``00:42`` and ``1:02:03`` as seconds."""
    from videochat_tools.types import parse_timecode

    try:
        seconds = parse_timecode(text) if ":" in text else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise typer.BadParameter(f"{text!r} is no time; write seconds (42.5) or a timecode (00:42, 1:02:03)")
    return seconds


Library = Annotated[
    Path,
    typer.Option(
        "--library", "-l", envvar="VIDEOCHAT_LIBRARY", metavar="DIR", help="The folder that holds the library."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text; times are seconds.")]
Videos = Annotated[
    list[str] | None,
    typer.Option("--video", "-v", metavar="VIDEO", help="Only this video: its name, id or path. Can be repeated."),
]
Count = Annotated[int, typer.Option("-k", min=1, metavar="N", help="How many moments to retrieve at most.")]
Start = Annotated[
    float | None,
    typer.Option("--start", parser=_seconds, metavar="TIME", help="Only from here on: 42.5, 00:42 or 1:02:03."),
]
End = Annotated[float | None, typer.Option("--end", parser=_seconds, metavar="TIME", help="Only up to here.")]
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Folder or hub id of the chat model. Default: the bundled nano."),
]


def chosen_span(library: VideoLibrary, start: float | None, end: float | None) -> TimeSpan | None:
    """``--start`` and ``--end`` together; without an end, up to that of the longest video."""
    from videochat_tools.types import TimeSpan

    if start is None and end is None:
        return None
    begin = start or 0.0
    if end is None:
        end = max([begin, *(record.info.duration for record in library.list())])
    if end < begin:
        raise typer.BadParameter(f"--end {end:g} s lies before --start {begin:g} s")
    return TimeSpan(begin, end)
