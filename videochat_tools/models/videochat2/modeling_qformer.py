"""The Q-Former of VideoChat2: a BERT whose learned queries read the video, alone or together with text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from videochat_tools.errors import UnsupportedContentError

from .configuration_videochat2 import VideoChat2QFormerConfig
from .modeling_layers import DropPath, attend

__all__ = ["VideoChat2CaptionHead", "VideoChat2QFormer", "VideoChat2QFormerOutput"]

KeyValue = tuple[Tensor, Tensor]
"""Self-attention keys and values of one layer, [B, heads, L, d] each."""


@dataclass
class VideoChat2QFormerOutput(ModelOutput):
    """Result of the Q-Former.

    Attributes:
        last_hidden_state: [B, Q + L, h], query rows first.
        key_values: Self-attention keys and values of every layer, when asked for.
        hidden_states: The same rows after the embeddings and after every layer, when asked for.
    """

    last_hidden_state: Tensor | None = None
    key_values: tuple[KeyValue, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """1 (attend) and 0 (leave out) to 0 and -10000: the arithmetic of the released models, not minus infinity."""
    return (1.0 - mask.to(dtype)) * -10000.0


class VideoChat2QFormerEmbeddings(nn.Module):
    """Queries, then word plus position embeddings of the text, under one norm. Queries get no position."""

    def __init__(self, config: VideoChat2QFormerConfig) -> None:
        super().__init__()
        if config.text_input:
            self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, query_embeds: Tensor | None, input_ids: Tensor | None) -> Tensor:
        """[B, Q, h] and ids [B, L] -> [B, Q + L, h]; either may be absent."""
        parts = [] if query_embeds is None else [query_embeds]
        if input_ids is not None:
            words = self.word_embeddings(input_ids)
            parts.append(words + self.position_embeddings.weight[: input_ids.shape[1]].to(words.dtype))
        return self.dropout(self.norm(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)))


class VideoChat2QFormerAttention(nn.Module):
    """Self- or cross-attention with its output layer, residual and norm (post-norm, as BERT)."""

    def __init__(self, config: VideoChat2QFormerConfig, key_size: int, drop_path: float) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(key_size, config.hidden_size)
        self.value = nn.Linear(key_size, config.hidden_size)
        self.output = VideoChat2QFormerOutputLayer(config, config.hidden_size, drop_path)

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(states.shape[0], states.shape[1], self.num_heads, self.head_size).transpose(1, 2)

    def forward(
        self, hidden: Tensor, source: Tensor, mask: Tensor | None, past: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        """Rows [B, L, h] attend to ``source`` [B, S, key_size] and, before it, to cached keys and values."""
        key, value = self._heads(self.key(source)), self._heads(self.value(source))
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        context = attend(
            self._heads(self.query(hidden)),
            key,
            value,
            mask,
            implementation=self.config._attn_implementation,
            dropout=self.config.attention_probs_dropout_prob if self.training else 0.0,
        )
        return self.output(context, hidden), (key, value)


class VideoChat2QFormerOutputLayer(nn.Module):
    """Dense layer, residual and norm: the end of every sublayer."""

    def __init__(self, config: VideoChat2QFormerConfig, width: int, drop_path: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = DropPath(drop_path)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, residual: Tensor) -> Tensor:
        """[B, L, width] and [B, L, h] -> [B, L, h]."""
        return self.norm(self.drop_path(self.dropout(self.dense(states))) + residual)


class VideoChat2QFormerFeedForward(nn.Module):
    """Feed-forward sublayer; queries and text have one each."""

    def __init__(self, config: VideoChat2QFormerConfig, drop_path: float) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = VideoChat2QFormerOutputLayer(config, config.intermediate_size, drop_path)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, L, h] -> [B, L, h]."""
        return self.output(self.activation(self.dense(hidden)), hidden)


