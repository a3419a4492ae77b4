"""``videochat train``: a released training stage, from the model before it to the next one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from videochat_tools.cli.options import Json
from videochat_tools.cli.output import print_json
from videochat_tools.training.stages.configs import RELEASED_STAGES

__all__ = ["train"]

RUNS = Path("videochat-train")


def _known(name: str | None) -> str | None:
    if name is not None and name not in RELEASED_STAGES:
        raise typer.BadParameter(f"no stage {name!r}; choose one of {', '.join(RELEASED_STAGES)}")
    return name


def train(
    stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE", callback=_known, help=f"One of {', '.join(RELEASED_STAGES)}."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file whose keys replace those of the released recipe.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace one key. Can be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run. Default: videochat-train/STAGE.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is trained, the memory and the steps; load no weights.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print all keys with their help and values, as a file to begin from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a training stage of VideoChat or VideoChat2 with its released recipe.

    A stage goes on from the model of the one before and writes DIR/model, which `--model` of the other commands, and
    the next stage, open. When it was stopped, the same command goes on from the last checkpoint. Start it with
    `torchrun` or `accelerate launch` to use several GPUs or machines. docs/training.md has a table of the recipes.

    \b
    Examples:
      videochat train --stage videochat2-vicuna-stage3 --show > mine.toml
      videochat train --config mine.toml --dry-run
      videochat train --config mine.toml --set batch_size=2 --output runs/stage3
      torchrun --nproc_per_node 8 -m videochat_tools train --config mine.toml --output runs/stage3
    """
    if stage is None and config is None:
        raise typer.BadParameter("name a stage, or a file whose `base` names one", param_hint="--stage")
    from videochat_tools.training.stages.configs import load_options, show_options, stage_name

    name = stage_name(stage, config)
    options = load_options(stage, config, changes or ())
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun has started
    if show:
        typer.echo(show_options(options, name).rstrip())
        return
    if dry_run:
        from videochat_tools.training.stages.estimate import estimate

        if first:
            found = estimate(options)
            print_json(found.to_dict()) if as_json else typer.echo(str(found))
        return
    from tqdm import tqdm
    from transformers.utils import logging as transformers_logging

    from videochat_tools.training.stages.trainer import StepReport, train_stage

    transformers_logging.disable_progress_bar()

    folder = output or RUNS / (name or (config.stem if config else "run"))
    with tqdm(unit="step", disable=None if first else True, leave=False) as bar:  # None: only on a terminal

        def tell(at: StepReport) -> None:
            bar.total = at.steps
            bar.set_postfix(epoch=at.epoch + 1, loss=f"{at.loss:.3f}", refresh=False)
            bar.update(at.step - bar.n)

        result = train_stage(options, folder, tell)
    if not first:
        return
    if result.failures:
        typer.echo(f"videochat: {result.failures}", err=True)
    if as_json:
        print_json({"model": str(result.model), "steps": result.steps})
    else:
        typer.echo(f"written    {result.model} ({result.steps} steps)")
