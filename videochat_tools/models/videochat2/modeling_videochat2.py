"""The networks of VideoChat2 in one place; see the ``modeling_*`` files beside this one."""

from .modeling_generation import VideoChat2ForConditionalGeneration
from .modeling_qformer import VideoChat2QFormer, VideoChat2QFormerOutput
from .modeling_retrieval import VideoChat2ForRetrieval, VideoChat2RetrievalOutput
from .modeling_vision import VideoChat2VisionModel, sincos_position_table

__all__ = [
    "VideoChat2ForConditionalGeneration",
    "VideoChat2ForRetrieval",
    "VideoChat2QFormer",
    "VideoChat2QFormerOutput",
    "VideoChat2RetrievalOutput",
    "VideoChat2VisionModel",
    "sincos_position_table",
]
