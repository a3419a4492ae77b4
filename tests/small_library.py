"""A library of two tiny videos, and a chat model that says what it is told to say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from pydantic import Field

from videochat_tools.segmenting import FixedSegmenter
from videochat_tools.testing import COLORS, FakeVideoEncoder
from videochat_tools.video_library import VideoLibrary

SUBTITLES = """WEBVTT

00:00.500 --> 00:01.500
Good morning everybody.

00:04.500 --> 00:05.500
The harbour opens at nine.
"""


class Scripted(BaseChatModel):
    """Another chat model: says what it is told to say, and remembers what it was shown, and in which thread."""

    replies: list[str | AIMessage]
    heard: list[list[BaseMessage]] = Field(default_factory=list)
    threads: list[int] = Field(default_factory=list)
    tools: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[BaseTool], **kwargs: Any) -> Scripted:
        self.tools[:] = [tool.name for tool in tools]
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.heard.append(messages)
        self.threads.append(threading.get_ident())
        reply = self.replies.pop(0)
        message = AIMessage(reply) if isinstance(reply, str) else reply
        return ChatResult(generations=[ChatGeneration(message=message)])


def call(name: str, id: str = "1", **arguments: Any) -> AIMessage:
    """A reply that calls one tool."""
    return AIMessage("", tool_calls=[ToolCall(name=name, args=arguments, id=id)])


def make_small_library(folder: Path, write_video: Callable[..., Path], **options: Any) -> VideoLibrary:
    """``colours.mp4``: 2 s each of red, green and blue; ``more.mp4``: yellow, then yellow still, then black."""
    for name, colors in (("colours", ("red", "green", "blue")), ("more", ("yellow", "yellow", "black"))):
        pictures = (np.full((64, 96, 3), COLORS[color], np.uint8) for color in colors for _ in range(20))
        write_video(folder / f"{name}.mp4", pictures, fps=10)
    (folder / "colours.vtt").write_text(SUBTITLES)
    library = open_small_library(folder, **options)
    library.add([folder / "colours.mp4", folder / "more.mp4"])
    return library


def open_small_library(folder: Path, **options: Any) -> VideoLibrary:
    """The same library, opened (again); no networks, unless the options bring one."""
    settings = {"encoder": FakeVideoEncoder(), "transcriber": None, "segmenter": FixedSegmenter(seconds=2.0)}
    return VideoLibrary(folder / "lib", **{**settings, **options})
