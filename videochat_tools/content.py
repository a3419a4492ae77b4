"""LangChain messages into what the prompt templates take: turns of a conversation and the visuals in them.

Read here, decoded elsewhere: a :class:`Visual` only says where a video or picture is and which part is meant.

=====================  ============================================================================
block                  accepted forms
=====================  ============================================================================
text                   ``"…"``, ``{"type": "text", "text": …}``
video, image           ``url`` (``file://``, plain path, ``data:``, ``http(s)://`` where allowed), ``base64`` with
                       ``mime_type``, ``file_id``
older forms            ``image_url``, ``video_url``, ``media``, ``source_type``, ``file`` with a video or image type
``extras`` of a video  ``start``, ``end`` (seconds), ``num_frames``, ``caption`` (words beside the clip)
=====================  ============================================================================
"""

from __future__ import annotations

import base64
import binascii
import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote_to_bytes, urlsplit

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.content import KNOWN_BLOCK_TYPES

from videochat_tools.context import neutral_text
from videochat_tools.errors import UnsupportedContentError
from videochat_tools.remote_media import RemoteHosts, check_host
from videochat_tools.tool_calling import call_text
from videochat_tools.types import parse_media_fragment, uri_to_path

Role = Literal["system", "human", "assistant"]

_ALLOWED = "text, image and video blocks (by url, base64 or file_id)"


