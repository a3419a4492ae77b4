"""Training-side encoding of the released VideoChat recipes: samples to ids, labels, masks and the loss.

::

    recipe = released_recipe("vicuna", 3)
    sample = read_sample(record).shuffled(rng)                            # one entry of an annotation file
    text = render_instruction(sample, recipe, times=seconds)              # conversation in the family's words
    row = encode_text(tokenizer, text, recipe, visual_tokens=96)          # ids, labels, places of the clip
    batch = collate(rows, tokenizer, recipe)                              # padded and cut on the right
    told = processor.instruction_inputs(clips, batch.clip_instructions(96))
    loss = model(**loss_inputs(model, batch, model.get_clip_tokens(pixels, **told))).loss

Stage 1 of VideoChat2 has no conversation: its losses are those of ``VideoChat2ForRetrieval``.
"""

from .collate import TrainingBatch, collate, loss_inputs
from .labels import IGNORED, EncodedRow, encode_spans, encode_text
from .recipes import RECIPES, CaptionTemplate, EncodingRecipe, released_recipe
from .samples import CaptionSample, InstructionSample, Turn, read_sample
from .templates import Span, TrainingText, render_caption, render_instruction

__all__ = [
    "IGNORED",
    "RECIPES",
    "CaptionSample",
    "CaptionTemplate",
    "EncodedRow",
    "EncodingRecipe",
    "InstructionSample",
    "Span",
    "TrainingBatch",
    "TrainingText",
    "Turn",
    "collate",
    "encode_spans",
    "encode_text",
    "loss_inputs",
    "read_sample",
    "released_recipe",
    "render_caption",
    "render_instruction",
]
