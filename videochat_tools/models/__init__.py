"""The networks, as Hugging Face models. Importing this package registers them in the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from .videochat import (
    VideoChatConfig,
    VideoChatForConditionalGeneration,
    VideoChatProcessor,
    VideoChatVisionConfig,
    VideoChatVisionModel,
)
from .videochat2 import (
    VideoChat2Config,
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
    VideoChat2Processor,
    VideoChat2QFormer,
    VideoChat2QFormerConfig,
    VideoChat2RetrievalConfig,
    VideoChat2VisionConfig,
    VideoChat2VisionModel,
)

__all__ = [
    "VideoChat2Config",
    "VideoChat2ForConditionalGeneration",
    "VideoChat2ForRetrieval",
    "VideoChat2Processor",
    "VideoChat2QFormer",
    "VideoChat2QFormerConfig",
    "VideoChat2RetrievalConfig",
    "VideoChat2VisionConfig",
    "VideoChat2VisionModel",
    "VideoChatConfig",
    "VideoChatForConditionalGeneration",
    "VideoChatProcessor",
    "VideoChatVisionConfig",
    "VideoChatVisionModel",
]

for _config, _model in (
    (VideoChatVisionConfig, VideoChatVisionModel),
    (VideoChatConfig, VideoChatForConditionalGeneration),
    (VideoChat2VisionConfig, VideoChat2VisionModel),
    (VideoChat2QFormerConfig, VideoChat2QFormer),
    (VideoChat2RetrievalConfig, VideoChat2ForRetrieval),
    (VideoChat2Config, VideoChat2ForConditionalGeneration),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
for _config, _model, _processor in (
    (VideoChatConfig, VideoChatForConditionalGeneration, VideoChatProcessor),
    (VideoChat2Config, VideoChat2ForConditionalGeneration, VideoChat2Processor),
):
    AutoModelForImageTextToText.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, _processor, exist_ok=True)
AutoProcessor.register(VideoChat2RetrievalConfig, VideoChat2Processor, exist_ok=True)
