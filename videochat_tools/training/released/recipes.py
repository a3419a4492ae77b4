"""How each released recipe turns a sample into text and numbers; the values are those of its published configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from videochat_tools.errors import UnsupportedContentError

__all__ = ["RECIPES", "CaptionTemplate", "EncodingRecipe", "Family", "released_recipe"]

Family = Literal["videochat", "vicuna", "mistral", "phi3"]


@dataclass(frozen=True, slots=True)
class CaptionTemplate:
    """How a captioning stage writes its text.

    Attributes:
        prompt: Around the request that shows the clip, which stands at ``{}``.
        end: Follows the caption and is learned with it.
    """

    prompt: str
    end: str


@dataclass(frozen=True, slots=True)
class EncodingRecipe:
    """One training stage of one family. "videochat" is the first VideoChat, the others are VideoChat2.

    Attributes:
        family: Decides the template of a conversation.
        stage: Number of the stage.
        max_text_length: With captions: tokens of the longest caption and its end. Else: a batch is cut to this many
            tokens more than its longest visual part.
        captions: Template of a captioning stage; None for a stage of conversations.
        timestamps: Whether the text names the times of the video's frames.
        qformer_text: What the Q-Former reads: nothing, the instruction, or the instruction with the first question.
        own_padding: Pad with the tokenizer's own padding token; else with its end-of-text token.
    """

    family: Family
    stage: int
    max_text_length: int
    captions: CaptionTemplate | None = None
    timestamps: bool = False
    qformer_text: Literal["nothing", "instruction", "question"] = "nothing"
    own_padding: bool = False


_VICUNA_CAPTIONS = CaptionTemplate("###Human: {} ###Assistant: ", "###")
_MISTRAL_CAPTIONS = CaptionTemplate("[INST] {} [/INST]", "</s>")
_PHI3_CAPTIONS = CaptionTemplate("<|user|>\n{}<|end|>\n<|assistant|>\n", "<|end|>")

_ALL = (
    EncodingRecipe("videochat", 1, 32, _VICUNA_CAPTIONS),
    EncodingRecipe("videochat", 2, 512, timestamps=True),
    EncodingRecipe("vicuna", 2, 512, _VICUNA_CAPTIONS, own_padding=True),
    EncodingRecipe("vicuna", 3, 512, timestamps=True, qformer_text="question"),
    EncodingRecipe("mistral", 2, 32, _MISTRAL_CAPTIONS),
    EncodingRecipe("mistral", 3, 512, qformer_text="instruction"),
    EncodingRecipe("mistral", 4, 512, qformer_text="instruction"),
    EncodingRecipe("phi3", 2, 32, _PHI3_CAPTIONS),
    EncodingRecipe("phi3", 3, 512, qformer_text="instruction"),
)

RECIPES: Mapping[tuple[str, int], EncodingRecipe] = MappingProxyType(
    {(recipe.family, recipe.stage): recipe for recipe in _ALL}
)
"""By family and stage. Stage 4 (HD) differs from stage 3 in its clips and in that rows of text alone occur."""


def released_recipe(family: str, stage: int) -> EncodingRecipe:
    """The recipe of one stage; change it with ``dataclasses.replace``.

    Raises:
        UnsupportedContentError: No such stage trains a language model.
    """
    if (family, stage) not in RECIPES:
        known = ", ".join(f"{name} {number}" for name, number in RECIPES)
        raise UnsupportedContentError(f"no recipe for stage {stage} of {family!r}; there are: {known}")
    return RECIPES[family, stage]
