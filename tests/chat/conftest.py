"""The tiny chat model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import make_tiny_chat_model

from videochat_tools.chat_model import ChatVideoChat


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random VideoChat2 chat model: 4 frames of 32x32, 6 tokens a clip, 512 tokens of context."""
    return make_tiny_chat_model(tmp_path_factory.mktemp("tiny") / "chat", max_clips=3)


@pytest.fixture
def model(tiny_chat: Path) -> ChatVideoChat:
    """The tiny chat model, whose replies are short."""
    return ChatVideoChat(model=str(tiny_chat), max_tokens=16)
