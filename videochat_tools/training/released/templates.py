"""Training texts of the released models: what stands where, and which of it is learned.

They differ from the prompts at inference (``models.videochat2.prompts``) in their spaces and newlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models.frame_sampling import timestamp_message

from .recipes import EncodingRecipe
from .samples import CaptionSample, InstructionSample, MediaKind, Turn

__all__ = ["Span", "TrainingText", "render_caption", "render_instruction"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text that is learned or only read."""

    text: str
    learned: bool = False


@dataclass(frozen=True, slots=True)
class TrainingText:
    """The text of one row.

    Attributes:
        pieces: Tokenised one by one, as the released models were trained; None is the place of the clip.
        kind: What is shown there; None if there is no such place.
        instruction: What the Q-Former is told (may be empty); None tells it nothing.
    """

    pieces: tuple[tuple[Span, ...] | None, ...]
    kind: MediaKind | None = None
    instruction: str | None = None

    @property
    def text(self) -> str:
        """All of it in one string, with ``<VideoHere>`` or ``<ImageHere>`` for the clip."""
        place = f"<{(self.kind or '').capitalize()}Here>"
        return "".join(place if piece is None else "".join(span.text for span in piece) for piece in self.pieces)


def render_instruction(
    sample: InstructionSample, recipe: EncodingRecipe, *, times: Sequence[float] | None = None
) -> TrainingText:
    """A conversation in the words of its family.

    Learned are, with the vicuna template, the answers and every ``###`` mark behind the clip, those of the user
    included; else the answers with their end marks.

    Args:
        sample: The instruction of its first turn is that of the row.
        recipe: A stage of conversations.
        times: Seconds of the frames, counted from the start of the whole video; they stand in the text of a video where
            the recipe names them, and are left out elsewhere.

    Raises:
        UnsupportedContentError: The recipe learns captions, the times are missing, or there is neither clip nor
            question to begin with.
    """
    if recipe.captions is not None:
        raise UnsupportedContentError(
            f"stage {recipe.stage} of {recipe.family} learns captions; use render_caption or a later stage"
        )
    first = sample.turns[0]
    if sample.kind is None and not first.question:
        raise UnsupportedContentError("a sample of text alone needs a question in its first turn")
    message = ""
    if sample.kind == "video" and recipe.timestamps:
        if not times:
            raise UnsupportedContentError(
                f"stage {recipe.stage} of {recipe.family} names the times of the frames; give times, in seconds"
            )
        message = f" {timestamp_message(times)}"
    opening, closing = "", ""
    if sample.kind is not None:
        tag = sample.kind.capitalize()
        opening, closing = f"<{tag}>", f"</{tag}>{message}"
    before, after = _WRITERS[recipe.family](sample.turns, opening, closing)
    pieces: tuple[tuple[Span, ...] | None, ...]
    pieces = ((Span(before),), None, after) if opening else ((Span(before), *after),)
    return TrainingText(pieces, sample.kind, _qformer_text(first, recipe) if opening else None)


def render_caption(sample: CaptionSample, recipe: EncodingRecipe, *, request: str | None = None) -> TrainingText:
    """A request to describe the clip, and the caption.

    Args:
        sample: The caption is learned, with its end mark.
        recipe: A captioning stage.
        request: One sentence, such as "Describe the following video concisely." (taken if there is none); the
            released recipes draw it anew for every batch from a list.

    Raises:
        UnsupportedContentError: The recipe learns conversations.
    """
    if recipe.captions is None:
        raise UnsupportedContentError(
            f"stage {recipe.stage} of {recipe.family} learns conversations; use render_instruction or an earlier stage"
        )
    if request is None:
        request = f"Describe the following {sample.kind} concisely."
    tag = sample.kind.capitalize()
    before, after = recipe.captions.prompt.split("{}")
    pieces = (
        (Span(f"{before}<{tag}>"),),
        None,
        (Span(f"</{tag}> {request}{after}"),),
        (Span(sample.caption + recipe.captions.end, learned=True),),
    )
    return TrainingText(pieces, sample.kind)


def _qformer_text(first: Turn, recipe: EncodingRecipe) -> str | None:
    if recipe.qformer_text == "nothing":
        return None
    if recipe.qformer_text == "instruction" or not first.instruction:
        return first.instruction.strip()  # without an instruction the question is not told either
    joint = "" if recipe.family == "phi3" else " "
    return f"{first.instruction}{joint}{first.question}".strip()


def _write_vicuna(turns: Sequence[Turn], opening: str, closing: str) -> tuple[str, tuple[Span, ...]]:
    spans = [] if not opening else [Span(closing)]
    for turn in turns:
        if turn.question:
            spans += [Span("###Human:", learned=True), Span(turn.question)]
        spans.append(Span(f"###Assistant: {turn.answer}", learned=True))
    spans.append(Span("###", learned=True))
    return _spaced(turns[0].instruction, f"###Human: {opening}" if opening else "", spans)


def _write_mistral(turns: Sequence[Turn], opening: str, closing: str) -> tuple[str, tuple[Span, ...]]:
    spans = [] if not opening else [Span(f"{closing} [/INST]")]
    for turn in turns:
        if turn.question:
            spans.append(Span(f"[INST] {turn.question} [/INST]"))
        spans.append(Span(f"{turn.answer} </s>", learned=True))
    return _spaced(turns[0].instruction, f"[INST] {opening}" if opening else "", spans)


def _spaced(instruction: str, opening: str, spans: Sequence[Span]) -> tuple[str, tuple[Span, ...]]:
    """All parts with one space between; a space belongs to the part that follows it, as in the tokens."""
    before = f"{instruction} {opening}" if instruction and opening else instruction or opening
    first = not opening and bool(before)
    return before, tuple(
        Span(f" {span.text}" if n or first else span.text, span.learned) for n, span in enumerate(spans)
    )


def _write_phi3(turns: Sequence[Turn], opening: str, closing: str) -> tuple[str, tuple[Span, ...]]:
    instruction = turns[0].instruction
    before = (f"<|system|>\n{instruction}<|end|>\n" if instruction else "") + f"<|user|>\n{opening}"
    spans = []
    for number, turn in enumerate(turns):
        start = "<|user|>\n" if number else f"{closing}\n" if opening else ""
        spans.append(Span(f"{start}{turn.question.strip()}<|end|>\n<|assistant|>\n"))
        end = "<|end|>\n" if number < len(turns) - 1 else "<|end|>"
        spans.append(Span(turn.answer.strip() + end, learned=True))
    return before, tuple(spans)


_WRITERS = {"videochat": _write_vicuna, "vicuna": _write_vicuna, "mistral": _write_mistral, "phi3": _write_phi3}
"""By family: the text before the clip, and the spans after it."""
