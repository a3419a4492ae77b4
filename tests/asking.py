"""Messages that ask a chat model about something it is shown."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage


def ask(*blocks: Any, question: str = "what is it?") -> list[BaseMessage]:
    """One message: what is shown, and a question about it."""
    return [HumanMessage([*blocks, {"type": "text", "text": question}])]


def video_tokens(reply: BaseMessage) -> int:
    """How many tokens of the prompt were those of clips."""
    assert isinstance(reply, AIMessage) and reply.usage_metadata is not None
    return int(reply.usage_metadata["input_token_details"]["video"])  # type: ignore[typeddict-item]
