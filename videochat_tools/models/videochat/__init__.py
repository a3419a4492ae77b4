"""VideoChat, the first model: configurations, networks, processor and the conversion of the original checkpoints."""

from .configuration_videochat import VideoChatConfig, VideoChatVisionConfig
from .modeling_videochat import VideoChatForConditionalGeneration
from .modeling_vision import VideoChatVisionModel
from .processing_videochat import VideoChatProcessor

__all__ = [
    "VideoChatConfig",
    "VideoChatForConditionalGeneration",
    "VideoChatProcessor",
    "VideoChatVisionConfig",
    "VideoChatVisionModel",
]
