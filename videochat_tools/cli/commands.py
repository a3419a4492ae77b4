"""The commands themselves: arguments in, calls of the library, results out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videochat_tools._version import __version__
from videochat_tools.cli.convert import convert
from videochat_tools.cli.data import data
from videochat_tools.cli.eval import evaluate
from videochat_tools.cli.options import (
    DEFAULT_LIBRARY,
    Count,
    End,
    Json,
    Library,
    Model,
    Start,
    Videos,
    chosen_span,
)
from videochat_tools.cli.output import (
    add_progress,
    describe,
    print_error,
    print_json,
    quieten,
)
from videochat_tools.cli.train import train
from videochat_tools.errors import VideoChatError

if TYPE_CHECKING:
    from videochat_tools.video_library import VideoLibrary


class Difficulty(StrEnum):
    """The worlds that ``videochat_tools.training.world.config`` knows by name."""

    easy = "easy"
    standard = "standard"
    hard = "hard"


app = typer.Typer(
    name="videochat",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: the same in a terminal, a pipe and a log
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``videochat`` with the given arguments (default: those of the process) and exit with its code."""
    logging.basicConfig(stream=sys.stderr, format="videochat: %(message)s", level=logging.WARNING)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="videochat")
    except VideoChatError as error:
        print_error(error)
    except OSError as error:  # no permission, no space: the system's own words name the file
        print_error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    sys.exit(1)


def open_library(folder: Path, *, create: bool = False, model: str | None = None) -> VideoLibrary:
    """The library in a folder; the models are loaded when they are needed."""
    if model is None or Path(model).exists():  # a bar for a download is news, one for reading a file is noise
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from videochat_tools.engine import model_folder
    from videochat_tools.video_library import VideoLibrary

    if model is not None:  # a wrong name is told now, not only when there is something to answer
        model_folder(model)
    return VideoLibrary(folder, create=create, model=model)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"videochat {__version__}")
        raise typer.Exit


@app.callback()
def videochat(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr about what is going on.")] = False,
) -> None:
    """Ask long videos, and get answers with the moments that prove them.

    A library is a folder. Add videos to it once; then search it and ask it as often as you like.

    \b
      videochat sample demo.mp4 --minutes 2        make a video to try things on
      videochat add demo.mp4                       cut, watch and transcribe it
      videochat search "an orange star that spins" find the moment
      videochat ask "what colour is the star that spins?"

    Everything runs on this machine. The bundled nano model understands the little world of `videochat sample`
    and nothing else; the README says how to use a larger one.
    """
    if verbose:
        logging.getLogger("videochat_tools").setLevel(logging.INFO)
    else:
        quieten()


@app.command(short_help="Add videos to the library.")
def add(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Video files, folders or patterns.")],
    library: Library = DEFAULT_LIBRARY,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Add videos to the library: cut them into shots, watch them, and take down what is said.

    What has been added before is skipped, and an interrupted run goes on where it stopped. Speech is read from
    subtitles (talk.vtt or talk.srt beside talk.mp4, or inside the file), otherwise transcribed by Whisper if it is
    installed. A file that cannot be used is reported, the others are added, and the exit code is 1.

    \b
    Examples:
      videochat add talk.mp4
      videochat add recordings/ "more/*.mkv" --library ./lib
    """
    results = open_library(library, create=True, model=model).add(files, progress=add_progress())
    if as_json:
        print_json([result.to_dict() for result in results])
    else:
        for result in results:
            if result.record is not None:
                typer.echo(f"{result.status:<9}  {describe(result.record)}")
    failed = [result for result in results if result.error is not None]
    for result in failed:
        print_error(result.error)
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_videos(library: Library = DEFAULT_LIBRARY, as_json: Json = False) -> None:
    """List the videos of the library."""
    records = open_library(library).list()
    if as_json:
        print_json([record.to_dict() for record in records])
    elif not records:
        typer.echo(f"the library {library} is empty; add a video: videochat add FILE --library {library}", err=True)
    else:
        for record in records:
            typer.echo(describe(record))


@app.command(short_help="Find the moments that show or say something.")
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is seen or said, in your own words.")],
    library: Library = DEFAULT_LIBRARY,
    k: Count = 5,
    video: Videos = None,
    start: Start = None,
    end: End = None,
    as_json: Json = False,
) -> None:
    """Find the moments that show, or in which somebody says, what the query describes.

    Prints one moment a line, best first: video, time, score (0 to 1), and what is said there.

    \b
    Examples:
      videochat search "a red circle bumps into a blue square"
      videochat search "the harbour" -k 3 --video talk.mp4 --start 10:00 --json
    """
    opened = open_library(library)
    hits = opened.search(query, k=k, videos=video, span=chosen_span(opened, start, end))
    if as_json:
        print_json([hit.to_dict() for hit in hits])
    elif not hits:
        typer.echo("nothing found", err=True)
    else:
        for hit in hits:
            typer.echo(str(hit))


@app.command(short_help="Answer a question, with its evidence.")
def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="A question in plain words.")],
    library: Library = DEFAULT_LIBRARY,
    k: Count = 5,
    video: Videos = None,
    start: Start = None,
    end: End = None,
    model: Model = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Also draw the answer with frames of its evidence.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Answer a question, and show the moments that the answer rests on.

    Every moment that is cited was really retrieved. When nothing in the library answers the question, the answer
    says so.

    \b
    Examples:
      videochat ask "what colour is the star that spins?"
      videochat ask "what is said about the harbour?" --video talk.mp4 --picture answer.png
    """
    opened = open_library(library, model=model)
    answer = opened.ask(question, k=k, videos=video, span=chosen_span(opened, start, end))
    if picture is not None:
        from videochat_tools.picture import render_answer

        render_answer(answer, picture)
    if as_json:
        print_json(answer.to_dict())
        return
    typer.echo(answer.text)
    for evidence in answer.evidence:
        typer.echo(f"  {evidence}")
    for citation in answer.dropped:
        typer.echo(f"videochat: dropped a citation that is not in the evidence: {citation}", err=True)


@app.command(short_help="Remove a video from the library.")
def remove(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="Name, id or path of a video, as `videochat list` shows it.")
    ],
    library: Library = DEFAULT_LIBRARY,
    as_json: Json = False,
) -> None:
    """Remove a video, with all that was derived from it, from the library. The video file itself stays."""
    record = open_library(library).remove(video)
    if as_json:
        print_json(record.to_dict())
    else:
        typer.echo(f"removed    {describe(record)}")


