"""Batches of samples as the tensors that the losses of a stage are taken of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor

from videochat_tools.errors import ContextTooLongError, UnsupportedContentError
from videochat_tools.models.videochat2 import VideoChat2Processor
from videochat_tools.models.videochat2.tiling import split_views
from videochat_tools.training.data import SampleBatch
from videochat_tools.training.released import (
    IGNORED,
    CaptionSample,
    EncodedRow,
    InstructionSample,
    TrainingBatch,
    TrainingText,
    collate,
    encode_text,
    released_recipe,
    render_caption,
    render_instruction,
)

from .options import StageOptions

__all__ = ["CaptionEncoder", "ChatEncoder", "Encoded", "Encoder", "make_encoder"]

log = logging.getLogger(__name__)

# Sentences that ask for a caption; one is drawn for every step.
_REQUESTS = (
    "Describe the following {} concisely.",
    "Say briefly what the {} shows.",
    "Write a short caption for this {}.",
    "What can be seen in the {}?",
    "Give a summary of this {} in one sentence.",
    "Tell in a few words what the {} is about.",
    "Caption the given {}.",
    "What does this {} show? Answer briefly.",
    "Put into words what you see in the {}.",
    "Describe the content of the given {} in brief.",
    "Explain this {} in a short sentence.",
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One batch of one process.

    Attributes:
        inputs: Arguments of the stage's module, but for what is counted over all processes.
        learned: What its loss is the mean of: tokens that are predicted.
    """

    inputs: dict[str, Any]
    learned: int


class Encoder(Protocol):
    """Turns samples into tensors."""

    def __call__(self, batch: SampleBatch, draws: str) -> Encoded:
        """Encode a batch; ``draws`` decides what is drawn, and is the same for all processes of a step."""
        ...


def make_encoder(options: StageOptions, processor: VideoChat2Processor) -> Encoder:
    """The encoder of a stage."""
    return (CaptionEncoder if options.family == "retrieval" else ChatEncoder)(options, processor)


class CaptionEncoder:
    """Stage 1 of VideoChat2: clips, their captions in WordPieces, and which clips are the same."""

    def __init__(self, options: StageOptions, processor: VideoChat2Processor) -> None:
        self.max_length = options.max_text_length
        assert processor.qformer_tokenizer is not None
        self.tokenizer = processor.qformer_tokenizer

    def __call__(self, batch: SampleBatch, draws: str) -> Encoded:
        """Captions of one length, so that those of all processes can be put together.

        Raises:
            UnsupportedContentError: A sample is no caption.
        """
        texts = [_caption(sample, 1).caption for sample in batch.samples]
        encoded = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        mask = encoded["attention_mask"]
        inputs = {
            "pixel_values": torch.stack(batch.pixels),
            "input_ids": encoded["input_ids"],
            "attention_mask": mask,
            "sample_ids": torch.tensor(batch.ids),
            "draws": draws,
        }
        return Encoded(inputs, int(mask[:, 1:].sum()))


@dataclass(slots=True)
class ChatEncoder:
    """The stages with a language model: captions or conversations around the tokens of the clips.

    Attributes:
        options: Of the stage.
        processor: With the tokenizers.
        unlearned: Samples of which nothing could be learned, because they are too long, or because a token lies across
            the border of what is learned. They take part in the batch and count for nothing.
    """

    options: StageOptions
    processor: VideoChat2Processor
    unlearned: int = field(default=0, init=False)

    def __call__(self, batch: SampleBatch, draws: str) -> Encoded:
        """Rows, masks and labels as the released recipes make them.

        Raises:
            UnsupportedContentError: A sample is not of the kind that the stage learns from.
        """
        recipe = replace(
            released_recipe(self.options.family, self.options.stage), max_text_length=self.options.max_text_length
        )
        tokenizer, per_clip = self.processor.tokenizer, self.processor.options.num_visual_tokens
        assert tokenizer is not None
        clips = [self._views(pixels) for pixels in batch.pixels]
        places = [per_clip * len(views) for views in clips] or [0] * len(batch.samples)
        request = Random(draws).choice(_REQUESTS)
        rows = []
        for number, sample in enumerate(batch.samples):
            if recipe.captions is None:
                times = batch.times[number] if batch.times else None
                text = render_instruction(_conversation(sample, recipe.stage), recipe, times=times)
            else:
                caption = _caption(sample, recipe.stage)
                text = render_caption(caption, recipe, request=request.format(caption.kind))
            try:
                row = encode_text(tokenizer, text, recipe, visual_tokens=places[number])
            except UnsupportedContentError as error:
                self._pass_over(error)
                row = encode_text(tokenizer, _unlearned(text), recipe, visual_tokens=places[number])
            rows.append(row)
        try:
            made = collate(rows, tokenizer, recipe)
        except ContextTooLongError as error:
            self._pass_over(error, len(rows))
            made = collate([_stub(row) for row in rows], tokenizer, recipe)
            made = replace(made, labels=torch.full_like(made.labels, IGNORED))
        return Encoded(self._inputs(made, clips, per_clip), int((made.labels[:, 1:] != IGNORED).sum()))

    def _views(self, pixels: Tensor) -> Tensor:
        """[T, 3, H, W] to clips for the tower: [1, T, 3, S, S], or those of the tiles and of the whole (HD)."""
        tiling = self.processor.options.tiling
        if tiling is None:
            return pixels[None]
        return split_views(pixels, self.processor.options.image_size, global_view=tiling.global_view)

    def _inputs(self, made: TrainingBatch, clips: Sequence[Tensor], per_clip: int) -> dict[str, Any]:
        told = made.clip_instructions(per_clip)
        return {
            "pixel_values": torch.cat(list(clips)) if clips else None,
            **(self.processor.instruction_inputs(len(told), told) if told else {}),
            "batch": made,
        }

    def _pass_over(self, error: Exception, samples: int = 1) -> None:
        if not self.unlearned:
            log.warning("nothing is learned of some samples: %s", error)
        self.unlearned += samples


def _caption(sample: CaptionSample | InstructionSample, stage: int) -> CaptionSample:
    if isinstance(sample, InstructionSample):
        raise UnsupportedContentError(
            f"stage {stage} learns captions, but {sample.path or 'a sample'} is a conversation; "
            "give files with 'caption'"
        )
    return sample


def _conversation(sample: CaptionSample | InstructionSample, stage: int) -> InstructionSample:
    if isinstance(sample, CaptionSample):
        raise UnsupportedContentError(
            f"stage {stage} learns conversations, but {sample.path or 'a sample'} is a caption; give files with 'QA'"
        )
    return sample


def _unlearned(text: TrainingText) -> TrainingText:
    pieces = (piece and tuple(replace(span, learned=False) for span in piece) for piece in text.pieces)
    return replace(text, pieces=tuple(pieces))


def _stub(row: EncodedRow) -> EncodedRow:
    """The clip of a row with nothing before or behind it but BOS and one token."""
    clip = sum(row.visual)
    ids = (row.input_ids[0], *([row.input_ids[0]] * clip), row.input_ids[0])
    return EncodedRow(ids, (IGNORED,) * (clip + 1) + ids[-1:], (False, *([True] * clip), False), row.instruction)
