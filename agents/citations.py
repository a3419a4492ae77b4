"""Grounded means checked, for agents too: a time that no tool has looked at may not stand as a proof."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.runtime import Runtime

from videochat_tools.answering import check_answer, parse_citations
from videochat_tools.types import SearchHit, TimeSpan

__all__ = ["CheckedCitations"]


class CheckedCitations(AgentMiddleware[AgentState[Any], Any, Any]):
    """Checks the final answer of an agent against what the video tools have looked at in the conversation.

    A cited time that lies in none of it is taken out of the text, and reported under ``dropped_citations`` of the
    message's ``response_metadata``.
    """

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """The last message again, checked; nothing where there is nothing to correct."""
        messages = state["messages"]
        last = messages[-1] if messages else None
        if not isinstance(last, AIMessage) or not parse_citations(last.text):
            return None
        clips = _looked_at(messages) or [_NOWHERE]
        answer = check_answer("", last.text, clips)
        if not answer.dropped:
            return None
        metadata = {**last.response_metadata, "dropped_citations": list(answer.dropped)}
        return {"messages": [last.model_copy(update={"content": answer.text, "response_metadata": metadata})]}


_NOWHERE = SearchHit("", "", "", TimeSpan(0.0, 0.0), 0.0)


def _looked_at(messages: Iterable[AnyMessage]) -> list[SearchHit]:
    """Every stretch of video that a tool has given, the latest first."""
    clips: dict[SearchHit, None] = {}
    for message in messages:
        if not isinstance(message, ToolMessage) or not isinstance(message.artifact, dict):
            continue
        for entry in message.artifact.get("clips", ()):
            span = TimeSpan(entry["start"], entry["end"])
            clips[SearchHit(entry["video_id"], entry["video"], entry["uri"], span, 0.0)] = None
    return list(clips)[::-1]
