"""What the commands print: lines for people, JSON for programs, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from videochat_tools.library import AddProgress
    from videochat_tools.types import VideoRecord

__all__ = ["add_progress", "describe", "print_error", "print_json", "quieten"]


def quieten() -> None:
    """Silence the notices of the libraries underneath: they are no message to the person at the shell.

    To be called before transformers is imported, which reads these variables then.
    """
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_error(error: object) -> None:
    """One line on stderr, whatever the error's own words."""
    typer.echo(f"videochat: error: {' '.join(str(error).split())}", err=True)


def describe(record: VideoRecord) -> str:
    """A video as one line of a table."""
    from videochat_tools.types import format_timecode

    said = "no speech" if record.transcript_source == "none" else f"{record.utterances} utterances"
    length = format_timecode(record.info.duration)
    return f"{record.video_id}  {length:>7}  {record.segments:>4} segments  {said:>15}  {record.name}"


def add_progress() -> bool | Callable[[AddProgress], None]:
    """How an add shows how far it is: a bar on a terminal, elsewhere a line on stderr for every finished video."""
    if sys.stderr.isatty():
        return True

    def tell(at: AddProgress) -> None:
        if at.stage == "done" and at.total > 0:  # 0: it was in the library already
            line = f"{at.video}: {at.done:.0f} of {at.total:.0f} s of video, {at.speed:.1f}x real time"
            typer.echo(line, err=True)

    return tell
