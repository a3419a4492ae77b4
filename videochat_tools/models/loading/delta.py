"""Language models that were released as differences to LLaMA: added to it tensor by tensor.

The recipe is that of Vicuna (fastchat 0.1.10) and StableVicuna: the vocabulary of LLaMA grows by "[PAD]", whose rows
are zeros, the difference is added to every tensor in its own precision, and tokenizer and configuration are those of
the difference.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from videochat_tools.errors import ModelLoadError

from .diagnosis import check_llama_1, is_delta
from .language_model import INDEX_BUFFERS, language_model_config
from .report import counted
from .staging import check_output, new_folder
from .tensor_folder import TensorFolder

__all__ = ["DeltaResult", "apply_delta"]

_VOCABULARY = re.compile(r"(embed_tokens|lm_head)\.weight$")
_NEW_TOKENS = 1  # [PAD]
_INDEX_FILE = "model.safetensors.index.json"
_WEIGHTS = re.compile(r"\.(bin|safetensors|pth|pt|h5|msgpack)(\.index\.json)?$")

Progress = Callable[[int, int], None]
"""Is told how many of how many tensors are done."""


@dataclass(frozen=True)
class DeltaResult:
    """What was written.

    Attributes:
        folder: The language model.
        tensors: How many.
        shards: Files that hold them.
        vocabulary: Tokens: those of the base and the new one.
    """

    folder: Path
    tensors: int
    shards: int
    vocabulary: int


def apply_delta(
    base: str | Path,
    delta: str | Path,
    output: str | Path,
    *,
    shard_bytes: int = 2 * 2**30,
    progress: Progress | None = None,
) -> DeltaResult:
    """Add a delta to its base model and write the sum as sharded safetensors.

    In memory are at most the tensors of one shard of the output and the two that are being added.

    Args:
        base: LLaMA in the Hugging Face layout.
        delta: ``lmsys/vicuna-7b-delta-v0`` or ``CarperAI/stable-vicuna-13b-delta``, downloaded.
        output: Folder to write; must not exist or be empty.
        shard_bytes: Size of the largest shard; a larger tensor gets one of its own.
        progress: Called after every tensor.

    Raises:
        ModelLoadError: A folder cannot be used, base and delta do not belong together, or are taken for each other.
    """
    check_output(output)
    base_weights, delta_weights = TensorFolder(base), TensorFolder(delta)
    names = [name for name in delta_weights.shapes if not INDEX_BUFFERS.search(name)]
    vocabulary = _check_pair(base_weights, delta_weights, names)
    if not is_delta(delta_weights):
        raise ModelLoadError(
            f"{delta} is no delta: its norm weights are not around 0; if it is a whole language model, use it as it is"
        )
    if is_delta(base_weights):
        raise ModelLoadError(f"{base} is itself a delta: its norm weights are around 0; give LLaMA as the base")
    check_llama_1(base, language_model_config(base), "give LLaMA-7B or LLaMA-13B as the base")
    with new_folder(output) as folder:
        _copy_rest(delta_weights.folder, folder)
        shards = _write_shards(folder, _sums(base_weights, delta_weights, names, progress), shard_bytes)
    return DeltaResult(Path(output), len(names), shards, vocabulary)


def _check_pair(base: TensorFolder, delta: TensorFolder, names: list[str]) -> int:
    """The vocabulary of the sum, where every tensor has a partner that it can be added to."""
    config = language_model_config(delta.folder)
    base_names = {name for name in base.shapes if not INDEX_BUFFERS.search(name)}
    for lacking, owner in ((sorted(base_names - set(names)), delta), (sorted(set(names) - base_names), base)):
        if lacking:
            raise ModelLoadError(
                f"{owner.folder} lacks {counted(len(lacking))} that the other folder has, first {lacking[0]}; give the "
                "LLaMA that the delta was made for, whole"
            )
    for name in names:
        ours, theirs = delta.shapes[name], base.shapes[name]
        grown = ours == (theirs[0] + _NEW_TOKENS, *theirs[1:]) and _VOCABULARY.search(name)
        if ours != theirs and not grown:
            raise ModelLoadError(
                f"{name} is {theirs} in {base.folder} and {ours} in {delta.folder}; give the LLaMA of the size "
                f"and kind that the delta was made for (only the vocabulary may grow, by {_NEW_TOKENS})"
            )
    rows = {delta.shapes[name][0] for name in names if _VOCABULARY.search(name)}
    if rows != {config.vocab_size}:
        raise ModelLoadError(
            f"vocabulary: config.json in {delta.folder} says {config.vocab_size}, its weights have "
            f"{' and '.join(map(str, sorted(rows)))} rows; download it again"
        )
    return int(config.vocab_size)


def _sums(
    base: TensorFolder, delta: TensorFolder, names: list[str], progress: Progress | None
) -> Iterator[tuple[str, Tensor]]:
    for done, name in enumerate(names, 1):
        # As the delta was taken: between two tensors in its own precision, with zeros for the new token.
        total = torch.zeros_like(delta.tensor(name))
        start = base.tensor(name)
        total[: start.shape[0]] = start
        del start
        total += delta.tensor(name)
        yield name, total
        del total
        if progress is not None:
            progress(done, len(names))


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]], limit: int) -> int:
    """Write tensors in order into files of at most ``limit`` bytes, and the index; the number of files."""
    files: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = 0

    def close() -> None:
        save_file(shard, folder / _partial(len(files)), metadata={"format": "pt"})
        files.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        if shard and sum(held.nbytes for held in shard.values()) + tensor.nbytes > limit:
            close()
        shard[name] = tensor
        total += tensor.nbytes
    close()
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files):
        file = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        (folder / _partial(number)).rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return len(files)


def _partial(number: int) -> str:
    return f"shard-{number}"


def _copy_rest(source: Path, folder: Path) -> None:
    """Configuration and tokenizer: the files at the top of a model folder that are no weights."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and not _WEIGHTS.search(path.name):
            shutil.copyfile(path, folder / path.name)
