"""``videochat convert``: released files into folders that the other commands can use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from videochat_tools.cli.options import Json
from videochat_tools.cli.output import print_json
from videochat_tools.errors import ModelLoadError

__all__ = ["convert"]

convert = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


class Family(StrEnum):
    """Models that can be converted, as the library names them."""

    videochat = "videochat"
    retrieval = "retrieval"
    vicuna = "vicuna"
    mistral = "mistral"
    mistral_hd = "mistral_hd"
    phi3 = "phi3"


class Precision(StrEnum):
    """Names of torch's types."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class LoraHandling(StrEnum):
    """What becomes of LoRA weights."""

    merge = "merge"
    adapter = "adapter"


Output = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; must not exist, or be empty.")]


@convert.callback()
def about() -> None:
    """Turn released files of VideoChat into folders that from_pretrained and `--model` open.

    The released checkpoints hold no language model. For VideoChat v1 and VideoChat2-Vicuna make it first with
    `videochat convert delta`; Mistral and Phi-3 are taken as they are released. Then `videochat convert checkpoint`
    puts both into one folder.
    """


@convert.command(short_help="Original .pth files into one Hugging Face folder.")
def checkpoint(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE", help="The released files, in any order; they are told apart.")
    ],
    output: Output,
    llm: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the language model (all but stage 1 need it).")
    ] = None,
    bert: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder with BERT's vocab.txt. Default: bert-base-uncased from the hub."),
    ] = None,
    family: Annotated[
        Family | None, typer.Option(help="Default: told from the files; mistral_hd from the file's name.")
    ] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Precision to write. Default: the language model's own, float32 for the rest."),
    ] = None,
    lora: Annotated[
        LoraHandling, typer.Option(help="Merge LoRA into the language model, or keep it as a PEFT adapter.")
    ] = LoraHandling.merge,
    lora_alpha: Annotated[
        float | None, typer.Option(min=0, metavar="ALPHA", help="Of the training run. Default: twice the rank.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="config.json of a network that has not the released sizes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn original files into one folder with configuration, weights, tokenizers and processor.

    Every tensor of the model is filled from a file, or nothing is written: the table says which part had how many. What
    is in the files is never executed. For a GPU add `--dtype float16`.

    \b
    Examples:
      videochat convert checkpoint umt_l16_qformer.pth --output videochat2-stage1
      videochat convert checkpoint videochat2_7b_stage3.pth --llm vicuna-7b-v0 --output videochat2-vicuna
      videochat convert checkpoint videochat2_hd_mistral_stage4.pth --llm mistral-7b-v0.2 --output videochat2-hd
      videochat convert checkpoint eva_vit_g.pth blip2_pretrained_flant5xxl.pth videochat_7b.pth \\
        --llm vicuna-7b-v0 --output videochat-7b
    """
    import torch

    from videochat_tools.models.loading.folder import BERT, convert_checkpoint

    with _notes_on_stderr():
        result = convert_checkpoint(
            sources,
            output,
            language_model=llm,
            family=family,
            bert=bert or BERT,
            dtype=None if dtype is None else getattr(torch, dtype),
            lora="adapter" if lora is LoraHandling.adapter else "merge",
            lora_alpha=lora_alpha,
            config=config,
            says=_say,
        )
    if result.adapter:
        _say("LoRA was kept as an adapter: whoever loads the folder needs peft (pip install 'videochat-tools[lora]')")
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "family": result.family,
                "adapter": result.adapter,
                **result.report.to_dict(),
            }
        )
    else:
        typer.echo(f"{result.report}\nwritten    {result.folder} ({result.family})")


@convert.command(short_help="Add vicuna-7b-delta-v0 or stable-vicuna-13b-delta to LLaMA.")
def delta(
    base: Annotated[Path, typer.Option(metavar="DIR", help="LLaMA-7B or 13B (the first LLaMA), Hugging Face layout.")],
    delta: Annotated[Path, typer.Option(metavar="DIR", help="The delta, downloaded.")],
    output: Output,
    shard_mib: Annotated[int, typer.Option(min=1, metavar="MIB", help="Size of the largest file to write.")] = 2048,
    as_json: Json = False,
) -> None:
    """Make a language model from LLaMA and the difference that was released in its place.

    Works tensor by tensor: memory is needed for one file of the output only. Tokenizer and configuration are those of
    the delta.

    \b
    Example:
      hf download lmsys/vicuna-7b-delta-v0 --local-dir vicuna-7b-delta-v0
      videochat convert delta --base llama-7b --delta vicuna-7b-delta-v0 --output vicuna-7b-v0
    """
    from tqdm import tqdm

    from videochat_tools.models.loading.delta import apply_delta

    with tqdm(unit=" tensors", disable=None, leave=False) as bar:  # None: only on a terminal

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        with _notes_on_stderr():
            result = apply_delta(base, delta, output, shard_bytes=shard_mib * 2**20, progress=show)
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "tensors": result.tensors,
                "shards": result.shards,
                "vocabulary": result.vocabulary,
            }
        )
    else:
        typer.echo(
            f"written    {result.folder} ({result.tensors} tensors in {result.shards} files, "
            f"vocabulary {result.vocabulary})"
        )


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Print what an error carries beside its one line, such as the list of tensors that do not fit."""
    try:
        yield
    except ModelLoadError as error:
        for note in getattr(error, "__notes__", []):
            typer.echo(note, err=True)
        raise


def _say(text: str) -> None:
    typer.echo(f"videochat: {text}", err=True)
