"""Message blocks in every accepted form, and clear errors for the others."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.content import create_image_block, create_video_block

from videochat_tools.content import Turn, Visual, read_messages
from videochat_tools.errors import UnsupportedContentError

DATA = base64.b64encode(b"bytes of a file").decode()


def visual(block: dict[str, Any] | str) -> Visual:
    (turn,) = read_messages([HumanMessage([block, {"type": "text", "text": "what is it?"}])])
    assert (turn.role, turn.text) == ("human", "what is it?")
    (found,) = turn.visuals
    return found


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (create_video_block(url="file:///my%20clip.mp4"), Visual("video", Path("/my clip.mp4"))),
        ({"type": "video", "url": "/my clip.mp4"}, Visual("video", Path("/my clip.mp4"))),
        ({"type": "video", "url": "file:///a.mp4#t=4,9.5"}, Visual("video", Path("/a.mp4"), start=4, end=9.5)),
        (create_video_block(url="/a.mp4", start=1.0, end=3.5, num_frames=4),
         Visual("video", Path("/a.mp4"), start=1.0, end=3.5, num_frames=4)),
        ({"type": "video", "url": "/a.mp4", "start": 2}, Visual("video", Path("/a.mp4"), start=2.0)),
        (create_video_block(file_id="file:///a.mp4#t=4,9", caption="[00:04–00:09]"),
         Visual("video", file_id="file:///a.mp4#t=4,9", caption="[00:04–00:09]")),
        (create_video_block(base64=DATA, mime_type="video/mp4"), Visual("video", data=b"bytes of a file")),
        ({"type": "video", "url": f"data:video/mp4;base64,{DATA}"}, Visual("video", data=b"bytes of a file")),
        ({"type": "video_url", "video_url": {"url": "file:///a.mp4"}}, Visual("video", Path("/a.mp4"))),
        ({"type": "video_url", "video_url": "/a.mp4"}, Visual("video", Path("/a.mp4"))),
        ({"type": "media", "mime_type": "video/mp4", "data": DATA}, Visual("video", data=b"bytes of a file")),
        ({"type": "media", "mime_type": "video/mp4", "file_uri": "file:///a.mp4"}, Visual("video", Path("/a.mp4"))),
        ({"type": "video", "source_type": "url", "url": "/a.mp4"}, Visual("video", Path("/a.mp4"))),
        ({"type": "video", "source_type": "base64", "data": DATA, "mime_type": "video/mp4"},
         Visual("video", data=b"bytes of a file")),
        ({"type": "file", "url": "/a.mp4", "mime_type": "video/mp4"}, Visual("video", Path("/a.mp4"))),
        (create_image_block(url="/a.png"), Visual("image", Path("/a.png"))),
        (create_image_block(base64=DATA, mime_type="image/png"), Visual("image", data=b"bytes of a file")),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
         Visual("image", data=b"bytes of a file")),
        ({"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
         Visual("image", data=b"bytes of a file")),
    ],
)  # fmt: skip
def test_accepted_forms(block: dict[str, Any], expected: Visual) -> None:
    assert visual(block) == expected


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"type": "audio", "url": "/a.wav"}, "'audio' block; allowed are text, image and video"),
        ({"type": "file", "url": "/a.pdf", "mime_type": "application/pdf"}, "'application/pdf' block"),
        ({"type": "hologram", "url": "/a.holo"}, "'hologram' block"),
        ({"type": "video"}, "needs one of url, base64"),
        ({"type": "video", "base64": DATA}, "needs its mime_type, such as video/mp4"),
        ({"type": "video", "base64": "no base64!", "mime_type": "video/mp4"}, "cannot be decoded"),
        ({"type": "video", "url": "https://example.org/a.mp4"}, "download it and pass its path"),
        ({"type": "video", "url": "s3://bucket/a.mp4"}, "cannot open a s3: URL"),
        ({"type": "video", "url": "/a.mp4", "extras": {"start": -1}}, "start must be a time in seconds"),
        ({"type": "video", "url": "/a.mp4", "extras": {"start": "soon"}}, "start must be a time in seconds"),
        ({"type": "video", "url": "/a.mp4", "extras": {"start": 5, "end": 5}}, "start < end"),
        ({"type": "video", "url": "/a.mp4", "extras": {"num_frames": 0}}, "num_frames must be a whole number"),
    ],
)
def test_refused_forms(block: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedContentError, match=says):
        visual(block)


def test_roles_and_text() -> None:
    messages = [
        SystemMessage("be brief"),
        HumanMessage(["first", {"type": "text", "text": "second ### <VideoHere>"}]),
        AIMessage("an answer"),
        ToolMessage("a result", tool_call_id="1"),
        ChatMessage(role="user", content="go on"),
    ]
    assert read_messages(messages) == [
        Turn("system", "be brief"),
        Turn("human", "first\nsecond ## VideoHere"),
        Turn("assistant", "an answer"),
        Turn("human", "a result"),
        Turn("human", "go on"),
    ]


def test_visuals_are_only_heard_from_humans_and_tools() -> None:
    block = {"type": "image", "url": "/a.png"}
    assert read_messages([ToolMessage([block], tool_call_id="1")])[0].visuals == (Visual("image", Path("/a.png")),)
    with pytest.raises(UnsupportedContentError, match="put it into a HumanMessage"):
        read_messages([SystemMessage([block]), HumanMessage("what is it?")])


@pytest.mark.parametrize("messages", [[], [SystemMessage("be brief")], [AIMessage("hello")]])
def test_a_conversation_needs_a_human(messages: list[Any]) -> None:
    with pytest.raises(UnsupportedContentError, match="no human message"):
        read_messages(messages)
