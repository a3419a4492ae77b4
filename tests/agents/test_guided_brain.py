"""ChatVideoChat itself as the brain of an agent, through constrained decoding: the bundled nano, over real tools."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from small_library import Scripted, open_small_library

from videochat_tools import ChatVideoChat
from videochat_tools.agents import create_video_agent
from videochat_tools.errors import UnsupportedContentError
from videochat_tools.media import frames_decoded_total
from videochat_tools.testing import FakeClipWatcher
from videochat_tools.video_library import VideoLibrary

World = tuple[VideoLibrary, dict[str, tuple[str, str, float, float]]]


@pytest.fixture(scope="module")
def brain() -> ChatVideoChat:
    return ChatVideoChat()


def ask(agent: Any, text: str, thread: str = "1") -> list[Any]:
    return agent.invoke({"messages": [("user", text)]}, {"configurable": {"thread_id": thread}})["messages"]


def test_it_searches_looks_at_the_clip_and_answers(world: World, brain: ChatVideoChat) -> None:
    library, questions = world
    asked = questions["colour"][0]
    expected = library.ask(asked)
    assert expected.found
    before = frames_decoded_total()
    human, call, found, answer = ask(create_video_agent(brain, library), asked)
    assert frames_decoded_total() == before  # it was shown the kept tokens of the clip
    assert [(each["name"], each["args"]) for each in call.tool_calls] == [("search_video", {"query": asked})]
    assert isinstance(found, ToolMessage) and found.status == "success"
    assert answer.text == expected.text
    assert answer.usage_metadata["input_token_details"]["video"] > 0
    assert human.text == asked


def test_it_follows_up_within_a_thread(world: World, brain: ChatVideoChat) -> None:
    library, questions = world
    agent = create_video_agent(brain, library, checkpointer=InMemorySaver())
    asked, truth, *_ = questions["colour"]
    first = ask(agent, asked)
    later = ask(agent, "what colour was it?")
    assert later[-3].tool_calls[0]["args"] == {"query": asked}  # what the follow-up leans on
    assert later[-2].artifact["clips"] == first[-2].artifact["clips"]
    assert truth in later[-1].text
    moved = ask(agent, "and what happened before that?")
    assert moved[-2].artifact["hits"][0]["end"] <= first[-2].artifact["hits"][0]["start"] + 0.2
    assert not ask(agent, "what colour was it?", thread="another")[-1].text.startswith(truth)


def test_an_empty_conversation_is_an_error(world: World, brain: ChatVideoChat) -> None:
    with pytest.raises(UnsupportedContentError, match="message"):
        create_video_agent(brain, world[0], system_prompt="").invoke({"messages": []})


def test_where_nothing_is_found_it_says_so(world: World, brain: ChatVideoChat) -> None:
    last = ask(create_video_agent(brain, world[0]), "what colour is the dog?")[-1]
    assert last.text.startswith("Not found in the video.")
    assert "dog" in last.text


async def test_its_words_are_streamed_and_block_nothing(
    world: World, brain: ChatVideoChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, questions = world
    threads: list[int] = []
    chunks = ChatVideoChat._chunks

    def noticed(self: ChatVideoChat, *args: Any) -> Any:
        threads.append(threading.get_ident())
        return chunks(self, *args)

    monkeypatch.setattr(ChatVideoChat, "_chunks", noticed)
    asked = questions["colour"][0]
    stream = create_video_agent(brain, library).astream({"messages": [("user", asked)]}, stream_mode="messages")
    words = [message.text async for message, _ in stream if isinstance(message, AIMessageChunk) and message.text]
    assert "".join(words) == library.ask(asked).text
    assert len(words) > 2
    assert threading.get_ident() not in threads[:2]


def test_tools_of_other_kinds_are_its_choice_too(world: World, brain: ChatVideoChat) -> None:
    told: list[str] = []

    def look_up(topic: str, limit: int = 3) -> str:
        """Look a topic up in an encyclopaedia."""
        told.append(topic)
        return "nothing is known"

    agent = create_video_agent(brain, world[0], tools=[look_up])
    for text in ("look up: ring", "topic", "which ring?"):
        messages = ask(agent, text)
        (call,) = messages[1].tool_calls
        assert call["args"] == {"query" if call["name"] == "search_video" else "topic": text}
        assert messages[2].status == "success"
        assert messages[-1].type == "ai" and not messages[-1].tool_calls
    assert set(told) <= {"look up: ring", "topic", "which ring?"}


def test_guidance_can_be_left_out_and_is_for_our_own_models(colours: Path, brain: ChatVideoChat) -> None:
    library = open_small_library(colours, watcher=FakeClipWatcher())
    free = create_video_agent(brain.model_copy(update={"max_tokens": 70}), library, guided=False, model_call_limit=1)
    assert ask(free, "a ring")[-1].type == "ai"
    with pytest.raises(ValueError, match="ChatVideoChat can be guided, got a Scripted"):
        create_video_agent(Scripted(replies=[]), library, guided=True)
