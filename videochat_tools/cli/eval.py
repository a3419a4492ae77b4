"""``videochat eval``: a model on a public benchmark, with a log that a stopped run goes on from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from videochat_tools.cli.options import Json
from videochat_tools.evaluation.benchmarks import BENCHMARKS, RENDERED, benchmark_class, load_benchmark

__all__ = ["evaluate"]

RESULTS = Path("videochat-eval")


class Control(StrEnum):
    """What a model is shown in place of the video."""

    none = "none"
    blank = "blank"
    text_only = "text-only"
    uniform = "uniform"


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise typer.BadParameter(f"no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    return name


def evaluate(
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCH", callback=_known, help=f"One of {', '.join(BENCHMARKS)}.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its files, as published; `needle` needs none."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Folder or hub id of the chat model; of the video encoder where a benchmark asks no chat model. "
            "Default: the bundled nano.",
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Folder of the video encoder, where a benchmark asks both.")
    ] = None,
    control: Annotated[
        Control, typer.Option(help="Show a black video, no video, or frames spread over all that is searched.")
    ] = Control.none,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Frames that the chat model is shown of a video; published tables of MVBench are of 16, of STAR 32. "
            "Default: as many as it was trained with.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only so many questions, spread evenly over all.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where log and results go. Default: videochat-eval/BENCH-MODEL-CONTROL."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="mvbench: only this task. Can be repeated.")
    ] = None,
    hours: Annotated[
        list[float] | None,
        typer.Option(min=0, metavar="H", help="needle: how long the haystack is; can be repeated. Default: 1."),
    ] = None,
    needles: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="needle: how many, two questions each. Default: 50.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="needle: where vectors of the haystack go, for other runs too. Default: videochat-eval/cache, or "
            "cache/ in the folder of --output.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model on a public benchmark, and print tables with 95 % intervals, clustered by video.

    No benchmark's data comes with this program: docs/evaluation.md says where each one's files go. A run that was
    stopped goes on where it was when it is started again with the same --output. Videos that are missing count as
    wrong answers, and are told; they are tried again by the next run.

    \b
    Examples:
      videochat eval mvbench --data MVBench --model ./videochat2-mistral --frames 16
      videochat eval mvbench --data MVBench --model ./videochat2-mistral --frames 16 --control text-only
      videochat eval needle --hours 1 --hours 10 --hours 100
    """
    from tqdm import tqdm

    from videochat_tools.evaluation.benchmarks.models import Models
    from videochat_tools.evaluation.benchmarks.runner import run_benchmark

    options = _options(benchmark, task, hours, needles)
    if data is None and benchmark not in RENDERED:
        raise typer.BadParameter(f"{benchmark} needs the folder of its files", param_hint="--data")
    if frames is not None and not benchmark_class(benchmark).shows_frames:
        raise typer.BadParameter(f"{benchmark} does not choose the frames of a chat model", param_hint="--frames")
    chosen = load_benchmark(benchmark, data, **options)
    only_encoder = chosen.uses == ("encoder",)
    models = Models(None if only_encoder else model, encoder or (model if only_encoder else None), device, frames)
    folder = output or RESULTS / f"{benchmark}-{Path(model).name if model else 'nano'}-{control.value}"
    with tqdm(unit="question", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = run_benchmark(
            chosen,
            folder,
            models,
            limit=limit,
            control=control.value,
            cache=cache or (RESULTS / "cache" if output is None else None),
            progress=show,
        )
    typer.echo(result.json if as_json else result.markdown.rstrip())
    typer.echo(f"log and results: {folder}", err=True)


def _options(benchmark: str, task: list[str] | None, hours: list[float] | None, needles: int | None) -> dict[str, Any]:
    """The options of one benchmark; an option of another one is a wrong usage."""
    if task and benchmark != "mvbench":
        raise typer.BadParameter("only mvbench has tasks to choose from", param_hint="--task")
    rendered = {"hours": hours, "needles": needles}
    for name, value in rendered.items():
        if value and benchmark not in RENDERED:
            raise typer.BadParameter(f"only {' and '.join(RENDERED)} have a haystack", param_hint=f"--{name}")
    given = {"tasks": tuple(task) if task else None, **rendered}
    return {name: value for name, value in given.items() if value}
