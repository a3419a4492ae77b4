"""Content blocks in all the ways they are written, in the one standard form of langchain-core.

langchain-core itself reads most of them (``message.content_blocks``); here stands what it leaves alone.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.messages.content import KNOWN_BLOCK_TYPES

from videochat_tools.errors import UnsupportedContentError

ALLOWED = "text, image and video blocks (by url, base64 or file_id)"

# Of other models: their thoughts, and their calls, which stand in `tool_calls` as well.
SILENT = frozenset(
    "reasoning thinking redacted_thinking tool_call tool_call_chunk invalid_tool_call tool_use function_call "
    "server_tool_call server_tool_call_chunk server_tool_result".split()
)


def standard_blocks(message: BaseMessage) -> Iterable[dict[str, Any]]:
    """The blocks of a message, none of them a ``file``: text, image, video, or a type that is not taken.

    Raises:
        UnsupportedContentError: a block cannot be read at all.
    """
    for block in message.content_blocks:
        raw: dict[str, Any] = dict(block)
        if raw["type"] == "non_standard":
            value = raw.get("value")
            if not isinstance(value, Mapping):
                raise UnsupportedContentError(f"cannot read the content block {value!r}; allowed are {ALLOWED}")
            raw = dict(value)
        if raw.get("type") not in KNOWN_BLOCK_TYPES or "source_type" in raw or raw["type"] in _WORDS:
            raw = _standard(raw)
        if raw["type"] == "file":
            raw["type"] = _kind_of_file(raw)
        yield raw


def _standard(value: dict[str, Any]) -> dict[str, Any]:
    """An older or foreign block, of the kinds that can stand for words, a picture or a video."""
    kind = value.get("type")
    if kind in _WORDS:
        return {"type": "text", "text": _words(value)}
    if kind in _ADDRESSES:  # {"video_url": {"url": …}} or a bare string
        target = value.get("image_url" if kind == "input_image" else kind)
        url = target.get("url") if isinstance(target, Mapping) else target
        return {**value, "type": _ADDRESSES[kind], "url": url}
    if kind == "media":  # Google's: {"mime_type": …, "data" | "file_uri": …}
        return {**value, "type": "file", "base64": value.get("data"), "url": value.get("file_uri")}
    if kind in ("video", "image") and "source_type" in value:  # langchain-core before 1.0
        source = value["source_type"]
        key = {"url": "url", "base64": "base64", "id": "file_id"}.get(source)
        if key is None:
            raise UnsupportedContentError(f"unknown source_type {source!r}; allowed are url, base64 and id")
        given = value.get("data") if key == "base64" else value.get(source)
        return {**value, key: given, "extras": value.get("extras") or value.get("metadata")}
    return {"type": kind if isinstance(kind, str) else "unknown"}


# As they are named by OpenAI's two protocols.
_ADDRESSES = {"video_url": "video", "image_url": "image", "input_image": "image"}
# What tools and other models say in blocks of their own, and where the words stand.
_WORDS = {
    "input_text": "text",
    "output_text": "text",
    "text-plain": "text",
    "refusal": "refusal",
    "json": "json",
    "search_result": "content",
}


def _words(block: dict[str, Any]) -> str:
    """The words of a block that is no text block, but has some."""
    content = block.get(_WORDS[block["type"]])
    if block["type"] == "json":
        return json.dumps(content, ensure_ascii=False)
    if content is None:
        raise UnsupportedContentError(f"a {block['type']!r} block without its words is not read; allowed are {ALLOWED}")
    if block["type"] == "search_result":
        parts = content if isinstance(content, list) else [content]
        said = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
        content = "\n".join(str(part) for part in (block.get("title"), block.get("source"), *said) if part)
    return str(content)


def _kind_of_file(block: dict[str, Any]) -> str:
    """The kind of block that a file is: video or image; anything else is refused by its type."""
    mime_type = block.get("mime_type") or mimetypes.guess_type(str(block.get("url") or "").partition("#")[0])[0]
    main = str(mime_type or "").partition("/")[0]
    return main if main in ("video", "image") else str(mime_type or "file")
