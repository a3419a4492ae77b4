"""What the grounded-QA graph knows between its steps, in values that every checkpointer can write."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages

from videochat_tools.types import Answer, Evidence, SearchHit, TimeSpan

__all__ = ["GroundedState", "from_plain_answer", "from_plain_hit", "plain"]


class GroundedState(TypedDict, total=False):
    """One question and what became of it; ``messages`` are the earlier turns, and grow with every answer."""

    messages: Annotated[list[AnyMessage], add_messages]
    question: str
    k: int
    videos: list[str] | None
    span: list[float] | None  # start and end in seconds
    threshold: float | None
    query: str  # the question in words that stand by themselves
    clips: list[dict[str, Any]]  # what may answer it, best first
    unknown_words: list[str]
    glance: int  # how many groups of clips the model has been shown
    shown: list[dict[str, Any]]  # the group that it looks at now
    recalled: int  # how many of the last messages fit beside it
    draft: str  # what the model wrote
    answer: dict[str, Any]


def plain(value: SearchHit | Answer) -> dict[str, Any]:
    """A hit or an answer as nested dicts and lists, nothing lost."""
    return asdict(value)


def from_plain_hit(value: dict[str, Any]) -> SearchHit:
    """The hit that :func:`plain` was given."""
    anchor = value.get("anchor")
    changed = {
        "span": TimeSpan(**value["span"]),
        "segments": tuple(value["segments"]),
        "anchor": None if anchor is None else TimeSpan(**anchor),
    }
    return SearchHit(**{**value, **changed})


def from_plain_answer(value: dict[str, Any]) -> Answer:
    """The answer that :func:`plain` was given."""
    evidence = tuple(Evidence(from_plain_hit(each["hit"]), each["cited"]) for each in value["evidence"])
    return Answer(**{**value, "evidence": evidence, "dropped": tuple(value["dropped"])})
