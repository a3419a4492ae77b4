"""Ends generation at token sequences, as the released chat models do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

__all__ = ["StopOnSequences"]


class StopOnSequences(StoppingCriteria):
    """A row is done when its last ids equal one of the sequences. The rows of a batch end one by one.

    Pass it to ``generate(stopping_criteria=[StopOnSequences(processor.stop_sequences)])``.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.sequences = [torch.tensor(sequence) for sequence in sequences if len(sequence)]

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Ids so far [B, L] -> bool [B]."""
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for sequence in self.sequences:
            if input_ids.shape[1] >= len(sequence):
                done |= (input_ids[:, -len(sequence) :] == sequence.to(input_ids.device)).all(dim=1)
        return done
