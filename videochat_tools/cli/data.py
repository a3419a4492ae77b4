"""``videochat data``: training files checked, and made from other formats."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videochat_tools.cli.options import Json
from videochat_tools.cli.output import print_json
from videochat_tools.errors import TrainingDataError

if TYPE_CHECKING:
    from videochat_tools.training.data.checking import CheckOptions, Counts
    from videochat_tools.training.data.corpora import Medium

__all__ = ["data"]

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


class Source(StrEnum):
    """Formats that can be converted."""

    llava = "llava"
    sharegpt = "sharegpt"


class Shown(StrEnum):
    """What a corpus shows."""

    video = "video"
    image = "image"
    text = "text"


@data.callback()
def about() -> None:
    """Look after the files that models are trained on: docs/training-data.md describes them."""


@data.command(short_help="Tell everything that is wrong in annotation files.")
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Annotation files (.json, .jsonl), or lists of corpora (.toml, .yaml, .json)."
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What paths are relative to. Without it media are not looked for."),
    ] = None,
    medium: Annotated[Shown | None, typer.Option(help="What all entries must show. Default: anything.")] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode some frames of every clip, as training does.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that decode.")] = 2,
    time_limit: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long one clip may take to decode.")
    ] = 120.0,
    as_json: Json = False,
) -> None:
    """Read annotation files from end to end, and print everything that is wrong, one line each.

    A line names the file, the line in it, the entry (both counted from 1) and what is wrong. Keys that nobody reads are
    told once each, as warnings. The exit code is 1 if anything is wrong.

    \b
    Examples:
      videochat data check train.jsonl --root videos
      videochat data check corpora.toml --decode --workers 8 --json
    """
    from videochat_tools.training.data.checking import CheckOptions

    chosen = CheckOptions(root, _medium(medium), decode=decode, workers=workers, time_limit=time_limit)
    results: list[dict[str, Any]] = []
    for path, options in _corpora(files, chosen):
        if options.decode and options.root is None:
            raise typer.BadParameter(f"decoding {path} needs the folder of its media", param_hint="--root")
        results.append(_check(path, options, as_json))
    if as_json:
        print_json(results)
    if any(result["bad"] or not result["entries"] for result in results):
        raise typer.Exit(1)


def _medium(shown: Shown | None) -> Medium | None:
    from videochat_tools.training.data.corpora import MEDIA

    return next((medium for medium in MEDIA if shown is not None and medium == shown.value), None)


def _corpora(files: list[Path], options: CheckOptions) -> list[tuple[Path, CheckOptions]]:
    """The annotation files, each with what its list of corpora says about it."""
    from dataclasses import replace

    from videochat_tools.training.data import read_corpora
    from videochat_tools.training.data.checking import lists_corpora

    found: list[tuple[Path, CheckOptions]] = []
    for path in files:
        if not lists_corpora(path):
            found.append((path, options))
            continue
        for corpus in read_corpora(path):
            of_corpus = replace(
                options, root=options.root or corpus.root, medium=corpus.medium, folder_fps=corpus.folder_fps
            )
            found.append((corpus.annotation, of_corpus))
    return found


def _check(path: Path, options: CheckOptions, as_json: bool) -> dict[str, Any]:
    """One file: its faults printed as they are found, or kept for JSON."""
    from tqdm import tqdm

    from videochat_tools.training.data.checking import Counts, check_file

    counts = Counts()
    faults: list[dict[str, Any]] = []
    with tqdm(desc=path.name, unit=" entries", disable=None, leave=False) as bar:  # None: only on a terminal
        for fault in check_file(path, options, counts, bar.update):
            if as_json:
                faults.append({"entry": fault.entry, "line": fault.line, "reason": fault.reason})
            else:
                with tqdm.external_write_mode():
                    typer.echo(f"{path}:{fault.line}: entry {fault.entry}: {fault.reason}")
    if not as_json:
        for key in counts.unknown.values():
            typer.echo(
                f"{path}:{key.line}: warning: entry {key.entry}: nobody reads {key.key!r} ({key.count} entries have it)"
            )
        typer.echo(_summary(path, counts, options))
    return {
        "file": str(path),
        **{name: getattr(counts, name) for name in _COUNTED},
        "media_checked": options.root is not None,
        "faults": faults,
        "warnings": [
            {"key": key.key, "count": key.count, "entry": key.entry, "line": key.line}
            for key in counts.unknown.values()
        ],
    }


_COUNTED = (
    "entries", "bad", "video", "image", "text", "captions", "conversations", "turns", "missing", "decoded",
)  # fmt: skip


def _summary(path: Path, counts: Counts, options: CheckOptions) -> str:
    shown = ", ".join(f"{getattr(counts, kind):,} {kind}" for kind in ("video", "image", "text"))
    media = "media not looked for (give --root)" if options.root is None else f"{counts.missing:,} missing"
    decoded = f", {counts.decoded:,} decoded" if options.decode else ""
    return (
        f"{path}: {counts.entries:,} entries, {counts.bad:,} bad; {shown}; {counts.captions:,} captions, "
        f"{counts.conversations:,} conversations of {counts.turns:,} turns; {media}{decoded}"
        + ("" if counts.entries else "; there is nothing in it")
    )


@data.command("convert", short_help="Make an annotation file from LLaVA's or ShareGPT's.")
def convert_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The file to read (.json or .jsonl).")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write (.json or .jsonl); must not exist.")],
    form: Annotated[Source, typer.Option("--from", help="What IN is.")],
    as_json: Json = False,
) -> None:
    """Rewrite conversations of people and models in the instruction format.

    What cannot be written in it is told with the number of its entry and the reason, everything else is written, and
    the exit code is 1 if anything was skipped.

    \b
    Examples:
      videochat data convert --from llava llava_instruct_150k.json llava.json
      videochat data convert --from sharegpt sharegpt.json text.jsonl
    """
    from videochat_tools.training.data.converting import convert_file

    if source.resolve() == target.resolve():
        raise TrainingDataError(f"{target} is the file to be read; choose another name for the new one")
    result = convert_file(source, target, form.value)
    if as_json:
        print_json(
            {
                "file": str(target),
                "entries": result.entries,
                "written": result.written,
                "skipped": result.skipped,
                "notes": [
                    {"entry": note.entry, "line": note.line, "reason": note.reason, "skipped": note.skipped}
                    for note in result.notes
                ],
            }
        )
    else:
        for note in result.notes:
            what = "skipped" if note.skipped else "changed"
            typer.echo(f"{source}:{note.line}: entry {note.entry} {what}: {note.reason}", err=True)
        typer.echo(
            f"written    {target} ({result.written:,} of {result.entries:,} entries, {result.skipped:,} skipped)"
        )
    if result.skipped:
        raise typer.Exit(1)
