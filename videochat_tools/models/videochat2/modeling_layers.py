"""Parts that the towers and the Q-Former share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videochat_tools.errors import UnsupportedContentError

__all__ = ["DropPath", "attend", "patch_grid", "patch_pixels"]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    implementation: str | None = "sdpa",
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: [B, heads, Lq, d].
        key: [B, heads, Lk, d].
        value: [B, heads, Lk, d].
        mask: Added to the scores; broadcasts to [B, heads, Lq, Lk].
        implementation: "eager" multiplies explicitly (on CPU its bf16 backward is several times faster than that of
            torch's fused kernel, so it suits training there); anything else uses the fused kernel.
        dropout: Probability of dropping an attention weight.

    Returns:
        [B, Lq, heads * d].
    """
    if implementation == "eager":
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        if mask is not None:
            scores = scores + mask
        weights = scores.softmax(dim=-1)
        if dropout:
            weights = F.dropout(weights, dropout)
        context = torch.matmul(weights, value)
    else:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2)


def patch_grid(pixel_values: Tensor, side: int) -> tuple[int, int]:
    """Rows and columns of patches in pixels [..., H, W].

    Raises:
        UnsupportedContentError: The size is no multiple of the patch size.
    """
    height, width = pixel_values.shape[-2:]
    if height % side or width % side:
        raise UnsupportedContentError(
            f"frames of {height}x{width} pixels given; height and width must be multiples of {side}: resize them"
        )
    return height // side, width // side


def patch_pixels(pixel_values: Tensor, side: int) -> Tensor:
    """Pixels [B, T, C, H, W] of the N patches of each frame, in reading order: [B, T, N, C, side * side].

    Patches do not overlap, so that a convolution of stride ``side`` is one matrix product over their pixels: on CPU
    this saves the layout changes of conv3d.
    """
    batch, frames, channels = pixel_values.shape[:3]
    rows, columns = patch_grid(pixel_values, side)
    blocks = pixel_values.reshape(batch, frames, channels, rows, side, columns, side).permute(0, 1, 3, 5, 2, 4, 6)
    return blocks.reshape(batch, frames, rows * columns, channels, side * side)


class DropPath(nn.Module):
    """Stochastic depth: while training, the branch of a whole sample is dropped with the given probability."""

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """Drop the branch [B, L, D] of some samples, scale up the others."""
        if not self.training or self.probability == 0.0:
            return branch
        keep = 1.0 - self.probability
        kept = branch.new_empty((branch.shape[0],) + (1,) * (branch.ndim - 1)).bernoulli_(keep)
        return branch * kept.div_(keep)
