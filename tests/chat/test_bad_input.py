"""What cannot be answered: an error that says why, or the documented behaviour; never a hang."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from asking import ask
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.messages.content import create_image_block, create_video_block
from pydantic import ValidationError
from tiny_model import make_tiny_chat_model

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.errors import (
    ContextTooLongError,
    MediaError,
    MediaNotFoundError,
    ModelLoadError,
    NoVideoStreamError,
    UnreadableMediaError,
    UnsupportedContentError,
)


def test_bad_files_are_told_apart(model: ChatVideoChat, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    for name, error in (("missing.mp4", MediaNotFoundError), ("empty.mp4", UnreadableMediaError)):
        with pytest.raises(error, match=name):
            model.invoke(ask(create_video_block(url=str(tmp_path / name))))
    with pytest.raises(UnreadableMediaError):
        model.invoke(ask(create_video_block(url=str(tmp_path / "text.mp4"))))
    with pytest.raises(UnreadableMediaError, match="no readable picture"):
        model.invoke(ask(create_image_block(url=str(tmp_path / "text.mp4"))))
    with pytest.raises(MediaNotFoundError, match=r"missing\.png"):
        model.invoke(ask(create_image_block(url=str(tmp_path / "missing.png"))))
    inline = base64.b64encode((tmp_path / "text.mp4").read_bytes()).decode()
    with pytest.raises(UnreadableMediaError, match="the inline picture is no readable picture .of no known kind."):
        model.invoke(ask(create_image_block(base64=inline, mime_type="image/png")))


def test_a_cut_off_video_is_told_or_answered_from_what_is_left(
    model: ChatVideoChat, color_video: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.mp4").write_bytes(color_video.read_bytes()[: color_video.stat().st_size // 2])
    with pytest.raises(UnreadableMediaError, match=r"cut\.mp4 .* damaged, cut off"):
        model.invoke(ask(create_video_block(url=str(tmp_path / "cut.mp4"))))


@pytest.mark.parametrize(
    ("span", "says"),
    [
        ({"start": 7.0}, r"is 6\.0 s long, but the part from 7\.0 s was asked for; give start and end within it"),
        ({"end": 70.0}, r"the part to 70\.0 s was"),
        ({"start": 1.0, "end": 70.0}, r"the part from 1\.0 s to 70\.0 s was"),
    ],
)
def test_a_part_outside_the_video(model: ChatVideoChat, color_video: Path, span: dict[str, float], says: str) -> None:
    with pytest.raises(UnsupportedContentError, match=says):
        model.invoke(ask(create_video_block(url=str(color_video), **span)))
    assert model.invoke(ask(create_video_block(url=str(color_video), start=5.0, end=6.5))).content  # a rounded end


@pytest.mark.parametrize("create", [create_video_block, create_image_block])
def test_what_is_no_file_is_not_waited_for(model: ChatVideoChat, tmp_path: Path, create: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in ((tmp_path / "pipe", "pipe or device"), ("/dev/zero", "pipe or device"), (tmp_path, "a folder")):
        with pytest.raises(UnreadableMediaError, match=says):
            model.invoke(ask(create(url=str(path))))
    for name in ("a\0b.mp4", "a" * 5000):
        with pytest.raises(MediaError, match="a"):
            model.invoke(ask(create(url=f"/{name}")))


def test_a_picture_that_would_fill_the_memory(model: ChatVideoChat, tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "huge.png").write_bytes(data)
    with pytest.raises(UnreadableMediaError, match="exceeds limit"):
        model.invoke(ask(create_image_block(url=str(tmp_path / "huge.png"))))


@pytest.mark.parametrize("messages", [[], [SystemMessage("be brief")], [AIMessage("hello")]])
def test_nobody_asks_anything(model: ChatVideoChat, messages: list[Any]) -> None:
    with pytest.raises(UnsupportedContentError, match="add a HumanMessage with a question"):
        model.invoke(messages)


def test_a_block_that_it_cannot_take(model: ChatVideoChat) -> None:
    with pytest.raises(UnsupportedContentError, match="'audio' block; allowed are text, image and video blocks"):
        model.invoke(ask({"type": "audio", "url": "/a.wav"}))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": -1.0}, "temperature must be a number of at least 0, got -1.0"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"top_p": 0.0}, "top_p must be a number above 0 and up to 1"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1"),
        ({"max_tokens": 3.5}, "max_tokens must be a whole number"),
        ({"seed": "lucky"}, "seed must be a whole number"),
        ({"stop": [""]}, "stop must be strings that are not empty"),
        ({"stop": [3]}, "stop must be strings"),
        ({"n": 2}, "unknown argument n; a call takes"),
    ],
)
def test_settings_that_mean_nothing(model: ChatVideoChat, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model.invoke("hello", **settings)


def test_settings_left_out_are_those_of_the_model(model: ChatVideoChat) -> None:
    assert model.invoke("hello", temperature=None, max_tokens=None).content == model.invoke("hello").content


def test_sound_alone_is_no_video(model: ChatVideoChat, tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0\1" * 800)
    with pytest.raises(NoVideoStreamError, match=r"tone\.wav"):
        model.invoke(ask(create_video_block(url=str(tmp_path / "tone.wav"))))


def test_a_conversation_that_does_not_fit_is_an_error(model: ChatVideoChat) -> None:
    with pytest.raises(ContextTooLongError, match="takes 512"):
        model.invoke("what? " * 400)


def test_a_reply_ends_where_the_context_ends(tmp_path: Path) -> None:
    folder = make_tiny_chat_model(tmp_path / "chat", context_tokens=40)
    reply = ChatVideoChat(model=str(folder)).invoke("hello")
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["total_tokens"] == 40


def test_models_that_cannot_be_loaded(tmp_path: Path, tiny_chat: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"folder with config\.json"):
        ChatVideoChat(model=str(tmp_path)).invoke("hello")
    with pytest.raises(ModelLoadError, match="neither a folder nor available"):
        ChatVideoChat(model="nobody/nothing").invoke("hello")
    with pytest.raises(ModelLoadError, match="unknown device 'gpu please'"):
        ChatVideoChat(model=str(tiny_chat), device="gpu please").invoke("hello")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_tiny_chat_model(tmp_path / "chat")
    weights = load_file(folder / "model.safetensors")
    del weights["projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"lacks 1 weights .* projection\.weight"):
        ChatVideoChat(model=str(folder)).invoke("hello")


def test_mistyped_settings_are_errors(model: ChatVideoChat) -> None:
    with pytest.raises(ValidationError, match="temprature"):
        ChatVideoChat(temprature=1.0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="unknown argument temprature"):
        model.invoke("hello", temprature=1.0)


def test_nothing_is_lost_of_a_conversation_by_an_error(model: ChatVideoChat, tmp_path: Path) -> None:
    messages = [HumanMessage("who?"), AIMessage("the ring"), *ask(create_video_block(url=str(tmp_path / "gone.mp4")))]
    before = [message.model_dump() for message in messages]
    with pytest.raises(MediaNotFoundError):
        model.invoke(messages)
    assert [message.model_dump() for message in messages] == before