@dataclass(frozen=True, slots=True)
class Visual:
    """One video or picture of a conversation. Exactly one of ``path``, ``data``, ``url`` and ``file_id`` is set."""

    kind: Literal["video", "image"]
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    url: str | None = None  # http(s), where that was allowed
    hosts: RemoteHosts = False  # where it may be fetched from
    file_id: str | None = None  # name of a library segment, answered from its cached clip tokens
    start: float | None = None  # seconds; None = from the first frame
    end: float | None = None  # seconds; None = to the last frame
    num_frames: int | None = None  # None = as many as the model was made for
    caption: str = ""  # stands beside the clip's tokens: timecode, what is said


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says: the visuals first, then the words."""

    role: Role
    text: str
    visuals: tuple[Visual, ...] = ()


def read_messages(messages: Sequence[BaseMessage], *, remote: RemoteHosts = False) -> list[Turn]:
    """Turn messages into turns, in order.

    Args:
        messages: the conversation.
        remote: whether videos and pictures may be fetched by http(s): from nowhere, from everywhere (True), or from
            the hosts that are named.

    Raises:
        UnsupportedContentError: for an empty conversation, or a block that the model cannot take.
    """
    turns = [_turn(message, remote) for message in messages]
    if not any(turn.role == "human" for turn in turns):
        raise UnsupportedContentError("the conversation holds no human message; add a HumanMessage with a question")
    return turns


def _turn(message: BaseMessage, remote: RemoteHosts) -> Turn:
    texts: list[str] = []
    visuals: list[Visual] = []
    for block in _blocks(message):
        if block["type"] == "text":
            texts.append(str(block.get("text", "")))
        elif block["type"] in ("image", "video"):
            visuals.append(_visual(block, remote))
        elif block["type"] not in _SILENT:
            raise UnsupportedContentError(f"cannot take a {block['type']!r} block; allowed are {_ALLOWED}")
    if isinstance(message, AIMessage):  # as the model wrote them
        texts += [call_text(call["name"], call["args"]) for call in message.tool_calls]
    if isinstance(message, ToolMessage) and message.name:
        texts.insert(0, f"{message.name} {'failed' if message.status == 'error' else 'returned'}:")
    role = _role(message)
    if visuals and role != "human":
        raise UnsupportedContentError(
            f"a {message.type} message cannot hold a video or image; put it into a HumanMessage"
        )
    return Turn(role, neutral_text("\n".join(text for text in texts if text)).strip(), tuple(visuals))


# Of other models: their thoughts, and their calls, which stand in `tool_calls` as well.
_SILENT = {"reasoning", "tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "function_call"}


def _role(message: BaseMessage) -> Role:
    match message:
        case SystemMessage():
            return "system"
        case AIMessage():
            return "assistant"
        case HumanMessage() | ToolMessage():  # a tool's result reaches the model as something it is told
            return "human"
        case ChatMessage(role="system" | "human" | "assistant" as role):
            return role
        case ChatMessage(role="user"):
            return "human"
    raise UnsupportedContentError(
        f"cannot take a message of type {message.type!r}; allowed are system, human, ai and tool messages"
    )


def _blocks(message: BaseMessage) -> Iterable[dict[str, Any]]:
    """Content blocks in the one standard form, whichever way they were written."""
    for block in message.content_blocks:
        raw: dict[str, Any] = dict(block)
        if raw["type"] == "non_standard":
            value = raw.get("value")
            if not isinstance(value, Mapping):
                raise UnsupportedContentError(f"cannot read the content block {value!r}; allowed are {_ALLOWED}")
            raw = dict(value)
        if raw.get("type") not in KNOWN_BLOCK_TYPES or "source_type" in raw:
            raw = _standard(raw)
        if raw["type"] == "file":
            raw["type"] = _kind_of(raw.get("mime_type"))
        yield raw


def _standard(value: dict[str, Any]) -> dict[str, Any]:
    """The older and foreign ways to write a video block, which langchain-core leaves alone."""
    kind = value.get("type")
    if kind == "video_url":  # as image_url of OpenAI: {"video_url": {"url": …}} or a bare string
        target = value.get("video_url")
        url = target.get("url") if isinstance(target, Mapping) else target
        return {"type": "video", "url": url, "extras": value.get("extras", {})}
    if kind == "media":  # Google's: {"mime_type": …, "data" | "file_uri": …}
        return {
            "type": _kind_of(value.get("mime_type")),
            "mime_type": value.get("mime_type"),
            "base64": value.get("data"),
            "url": value.get("file_uri"),
            "extras": value.get("extras", {}),
        }
    if kind in ("video", "image") and "source_type" in value:  # langchain-core before 1.0
        source = value["source_type"]
        key = {"url": "url", "base64": "base64", "id": "file_id"}.get(source)
        if key is None:
            raise UnsupportedContentError(f"unknown source_type {source!r}; allowed are url, base64 and id")
        return {**value, key: value.get("data") if key == "base64" else value.get(source)}
    return {"type": kind if isinstance(kind, str) else "unknown"}


def _kind_of(mime_type: object) -> str:
    """The kind of block that a file of this MIME type is: video or image; anything else is refused by its type."""
    main = str(mime_type or "").partition("/")[0]
    return main if main in ("video", "image") else str(mime_type or "file")


def _visual(block: dict[str, Any], remote: RemoteHosts) -> Visual:
    kind = block["type"]
    extras = block.get("extras") or {}
    options = {key: extras.get(key, block.get(key)) for key in ("start", "end", "num_frames", "caption")}
    span: tuple[float | None, float | None] = (_seconds(options["start"], "start"), _seconds(options["end"], "end"))
    num_frames = options["num_frames"]
    if num_frames is not None and (not isinstance(num_frames, int) or isinstance(num_frames, bool) or num_frames < 1):
        raise UnsupportedContentError(f"num_frames must be a whole number of at least 1, got {num_frames!r}")
    where = Visual(kind)
    if block.get("file_id"):
        where = Visual(kind, file_id=str(block["file_id"]))
    elif block.get("base64"):
        if not block.get("mime_type"):
            raise UnsupportedContentError(f"a base64 {kind} block needs its mime_type, such as {_EXAMPLE_MIME[kind]}")
        where = Visual(kind, data=_decode(block["base64"]))
    elif block.get("url"):
        where = _from_url(str(block["url"]), kind, remote)
        if span == (None, None):
            span = (where.start, where.end)
    else:
        raise UnsupportedContentError(f"a {kind} block needs one of url, base64 (with mime_type) and file_id")
    if None not in span and not span[1] > span[0]:  # type: ignore[operator]
        raise UnsupportedContentError(f"a clip needs start < end, got start={span[0]}, end={span[1]}")
    caption = neutral_text(str(options["caption"] or ""))
    return replace(where, start=span[0], end=span[1], num_frames=num_frames, caption=caption)


_EXAMPLE_MIME = {"video": "video/mp4", "image": "image/png"}


def _from_url(url: str, kind: Literal["video", "image"], remote: RemoteHosts) -> Visual:
    """Where a URL points; a media fragment (``#t=42,51``) names the part that is meant."""
    scheme = urlsplit(url).scheme.lower()
    if scheme == "data":
        head, _, body = url.partition(",")
        return Visual(kind, data=_decode(body) if head.endswith(";base64") else unquote_to_bytes(body))
    if scheme not in ("", "file", "http", "https") and len(scheme) > 1:  # one letter: a Windows drive
        raise UnsupportedContentError(f"cannot open a {scheme}: URL ({url}); pass a path, a file:// URL or base64")
    if scheme in ("", *string.ascii_lowercase) and Path(url).exists():  # a plain path may hold '#' itself
        return Visual(kind, Path(url))
    source, span = parse_media_fragment(url)
    start, end = (None, None) if span is None else (span.start, span.end)
    if scheme in ("http", "https"):
        check_host(source, remote)
        return Visual(kind, url=source, hosts=remote, start=start, end=end)
    return Visual(kind, uri_to_path(source), start=start, end=end)


def _decode(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise UnsupportedContentError(f"the base64 data of a block cannot be decoded: {error}") from error


def _seconds(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise UnsupportedContentError(f"{name} must be a time in seconds of at least 0, got {value!r}")
    return float(value)
