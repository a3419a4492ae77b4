"""The suites of langchain-tests on the bundled nano."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from asking import ask, video_tokens
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.content import create_image_block, create_video_block
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image
from tiny_model import make_tiny_chat_model

from videochat_tools import visuals
from videochat_tools.chat_model import ChatVideoChat


class _Suite:
    """What both suites need to know."""

    @pytest.fixture(autouse=True)
    def _models(self, other_tiny_chat: Path) -> None:
        self.other = str(other_tiny_chat)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVideoChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # It cannot tell by itself when to call a tool.
        return {"call_first": True, "allow_remote": True}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        # A letter of Chinese is three tokens to it.
        return {"temperature": 0, "max_tokens": 200, "timeout": 60, "stop": [], "max_retries": 2}

    @property
    def supports_video_inputs(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model = ChatVideoChat(**self.chat_model_params, max_tokens=8)
        model.invoke("what is it?")
        if not stream:
            return model.invoke("what is it?")
        chunks = list(model.stream("what is it?"))
        return cast(AIMessage, sum(chunks[1:], start=chunks[0]))  # type: ignore[call-overload]

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return self.other


@pytest.fixture(scope="module")
def other_tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_chat_model(tmp_path_factory.mktemp("other") / "chat", seed=1)


class TestUnit(_Suite, ChatModelUnitTests):
    @pytest.mark.xfail(reason="langchain-core reads back only classes of its own list; test_chat_model.py has ours")
    def test_serdes(self, model: BaseChatModel, snapshot: Any) -> None:
        super().test_serdes(model, snapshot)


class TestIntegration(_Suite, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _picture_from_the_internet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite downloads its picture; tests here have no network and draw one."""
        file = io.BytesIO()
        Image.new("RGB", (48, 32), (220, 30, 30)).save(file, "PNG")
        monkeypatch.setattr("httpx.get", lambda *_, **__: SimpleNamespace(content=file.getvalue()))
        monkeypatch.setattr(visuals, "fetch", lambda url, hosts: file.getvalue())

    @pytest.mark.xfail(reason="for the Japanese name the nano gives another word of the sentence; see its card")
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **options: Any) -> None:
        super().test_unicode_tool_call_integration(model, **options)

    def test_video_inputs(self, model: BaseChatModel, color_video: Path) -> None:
        """What the suite has no test for: it only knows that there is such a thing."""
        data = base64.b64encode(color_video.read_bytes()).decode()
        forms: list[Any] = [
            create_video_block(url=str(color_video)),
            create_video_block(url=color_video.as_uri()),
            create_video_block(base64=data, mime_type="video/mp4"),
            {"type": "video", "url": f"data:video/mp4;base64,{data}"},
            {"type": "video_url", "video_url": {"url": str(color_video)}},
            {"type": "media", "mime_type": "video/mp4", "data": data},
            {"type": "video", "source_type": "base64", "data": data, "mime_type": "video/mp4"},
            {"type": "file", "base64": data, "mime_type": "video/mp4"},
        ]
        replies = [model.invoke(ask(form)) for form in forms]
        assert {str(reply.content) for reply in replies} == {str(replies[0].content)}
        clip = video_tokens(replies[0])
        assert {video_tokens(reply) for reply in replies} == {clip} and clip > 0

    def test_several_videos_and_pictures(self, model: BaseChatModel, color_video: Path, tmp_path: Path) -> None:
        Image.new("RGB", (48, 32), (220, 30, 30)).save(tmp_path / "red.png")
        part = create_video_block(url=str(color_video), start=0.0, end=1.9, num_frames=4)
        picture = create_image_block(url=str(tmp_path / "red.png"))
        clip = video_tokens(model.invoke(ask(part)))
        messages: list[BaseMessage] = [*ask(part, picture, part), AIMessage("red"), *ask(picture)]
        assert video_tokens(model.invoke(messages)) == 4 * clip
        call = AIMessage("", tool_calls=[{"name": "watch", "args": {}, "id": "1"}])
        shown = ToolMessage([{"type": "file", "url": str(color_video), "mime_type": "video/mp4"}], tool_call_id="1")
        assert video_tokens(model.invoke([HumanMessage("what is it?"), call, shown])) == clip
