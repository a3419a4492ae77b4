"""A model that answers by a rule, behind the seam that benchmarks have for models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from videochat_tools.evaluation.benchmarks.footage import Frames
from videochat_tools.models.videochat2.prompts import ChoicePrompt


@dataclass
class RuleModel:
    """Answers ``rule(question, frames)``; keeps what it was asked."""

    rule: Callable[[str, Frames | None], str] = lambda question, frames: "A)"
    name: str = "rule"
    num_frames: int = 4
    frame_size: int | None = 32
    asked: list[tuple[str, Frames | None, str]] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": self.name}

    def answer(
        self, prompt: ChoicePrompt, question: str, frames: Frames | None, *, before: str = "", max_tokens: int = 100
    ) -> str:
        self.asked.append((question, frames, before))
        return self.rule(question, frames)
