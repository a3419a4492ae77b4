"""The suites of langchain-tests on the tiny chat model."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from altered_chat_models import taught, with_language_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests.chat_models import magic_function, unicode_customer
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image
from tiny_model import make_tiny_chat_model

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.tool_calling import call_text


class _Tiny:
    """What both suites need to know."""

    @pytest.fixture(autouse=True)
    def _folders(self, schooled: Path, other_tiny_chat: Path) -> None:
        self.folder = str(schooled)
        self.other = str(other_tiny_chat)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVideoChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # It cannot tell by itself when to call a tool.
        return {"model": self.folder, "call_first": True}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 80, "timeout": 60, "stop": [], "max_retries": 2}

    @property
    def supports_video_inputs(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
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
def schooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that knows the answers which the suite wants to see, word for word, and nothing else."""
    folder = tmp_path_factory.mktemp("schooled")
    tiny = make_tiny_chat_model(folder / "tiny", context_tokens=2048)
    wide = {"model_type": "llama", "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 8}
    chat = with_language_model(tiny, folder / "chat", std=0.1, **wide)
    pupil = ChatVideoChat(model=str(chat), call_first=True)
    magic = pupil.bind_tools([magic_function], tool_choice="any")
    customer = pupil.bind_tools([unicode_customer], tool_choice="any")
    greeting = {"name": "greeting_generator", "parameters": {
        "type": "object", "properties": {"answer_style": {"type": "string"}}, "required": ["answer_style"]},
        "description": "Generate a greeting in a particular style of speaking."}  # fmt: skip
    told = "Create a customer named '{}' ({}"
    return taught(chat, [
        (magic, "What is the value of magic_function(3)? Use the tool.", call_text("magic_function", {"input": 3})),
        (pupil.bind_tools([greeting], tool_choice="any"), "Using the tool, generate a Pirate greeting.",
         call_text("greeting_generator", {"answer_style": "Pirate"})),
        (customer, told.format("你好啊集团", "Hello Group) - a Chinese technology company"),
         call_text("unicode_customer", {"customer_name": "你好啊集团", "description": "技术公司"})),
        (customer, told.format("こんにちは株式会社", "Hello Corporation) - a Japanese company"),
         call_text("unicode_customer", {"customer_name": "こんにちは株式会社", "description": "日本"})),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def other_tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_chat_model(tmp_path_factory.mktemp("other") / "chat", seed=1)


class TestUnit(_Tiny, ChatModelUnitTests):
    @pytest.mark.xfail(reason="langchain-core reads back only classes of its own list; test_chat_model.py has ours")
    def test_serdes(self, model: BaseChatModel, snapshot: Any) -> None:
        super().test_serdes(model, snapshot)


class TestIntegration(_Tiny, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _picture_from_the_internet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite downloads its picture; tests here have no network and draw one."""
        file = io.BytesIO()
        Image.new("RGB", (48, 32), (220, 30, 30)).save(file, "PNG")
        monkeypatch.setattr("httpx.get", lambda *_, **__: SimpleNamespace(content=file.getvalue()))