class VideoChat2QFormerLayer(GradientCheckpointingLayer):
    """Self-attention over all rows, cross-attention of the query rows, feed-forward by kind of row."""

    def __init__(self, config: VideoChat2QFormerConfig, index: int) -> None:
        super().__init__()
        drop_path = config.drop_path_rate * index / max(config.num_hidden_layers - 1, 1)
        self.self_attention = VideoChat2QFormerAttention(config, config.hidden_size, drop_path)
        self.cross_attention = (
            VideoChat2QFormerAttention(config, config.encoder_hidden_size, drop_path)
            if index % config.cross_attention_frequency == 0
            else None
        )
        self.query_feed_forward = VideoChat2QFormerFeedForward(config, drop_path)
        self.text_feed_forward = VideoChat2QFormerFeedForward(config, drop_path) if config.text_input else None

    def forward(
        self,
        hidden: Tensor,
        num_queries: int,
        mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        past: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """[B, Q + L, h] -> [B, Q + L, h] and the keys and values of the self-attention."""
        hidden, key_value = self.self_attention(hidden, hidden, mask, past)
        if num_queries == 0:
            return self._text(hidden), key_value
        queries, text = hidden[:, :num_queries], hidden[:, num_queries:]
        if self.cross_attention is not None and encoder_hidden_states is not None:
            queries, _ = self.cross_attention(queries, encoder_hidden_states, encoder_mask)
        queries = self.query_feed_forward(queries)
        if text.shape[1] == 0:
            return queries, key_value
        return torch.cat([queries, self._text(text)], dim=1), key_value

    def _text(self, hidden: Tensor) -> Tensor:
        assert self.text_feed_forward is not None  # text is refused before, where there is none
        states: Tensor = self.text_feed_forward(hidden)
        return states


class VideoChat2CaptionHead(nn.Module):
    """BERT's language-modelling head; the decoder matrix is the word embedding itself."""

    def __init__(self, config: VideoChat2QFormerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """[B, L, h] and [vocabulary, h] -> logits [B, L, vocabulary]."""
        return F.linear(self.norm(self.activation(self.dense(hidden))), word_embeddings, self.bias)


class VideoChat2QFormer(PreTrainedModel):
    """Q-Former body. The learned queries belong to the model around it."""

    config: VideoChat2QFormerConfig
    config_class = VideoChat2QFormerConfig
    base_model_prefix = "qformer"
    main_input_name = "query_embeds"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["VideoChat2QFormerLayer"]  # noqa: RUF012

    def __init__(self, config: VideoChat2QFormerConfig) -> None:
        super().__init__(config)
        self.embeddings = VideoChat2QFormerEmbeddings(config)
        self.layers = nn.ModuleList(VideoChat2QFormerLayer(config, index) for index in range(config.num_hidden_layers))
        self.post_init()

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # transformers decides by the source text of this file, which does not use its registry

    def get_input_embeddings(self) -> nn.Module | None:  # type: ignore[override]  # None is allowed where it is used
        """The word embeddings, or None where the Q-Former reads no text."""
        return self.embeddings.word_embeddings if self.config.text_input else None

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.embeddings.word_embeddings = cast(nn.Embedding, value)

    def forward(
        self,
        query_embeds: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: tuple[KeyValue, ...] | None = None,
        causal: bool = False,
        use_cache: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> VideoChat2QFormerOutput | tuple[Any, ...]:
        """Run queries, text, or both as one sequence, queries first.

        Args:
            query_embeds: Learned queries [B, Q, h].
            input_ids: WordPiece ids [B, L]; positions count from 0 over the row, padding included.
            attention_mask: 1 where the text is real [B, L]; None means everywhere. Queries, and cached rows, are
                always attended to.
            encoder_hidden_states: Video features [B, S, encoder_hidden_size], read by the query rows only.
            encoder_attention_mask: 1 where the features are real [B, S].
            past_key_values: Keys and values of an earlier pass, put before those of this one (captioning: of the
                queries, which are not fed again).
            causal: Let every text row see only the cache and the text up to itself.
            use_cache: Return keys and values of this pass.
            output_hidden_states: Return what comes out of every layer.
            return_dict: Return an output object, else a tuple.
            **kwargs: Ignored; transformers passes flags of its own.

        Raises:
            UnsupportedContentError: Neither queries nor text given, or text for a Q-Former that reads none.
        """
        if query_embeds is None and input_ids is None:
            raise UnsupportedContentError("the Q-Former got no input; give query_embeds, input_ids or both")
        if input_ids is not None and not self.config.text_input:
            raise UnsupportedContentError("this Q-Former reads no text (text_input is False); leave input_ids out")
        num_queries = 0 if query_embeds is None else query_embeds.shape[1]
        hidden = self.embeddings(query_embeds, input_ids)
        mask = self._self_attention_mask(hidden, num_queries, attention_mask, past_key_values, causal)
        encoder_mask = (
            None if encoder_attention_mask is None else _additive(encoder_attention_mask, hidden.dtype)[:, None, None]
        )
        cache, states = [], [hidden]
        for index, layer in enumerate(self.layers):
            past = None if past_key_values is None else past_key_values[index]
            hidden, key_value = layer(hidden, num_queries, mask, encoder_hidden_states, encoder_mask, past)
            cache.append(key_value)
            states.append(hidden)
        output = VideoChat2QFormerOutput(
            last_hidden_state=hidden,
            key_values=tuple(cache) if use_cache else None,
            hidden_states=tuple(states) if output_hidden_states else None,
        )
        return output if return_dict else output.to_tuple()

    @staticmethod
    def _self_attention_mask(
        hidden: Tensor,
        num_queries: int,
        attention_mask: Tensor | None,
        past_key_values: tuple[KeyValue, ...] | None,
        causal: bool,
    ) -> Tensor | None:
        """Additive mask that broadcasts to [B, heads, Q + L, past + Q + L], or None when all rows see all rows."""
        if attention_mask is None and not causal:
            return None
        batch, length, _ = hidden.shape
        past = 0 if past_key_values is None else past_key_values[0][0].shape[2]
        if attention_mask is None:
            visible = hidden.new_ones(batch, 1, past + length)
        else:
            seen = attention_mask.new_ones(batch, past + num_queries)
            visible = torch.cat([seen, attention_mask], dim=1)[:, None]
        if causal:
            order = torch.ones(length, past + length, dtype=visible.dtype, device=hidden.device)
            visible = visible * order.tril(diagonal=past)
        return _additive(visible, hidden.dtype)[:, None]
