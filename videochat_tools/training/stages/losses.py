"""The networks of a stage with their loss, so that one call runs all that has gradients.

Losses are means over what the batches of ALL processes hold: each process takes its own part of the sum, times the
number of processes, since gradients are then averaged over them. So two processes are one with twice the batch.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videochat_tools.models import VideoChat2ForRetrieval
from videochat_tools.models.modeling_chat import ClipChatModel
from videochat_tools.training.released import TrainingBatch, loss_inputs

from .processes import gather, rank, world_size

__all__ = ["ChatLoss", "RetrievalLoss", "StageModule"]


class StageModule(nn.Module):
    """A network whose ``forward`` is the loss.

    Attributes:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        layers = set(getattr(model, "_no_split_modules", None) or ())
        layers |= set(getattr(getattr(model, "language_model", None), "_no_split_modules", None) or ())
        self._no_split_modules = sorted(layers)  # what sharding takes as units

    def after_step(self) -> None:
        """What follows a step of the optimiser."""


class ChatLoss(StageModule):
    """Cross-entropy of the next token where it is learned.

    Args:
        model: The chat model.
        constant_bos: See ``loss_inputs``.
    """

    def __init__(self, model: ClipChatModel, *, constant_bos: bool = False) -> None:
        super().__init__(model)
        self.constant_bos = constant_bos

    def forward(
        self,
        batch: TrainingBatch,
        total: float,
        share: float,
        pixel_values: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss.

        Args:
            batch: Rows of this process.
            total: Learned tokens of all processes, and of all batches of the step.
            share: Unused: tokens weigh alike, whatever batch of a step they are in.
            pixel_values: All clips [clips, T, 3, S, S]; None for text alone.
            qformer_input_ids: What the Q-Former is told of each [clips, L].
            qformer_attention_mask: 1 where that is real.
        """
        model = cast(ClipChatModel, self.model)
        tokens = None
        if pixel_values is not None:
            tokens = model.get_clip_tokens(pixel_values, qformer_input_ids, qformer_attention_mask)
        inputs = loss_inputs(model, batch, tokens, constant_bos=self.constant_bos)
        loss = model(**inputs, use_cache=False, num_items_in_batch=torch.tensor(max(total, 1.0) / world_size())).loss
        return {"loss": loss}


class RetrievalLoss(StageModule):
    """The three losses of stage 1 of VideoChat2 over the batches of all processes.

    Contrast: features of all processes are compared, and their gradients flow back to whose they are. Matching: hard
    negatives come from all processes, or from the own one, by choice. Captioning: a mean over tokens.

    Args:
        model: The model; its configuration has the weights of the losses.
        all_negatives: Draw negatives from the batches of all processes.
    """

    def __init__(self, model: VideoChat2ForRetrieval, *, all_negatives: bool = True) -> None:
        super().__init__(model)
        self.all_negatives = all_negatives

    def after_step(self) -> None:
        """Keep the temperature where the released recipe keeps it, so that its gradient can always bring it back."""
        with torch.no_grad():
            cast(VideoChat2ForRetrieval, self.model).temp.clamp_(0.001, 0.5)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        sample_ids: Tensor,
        draws: str,
        total: float,
        share: float,
    ) -> dict[str, Tensor]:
        """The weighted sum and its parts.

        Args:
            pixel_values: Clips [B, T, 3, H, W].
            input_ids: Their captions [B, L]; L is the same in all processes.
            attention_mask: 1 where they are real.
            sample_ids: [B]; equal ids are positives of each other, and no negatives.
            draws: Decides which negatives are drawn.
            total: Caption tokens of all processes and of all batches of the step.
            share: Part of this batch in the step, for the losses that compare within a batch.
        """
        model = cast(VideoChat2ForRetrieval, self.model)
        config = model.config
        vision = model.encode_frames(pixel_values)
        queries = model.run_queries(vision, use_cache=True)
        videos = gather(model.project_video(cast(Tensor, queries.last_hidden_state)).float())
        texts = gather(model.text_embeds(input_ids, attention_mask).float())
        ids = gather(sample_ids)
        similarity = model.similarity(videos, texts)
        losses: dict[str, Tensor] = {}
        if config.contrastive_weight:
            losses["contrastive"] = config.contrastive_weight * share * model.contrastive_loss(similarity, ids)
        if config.matching_weight:
            matching = self._matching(vision, input_ids, attention_mask, similarity.detach(), ids, draws)
            losses["matching"] = config.matching_weight * share * matching
        if config.caption_weight:
            logits = model.caption_logits(input_ids, attention_mask, query_cache=queries.key_values)
            caption = self._captions(logits, input_ids, attention_mask) * world_size() / max(total, 1.0)
            losses["caption"] = config.caption_weight * caption
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _matching(
        self, vision: Tensor, input_ids: Tensor, mask: Tensor, similarity: Tensor, ids: Tensor, draws: str
    ) -> Tensor:
        """True pairs of this process, each caption with a wrong video, each video with a wrong caption."""
        model = cast(VideoChat2ForRetrieval, self.model)
        size = len(input_ids)
        own = slice(rank() * size, (rank() + 1) * size)
        if self.all_negatives:
            all_vision, all_ids, all_masks = gather(vision), gather(input_ids), gather(mask)
        else:
            similarity, ids = similarity[own, own], ids[own]
            all_vision, all_ids, all_masks, own = vision, input_ids, mask, slice(0, size)
        seed = sha256(f"{draws}:{0 if self.all_negatives else rank()}".encode()).digest()
        # On the CPU, so that it is the same draw everywhere.
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big", signed=True))
        wrong_video, wrong_text, has_video, has_text = model.draw_negatives(similarity, ids, generator)
        logits = model.match_logits(
            torch.cat([vision, all_vision[wrong_video[own]], vision]),
            torch.cat([input_ids, input_ids, all_ids[wrong_text[own]]]),
            torch.cat([mask, mask, all_masks[wrong_text[own]]]),
        )
        labels = torch.cat([torch.ones_like(wrong_video[own]), has_video[own].long() - 1, has_text[own].long() - 1])
        loss = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
        pairs = len(ids) + has_video.sum() + has_text.sum()
        return loss * (world_size() if self.all_negatives else 1) / pairs

    def _captions(self, logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Sum over the tokens of this process, with label smoothing."""
        labels = input_ids.masked_fill(mask == 0, -100)[:, 1:]
        return F.cross_entropy(
            logits[:, :-1].float().transpose(1, 2),
            labels,
            label_smoothing=cast(Any, self.model).config.caption_label_smoothing,
            reduction="sum",
        )
