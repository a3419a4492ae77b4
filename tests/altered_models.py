"""Small checkpoints with one thing wrong with them, made from whole ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
TOKENIZER_FILES = ("added_tokens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")


def altered_folder(
    source: Path,
    target: Path,
    *,
    config: dict[str, Any] | None = None,
    tensors: Callable[[Tensors], Tensors] | None = None,
) -> Path:
    """A copy of a language-model folder with other fields in its configuration, or other tensors."""
    target.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)  # without the permissions: goldens may be read-only
    fields = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**fields, **(config or {})}))
    if tensors is not None:
        found = load_file(target / "model.safetensors")
        (target / "model.safetensors").unlink()
        save_file(tensors(found), target / "model.safetensors", metadata={"format": "pt"})
    return target


def without_last_row(tensors: Tensors) -> Tensors:
    """The vocabulary of LLaMA, which has no [PAD]."""
    return {
        name: value[:-1].clone() if name.endswith(("embed_tokens.weight", "lm_head.weight")) else value
        for name, value in tensors.items()
    }


def plain_tokenizer(folder: Path) -> None:
    """Leave LLaMA's own tokenizer in a folder: its SentencePiece model, and no token beside it."""
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    content = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
