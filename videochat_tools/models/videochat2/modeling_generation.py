"""VideoChat2 stages 2-4: a language model that is shown clips."""

from __future__ import annotations

from videochat_tools.models.modeling_chat import ClipChatModel

from .configuration_videochat2 import VideoChat2Config

__all__ = ["VideoChat2ForConditionalGeneration"]


class VideoChat2ForConditionalGeneration(ClipChatModel):
    """The tower with joint space-time attention, and a Q-Former that is told the question (stages 3 and 4)."""

    config: VideoChat2Config
    config_class = VideoChat2Config
    _no_split_modules = ["VideoChat2VisionLayer", "VideoChat2QFormerLayer"]  # noqa: RUF012
