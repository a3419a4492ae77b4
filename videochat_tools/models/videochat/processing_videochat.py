"""Frames and conversations to the inputs of VideoChat."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from videochat_tools.models.videochat2.processing_videochat2 import ProcessorOptions, VideoChat2Processor

__all__ = ["VideoChatProcessor"]


class VideoChatProcessor(VideoChat2Processor):
    """Pixels and prompts of VideoChat, which are written as those of VideoChat2 with Vicuna; no text for the Q-Former.

    Args:
        tokenizer: Tokenizer of the language model.
        qformer_tokenizer: None, as the Q-Former reads no text.
        options: Everything else; those of the released models by default.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        qformer_tokenizer: PreTrainedTokenizerBase | None = None,
        options: ProcessorOptions | None = None,
    ) -> None:
        super().__init__(tokenizer, qformer_tokenizer, options or ProcessorOptions.released("videochat"))
