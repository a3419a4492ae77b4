"""A new folder that is there whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videochat_tools.errors import ModelLoadError

__all__ = ["check_output", "new_folder"]


def check_output(output: str | Path) -> Path:
    """The path of a folder to be written.

    Raises:
        ModelLoadError: Something is there already.
    """
    path = Path(output)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ModelLoadError(f"{path} exists and is not empty; give a new folder as the output")
    return path


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A folder to write into, which takes the name ``output`` at the end; after an error nothing of it is left.

    Raises:
        ModelLoadError: ``output`` exists and is not empty.
    """
    path = check_output(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rmdir()
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
