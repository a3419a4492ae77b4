"""The suites of langchain-tests on the tiny chat model."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image
from tiny_model import make_tiny_chat_model

from videochat_tools.chat_model import ChatVideoChat


class _Tiny:
    """What both suites need to know."""

    @pytest.fixture(autouse=True)
    def _folders(self, tiny_chat: Path, other_tiny_chat: Path) -> None:
        self.folder = str(tiny_chat)
        self.other = str(other_tiny_chat)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVideoChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.folder}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 12, "timeout": 60, "stop": [], "max_retries": 2}

    @property
    def supports_video_inputs(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return False  # the suite binds a tool for it

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return self.other

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


@pytest.fixture(scope="module")
def other_tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_chat_model(tmp_path_factory.mktemp("other") / "chat", seed=1)


class TestUnit(_Tiny, ChatModelUnitTests):
    pass


class TestIntegration(_Tiny, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _picture_from_the_internet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite downloads its picture; tests here have no network and draw one."""
        file = io.BytesIO()
        Image.new("RGB", (48, 32), (220, 30, 30)).save(file, "PNG")
        monkeypatch.setattr("httpx.get", lambda *_, **__: SimpleNamespace(content=file.getvalue()))
