"""The tool-calling agent, with a scripted brain and with one that speaks OpenAI's protocol over the loopback."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from openai_server import calls, openai_server, says
from small_library import Scripted, call, open_small_library

from videochat_tools.agents import create_video_agent
from videochat_tools.testing import FakeClipWatcher
from videochat_tools.video_library import VideoLibrary

World = tuple[VideoLibrary, dict[str, tuple[str, str, float, float]]]


@pytest.fixture
def library(colours: Path) -> VideoLibrary:
    return open_small_library(colours, watcher=FakeClipWatcher())


def ask(agent: Any, question: str = "what colour is it?") -> list[Any]:
    return agent.invoke({"messages": [("user", question)]})["messages"]


def results(messages: list[Any]) -> list[ToolMessage]:
    return [message for message in messages if isinstance(message, ToolMessage)]


def test_real_tools_over_the_nano(world: World) -> None:
    library, questions = world
    asked, truth, start, end = questions["colour"]
    brain = Scripted(
        replies=[
            call("list_videos"),
            call("search_video", query="a star moves up", k=1),
            call("ask_video", question=asked),
            call("watch_clip", video="film.mp4", start=start, end=end, question="what can be seen?"),
            call("read_transcript", video="film.mp4"),
            f"It is {truth}.",
        ]
    )
    messages = ask(create_video_agent(brain, library), asked)
    listed, found, answered, watched, read = results(messages)
    assert "film.mp4" in listed.content
    (clip,) = found.artifact["clips"]
    assert clip["start"] >= start - 0.2 and clip["end"] <= end + 0.2
    assert truth in answered.artifact["answer"]["text"]
    assert watched.status == "success" and watched.content.startswith("Answer: ")
    assert "nina lost the old umbrella" in read.content
    assert messages[-1].text == f"It is {truth}."


def test_what_the_brain_is_given(library: VideoLibrary) -> None:
    blind = Scripted(replies=["hello"])
    ask(create_video_agent(blind, library))
    assert blind.tools == ["list_videos", "search_video", "ask_video", "watch_clip", "read_transcript"]
    assert "ask_video" in blind.heard[0][0].text and blind.heard[0][0].type == "system"
    sees = Scripted(replies=["hello"], profile={"image_inputs": True, "image_tool_message": True})
    ask(create_video_agent(sees, library, allow_changes=True))
    assert {"get_frames", "add_video", "remove_video"} <= set(sees.tools)


def test_pictures_reach_a_brain_that_sees(library: VideoLibrary) -> None:
    brain = Scripted(
        replies=[call("get_frames", video="colours.mp4", start=2.5), "green"],
        profile={"image_inputs": True, "image_tool_message": True},
    )
    ask(create_video_agent(brain, library))
    assert [block["type"] for block in brain.heard[1][-1].content_blocks] == ["text", "text", "image"]


def test_it_recovers_from_errors(library: VideoLibrary) -> None:
    brain = Scripted(
        replies=[
            call("search_video", query=""),
            call("watch_clip", video="film.mp4", start=0, end=2),
            call("no_such_tool"),
            call("search_video", query="a green screen"),
            "Green [00:02–00:04].",
        ]
    )
    messages = ask(create_video_agent(brain, library))
    assert [message.status for message in results(messages)] == ["error", "error", "error", "success"]
    assert messages[-1].text == "Green [00:02–00:04]."


def test_several_tools_at_once(library: VideoLibrary) -> None:
    calls = [call("search_video", str(n), query=f"a {c} screen") for n, c in enumerate(("red", "green", "yellow"))]
    together = AIMessage("", tool_calls=[each.tool_calls[0] for each in calls])
    messages = ask(create_video_agent(Scripted(replies=[together, "done"]), library))
    assert [round(message.artifact["clips"][0]["start"]) for message in results(messages)] == [0, 2, 0]


def test_a_brain_that_never_stops_is_stopped(library: VideoLibrary) -> None:
    brain = Scripted(replies=[call("list_videos", str(number)) for number in range(50)])
    messages = ask(create_video_agent(brain, library, model_call_limit=4))
    assert len(brain.heard) == 4
    assert messages[-1].type == "ai" and "limit" in messages[-1].text


def test_a_brain_that_calls_too_many_tools_must_answer_without(library: VideoLibrary) -> None:
    brain = Scripted(replies=[*(call("list_videos", str(number)) for number in range(3)), "Two videos."])
    messages = ask(create_video_agent(brain, library, tool_call_limit=2))
    assert [message.status for message in results(messages)] == ["success", "success", "error"]
    assert messages[-1].text == "Two videos."


@pytest.mark.parametrize("limits", [{"model_call_limit": 0}, {"tool_call_limit": -1}])
def test_a_limit_below_one_is_an_error(library: VideoLibrary, limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        create_video_agent(Scripted(replies=[]), library, **limits)


def test_a_time_that_nothing_was_looked_at_is_no_proof(library: VideoLibrary) -> None:
    final = "Green [00:02–00:04], then purple [00:40–00:44]."
    replies = [call("search_video", query="a green screen", k=1), final]
    last = ask(create_video_agent(Scripted(replies=list(replies)), library))[-1]
    assert last.text == "Green [00:02–00:04], then purple."
    assert last.response_metadata["dropped_citations"] == ["00:40–00:44"]
    unchecked = create_video_agent(Scripted(replies=list(replies)), library, check_citations=False)
    assert ask(unchecked)[-1].text == final
    without_tools = ask(create_video_agent(Scripted(replies=["Red [00:00–00:02]."]), library))[-1]
    assert without_tools.text == "Red."


@pytest.mark.allow_hosts(["127.0.0.1"])  # its client asks the system for the options of sockets
def test_a_brain_may_be_named(library: VideoLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert create_video_agent("openai:gpt-5", library).name == "video_agent"
    with pytest.raises(ValueError, match="model_provider"):
        create_video_agent("no such brain", library)


def test_a_brain_that_calls_no_tools_is_refused(library: VideoLibrary) -> None:
    with pytest.raises(ValueError, match="FakeListChatModel does not call tools"):
        create_video_agent(FakeListChatModel(responses=["hello"]), library)


def test_own_middleware_and_tools_come_on_top(library: VideoLibrary) -> None:
    seen: list[str] = []

    class Listener(AgentMiddleware):
        def before_model(self, state: Any, runtime: Any) -> None:
            seen.append(state["messages"][-1].type)

    def tell_the_time() -> str:
        """What time it is."""
        return "noon"

    brain = Scripted(replies=[call("tell_the_time"), "noon"])
    ask(create_video_agent(brain, library, tools=[tell_the_time], middleware=[Listener()]))
    assert seen == ["human", "tool"]


async def test_the_event_loop_is_not_blocked(library: VideoLibrary) -> None:
    answerer = Scripted(replies=["green [00:02]"])
    brain = Scripted(replies=[call("ask_video", question="a green screen"), "Green [00:02–00:04]."])
    agent = create_video_agent(brain, library, answerer=answerer)
    result = await agent.ainvoke({"messages": [("user", "which colour?")]})
    assert result["messages"][-1].text == "Green [00:02–00:04]."
    assert threading.get_ident() not in [*brain.threads, *answerer.threads]


def test_without_langgraph_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['langgraph'] = None\nimport videochat_tools.agents as agents\n"
        "try: agents.create_grounded_qa\nexcept ImportError as error: print(type(error).__name__, error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert run.stdout.startswith("MissingDependencyError create_grounded_qa needs langgraph")
    assert "pip install 'videochat-tools[agents]'" in run.stdout


# ---------------------------------------------------------------------------------------------- a brain on the loopback


def asks_first(request: dict[str, Any]) -> dict[str, Any]:
    """A brain that asks ask_video first and then repeats its answer."""
    last = request["messages"][-1]
    if last["role"] == "tool":
        return says(last["content"].splitlines()[0])
    return calls("ask_video", question=last["content"])


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_brain_that_speaks_the_openai_protocol(world: World) -> None:
    library, questions = world
    asked = questions["colour"][0]
    with openai_server(asks_first) as server:
        agent = create_video_agent(server.chat_model(), library)
        assert ask(agent, asked)[-1].text == f"Answer: {library.ask(asked).text}"
    offered = {each["function"]["name"]: each["function"] for each in server.requests[0]["tools"]}
    assert set(offered) == {"list_videos", "search_video", "ask_video", "watch_clip", "read_transcript"}
    assert offered["ask_video"]["parameters"]["required"] == ["question"]


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_its_words_are_streamed(library: VideoLibrary) -> None:
    asked = {"messages": [("user", "a green screen")]}
    with openai_server(asks_first) as server:
        agent = create_video_agent(server.chat_model(), library, answerer=Scripted(replies=["green [00:02]"]))
        stream = agent.stream(asked, stream_mode="messages")
        words = [
            message.text
            for message, where in stream
            if isinstance(message, AIMessageChunk) and where["langgraph_node"] == "model" and message.text
        ]
    assert "".join(words) == "Answer: green [00:02–00:04]"
    assert len(words) > 4


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_pictures_reach_it_as_pictures(library: VideoLibrary) -> None:
    """Those of get_frames, and those that an answerer is shown."""

    def looks_first(request: dict[str, Any]) -> dict[str, Any]:
        last = request["messages"][-1]
        if last["role"] == "tool" or not request.get("tools"):
            return says("green [00:02]")
        return calls("get_frames", video="colours.mp4", start=2.5)

    profile = {"image_inputs": True, "image_tool_message": True}
    with openai_server(looks_first) as server:
        seeing = server.chat_model(profile=profile)
        assert ask(create_video_agent(seeing, library))[-1].text == "green [00:02]"
        assert library.ask("a green screen", model=seeing).found
    told = [server.requests[1]["messages"][-1], server.requests[2]["messages"][-1]]
    for message, count in zip(told, (1, 8), strict=True):
        urls = [each["image_url"]["url"] for each in message["content"] if each["type"] == "image_url"]
        assert len(urls) >= count
        assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
