"""The video tower of VideoChat2: UMT, a vision transformer with joint space-time attention."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from .configuration_videochat2 import VideoChat2VisionConfig
from .modeling_layers import attend, patch_grid, patch_pixels

__all__ = ["VideoChat2VisionLayer", "VideoChat2VisionModel", "sincos_position_table"]


def sincos_position_table(
    width: int,
    grid: tuple[int, int],
    num_frames: int,
    *,
    base_grid: tuple[int, int] = (14, 14),
    base_frames: int = 4,
    image: bool = False,
) -> Tensor:
    """Fixed sin-cos position embeddings of the tower.

    Positions of the base table are numbered through time-major: frame, row, column. Other grids are resized bicubically
    first, other lengths are then interpolated linearly in time (in this order, as the released models were trained).

    Args:
        width: D.
        grid: Rows and columns of patches.
        num_frames: T.
        base_grid: Grid of the base table.
        base_frames: Frames of the base table.
        image: Use the table of still images (the first frame of the base table) instead; ``num_frames`` must be 1.

    Returns:
        float32 [num_frames * rows * columns, width].
    """
    frames = 1 if image else base_frames
    rows, columns = base_grid
    position = torch.arange(frames * rows * columns, dtype=torch.float64)[:, None]
    channel = torch.arange(width, dtype=torch.float64)
    angle = position / torch.pow(10000.0, 2 * torch.div(channel, 2, rounding_mode="floor") / width)
    angle[:, 0::2] = angle[:, 0::2].sin()
    angle[:, 1::2] = angle[:, 1::2].cos()
    table = angle.float().view(frames, rows, columns, width)
    if grid != base_grid:
        table = F.interpolate(table.permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
        table = table.permute(0, 2, 3, 1)
    if num_frames != frames:
        by_place = table.reshape(frames, -1, width).permute(1, 2, 0)  # [N, D, T]
        table = F.interpolate(by_place, size=num_frames, mode="linear", align_corners=False).permute(2, 0, 1)
    return table.reshape(-1, width).contiguous()


class VideoChat2PatchEmbedding(nn.Module):
    """Pixels to patch tokens: one strided convolution, or a convolutional stem."""

    def __init__(self, config: VideoChat2VisionConfig) -> None:
        super().__init__()
        channels = (*config.stem_channels, config.hidden_size)
        self.stride = 4 if config.stem_channels else config.patch_size
        kernel = (config.temporal_kernel_size, self.stride, self.stride)
        self.projection = nn.Conv3d(
            config.num_channels,
            channels[0],
            kernel_size=kernel,
            stride=(1, self.stride, self.stride),
            padding=(config.temporal_kernel_size // 2, 0, 0),
        )
        self.stem = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1) for before, after in pairwise(channels)
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, T, C, H, W] -> [B, T, N, D]."""
        batch, frames, _, height, width = pixel_values.shape
        kernel, side = self.projection.kernel_size[0], self.stride
        blocks = patch_pixels(pixel_values, side)
        if kernel > 1:
            padded = F.pad(blocks, (0, 0, 0, 0, 0, 0, kernel // 2, kernel // 2))
            blocks = torch.stack([padded[:, shift : shift + frames] for shift in range(kernel)], dim=4)
        tokens = F.linear(blocks.flatten(3), self.projection.weight.flatten(1), self.projection.bias)
        if not self.stem:
            return tokens
        maps = tokens.view(batch * frames, height // side, width // side, -1).permute(0, 3, 1, 2)  # channels-last
        for convolution in self.stem:
            maps = convolution(F.relu(maps))
        return maps.flatten(2).transpose(1, 2).reshape(batch, frames, maps.shape[2] * maps.shape[3], -1)


class VideoChat2VisionAttention(nn.Module):
    """Attention over all tokens of all frames."""

    def __init__(self, config: VideoChat2VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        # UMT stores biases for queries and values only. A key bias shifts all scores of a query alike, so the softmax
        # does not see it: it is loaded as zeros, and its gradient is zero.
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        batch, length, width = hidden.shape
        implementation = self.config._attn_implementation
        qkv = self.qkv(hidden).view(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        if implementation == "eager":
            qkv = qkv.contiguous()  # one copy here instead of three inside matmul
        query, key, value = qkv.unbind(0)
        return self.projection(attend(query, key, value, implementation=implementation))


class VideoChat2VisionLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block."""

    def __init__(self, config: VideoChat2VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = VideoChat2VisionAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        hidden = hidden + self.attention(self.norm1(hidden))
        return hidden + self.fc2(self.activation(self.fc1(self.norm2(hidden))))


class VideoChat2VisionModel(PreTrainedModel):
    """Video tower: clips of any length and of any size that the patches tile."""

    config: VideoChat2VisionConfig
    config_class = VideoChat2VisionConfig
    base_model_prefix = "vision_encoder"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["VideoChat2VisionLayer"]  # noqa: RUF012

    def __init__(self, config: VideoChat2VisionConfig) -> None:
        super().__init__(config)
        self.patch_embedding = VideoChat2PatchEmbedding(config)
        self.layers = nn.ModuleList(VideoChat2VisionLayer(config) for _ in range(config.num_hidden_layers))
        # Not a buffer: tables are derived from the configuration, depend on the input size, and are never saved.
        self._position_tables: dict[tuple[Any, ...], Tensor] = {}
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            # Unit gain: the sin-cos table added next has a standard deviation of 0.7, and must not drown the content.
            last = [self.patch_embedding.projection, *self.patch_embedding.stem][-1]
            gain = 1.0 if module is last else math.sqrt(2.0)  # the others are followed by a ReLU
            init.normal_(module.weight, std=gain / math.sqrt(module.weight[0].numel()))

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # transformers decides by the source text of this file, which does not use its registry

    def get_input_embeddings(self) -> nn.Module:
        """The layer that turns pixels into tokens."""
        return self.patch_embedding

    def position_table(self, num_frames: int, rows: int, columns: int, like: Tensor) -> Tensor:
        """The sin-cos table [T * rows * columns, D] in dtype and device of ``like``; one frame uses the image table."""
        key = (num_frames, rows, columns, like.device, like.dtype)
        table = self._position_tables.get(key)
        if table is None:
            side = self.config.position_image_size // self.config.patch_size
            with torch.inference_mode(False), torch.autocast(like.device.type, enabled=False), torch.device("cpu"):
                table = sincos_position_table(
                    self.config.hidden_size,
                    (rows, columns),
                    num_frames,
                    base_grid=(side, side),
                    base_frames=self.config.position_num_frames,
                    image=num_frames == 1,
                ).to(device=like.device, dtype=like.dtype)
            self._position_tables[key] = table
        return table

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, return_dict: bool = True, **kwargs: Any
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Encode clips.

        Args:
            pixel_values: Normalised pixels [B, T, C, H, W]; H and W are multiples of the patch size. T = 1 is an image.
            output_hidden_states: Also return the input of the first block and the output of every block.
            return_dict: Return an output object, else a tuple.
            **kwargs: Ignored; transformers passes flags of its own.

        Returns:
            ``last_hidden_state`` [B, T, N, D] with N = H/patch * W/patch patches a frame in reading order; no final
            norm. ``hidden_states`` are [B, T * N, D] each.

        Raises:
            UnsupportedContentError: The size is no multiple of the patch size.
        """
        batch, frames = pixel_values.shape[:2]
        rows, columns = patch_grid(pixel_values, self.config.patch_size)
        tokens = self.patch_embedding(pixel_values.to(self.patch_embedding.projection.weight.dtype))
        hidden = tokens.flatten(1, 2)
        hidden = hidden + self.position_table(frames, rows, columns, hidden)
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden)
            if output_hidden_states:
                states.append(hidden)
        last = hidden.view(batch, frames, -1, hidden.shape[-1])
        all_states = tuple(states) if output_hidden_states else None
        if not return_dict:
            return (last,) if all_states is None else (last, all_states)
        return BaseModelOutput(last_hidden_state=last, hidden_states=all_states)
