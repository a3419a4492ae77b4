"""Turn a CTranslate2 Whisper model (what faster-whisper loads) into a checkpoint of openai-whisper.

So one set of real weights tests both programs. A ``model.bin`` is little-endian: version, name and revision of its
kind, the number of tensors, then for each its name, rank, sizes, type, bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["convert"]

_HEAD_WIDTH = 64  # of every Whisper size
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

Tensors = dict[str, npt.NDArray[Any]]


def convert(folder: Path, target: Path) -> Path:
    """Write ``target`` (.pt) from the model in ``folder``."""
    import torch

    tensors = _read(folder / "model.bin")
    state = _renamed(tensors)
    audio_context, width = state["encoder.positional_embedding"].shape
    text_context, text_width = state["decoder.positional_embedding"].shape
    dims = {
        "n_mels": state["encoder.conv1.weight"].shape[1],
        "n_audio_ctx": audio_context,
        "n_audio_state": width,
        "n_audio_head": width // _HEAD_WIDTH,
        "n_audio_layer": _layers(tensors, "encoder"),
        "n_vocab": len(state["decoder.token_embedding.weight"]),
        "n_text_ctx": text_context,
        "n_text_state": text_width,
        "n_text_head": text_width // _HEAD_WIDTH,
        "n_text_layer": _layers(tensors, "decoder"),
    }
    torch.save({"dims": dims, "model_state_dict": {k: torch.tensor(v).float() for k, v in state.items()}}, target)
    return target


def _read(path: Path) -> Tensors:
    with path.open("rb") as file:
        _number(file, "I")  # version of the format
        if _text(file) != "WhisperSpec":
            raise ValueError(f"{path} is no Whisper model")
        _number(file, "I")  # revision
        tensors = {}
        for _ in range(_number(file, "I")):
            name = _text(file)
            shape = [_number(file, "I") for _ in range(_number(file, "B"))]
            kind = _TYPES[_number(file, "B")]
            tensors[name] = np.frombuffer(file.read(_number(file, "I")), kind).reshape(shape)
        return tensors


def _number(file: BinaryIO, kind: str) -> int:
    return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))[0])


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()  # without the closing zero


def _layers(tensors: Tensors, part: str) -> int:
    return sum(name.startswith(f"{part}/layer_") and name.endswith("/ffn/linear_0/bias") for name in tensors)


def _renamed(tensors: Tensors) -> Tensors:
    state: Tensors = {"decoder.token_embedding.weight": tensors["decoder/embeddings/weight"]}
    for number in (1, 2):
        for kind in ("weight", "bias"):
            state[f"encoder.conv{number}.{kind}"] = tensors[f"encoder/conv{number}/{kind}"]
    for part, last in (("encoder", "ln_post"), ("decoder", "ln")):
        state[f"{part}.positional_embedding"] = tensors[f"{part}/position_encodings/encodings"]
        state.update(_norm(tensors, f"{part}/layer_norm", f"{part}.{last}"))
        for layer in range(_layers(tensors, part)):
            old, new = f"{part}/layer_{layer}", f"{part}.blocks.{layer}"
            state.update(_attention(tensors, f"{old}/self_attention", f"{new}.attn"))
            if part == "decoder":
                state.update(_attention(tensors, f"{old}/attention", f"{new}.cross_attn"))
            state.update(_norm(tensors, f"{old}/ffn/layer_norm", f"{new}.mlp_ln"))
            for ours, theirs in ((0, 0), (1, 2)):  # theirs has the activation at 1
                for kind in ("weight", "bias"):
                    state[f"{new}.mlp.{theirs}.{kind}"] = tensors[f"{old}/ffn/linear_{ours}/{kind}"]
    return state


def _norm(tensors: Tensors, old: str, new: str) -> Tensors:
    return {f"{new}.weight": tensors[f"{old}/gamma"], f"{new}.bias": tensors[f"{old}/beta"]}


def _attention(tensors: Tensors, old: str, new: str) -> Tensors:
    """Query, key and value are stacked in one matrix (query alone and key, value where another sequence is watched)."""
    count = sum(name.startswith(f"{old}/linear_") and name.endswith("weight") for name in tensors)
    parts = {
        kind: np.concatenate([tensors[f"{old}/linear_{number}/{kind}"] for number in range(count - 1)])
        for kind in ("weight", "bias")
    }
    state = _norm(tensors, f"{old}/layer_norm", f"{new}_ln")
    for kind, stacked in parts.items():
        for name, part in zip(("query", "key", "value"), np.split(stacked, 3), strict=True):
            if (name, kind) != ("key", "bias"):  # Whisper's keys have none; it is zero here
                state[f"{new}.{name}.{kind}"] = part
        state[f"{new}.out.{kind}"] = tensors[f"{old}/linear_{count - 1}/{kind}"]
    return state
