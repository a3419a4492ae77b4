"""Configurations of the VideoChat2 networks. Every default is the value of the released models.

Where the released values come from: the tower is UMT-L/16 as stored in ``umt_l16_qformer.pth`` (Ask-Anything,
``video_chat2``, stage 1); the Q-Former has the shape of ``bert-base-uncased``; the language models are Vicuna-7B v0,
Mistral-7B-Instruct-v0.2 and Phi-3-mini-128k-instruct. The same classes describe a network of a few million weights.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

__all__ = [
    "FAMILIES",
    "VideoChat2Config",
    "VideoChat2QFormerConfig",
    "VideoChat2RetrievalConfig",
    "VideoChat2VisionConfig",
]

FAMILIES = ("vicuna", "mistral", "phi3")
"""Prompt families of the released chat models; each has its own templates and BERT padding side."""


class VideoChat2VisionConfig(PreTrainedConfig):
    """The video tower: a vision transformer with joint space-time attention and no class token.

    Args:
        hidden_size: Width D (UMT-L: 1024).
        num_hidden_layers: Blocks that are built and run. UMT-L has 24; VideoChat2 takes the output of the last but one
            (``return_index`` -2), so 23 exist in the checkpoint.
        num_attention_heads: Attention heads (UMT-L: 16).
        intermediate_size: Width of the feed-forward (UMT-L: 4096).
        hidden_act: Activation of the feed-forward (UMT-L: exact GELU).
        layer_norm_eps: Epsilon of the block norms (UMT-L: 1e-6).
        num_channels: Colour channels of the input.
        image_size: Side of the square input in pixels (released: 224). Other multiples of ``patch_size`` work too.
        patch_size: Side of a patch in pixels (UMT-L/16: 16).
        num_frames: Frames a clip that the model was trained with (released chat models: 8). Any number works.
        position_num_frames: Frames of the base sin-cos table, interpolated in time to other lengths (released: 4).
        position_image_size: Image side of the base table, resized to other grids (released: 224, a 14 x 14 grid).
        temporal_kernel_size: Frames that the first convolution sees, odd; zero padded in time (released: 1).
        stem_channels: Channels of a convolutional stem in place of the one patch convolution (released: none).
            ``(64, 128)`` means a 4x4 convolution of stride 4 to 64 channels, then 3x3 convolutions of stride 2 to 128
            and to ``hidden_size``: "Early convolutions help transformers see better", arXiv 2106.14881.
        initializer_range: Standard deviation of newly made linear layers.
    """

    model_type = "videochat2_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1024
    num_hidden_layers: int = 23
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 16
    num_frames: int = 8
    position_num_frames: int = 4
    position_image_size: int = 224
    temporal_kernel_size: int = 1
    stem_channels: tuple[int, ...] | list[int] = ()
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.stem_channels = tuple(self.stem_channels)  # JSON gives a list
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.temporal_kernel_size < 1 or self.temporal_kernel_size % 2 == 0:
            raise ValueError(f"temporal_kernel_size must be odd and at least 1, got {self.temporal_kernel_size}")
        if self.stem_channels and 4 * 2 ** len(self.stem_channels) != self.patch_size:
            raise ValueError(
                f"a stem of {len(self.stem_channels)} inner stages has stride {4 * 2 ** len(self.stem_channels)}, "
                f"but patch_size is {self.patch_size}; the two must be equal"
            )


class VideoChat2QFormerConfig(PreTrainedConfig):
    """The Q-Former: a BERT whose query rows also attend to the video, and have a feed-forward of their own.

    Args:
        vocab_size: WordPieces of ``bert-base-uncased`` plus ``[DEC]`` (30522 + 1).
        hidden_size: Width h (BERT base).
        num_hidden_layers: Layers (BERT base).
        num_attention_heads: Heads (BERT base).
        intermediate_size: Width of the feed-forwards (BERT base).
        hidden_act: Activation of the feed-forwards (BERT base: exact GELU).
        hidden_dropout_prob: Dropout after each dense layer while training (released recipe: 0.1).
        attention_probs_dropout_prob: Dropout of attention weights while training (released recipe: 0.1).
        drop_path_rate: Stochastic depth of the last layer while training, linear from 0 (released recipe: 0.2).
        max_position_embeddings: Longest text in WordPieces (BERT base).
        layer_norm_eps: Epsilon of the norms (BERT base: 1e-12).
        pad_token_id: Id of ``[PAD]``.
        decoder_start_token_id: Id of ``[DEC]``, which takes the first place of a caption to be generated;
            None means the last id of the vocabulary.
        cross_attention_frequency: Layers 0, n, 2n, ... attend to the video (released: 2).
        encoder_hidden_size: Width D of the video tower.
        num_query_tokens: Queries of stage 1, kept later (released: 32).
        num_extra_query_tokens: Queries added for chat, after the former (released: 64). Stage 1 ignores it.
        text_input: Whether text can be read: word and position embeddings and the text feed-forward exist. False is
            the layout of the stage-2 chat checkpoints.
        initializer_range: Standard deviation of newly made linear layers (BERT: 0.02).
    """

    model_type = "videochat2_qformer"
    base_config_key = "qformer_config"

    vocab_size: int = 30523
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    drop_path_rate: float = 0.2
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    decoder_start_token_id: int | None = None
    cross_attention_frequency: int = 2
    encoder_hidden_size: int = 1024
    num_query_tokens: int = 32
    num_extra_query_tokens: int = 64
    text_input: bool = True
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.vocab_size - 1


class VideoChat2RetrievalConfig(PreTrainedConfig):
    """Stage 1: tower and Q-Former with the contrastive, matching and captioning heads.

    Args:
        vision_config: The tower: a configuration, a dict of its fields, or None for the released one.
        qformer_config: The Q-Former, likewise; it must read text.
        projection_dim: Width P of the shared video-text space (released: 768).
        initial_temperature: Start of the learned temperature (released: 0.07); its value is kept in 0.001..0.5.
        temporal_embed_frames: Frames of the learned per-frame embedding (released: 4); interpolated to other lengths.
        vision_layer_norm_eps: Epsilon of the norm between tower and Q-Former (released: 1e-12).
        aggregation: How the similarities of all queries become one, "mean" (released) or "max" (BLIP-2).
        broadcast_single_frame: Repeat a quirk of the released stage-1 model: an image becomes
            ``temporal_embed_frames`` pseudo-frames, because its one frame is broadcast against the per-frame embedding.
        caption_label_smoothing: Label smoothing of the captioning loss (released: 0.1).
        contrastive_weight: Weight of the video-text contrastive loss; 0 leaves it out (released: 1).
        matching_weight: Weight of the video-text matching loss; 0 leaves it out (released: 1).
        caption_weight: Weight of the captioning loss; 0 leaves it out (released: 1).
        initializer_range: Standard deviation of newly made heads and queries.
    """

    model_type = "videochat2_retrieval"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": VideoChat2VisionConfig,
        "qformer_config": VideoChat2QFormerConfig,
    }

    vision_config: VideoChat2VisionConfig | Any = None
    qformer_config: VideoChat2QFormerConfig | Any = None
    projection_dim: int = 768
    initial_temperature: float = 0.07
    temporal_embed_frames: int = 4
    vision_layer_norm_eps: float = 1e-12
    aggregation: str = "mean"
    broadcast_single_frame: bool = False
    caption_label_smoothing: float = 0.1
    contrastive_weight: float = 1.0
    matching_weight: float = 1.0
    caption_weight: float = 1.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        if self.aggregation not in ("mean", "max"):
            raise ValueError(f"aggregation must be 'mean' or 'max', got {self.aggregation!r}")
        if not self.qformer_config.text_input:
            raise ValueError("stage 1 compares video with text: qformer_config.text_input must be True")


class VideoChat2Config(PreTrainedConfig):
    """The chat model: tower, Q-Former, one linear layer, and any causal language model of transformers.

    Args:
        vision_config: The tower: a configuration, a dict of its fields, or None for the released one.
        qformer_config: The Q-Former, likewise.
        text_config: The language model (default: LLaMA-7B, the shape of Vicuna-7B).
        family: Prompt family: "vicuna", "mistral" or "phi3".
        vision_layer_norm_eps: Epsilon of the norm between tower and Q-Former (released: 1e-12).
        initializer_range: Standard deviation of newly made projection and queries.
    """

    model_type = "videochat2"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": VideoChat2VisionConfig,
        "qformer_config": VideoChat2QFormerConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: VideoChat2VisionConfig | Any = None
    qformer_config: VideoChat2QFormerConfig | Any = None
    text_config: PreTrainedConfig | Any = None
    family: str = "vicuna"
    vision_layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")

    @property
    def num_visual_tokens(self) -> int:
        """Tokens that one clip takes in the prompt: all queries (released: 32 + 64 = 96)."""
        return int(self.qformer_config.num_query_tokens + self.qformer_config.num_extra_query_tokens)
