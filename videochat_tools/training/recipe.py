"""The sizes of the nano: the released classes with small numbers, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from transformers import LlamaConfig

from videochat_tools.models.videochat2.configuration_videochat2 import (
    VideoChat2Config,
    VideoChat2QFormerConfig,
    VideoChat2RetrievalConfig,
    VideoChat2VisionConfig,
)
from videochat_tools.models.videochat2.image_processing import CLIP_MEAN, CLIP_STD
from videochat_tools.training.clips import ClipFormat
from videochat_tools.training.world.scene import FRAMES

__all__ = [
    "NANO",
    "ROPE_THETA",
    "SCENE_QUERIES",
    "SIZES",
    "SLOT_QUERIES",
    "Size",
    "chat_config",
    "clip_format",
    "qformer_config",
    "retrieval_config",
    "vision_config",
]

SLOT_QUERIES = 16  # hold one object or one event each, see :mod:`videochat_tools.training.slots`
SCENE_QUERIES = 8  # free to hold the whole scene, which a full caption is about
ROPE_THETA = 1e8  # of 16 rotary pairs 11 hardly turn over a prompt and can compare words far apart; of 1e4, 6


@dataclass(frozen=True, slots=True)
class Size:
    """The dial: everything that grows with it. Widths are multiples of 32 a head.

    Attributes:
        width: Of the tower and the Q-Former; their hidden layers have three times as much.
        vision_layers: Of the tower.
        qformer_layers: Of the Q-Former, which all read the video.
        language_width: Of the language model; its hidden layers have 8/3 times as much.
        language_layers: Of the language model. Finding an event, its place in time, the other event and its doer is a
            chain of as many steps.
    """

    width: int
    vision_layers: int
    qformer_layers: int
    language_width: int
    language_layers: int


NANO = Size(width=160, vision_layers=4, qformer_layers=3, language_width=192, language_layers=6)
SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "half": Size(width=96, vision_layers=3, qformer_layers=2, language_width=128, language_layers=4),
        "nano": NANO,
        "double": Size(width=224, vision_layers=6, qformer_layers=4, language_width=288, language_layers=8),
    }
)
"""By name, for the command lines; "nano" is what ships."""


def vision_config(size: Size = NANO) -> VideoChat2VisionConfig:
    """64 x 64 pixels, 8 frames, 4 x 4 tokens a frame; the stem sees three frames, so that motion is in every token."""
    return VideoChat2VisionConfig(
        hidden_size=size.width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.width // 32,
        intermediate_size=3 * size.width,
        hidden_act="relu",
        image_size=64,
        patch_size=16,
        num_frames=FRAMES,
        position_num_frames=FRAMES,
        position_image_size=64,
        temporal_kernel_size=3,
        stem_channels=(64, 128),
    )


def qformer_config(vocabulary: int, *, queries: int, extra: int, size: Size = NANO) -> VideoChat2QFormerConfig:
    """Every layer reads the video; no dropout, since no clip is ever seen twice."""
    return VideoChat2QFormerConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.qformer_layers,
        num_attention_heads=size.width // 32,
        intermediate_size=3 * size.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        drop_path_rate=0.0,
        max_position_embeddings=64,
        cross_attention_frequency=1,
        num_query_tokens=queries,
        num_extra_query_tokens=extra,
    )


def retrieval_config(vocabulary: int, size: Size = NANO) -> VideoChat2RetrievalConfig:
    """Stage 1. No captioning loss: the attribute probes of :mod:`videochat_tools.training.align` do its work."""
    return VideoChat2RetrievalConfig(
        vision_config=vision_config(size),
        qformer_config=qformer_config(vocabulary, queries=SLOT_QUERIES + SCENE_QUERIES, extra=0, size=size),
        projection_dim=96,
        temporal_embed_frames=FRAMES,
        aggregation="max",  # a text is about one object, one event or the whole scene, and one query holds it
        caption_weight=0.0,
    )


def chat_config(
    qformer_vocabulary: int, llm_vocabulary: int, size: Size = NANO, rope_theta: float = ROPE_THETA
) -> VideoChat2Config:
    """Stages 2 and 3. Input and output embeddings are tied: what is learned about copying one word holds for all."""
    return VideoChat2Config(
        vision_config=vision_config(size),
        qformer_config=qformer_config(qformer_vocabulary, queries=SLOT_QUERIES, extra=SCENE_QUERIES, size=size),
        text_config=LlamaConfig(
            vocab_size=llm_vocabulary,
            hidden_size=size.language_width,
            intermediate_size=size.language_width // 12 * 32,
            num_hidden_layers=size.language_layers,
            num_attention_heads=size.language_width // 32,
            num_key_value_heads=size.language_width // 32,
            max_position_embeddings=1024,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
            tie_word_embeddings=True,
        ),
        family="vicuna",
    )


def clip_format(config: VideoChat2VisionConfig) -> ClipFormat:
    """The input that a tower expects."""
    return ClipFormat(config.num_frames, config.image_size, config.patch_size, CLIP_MEAN, CLIP_STD)
