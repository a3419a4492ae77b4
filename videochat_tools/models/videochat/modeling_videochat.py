"""VideoChat (the first model, 7B and 13B): a language model that is shown clips."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from videochat_tools.models.modeling_chat import ClipChatModel

from .configuration_videochat import VideoChatConfig

__all__ = ["VideoChatForConditionalGeneration"]


class VideoChatLayerNorm(nn.LayerNorm):
    """Layer norm in float32 whatever the precision of the model, as BLIP-2 has it between tower and Q-Former."""

    def forward(self, states: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D] in the precision that it came in."""
        normed = F.layer_norm(states.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(states.dtype)


class VideoChatForConditionalGeneration(ClipChatModel):
    """The tower that sees frame by frame with a global token, and a Q-Former that reads no text."""

    config: VideoChatConfig
    config_class = VideoChatConfig
    vision_norm_class = VideoChatLayerNorm
    _no_split_modules = ["VideoChat2VisionLayer", "VideoChatGlobalLayer", "VideoChat2QFormerLayer"]  # noqa: RUF012
