"""VideoChat2: configurations, networks, processor and the conversion of the original checkpoints."""

from .configuration_videochat2 import (
    VideoChat2Config,
    VideoChat2QFormerConfig,
    VideoChat2RetrievalConfig,
    VideoChat2VisionConfig,
)
from .modeling_videochat2 import (
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
    VideoChat2QFormer,
    VideoChat2VisionModel,
)
from .processing_videochat2 import ProcessorOptions, VideoChat2Processor
from .tiling import TilingOptions

__all__ = [
    "ProcessorOptions",
    "TilingOptions",
    "VideoChat2Config",
    "VideoChat2ForConditionalGeneration",
    "VideoChat2ForRetrieval",
    "VideoChat2Processor",
    "VideoChat2QFormer",
    "VideoChat2QFormerConfig",
    "VideoChat2RetrievalConfig",
    "VideoChat2VisionConfig",
    "VideoChat2VisionModel",
]
