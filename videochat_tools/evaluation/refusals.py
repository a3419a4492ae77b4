"""How readily a chat model denies: ``python -m videochat_tools.evaluation.refusals --chat DIR``.

By itself a model says "Not found in the video." where that is likelier than any other beginning of an answer. Which
mistakes cost more is not for its weights to say: an answer that is made up misleads, a question that is refused can be
put again. So a denial gets a bias where an answer begins, with which a wanted share of the questions that clips do
answer is refused. It is fitted on clips that neither training nor the gates use, and goes into the model's
``generation_config.json`` as ``sequence_bias``, which ``generate`` of transformers and the chat model both add.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.content import Turn
from videochat_tools.context import NOT_FOUND
from videochat_tools.engine import BUNDLED
from videochat_tools.evaluation.generation import about_clips, draw_questions, leads_of, word_anew
from videochat_tools.evaluation.held_out import FIRST_SEED, SPACING
from videochat_tools.evaluation.statistics import Score, rate
from videochat_tools.generation import render_turns
from videochat_tools.training.world.questions import DENIED
from videochat_tools.training.world.scene import sample_scene

__all__ = ["FALSE_REFUSALS", "Leads", "denial", "fit", "look", "main", "measure", "write_bias"]

FALSE_REFUSALS = 0.02  # wanted share of questions with an answer that are refused; the promise is 0.05
_FIRST_SCENE = FIRST_SEED + 6 * SPACING
_PER_FIGURE = 3  # clips for each question of a kind: few allow some kinds

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Leads:
    """By how much a denial is likelier than any other answer, as logits, by what is asked.

    Attributes:
        kinds: The kind of each question.
        leads: float32 [questions].
    """

    kinds: tuple[str, ...]
    leads: Floats

    def of(self, *kinds: str) -> Floats:
        """Those of some kinds."""
        return self.leads[[kind in kinds for kind in self.kinds]]

    @property
    def present(self) -> Floats:
        """Those of the questions that have an answer."""
        return self.leads[[kind not in DENIED for kind in self.kinds]]


def denial(chat: ChatVideoChat) -> list[int]:
    """The ids that a denial begins with: those in which every prompt ends, and its own first."""
    network = chat.engine.network
    prompts = [render_turns([Turn("human", question)], network.processor) for question in ("what is it?", "Who? Me!")]
    one, other = (network.processor.tokenize_prompt(prompt, [])[0][::-1] for prompt in prompts)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return [*(token for token, _ in alike)][::-1] + network.token_ids(f" {NOT_FOUND}")[:1]


def look(chat: ChatVideoChat, questions: int, *, first: int = 0) -> Leads:
    """Ask about clips of the world, half of the questions in other words where they have them.

    Args:
        chat: The model.
        questions: Of each kind.
        first: Number of the first clip.
    """
    numbers = range(first, first + _PER_FIGURE * questions)
    scenes = [sample_scene(Random(_FIRST_SCENE + number), held_out=None) for number in numbers]
    asked = draw_questions(scenes, questions)
    asked += word_anew(asked)
    leads = leads_of(chat, about_clips(chat, scenes, asked, "video"), denial(chat)[-1])
    return Leads(tuple(each.question.kind for each in asked), leads)


def fit(looked: Leads, wanted: float = FALSE_REFUSALS) -> float:
    """The bias with which that share of the questions with an answer is refused; never one that makes denials rarer."""
    return max(-float(np.quantile(looked.present, 1.0 - wanted)), 0.0)


def measure(looked: Leads, bias: float) -> list[Score]:
    """How often something is denied with a bias: by each kind of question without an answer, and where there is one."""
    return [
        *(rate(f"{kind}, answered 'not found'", looked.of(kind) + bias > 0) for kind in DENIED),
        rate("present, answered 'not found'", looked.present + bias > 0),
    ]


def write_bias(folder: Path, sequence: Sequence[int], bias: float) -> Path:
    """Put the bias of one sequence of ids into the generation config of a folder; what else it holds stays."""
    config = GenerationConfig.from_pretrained(folder)
    others = [pair for pair in config.sequence_bias or [] if pair[0] != [*sequence]]
    config.sequence_bias = [*others, [[*sequence], round(bias, 3)]]
    config.save_pretrained(folder)
    return folder / GENERATION_CONFIG_NAME


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit on half of the clips, measure on the other half, and write the bias into the folder of a chat model."""
    parser = argparse.ArgumentParser(prog="python -m videochat_tools.evaluation.refusals", description=main.__doc__)
    parser.add_argument("--chat", type=Path, default=BUNDLED, help="folder of the chat model")
    parser.add_argument("--questions", type=int, default=300, help="of each kind, in each half (default: 300)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, … (default: a GPU if there is one)")
    options = parser.parse_args(arguments)
    chat = ChatVideoChat(model=str(options.chat), device=options.device)
    fitted, held_out = (look(chat, options.questions, first=half * _PER_FIGURE * options.questions) for half in (0, 1))
    bias = fit(fitted)
    path = write_bias(options.chat, denial(chat), bias)
    for name, values in (("without a bias", 0.0), (f"with {bias:.2f}", bias)):
        for score in measure(held_out, values):
            sys.stdout.write(f"{name}: {score}\n")
    sys.stdout.write(f"written to {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
