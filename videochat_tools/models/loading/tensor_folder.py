"""The weights of a model folder, looked at one tensor at a time."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from videochat_tools.errors import ModelLoadError

from .checkpoints import broken, read_checkpoint, weight_files

__all__ = ["TensorFolder"]


class TensorFolder:
    """Tensors of a folder in the Hugging Face layout (``*.safetensors`` or ``*.bin``), in one file or several.

    Nothing is read before it is asked for. Only the tensors of a ``.bin`` file in torch's old format (before 1.6) come
    into memory together.

    Raises:
        ModelLoadError: There are no weights, a listed file is absent, or one is cut short.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ModelLoadError(f"no model folder at {folder}; give a folder in the Hugging Face layout")
        self._opened: tuple[Path, dict[str, Tensor]] | None = None

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the weights."""
        if files := weight_files(self.folder):
            return files
        hint = ""
        if any(self.folder.glob("consolidated.*.pth")):
            hint = ": it is in Meta's own layout, which transformers' convert_llama_weights_to_hf.py turns into it"
        raise ModelLoadError(f"{self.folder} holds no weights (*.safetensors, *.bin) in the Hugging Face layout{hint}")

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name."""
        return {name: shape for path in self.files for name, shape in self._shapes(path).items()}

    @cached_property
    def _file_of(self) -> dict[str, Path]:
        return {name: path for path in self.files for name in self._shapes(path)}

    def tensor(self, name: str) -> Tensor:
        """One tensor, as stored."""
        path = self._file_of[name]
        if path.suffix != ".safetensors":
            return self._pickled(path)[name]
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def _shapes(self, path: Path) -> dict[str, tuple[int, ...]]:
        if path.suffix != ".safetensors":
            return {name: tuple(tensor.shape) for name, tensor in self._pickled(path).items()}
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                return {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except SafetensorError as error:
            raise broken(path, error) from error

    def _pickled(self, path: Path) -> dict[str, Tensor]:
        if self._opened is None or self._opened[0] != path:
            self._opened = None  # first let go of the last file
            self._opened = path, read_checkpoint(path)
        return self._opened[1]
