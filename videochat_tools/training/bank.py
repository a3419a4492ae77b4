"""Clips as the language model gets them, and many of them kept.

A tower and a Q-Former that stay as they are watch each clip once; what is asked about it is new at every step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from videochat_tools.models.videochat2.modeling_videochat2 import VideoChat2ForConditionalGeneration
from videochat_tools.models.videochat2.prompts import ChoicePrompt
from videochat_tools.training.clips import Clip, ClipFormat, draw_clip, to_pixels
from videochat_tools.training.loop import half_precision
from videochat_tools.training.retelling import Retelling
from videochat_tools.training.slots import Held, SlotHeads
from videochat_tools.training.telling import Telling, set_projection
from videochat_tools.training.world.looks import with_other_looks
from videochat_tools.training.world.scene import Scene

__all__ = ["ClipRows", "TokenBank", "see_clips", "tell_clips"]

log = logging.getLogger(__name__)

_CHOICE = ChoicePrompt()  # what the Q-Former reads where MVBench asks
_BLUR = 0.15  # noise on the clips, in their standard deviations, so that they are not learned by heart
_RETOLD = 0.4  # share of the clips that are told with other looks
# Shares of the draws from clips with two events (with one, it need not be found), from those in which one object meets
# another (a quarter of all, and most is to be compared there), and from all.
_OFTEN = (0.4, 0.3, 0.3)
_FITTED = 4_096  # clips that a projection is fitted to
_FIT_STEPS, _FIT_CLIPS, _FIT_RATE = 600, 64, 0.02  # of slot heads


def tell_clips(
    model: VideoChat2ForConditionalGeneration, pieces: PreTrainedTokenizerBase, vision: Tensor, *, choice: bool
) -> Tensor:
    """Clip tokens [clips, Q, h] of what the tower sees, [clips, S, D].

    The Q-Former is told nothing, as where stage 1 gave its rows their meaning; with ``choice``, what MVBench tells it,
    which blurs them a little.
    """
    told: dict[str, Tensor] = {}
    if choice:
        told = pieces([_CHOICE.system] * len(vision), truncation=True, max_length=64, return_tensors="pt")
    with half_precision():
        return model.get_clip_tokens(None, told.get("input_ids"), told.get("attention_mask"), vision_embeds=vision)


def see_clips(model: VideoChat2ForConditionalGeneration, clips: Sequence[Clip], form: ClipFormat) -> Tensor:
    """What the tower sees of clips [clips, S, D]."""
    with half_precision():
        return model.encode_frames(to_pixels(clips, form))


@dataclass(frozen=True, slots=True)
class ClipRows:
    """Clips of a step.

    Attributes:
        tokens: [clips, Q, h].
        scenes: What they show.
        held: Of every clip, which of its tokens holds each object and event; empty where that was not asked.
        retold: Which clips were told with other looks than they were seen with; by default none.
    """

    tokens: Tensor
    scenes: Sequence[Scene]
    held: Sequence[Held] = ()
    retold: Sequence[bool] = ()


class TokenBank:
    """Clips that were watched, and what they show.

    Attributes:
        tokens: bfloat16 [count, Q, h] twice, without and with what MVBench tells the Q-Former.
        scenes: What the clips show.

    Args:
        model: With the tower and the Q-Former that watch.
        pieces: Tokenizer of the Q-Former.
        form: Of the clips.
        count: How many, rounded up to a multiple of 32.
        seed: Of the clips.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: VideoChat2ForConditionalGeneration,
        pieces: PreTrainedTokenizerBase,
        form: ClipFormat,
        count: int,
        seed: str,
    ) -> None:
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.scenes: list[Scene] = []
        for start in range(0, count, 32):
            rng = Random(f"bank {seed} {start}")
            clips = [draw_clip(rng, form) for _ in range(32)]
            vision = see_clips(model, clips, form)
            for choice in (False, True):
                parts[choice].append(tell_clips(model, pieces, vision, choice=choice).bfloat16())
            self.scenes += [clip.scene for clip in clips]
        self.tokens = torch.cat(parts[0]), torch.cat(parts[1])
        self._blur = _BLUR * self.tokens[0].float().std(dim=(0, 1))  # of each channel [h]
        self._eventful = [place for place, scene in enumerate(self.scenes) if len(scene.events) > 1]
        self._meetings = [place for place, scene in enumerate(self.scenes) if _has_meeting(scene)]
        self._held: Sequence[Held] = ()
        self._retelling: Retelling | None = None
        self._directions: tuple[tuple[slice, Tensor], ...] = ()
        log.info("%d clips were watched", len(self.scenes))

    def fit(self, slots: SlotHeads) -> None:
        """Let fresh slot heads learn what the rows hold."""
        parameters = [*slots.requires_grad_(True).parameters()]
        optimizer = torch.optim.Adam(parameters, lr=_FIT_RATE)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, _FIT_STEPS)
        for step in range(_FIT_STEPS):
            places = Random(f"slots {step}").sample(range(len(self.scenes)), min(_FIT_CLIPS, len(self.scenes)))
            loss, right = slots(self.tokens[0][places].float(), [self.scenes[place] for place in places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falling.step()
        slots.requires_grad_(False)
        log.info("slot heads: %s", {name: round(float(value), 2) for name, value in right.items()})

    def ask(self, slots: SlotHeads) -> None:
        """Let trained slot heads say which row of each clip holds what, and what of a row they go by."""
        self._held = slots.find(self.tokens[0].float(), self.scenes)
        self._directions = tuple(slots.directions())
        self._retelling = Retelling(self.tokens[0], self.scenes, self._held)

    def tell(self, model: VideoChat2ForConditionalGeneration, telling: Telling) -> None:
        """Set the projection so that a language model that went to school with told rows reads these clips.

        :meth:`ask` comes first: it says which row holds what.
        """
        tokens, scenes, held = self.tokens[0][:_FITTED], self.scenes[:_FITTED], self._held[:_FITTED]
        told = telling(model.get_input_embeddings().get_parameter("weight"), scenes, held)
        explained = set_projection(model.projection, tokens, told, held)
        log.info("a projection of what was seen explains %.2f of what would be told", explained)

    def draw(self, rng: Random, count: int, *, choice: bool) -> ClipRows:
        """Clips of the bank, their tokens a little blurred.

        Clips with two events, or with a meeting, come more often than they are. Once the slot heads were asked, some
        are told with other looks, and what these heads do not go by is mixed with another clip's: answers are to stand
        on what linear heads can read, not on the rest, by which a clip can be learned by heart.

        ``choice``: as MVBench tells the Q-Former.
        """
        places = rng.sample(range(len(self.scenes)), count)
        often = rng.choices((self._eventful, self._meetings, ()), _OFTEN, k=count)
        for number, others in enumerate(often):
            if others and (other := rng.choice(others)) not in places:
                places[number] = other
        tokens = self.tokens[choice][places]
        scenes = [replace(self.scenes[place]) for place in places]  # copies: their facts are not to be kept
        held = [self._held[place] for place in places] if self._held else []
        retold = [self._retelling is not None and rng.random() < _RETOLD for _ in places]
        if self._retelling is not None:
            told = [
                with_other_looks(rng, scene) if other else scene for scene, other in zip(scenes, retold, strict=True)
            ]
            tokens, scenes = self._retelling.change(tokens, scenes, told, held), told
        tokens = tokens + (self._blur * torch.randn(tokens.shape)).to(tokens)
        for rows, directions in self._directions:
            here = tokens[:, rows].float()
            change = torch.rand(*here.shape[:2], 1) * (here.roll(1, dims=0) - here)
            tokens[:, rows] += (change - change @ directions.T @ directions).to(tokens)
        return ClipRows(tokens, scenes, held, retold)


def _has_meeting(scene: Scene) -> bool:
    return any(event.target is not None for event in scene.events)
