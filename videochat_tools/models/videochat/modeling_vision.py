"""The video tower of VideoChat: EVA-CLIP-g frame by frame, and GMHRA, a token that gathers over all of them.

GMHRA is the global multi-head relation aggregator of UniFormerV2, arXiv 2211.09552.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from videochat_tools.models.videochat2.modeling_layers import attend, patch_grid, patch_pixels
from videochat_tools.models.videochat2.modeling_vision import VideoChat2VisionLayer

from .configuration_videochat import VideoChatVisionConfig

__all__ = ["VideoChatVisionModel", "VideoChatVisionOutput", "resize_position_embedding"]


@dataclass
class VideoChatVisionOutput(BaseModelOutput):
    """Result of the tower.

    Attributes:
        last_hidden_state: [B, T * (1 + N) + 1, D]: class token and patches of every frame, then the global token.
        hidden_states: Input of the first block and output of every block, [B * T, 1 + N, D] each, when asked for.
        global_states: The global token after each of its layers, [B, 1, D] each, when asked for.
    """

    global_states: tuple[Tensor, ...] | None = None


def resize_position_embedding(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A learned position table for another grid of patches, bicubically; the class token's row stays as it is.

    Args:
        table: [1, 1 + side * side, D].
        grid: Rows and columns of patches.

    Returns:
        [1, 1 + rows * columns, D].
    """
    side = math.isqrt(table.shape[1] - 1)
    maps = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], maps.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class VideoChatPatchEmbedding(nn.Conv3d):
    """Pixels to patch tokens, frame by frame."""

    def __init__(self, config: VideoChatVisionConfig) -> None:
        kernel = (1, config.patch_size, config.patch_size)
        super().__init__(config.num_channels, config.hidden_size, kernel_size=kernel, stride=kernel)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, T, C, H, W] -> [B, T, N, D]."""
        blocks = patch_pixels(pixel_values.to(self.weight.dtype), self.kernel_size[1])
        return F.linear(blocks.flatten(3), self.weight.flatten(1), self.bias)


class VideoChatGlobalLayer(GradientCheckpointingLayer):
    """One step of the global token: it attends to all tokens of all frames. The frames themselves stay as they are."""

    def __init__(self, config: VideoChatVisionConfig) -> None:
        super().__init__()
        self.config = config
        width, eps = config.hidden_size, config.global_layer_norm_eps
        self.query_norm = nn.LayerNorm(width, eps=eps)
        self.frame_norm = nn.LayerNorm(width, eps=eps)
        self.position = nn.Conv3d(width, width, kernel_size=3, padding=1, groups=width)
        # Queries, keys and values in one tensor, as the released files have it; no nn.Linear, because the query comes
        # from the token and the rest from the frames, and quantised linear layers cannot be split.
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.projection = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.global_dropout)
        self.fc2 = nn.Linear(config.intermediate_size, width)

    def forward(self, token: Tensor, frames: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """One step.

        Args:
            token: The global token [B, 1, D].
            frames: Class token and patches of every frame [B * T, 1 + N, D].
            grid: T, and rows and columns of patches; N = rows * columns.

        Returns:
            The global token [B, 1, D].
        """
        batch, width, (num_frames, rows, columns) = len(token), token.shape[-1], grid
        source = self.frame_norm(frames).view(batch, num_frames, 1 + rows * columns, width)
        patches = source[:, :, 1:]
        maps = patches.reshape(batch, num_frames, rows, columns, width).permute(0, 4, 1, 2, 3)
        patches = patches + self.position(maps).flatten(3).permute(0, 2, 3, 1)
        source = torch.cat([source[:, :, :1], patches], dim=2).flatten(1, 2)
        token = token + self.projection(self._attend(self.query_norm(token), source))
        return token + self.fc2(self.dropout(self.activation(self.fc1(self.feed_forward_norm(token)))))

    def _attend(self, token: Tensor, source: Tensor) -> Tensor:
        """[B, 1, D] reads [B, S, D] -> [B, 1, D]."""
        batch, width, heads = len(token), token.shape[-1], self.config.num_attention_heads
        query = F.linear(token, self.in_proj_weight[:width], self.in_proj_bias[:width])
        pair = F.linear(source, self.in_proj_weight[width:], self.in_proj_bias[width:])
        key, value = pair.view(batch, -1, 2, heads, width // heads).permute(2, 0, 3, 1, 4)
        query = query.view(batch, 1, heads, width // heads).transpose(1, 2)
        return attend(query, key, value, implementation=self.config._attn_implementation)


class VideoChatVisionModel(PreTrainedModel):
    """Video tower: clips of any length and of any size that the patches tile."""

    config: VideoChatVisionConfig
    config_class = VideoChatVisionConfig
    base_model_prefix = "vision_encoder"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["VideoChat2VisionLayer", "VideoChatGlobalLayer"]  # noqa: RUF012

    def __init__(self, config: VideoChatVisionConfig) -> None:
        super().__init__(config)
        places = 1 + (config.image_size // config.patch_size) ** 2
        self.patch_embedding = VideoChatPatchEmbedding(config)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1, places, config.hidden_size))
        # The blocks of EVA are those of UMT: pre-norm, biases for queries and values but not for keys.
        self.layers = nn.ModuleList(VideoChat2VisionLayer(config) for _ in range(config.num_hidden_layers))
        self.global_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.global_layers = nn.ModuleList(VideoChatGlobalLayer(config) for _ in range(config.num_global_layers))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, VideoChatVisionModel):
            for parameter in (module.class_token, module.position_embedding, module.global_token):
                init.normal_(parameter, std=std)
        elif isinstance(module, VideoChatGlobalLayer):
            init.normal_(module.in_proj_weight, std=std)
            init.zeros_(module.in_proj_bias)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # transformers decides by the source text of this file, which does not use its registry

    def get_input_embeddings(self) -> nn.Module:
        """The layer that turns pixels into tokens."""
        return self.patch_embedding

    def position_table(self, rows: int, columns: int) -> Tensor:
        """Learned positions [1, 1 + rows * columns, D], the same for every frame; resized where the grid is another."""
        side = self.config.image_size // self.config.patch_size
        if (rows, columns) == (side, side):
            return self.position_embedding
        return resize_position_embedding(self.position_embedding, (rows, columns))

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, return_dict: bool = True, **kwargs: Any
    ) -> VideoChatVisionOutput | tuple[Any, ...]:
        """Encode clips.

        Args:
            pixel_values: Normalised pixels [B, T, C, H, W]; H and W are multiples of the patch size. T = 1 is an image.
            output_hidden_states: Also return the states of the blocks and of the global token.
            return_dict: Return an output object, else a tuple.
            **kwargs: Ignored; transformers passes flags of its own.

        Returns:
            ``last_hidden_state`` [B, T * (1 + N) + 1, D] with N = H/patch * W/patch patches a frame in reading order,
            each frame led by its class token, the global token last; no final norm.

        Raises:
            UnsupportedContentError: The size is no multiple of the patch size.
        """
        batch, frames = pixel_values.shape[:2]
        rows, columns = patch_grid(pixel_values, self.config.patch_size)
        patches = self.patch_embedding(pixel_values).flatten(0, 1)
        hidden = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        hidden = hidden + self.position_table(rows, columns)
        token = self.global_token.expand(batch, -1, -1)
        states, tokens = [hidden], []
        first_global = len(self.layers) - len(self.global_layers)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if index >= first_global:
                token = self.global_layers[index - first_global](token, hidden, (frames, rows, columns))
            if output_hidden_states:
                states.append(hidden)
                tokens.append(token)
        output = VideoChatVisionOutput(
            last_hidden_state=torch.cat([hidden.reshape(batch, -1, hidden.shape[-1]), token], dim=1),
            hidden_states=tuple(states) if output_hidden_states else None,
            global_states=tuple(tokens[first_global:]) if output_hidden_states else None,
        )
        return output if return_dict else output.to_tuple()
