"""Message blocks in every accepted form, and clear errors for the others."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
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
        (create_video_block(url="/a.mp4", start="1.5", end="01:02", num_frames="4"),  # as templates fill them in
         Visual("video", Path("/a.mp4"), start=1.5, end=62.0, num_frames=4)),
        (create_video_block(url="/a.mp4", start=np.float32(1.5), num_frames=np.int64(4)),
         Visual("video", Path("/a.mp4"), start=1.5, num_frames=4)),
        ({"type": "video", "url": "/a.mp4#t=4"}, Visual("video", Path("/a.mp4"), start=4.0)),
        ({"type": "video", "url": "/a.mp4#t=,4"}, Visual("video", Path("/a.mp4"), end=4.0)),
        ({"type": "video", "url": "~/a.mp4"}, Visual("video", Path.home() / "a.mp4")),
        ({"type": "video", "url": Path("/a.mp4")}, Visual("video", Path("/a.mp4"))),
        ({"type": "video_url", "video_url": "/a.mp4", "start": 1, "end": 2},
         Visual("video", Path("/a.mp4"), start=1.0, end=2.0)),
        ({"type": "video_url", "video_url": {"url": "/a.mp4"}, "extras": {"num_frames": 2}},
         Visual("video", Path("/a.mp4"), num_frames=2)),
        ({"type": "media", "mime_type": "video/mp4", "data": b"\xff bytes", "extras": {"start": 1}},
         Visual("video", data=b"\xff bytes", start=1.0)),
        ({"type": "video", "source_type": "url", "url": "/a.mp4", "metadata": {"start": 1}},
         Visual("video", Path("/a.mp4"), start=1.0)),
        ({"type": "video", "source_type": "id", "id": "file:///a.mp4#t=4,9"},
         Visual("video", file_id="file:///a.mp4#t=4,9")),
        ({"type": "video", "base64": DATA.encode(), "mime_type": "video/mp4"},
         Visual("video", data=b"bytes of a file")),
        ({"type": "video", "base64": f"{DATA[:8]}\n{DATA[8:]}\n", "mime_type": "video/mp4"},
         Visual("video", data=b"bytes of a file")),
        ({"type": "file", "url": "file:///a.mp4"}, Visual("video", Path("/a.mp4"))),
        ({"type": "file", "url": "/a.png#t=1"}, Visual("image", Path("/a.png"), start=1.0)),
        ({"type": "image_url", "image_url": "/a.png"}, Visual("image", Path("/a.png"))),
        ({"type": "image_url", "image_url": {"url": "file:///a.png", "detail": "low"}},
         Visual("image", Path("/a.png"))),
        ({"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"},
         Visual("image", data=b"bytes of a file")),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
         Visual("image", data=b"bytes of a file")),
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
        ({"type": "video", "url": "/a.mp4", "extras": {"num_frames": 257}}, "from 1 to 256, got 257"),
        ({"type": "video", "url": "/a.mp4", "extras": {"num_frames": "many"}}, "got 'many'"),
        ({"type": "video", "url": "/a.mp4", "extras": {"end": float("nan")}}, "end must be a time in seconds"),
        ({"type": "video", "url": "/a.mp4#t=soon"}, "write #t=42,51"),
        ({"type": "video", "url": "/a.mp4#t=5,4"}, "start < end, got start=5.0, end=4.0"),
        ({"type": "video", "url": "http://[::1"}, "cannot read the URL"),
        (
            {"type": "video", "file_id": "file:///a.mp4#t=4,9", "extras": {"start": 5, "num_frames": 2}},
            "start, num_frames cannot be chosen",
        ),
        ({"type": "video", "source_type": "ftp", "url": "/a.mp4"}, "unknown source_type 'ftp'"),
        ({"type": "text-plain", "url": "/a.txt"}, "without its words"),
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


def test_words_in_other_blocks_than_text() -> None:
    """What tools return, and what other models have said and thought in a conversation that goes on with this one."""
    hit = {
        "type": "search_result",
        "title": "Harbour",
        "source": "a.mp4",
        "content": [{"type": "text", "text": "nine"}],
    }
    messages = [
        HumanMessage([{"type": "text-plain", "text": "a note", "mime_type": "text/plain"}, {"text": "why?"}]),
        AIMessage([
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "server_tool_call", "name": "web", "args": {}, "id": "1"},
            {"type": "server_tool_result", "tool_call_id": "1", "status": "success"},
            {"type": "text", "text": None},
            {"type": "text", "text": "so"},
        ]),
        ToolMessage([{"type": "json", "json": {"a": "é"}}, hit], tool_call_id="1", name="find"),
    ]  # fmt: skip
    assert read_messages(messages) == [
        Turn("human", "a note\nwhy?"),
        Turn("assistant", "so"),
        Turn("human", 'find returned:\n{"a": "é"}\nHarbour\na.mp4\nnine'),
    ]


def test_extras_that_change_nothing_are_told() -> None:
    with pytest.warns(UserWarning, match="this video block that change nothing: strat; it takes start, end,"):
        assert visual(create_video_block(url="/a.mp4", strat=3)).start is None
    with pytest.warns(UserWarning, match="this image block .* start; it takes caption"):
        visual(create_image_block(url="/a.png", start=3))


def test_visuals_are_only_heard_from_humans_and_tools() -> None:
    block = {"type": "image", "url": "/a.png"}
    assert read_messages([ToolMessage([block], tool_call_id="1")])[0].visuals == (Visual("image", Path("/a.png")),)
    with pytest.raises(UnsupportedContentError, match="put it into a HumanMessage"):
        read_messages([SystemMessage([block]), HumanMessage("what is it?")])
