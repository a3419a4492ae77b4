"""The log of a run: one JSON object a line, and the same for TensorBoard."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .options import StageOptions

__all__ = ["Records"]


class Records:
    """Means over ``log_steps`` steps, in ``log.jsonl`` and, if asked for, in ``tensorboard``.

    Args:
        folder: Of the run.
        options: Of the run.
        enabled: Write at all; one process does.
        step: The run goes on after this one: later entries, of a run that was stopped, are taken out.
    """

    def __init__(self, folder: Path, options: StageOptions, *, enabled: bool, step: int) -> None:
        self._path = folder / "log.jsonl"
        self._every = options.log_steps
        self._enabled = enabled
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._board: Any = None
        if enabled:
            self._forget(step)
        if enabled and options.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, step: int, losses: Mapping[str, float], *, rate: float, seconds: float) -> None:
        """Take in one step."""
        if not self._enabled:
            return
        for name, value in {**losses, "seconds": seconds}.items():
            self._sums[name].append(value)
        if step % self._every:
            return
        row = {name: sum(values) / len(values) for name, values in self._sums.items()} | {"rate": rate}
        self._sums.clear()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def _forget(self, step: int) -> None:
        if self._path.is_file():
            kept = [
                line for line in self._path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step
            ]
            self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
