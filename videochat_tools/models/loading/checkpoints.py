"""Files of tensors, read without executing anything that is in them."""

from __future__ import annotations

import json
import logging
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from videochat_tools.errors import ModelLoadError

from .inert import ForeignCallError, model_level, read_tensors

__all__ = ["broken", "read_checkpoint", "weight_files"]

logger = logging.getLogger(__name__)

_DEEPSPEED_STATES = "mp_rank_00_model_states.pt"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors of an original checkpoint, from its "model" or "module" level if there is one.

    Nothing in the file is executed: it is read with ``weights_only=True``, and where a trainer left objects of its own
    beside the weights (its configuration, say), those are passed over. Tensors of a ``.pth`` are mapped into memory,
    not copied.

    Args:
        path: A ``.pth`` file, a ``.safetensors`` file, or a folder: of safetensors, or of deepspeed.

    Raises:
        ModelLoadError: There is no such file, it is cut short, or it is no checkpoint of tensors.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ModelLoadError(f"no checkpoint at {path}; give the path of the original .pth file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    tensors = _read_pickled(path)
    if not tensors:
        raise ModelLoadError(f"{path} holds no tensors by name; give an original VideoChat checkpoint")
    return tensors


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of a folder in the Hugging Face layout that hold its weights; none if it has none.

    Raises:
        ModelLoadError: A file that the index lists is absent.
    """
    for pattern in ("*.safetensors", "*.bin"):
        found = {path.name: path for path in sorted(folder.glob(pattern)) if path.name != "training_args.bin"}
        for index in sorted(folder.glob(f"{pattern}.index.json")):
            listed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if absent := [name for name in listed if name not in found]:
                raise ModelLoadError(f"{folder} lacks {', '.join(absent)}, which {index.name} lists; download it again")
            return tuple(found[name] for name in listed)
        if found:
            return tuple(found.values())
    return ()


def _read_folder(folder: Path) -> dict[str, Tensor]:
    states = sorted(folder.glob(f"**/{_DEEPSPEED_STATES}"))
    files = tuple(states) if len(states) == 1 else weight_files(folder)
    if not files:
        raise ModelLoadError(
            f"{folder} holds neither *.safetensors nor one {_DEEPSPEED_STATES}; give the original .pth file"
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_checkpoint(file))
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise broken(path, error) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    is_zip = zipfile.is_zipfile(path)
    if not is_zip:
        _check_start(path)
    try:
        # Only files in the current format (torch 1.6, 2020) can be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        return _read_beside_foreign_objects(path, error)
    except (RuntimeError, EOFError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise broken(path, error) from error
    return {str(name): value for name, value in model_level(loaded).items() if isinstance(value, Tensor)}


def _read_beside_foreign_objects(path: Path, refusal: pickle.UnpicklingError) -> dict[str, Tensor]:
    """The weights of a file in which ``torch.load`` met something that it does not build."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            is_pickle = file.read(1) == pickle.PROTO
        if not is_pickle:  # torch's own words advise to run the file: they are no message for a user
            raise broken(path, pickle.UnpicklingError("it is no file of torch.save")) from refusal
        raise ModelLoadError(
            f"{path} is a pickle that is not plain tensors; nothing in it was run; download the file again from where "
            "it was released, or save its weights with safetensors"
        ) from refusal
    try:
        tensors, foreign = read_tensors(path)
    except ForeignCallError as error:
        raise ModelLoadError(
            f"{path} is a pickle that is not plain tensors: opening it would call {error}; nothing in it was run; "
            "download the file again from where it was released"
        ) from error
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        raise broken(path, error) from error
    logger.info("%s also holds objects of %s, which were passed over", path, ", ".join(foreign))
    return tensors


def _check_start(path: Path) -> None:
    """Tell what can be told from the first bytes of a file that is no complete zip archive."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ModelLoadError(f"{path} is empty; download it again")
    if start.startswith(b"PK\x03\x04"):  # the table of contents of a zip archive is at its end
        raise ModelLoadError(f"{path} is cut short: its end is missing after {size:,} bytes; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise ModelLoadError(f"{path} is a git-lfs pointer, not the file itself; run: git lfs pull")
    if start.lstrip()[:1] == b"<":
        raise ModelLoadError(f"{path} cannot be read: it is a web page, not a checkpoint; download the file itself")


def broken(path: Path, error: Exception) -> ModelLoadError:
    """What to raise about a file that should hold tensors and cannot be read."""
    return ModelLoadError(
        f"{path} cannot be read as a checkpoint of plain tensors, it is cut short or damaged ({_first_line(error)}); "
        "download it again, or save only its state dict"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
