"""LangChain messages into what the prompt templates take: turns of a conversation and the visuals in them.

Read here, decoded elsewhere: a :class:`Visual` only says where a video or picture is and which part is meant.

=====================  ============================================================================
block                  accepted forms
=====================  ============================================================================
text                   ``"…"``, ``{"type": "text", "text": …}``; the words of ``text-plain``, ``json`` and
                       ``search_result`` blocks, which tools return
video, image           ``url`` (``file://``, plain path, ``data:``, ``http(s)://`` where allowed), ``base64`` with
                       ``mime_type``, ``file_id``
older forms            ``image_url``, ``video_url``, ``media``, ``source_type``, ``file`` with a video or image type
``extras`` of a video  ``start``, ``end`` (seconds or mm:ss), ``num_frames``, ``caption`` (words beside the clip)
=====================  ============================================================================
"""

from __future__ import annotations

import base64
import binascii
import math
import string
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote_to_bytes, urlsplit

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from videochat_tools.block_forms import ALLOWED, SILENT, standard_blocks
from videochat_tools.context import neutral_text
from videochat_tools.errors import UnsupportedContentError
from videochat_tools.remote_media import RemoteHosts, check_host
from videochat_tools.tool_calling import call_text
from videochat_tools.types import parse_timecode, split_media_fragment, uri_to_path

Role = Literal["system", "human", "assistant"]

MAX_FRAMES = 256  # of one clip; a tower's work grows with the square of the frames, and 16 are what models learn with
CLIP_OPTIONS = ("start", "end", "num_frames", "caption")
# Options of other models, which change nothing about what is seen.
_FOREIGN_OPTIONS = frozenset({"cache_control", "detail", "filename", "metadata"})


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
    turns = [read_message(message, remote=remote) for message in messages]
    if not any(turn.role == "human" for turn in turns):
        raise UnsupportedContentError("the conversation holds no human message; add a HumanMessage with a question")
    return turns


def read_message(message: BaseMessage, *, remote: RemoteHosts = False) -> Turn:
    """One message as a turn; see :func:`read_messages`."""
    texts: list[str] = []
    visuals: list[Visual] = []
    for block in standard_blocks(message):
        if block["type"] == "text":
            texts.append(str(block.get("text") or ""))
        elif block["type"] in ("image", "video"):
            visuals.append(_visual(block, remote))
        elif block["type"] not in SILENT:
            raise UnsupportedContentError(f"cannot take a {block['type']!r} block; allowed are {ALLOWED}")
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


def _visual(block: dict[str, Any], remote: RemoteHosts) -> Visual:
    kind = block["type"]
    extras = block.get("extras") or {}
    allowed = CLIP_OPTIONS if kind == "video" else ("caption",)
    if unknown := sorted(set(extras) - {*allowed, *_FOREIGN_OPTIONS}):
        warnings.warn(
            f"extras of this {kind} block that change nothing: {', '.join(unknown)}; it takes {', '.join(allowed)}",
            stacklevel=2,
        )
    options = {key: extras.get(key, block.get(key)) for key in allowed}
    span: tuple[float | None, float | None] = (_seconds(options, "start"), _seconds(options, "end"))
    where = Visual(kind)
    if block.get("file_id"):
        where = Visual(kind, file_id=str(block["file_id"]))
        if asked := [key for key in allowed if key != "caption" and options[key] is not None]:
            raise UnsupportedContentError(
                f"a library segment is answered from what was watched of it, so {', '.join(asked)} cannot be chosen "
                f"for {where.file_id}; leave that out, or give the video by url"
            )
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
    return replace(where, start=span[0], end=span[1], num_frames=_frames(options), caption=caption)


_EXAMPLE_MIME = {"video": "video/mp4", "image": "image/png"}


def _from_url(url: str, kind: Literal["video", "image"], remote: RemoteHosts) -> Visual:
    """Where a URL points; a media fragment (``#t=42,51``) names the part that is meant."""
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError as error:
        raise UnsupportedContentError(
            f"cannot read the URL {url} ({error}); pass a path, a file:// URL or base64"
        ) from error
    if scheme == "data":
        head, _, body = url.partition(",")
        return Visual(kind, data=_decode(body) if head.endswith(";base64") else unquote_to_bytes(body))
    if scheme not in ("", "file", "http", "https") and len(scheme) > 1:  # one letter: a Windows drive
        raise UnsupportedContentError(f"cannot open a {scheme}: URL ({url}); pass a path, a file:// URL or base64")
    if scheme in ("", *string.ascii_lowercase) and _exists(Path(url)):  # a plain path may hold '#' itself
        return Visual(kind, Path(url))
    source, start, end = split_media_fragment(url)
    if start is end is None and url.partition("#")[2].startswith("t="):
        raise UnsupportedContentError(f"cannot read the time in {url}; write #t=42,51 or #t=42, in seconds")
    if scheme in ("http", "https"):
        check_host(source, remote)
        return Visual(kind, url=source, hosts=remote, start=start, end=end)
    return Visual(kind, uri_to_path(source).expanduser(), start=start, end=end)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name can be, or with a NUL in it
        return False


def _decode(data: object) -> bytes:
    """The bytes of a file: base64 with or without line breaks, or bytes that are no base64 themselves."""
    if isinstance(data, bytes | bytearray):
        try:
            text = bytes(data).decode("ascii")
        except UnicodeDecodeError:
            return bytes(data)
    else:
        text = str(data)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise UnsupportedContentError(f"the base64 data of a block cannot be decoded: {error}") from error


def _seconds(options: Mapping[str, Any], name: str) -> float | None:
    value = given = options.get(name)
    if isinstance(value, str):  # as prompt templates fill it in
        with suppress(ValueError):
            value = parse_timecode(value) if ":" in value else float(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise UnsupportedContentError(f"{name} must be a time in seconds of at least 0, or mm:ss, got {given!r}")
    return float(value)


def _frames(options: Mapping[str, Any]) -> int | None:
    value = options.get("num_frames")
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= MAX_FRAMES:
        raise UnsupportedContentError(f"num_frames must be a whole number from 1 to {MAX_FRAMES}, got {value!r}")
    return int(value)
