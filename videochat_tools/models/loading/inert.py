"""A reader of torch's zip format that builds nothing but tensors.

``torch.load(weights_only=True)`` refuses a whole file when a trainer has put one object of its own beside the weights.
Here every class that the file names becomes an empty stand-in, and every tensor a note of where its bytes are; no
function of torch or of anybody else runs while the pickle is read. The bytes of the wanted tensors are read afterwards.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor

__all__ = ["ForeignCallError", "model_level", "read_tensors"]

LEVELS = ("model", "module")
"""Where trainers keep the weights: torch's own ("model") and deepspeed ("module")."""

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# What trainers honestly keep beside the weights, and what pickle calls to make it again. Here nothing is called.
_HARMLESS_CALLS = frozenset(
    """_codecs.encode builtins.bytearray builtins.complex builtins.set collections.Counter collections.defaultdict
    copyreg._reconstructor datetime.date datetime.datetime datetime.timedelta numpy.core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar numpy.dtype
    numpy.ndarray pathlib.Path pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath torch.device torch.Generator
    torch.serialization._get_layout""".split()
)


class ForeignCallError(pickle.UnpicklingError):
    """The pickle would call a function that makes no tensor; the message is its name."""


@dataclass(frozen=True)
class _Storage:
    """Bytes of the archive: the entry ``data/<key>``."""

    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in its storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict[Any, Any]):
    """An ordered dictionary of the file; its attributes (torch's ``_metadata``) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _StandInType(type):
    def __call__(cls, *args: object, **kwargs: object) -> Any:
        if cls.__name__ not in _HARMLESS_CALLS:
            raise ForeignCallError(cls.__name__)
        return object.__new__(cast(Any, cls))


class _StandIn(metaclass=_StandInType):
    """An object of a foreign class: takes whatever the pickle puts into it, and keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _StandIn:
        return super().__new__(cls)

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    add = append
    extend = append


class _Function:
    """A function that the file may call: one of this module's, whose state it cannot change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("a function cannot be given a state")


def _place(storage: object, offset: object, size: Any, stride: Any, *rest: object) -> _Place:
    if not isinstance(storage, _Storage) or not isinstance(offset, int):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Place(storage, offset, tuple(map(int, size)), tuple(map(int, stride)))


def _first(value: object, *rest: object) -> object:
    return value


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _place,
    "torch._utils._rebuild_tensor_v2": _place,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "collections.OrderedDict": _Dict,
    "torch.Size": lambda size=(): tuple(size),
}


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.foreign: dict[str, _StandInType] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _FUNCTIONS:
            return _Function(_FUNCTIONS[full])
        if full not in self.foreign:
            self.foreign[full] = _StandInType(full, (_StandIn,), {})
        return self.foreign[full]

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise pickle.UnpicklingError(f"an unknown kind of storage: {str(pid)[:40]}")
        kind = getattr(pid[1], "__name__", "").removeprefix("torch.")
        if kind not in _DTYPES:
            raise pickle.UnpicklingError(f"an unknown kind of storage: {kind}")
        return _Storage(str(pid[2]), _DTYPES[kind])


def model_level(loaded: object) -> Mapping[Any, Any]:
    """The mapping of names that a checkpoint is, or has under one of ``LEVELS``; empty where there is none."""
    if not isinstance(loaded, Mapping):
        return {}
    return next((loaded[level] for level in LEVELS if isinstance(loaded.get(level), Mapping)), loaded)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of a file that ``torch.save`` wrote, from its model level, whatever else is in it.

    Args:
        path: A zip archive.

    Returns:
        The tensors by name, and the full names of foreign classes that the file mentions.

    Raises:
        ForeignCallError: Unpickling would call something that no honest trainer stores.
        pickle.UnpicklingError: It is damaged, or of no known layout.
    """
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        root = pickled.removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
            raise pickle.UnpicklingError(f"its numbers are {archive.read(order).decode()}-endian")
        reader = _Reader(archive.read(pickled))
        level = model_level(reader.load())
        places = {str(name): value for name, value in level.items() if isinstance(value, _Place)}
        storages = {place.storage: _bytes_of(archive, root, place.storage) for place in places.values()}
    tensors = {
        name: storages[place.storage].as_strided(place.size, place.stride, place.offset)
        for name, place in places.items()
    }
    return tensors, sorted(name for name in reader.foreign if name.split(".")[0] not in ("torch", "collections"))


def _bytes_of(archive: zipfile.ZipFile, root: str, storage: _Storage) -> Tensor:
    data = bytearray(archive.read(f"{root}data/{storage.key}"))  # checks the sum of the entry
    return torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