@app.command(short_help="Print what is said in a file.")
def transcribe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A video or audio file.")],
    as_json: Json = False,
) -> None:
    """Print what is said in a file, with the time of every utterance; nothing is stored.

    Subtitles beside or inside the file are used if there are any, Whisper otherwise.
    """
    from videochat_tools.speech import transcribe as transcribe_file

    transcript = transcribe_file(file)
    if as_json:
        print_json(
            {
                "source": transcript.source,
                "language": transcript.language,
                "utterances": [
                    {"start": round(each.span.start, 3), "end": round(each.span.end, 3), "text": each.text}
                    for each in transcript.utterances
                ],
            }
        )
    else:
        for utterance in transcript.utterances:
            typer.echo(f"[{utterance.span}] {utterance.text}")


@app.command(short_help="Make a video with known answers, to try things on.")
def sample(
    out: Annotated[Path, typer.Argument(metavar="OUT.mp4", help="Where to write the video.")],
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="How long the video shall be.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same video.")] = 0,
    difficulty: Annotated[
        Difficulty, typer.Option(help="How much there is to see, and how plainly.")
    ] = Difficulty.standard,
    world: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="A world of your own, in place of --difficulty; see docs/world.md."),
    ] = None,
    speech: Annotated[bool, typer.Option("--speech", help="Say the narration aloud; needs espeak-ng.")] = False,
) -> None:
    """Make a video of the little world that the bundled model understands, to try things on.

    Writes three files: OUT.mp4; OUT.vtt, what is said, as subtitles; OUT.timeline.json, what really happens when,
    and questions with their true answers, to check answers against. `videochat add` reads only the first two.
    """
    from tqdm import tqdm

    from videochat_tools.training.world.config import DIFFICULTIES, load_world
    from videochat_tools.training.world.sample import render_sample

    if world is not None and difficulty is not Difficulty.standard:
        raise typer.BadParameter(f"write base = '{difficulty}' into {world}", param_hint="--difficulty with --world")
    chosen = DIFFICULTIES[difficulty] if world is None else load_world(world)
    with tqdm(
        total=round(minutes * 60), unit="s of video", disable=None, leave=False
    ) as bar:  # None: only on a terminal

        def show(done: float, _: float) -> None:
            bar.update(round(done) - bar.n)

        render_sample(out, minutes=minutes, seed=seed, world=chosen, speech=speech, progress=show)
    for suffix in (out.suffix, ".vtt", ".timeline.json"):
        typer.echo(str(out.with_suffix(suffix)))


# Last, so that help lists first what a newcomer needs first.
app.command("eval", short_help="Measure a model on a public benchmark.")(evaluate)
app.command("train", short_help="Run a released training stage.")(train)
app.add_typer(convert, name="convert", short_help="Turn released files into folders that can be used.")
app.add_typer(data, name="data", short_help="Check training files, or make them from other formats.")
