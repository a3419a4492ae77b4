"""Messages as a cache of replies may know them: equal only where a model would be shown the same.

langchain-core looks a reply up by the messages as they are written. But a path does not say what is in the file, the
name of a library segment does not say what is in the library, and ``create_video_block`` numbers each block anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from langchain_core.messages import BaseMessage

from videochat_tools.content import Visual, read_message
from videochat_tools.engine import ClipSource
from videochat_tools.errors import VideoChatError
from videochat_tools.visuals import visual_identity

_KEY = "videochat_seen"  # among the additional_kwargs of a message, which no model reads
_NUMBERED = "lc_"  # how langchain-core's own ids of blocks begin


def told_apart(messages: Sequence[BaseMessage], weights: Hashable, clip_source: ClipSource | None) -> list[BaseMessage]:
    """The messages, with a note of what is in their files at the moment, and without numbers of blocks.

    Args:
        messages: a conversation.
        weights: tells the weights of the model from others of the same name.
        clip_source: gives the clip tokens of library segments.
    """
    return [_noted(message, weights, clip_source) for message in messages]


def _noted(message: BaseMessage, weights: Hashable, clip_source: ClipSource | None) -> BaseMessage:
    try:
        seen = [repr(_identity(visual, clip_source)) for visual in read_message(message, remote=True).visuals]
    except VideoChatError:  # the model itself says what is wrong, where callbacks hear of it
        seen = ["unreadable"]
    changes: dict[str, Any] = {"additional_kwargs": {**message.additional_kwargs, _KEY: [repr(weights), *seen]}}
    if isinstance(message.content, list):
        changes["content"] = [_unnumbered(block) for block in message.content]
    return message.model_copy(update=changes)


def _identity(visual: Visual, clip_source: ClipSource | None) -> Hashable:
    if visual.file_id is None or clip_source is None:
        return visual_identity(visual)
    tokens = np.ascontiguousarray(clip_source(visual.file_id))
    return visual.file_id, hashlib.blake2b(tokens.tobytes(), digest_size=16).hexdigest()


def _unnumbered(block: str | dict[Any, Any]) -> str | dict[Any, Any]:
    if isinstance(block, dict) and str(block.get("id", "")).startswith(_NUMBERED):
        return {key: value for key, value in block.items() if key != "id"}
    return block
