"""VideoChat2 stage 1: find, match and caption videos. Its heads are the only text-aligned ones of the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_videochat2 import VideoChat2RetrievalConfig
from .modeling_qformer import KeyValue, VideoChat2CaptionHead, VideoChat2QFormer, VideoChat2QFormerOutput
from .modeling_vision import VideoChat2VisionModel

__all__ = ["VideoChat2ForRetrieval", "VideoChat2RetrievalOutput"]


@dataclass
class VideoChat2RetrievalOutput(ModelOutput):
    """Losses and features of stage 1; a loss whose weight is 0 is None.

    Attributes:
        loss: Weighted sum of the three.
        contrastive_loss: Video-text contrastive loss, mean of both directions.
        matching_loss: Video-text matching loss with hard negatives.
        caption_loss: Captioning loss.
        video_embeds: [B, Q, P], L2-normalised.
        text_embeds: [B, P], L2-normalised.
        similarity: [B, B] of videos (rows) and texts, before the temperature.
        vision_embeds: [B, S, D] what the Q-Former read.
    """

    loss: Tensor | None = None
    contrastive_loss: Tensor | None = None
    matching_loss: Tensor | None = None
    caption_loss: Tensor | None = None
    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    similarity: Tensor | None = None
    vision_embeds: Tensor | None = None


class VideoChat2ForRetrieval(PreTrainedModel):
    """Tower, Q-Former and the heads for contrast (ITC), matching (ITM) and captioning (ITG)."""

    config: VideoChat2RetrievalConfig
    config_class = VideoChat2RetrievalConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["VideoChat2VisionLayer", "VideoChat2QFormerLayer"]  # noqa: RUF012

    def __init__(self, config: VideoChat2RetrievalConfig) -> None:
        super().__init__(config)
        vision, qformer = config.vision_config, config.qformer_config
        self.vision_encoder = VideoChat2VisionModel._from_config(vision)
        self.vision_temp_embed = nn.Parameter(torch.zeros(1, config.temporal_embed_frames, 1, vision.hidden_size))
        self.vision_layernorm = nn.LayerNorm(vision.hidden_size, eps=config.vision_layer_norm_eps)
        self.query_tokens = nn.Parameter(torch.zeros(1, qformer.num_query_tokens, qformer.hidden_size))
        self.qformer = VideoChat2QFormer._from_config(qformer)
        self.caption_head = VideoChat2CaptionHead(qformer)
        self.vision_proj = nn.Linear(qformer.hidden_size, config.projection_dim)
        self.text_proj = nn.Linear(qformer.hidden_size, config.projection_dim)
        self.itm_head = nn.Linear(2 * qformer.hidden_size, 2)
        self.temp = nn.Parameter(torch.tensor(float(config.initial_temperature)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VideoChat2ForRetrieval):
            init.zeros_(module.vision_temp_embed)
            init.normal_(module.query_tokens, std=self.config.initializer_range)
            init.constant_(module.temp, self.config.initial_temperature)
        elif isinstance(module, VideoChat2CaptionHead):
            init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings of the Q-Former."""
        return self.qformer.embeddings.word_embeddings

    @property
    def temperature(self) -> Tensor:
        """The learned temperature, kept in 0.001..0.5 as in the released recipe."""
        return self.temp.clamp(0.001, 0.5)

    # Video side

    def encode_frames(self, pixel_values: Tensor) -> Tensor:
        """Tower, per-frame embedding and norm: clips [B, T, C, H, W] -> vision embeddings [B, T * N, D].

        The per-frame embedding has ``temporal_embed_frames`` entries; other lengths get it interpolated linearly in
        time, and a still image its mean. With ``broadcast_single_frame`` an image yields that many pseudo-frames.
        """
        features = self.vision_encoder(pixel_values).last_hidden_state
        frames = features.shape[1]
        table: Tensor = self.vision_temp_embed
        if frames == 1 and not self.config.broadcast_single_frame:
            table = table.mean(dim=1, keepdim=True)
        elif frames not in (1, table.shape[1]):
            by_channel = table[:, :, 0].transpose(1, 2)
            table = F.interpolate(by_channel, size=frames, mode="linear", align_corners=False)
            table = table.transpose(1, 2)[:, :, None]
        return cast(Tensor, self.vision_layernorm((features + table).flatten(1, 2)))

    def run_queries(self, vision_embeds: Tensor, use_cache: bool = False) -> VideoChat2QFormerOutput:
        """The queries over vision embeddings [B, S, D]; ``use_cache`` returns their keys and values, for captions."""
        queries = self.query_tokens.expand(vision_embeds.shape[0], -1, -1)
        output = self.qformer(query_embeds=queries, encoder_hidden_states=vision_embeds, use_cache=use_cache)
        return cast(VideoChat2QFormerOutput, output)

    def query_outputs(self, vision_embeds: Tensor) -> Tensor:
        """What the queries read, without text: [B, S, D] -> [B, Q, h]."""
        return cast(Tensor, self.run_queries(vision_embeds).last_hidden_state)

    def project_video(self, query_outputs: Tensor) -> Tensor:
        """Query rows [B, Q, h] to points in the shared space [B, Q, P], each L2-normalised."""
        return F.normalize(self.vision_proj(query_outputs), dim=-1)

    def video_embeds(self, vision_embeds: Tensor) -> Tensor:
        """Points of a clip in the shared space: [B, S, D] -> [B, Q, P], each L2-normalised."""
        return self.project_video(self.query_outputs(vision_embeds))

    # Text side

    def text_embeds(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Point of a text in the shared space, from its [CLS] row: ids [B, L] -> [B, P], L2-normalised."""
        states = self.qformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return F.normalize(self.text_proj(states[:, 0]), dim=-1)

    # Both

    def similarity(self, video_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosine similarity of every video with every text, without temperature.

        Args:
            video_embeds: [Bv, Q, P].
            text_embeds: [Bt, P].

        Returns:
            [Bv, Bt]: mean over the queries (released), or their maximum if the configuration says so.
        """
        if self.config.aggregation == "mean":  # the mean of dot products is the dot product with the mean
            return video_embeds.mean(dim=1) @ text_embeds.t()
        return torch.einsum("vqp,tp->vqt", video_embeds, text_embeds).amax(dim=1)

    def read_jointly(
        self, vision_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> VideoChat2QFormerOutput:
        """Queries and text i over video i as one sequence [B, Q + L, h]; ``kwargs`` as of the Q-Former."""
        output = self.qformer(
            query_embeds=self.query_tokens.expand(vision_embeds.shape[0], -1, -1),
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=vision_embeds,
            **kwargs,
        )
        return cast(VideoChat2QFormerOutput, output)

    def pool_matched(self, states: Tensor) -> Tensor:
        """What the matching head reads of the rows [B, Q + L, h]: mean query row and [CLS] row, [B, 2h]."""
        count = self.query_tokens.shape[1]
        return torch.cat([states[:, :count].mean(dim=1), states[:, count]], dim=-1)

    def match_embeds(self, vision_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Joint reading of video i and text i, [B, 2h]."""
        states = self.read_jointly(vision_embeds, input_ids, attention_mask).last_hidden_state
        return self.pool_matched(cast(Tensor, states))

    def match_logits(self, vision_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Whether text i describes video i: logits [B, 2], class 1 means yes."""
        return cast(Tensor, self.itm_head(self.match_embeds(vision_embeds, input_ids, attention_mask)))

    def caption_logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        vision_embeds: Tensor | None = None,
        query_cache: tuple[KeyValue, ...] | None = None,
    ) -> Tensor:
        """Next-WordPiece logits of a caption, read causally after the queries' cached keys and values.

        Args:
            input_ids: Caption ids [B, L]; the first place is overwritten with [DEC].
            attention_mask: 1 where the caption is real [B, L].
            vision_embeds: [B, S, D]; not needed with ``query_cache``.
            query_cache: Keys and values of a query pass over the videos, to save running it again.

        Returns:
            [B, L, vocabulary]; place i predicts token i + 1.
        """
        if query_cache is None:
            if vision_embeds is None:
                raise ValueError("caption_logits needs vision_embeds or query_cache")
            query_cache = self.run_queries(vision_embeds, use_cache=True).key_values
        decoder_ids = input_ids.clone()
        decoder_ids[:, 0] = cast(int, self.config.qformer_config.decoder_start_token_id)
        states = self.qformer(
            input_ids=decoder_ids, attention_mask=attention_mask, past_key_values=query_cache, causal=True
        ).last_hidden_state
        return cast(Tensor, self.caption_head(states, self.qformer.embeddings.word_embeddings.weight))

    # Training

    def contrastive_loss(self, similarity: Tensor, sample_ids: Tensor | None = None) -> Tensor:
        """Cross-entropy of [B, B] similarities over the temperature, in both directions.

        Samples with the same id count as equally right; without ids only the diagonal is right.
        """
        same = _same_sample(similarity.shape[0], sample_ids, similarity.device).to(similarity.dtype)
        target = same / same.sum(dim=1, keepdim=True)
        logits = similarity / self.temperature
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2

    @torch.no_grad()
    def draw_negatives(
        self, similarity: Tensor, sample_ids: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hard negatives by similarity: softmax plus 1e-4, true pairs excluded.

        Args:
            similarity: [B, B] of videos (rows) and texts, before the temperature.
            sample_ids: [B]; rows with the same id are no negatives of each other.
            generator: Of the draws, on the CPU, where they are then made.

        Returns:
            A wrong video for every text [B], a wrong text for every video [B]; and whether there is any.
        """
        same = _same_sample(similarity.shape[0], sample_ids, similarity.device)
        logits = similarity.float() / self.temperature.float()
        wrong_video, has_video = _draw_negatives(logits.t(), same, generator)
        wrong_text, has_text = _draw_negatives(logits, same, generator)
        return wrong_video, wrong_text, has_video, has_text

    def matching_loss(
        self,
        vision_embeds: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        similarity: Tensor,
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy over the true pairs, each text with a hard wrong video, and each video with a hard wrong text.

        Negatives are drawn by their similarity: softmax plus 1e-4, true pairs excluded. A row of the batch that has no
        negative (every sample is its own kind) contributes only its true pair.
        """
        wrong_video, wrong_text, has_video, has_text = self.draw_negatives(similarity, sample_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        match_logits = self.match_logits(
            torch.cat([vision_embeds, vision_embeds[wrong_video], vision_embeds]),
            torch.cat([input_ids, input_ids, input_ids[wrong_text]]),
            torch.cat([mask, mask, mask[wrong_text]]),
        )
        labels = torch.cat([torch.ones_like(wrong_video), has_video.long() - 1, has_text.long() - 1])
        return F.cross_entropy(match_logits.float(), labels, ignore_index=-1)

    def caption_loss(self, logits: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Cross-entropy of next-token logits [B, L, vocabulary] with label smoothing; padding does not count."""
        labels = input_ids
        if attention_mask is not None:
            labels = labels.masked_fill(attention_mask == 0, -100)
        return F.cross_entropy(
            logits[:, :-1].float().transpose(1, 2),
            labels[:, 1:],
            ignore_index=-100,
            label_smoothing=self.config.caption_label_smoothing,
        )

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        sample_ids: Tensor | None = None,
        vision_embeds: Tensor | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> VideoChat2RetrievalOutput | tuple[Any, ...]:
        """Features, and with text the losses of stage 1.

        Args:
            pixel_values: Clips [B, T, C, H, W].
            input_ids: Texts [B, L]; text i belongs to clip i.
            attention_mask: 1 where the text is real [B, L].
            sample_ids: [B]; clips with the same id are the same sample, and no negatives of each other.
            vision_embeds: Result of ``encode_frames`` in place of ``pixel_values``.
            return_dict: Return an output object, else a tuple.
            **kwargs: Ignored; transformers passes flags of its own.
        """
        if vision_embeds is None:
            if pixel_values is None:
                raise ValueError("VideoChat2ForRetrieval needs pixel_values or vision_embeds")
            vision_embeds = self.encode_frames(pixel_values)
        queries = self.run_queries(vision_embeds, use_cache=input_ids is not None)
        video_embeds = self.project_video(cast(Tensor, queries.last_hidden_state))
        output = VideoChat2RetrievalOutput(video_embeds=video_embeds, vision_embeds=vision_embeds)
        if input_ids is not None:
            output.text_embeds = self.text_embeds(input_ids, attention_mask)
            output.similarity = self.similarity(video_embeds, output.text_embeds)
            weighted = []
            if self.config.contrastive_weight:
                output.contrastive_loss = self.contrastive_loss(output.similarity, sample_ids)
                weighted.append(self.config.contrastive_weight * output.contrastive_loss)
            if self.config.matching_weight:
                output.matching_loss = self.matching_loss(
                    vision_embeds, input_ids, attention_mask, output.similarity, sample_ids
                )
                weighted.append(self.config.matching_weight * output.matching_loss)
            if self.config.caption_weight:
                logits = self.caption_logits(input_ids, attention_mask, query_cache=queries.key_values)
                output.caption_loss = self.caption_loss(logits, input_ids, attention_mask)
                weighted.append(self.config.caption_weight * output.caption_loss)
            output.loss = torch.stack(weighted).sum() if weighted else None
        return output if return_dict else output.to_tuple()


def _same_sample(batch: int, sample_ids: Tensor | None, device: torch.device) -> Tensor:
    """Whether two rows of the batch are the same sample, bool [B, B]."""
    if sample_ids is None:
        return torch.eye(batch, dtype=torch.bool, device=device)
    return sample_ids.view(-1, 1) == sample_ids.view(1, -1)


def _draw_negatives(logits: Tensor, same: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """One wrong column for every row, drawn by its probability; and whether there is any wrong column."""
    weights = (logits.softmax(dim=1) + 1e-4).masked_fill(same, 0.0)
    exists = ~same.all(dim=1)
    weights = weights + (~exists)[:, None]  # any column will do where none is wrong: its label is ignored
    drawn_on = weights if generator is None else weights.to(generator.device)
    return torch.multinomial(drawn_on, 1, generator=generator).squeeze(1).to(weights.device), exists
