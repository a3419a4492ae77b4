"""Configurations of the VideoChat networks (the first model). Every default is the value of the released models.

Where the released values come from: the tower is EVA-CLIP-g as BLIP-2 stores it (``eva_vit_g.pth``), the Q-Former is
that of ``blip2_pretrained_flant5xxl.pth``, and the rest is in the configurations of ``videochat_7b.pth`` and
``videochat_13b.pth`` (Ask-Anything, ``video_chat``). Paper: VideoChat, arXiv 2305.06355.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from videochat_tools.models.videochat2.configuration_videochat2 import VideoChat2QFormerConfig

__all__ = ["VideoChatConfig", "VideoChatVisionConfig"]

# BLIP-2's Q-Former without its text parts. It is frozen and in evaluation mode in both stages of training, so that
# nothing is ever dropped.
_QFORMER = {
    "text_input": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
}


class VideoChatVisionConfig(PreTrainedConfig):
    """The video tower: an image transformer that sees frame by frame, and one token that gathers over all frames.

    Args:
        hidden_size: Width D (EVA-CLIP-g: 1408).
        num_hidden_layers: Blocks that are built and run (released: 39; the file has a 40th, which BLIP-2 drops too).
        num_attention_heads: Attention heads (EVA-CLIP-g: 16), also of the global layers.
        intermediate_size: Width of the feed-forwards, also of the global layers (EVA-CLIP-g: int(4.3637 * 1408)).
        hidden_act: Activation of the feed-forwards (EVA-CLIP-g: exact GELU).
        layer_norm_eps: Epsilon of the block norms (EVA-CLIP-g: 1e-6).
        num_channels: Colour channels of the input.
        image_size: Side in pixels of the square that the learned position table is made for (released: 224). Other
            multiples of ``patch_size`` work too: the table is then resized.
        patch_size: Side of a patch in pixels (EVA-CLIP-g/14: 14).
        num_frames: Frames a clip that the demos show (released: 8). Any number works.
        num_global_layers: Layers of the global token, one after each of the last blocks (released ``gmhra_layers``: 8).
        global_layer_norm_eps: Epsilon of their norms (released: 1e-5).
        global_dropout: Dropout in their feed-forward while training (released ``gmhra_dropout``: 0.5).
        initializer_range: Standard deviation of newly made weights.
    """

    model_type = "videochat_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1408
    num_hidden_layers: int = 39
    num_attention_heads: int = 16
    intermediate_size: int = 6144
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 14
    num_frames: int = 8
    num_global_layers: int = 8
    global_layer_norm_eps: float = 1e-5
    global_dropout: float = 0.5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if not 0 <= self.num_global_layers <= self.num_hidden_layers:
            raise ValueError(
                f"num_global_layers must be in 0..{self.num_hidden_layers} (num_hidden_layers), "
                f"got {self.num_global_layers}"
            )


class VideoChatConfig(PreTrainedConfig):
    """The chat model: tower, Q-Former, one linear layer, and any causal language model of transformers.

    Args:
        vision_config: The tower: a configuration, a dict of its fields, or None for the released one.
        qformer_config: The Q-Former, likewise; it reads no text.
        text_config: The language model (default: LLaMA-7B, the shape of Vicuna-7B; the 13B model has StableVicuna-13B).
        vision_layer_norm_eps: Epsilon of the norm between tower and Q-Former (released: 1e-5).
        initializer_range: Standard deviation of newly made projection and queries.
    """

    model_type = "videochat"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": VideoChatVisionConfig,
        "qformer_config": VideoChat2QFormerConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: VideoChatVisionConfig | Any = None
    qformer_config: VideoChat2QFormerConfig | Any = None
    text_config: PreTrainedConfig | Any = None
    vision_layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        given: Any = self.qformer_config  # until transformers has made a configuration of it
        if given is None or isinstance(given, dict):
            self.qformer_config = VideoChat2QFormerConfig(**{**_QFORMER, **(given or {})})
        super().__post_init__(**kwargs)
        self.qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        if self.qformer_config.text_input:
            raise ValueError("VideoChat's Q-Former reads no text: qformer_config.text_input must be False")

    @property
    def num_visual_tokens(self) -> int:
        """Tokens that one clip takes in the prompt: all queries (released: 32 + 64 = 96)."""
        return int(self.qformer_config.num_query_tokens + self.qformer_config.num_extra_query_tokens)
