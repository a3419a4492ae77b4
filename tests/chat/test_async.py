"""The asynchronous forms: while the model works, the event loop goes on, which is proved by asking it at every step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import ask
from langchain_core.caches import InMemoryCache
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.content import create_video_block

from videochat_tools import visuals
from videochat_tools.chat_model import ChatVideoChat

PATIENCE = 60  # seconds until a loop that does not answer counts as blocked
ADD = {"name": "add", "description": "", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


@pytest.fixture
def model(tiny_chat: Path) -> ChatVideoChat:
    return ChatVideoChat(model=str(tiny_chat), max_tokens=100)


class Steps:
    """The steps of a network, each of which waits until the event loop has answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.threads: set[int] = set()
        self.count = 0
        self.answers = 0

    async def answer(self) -> None:
        self.answers += 1

    def wait(self, *_: Any) -> None:
        self.threads.add(threading.get_ident())
        assert threading.main_thread().ident not in self.threads, "on the thread of the event loop"
        self.count += 1
        asyncio.run_coroutine_threadsafe(self.answer(), self.loop).result(PATIENCE)


@pytest.fixture
async def steps(model: ChatVideoChat, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every look at a video and every run of the networks is a step."""
    found = Steps(asyncio.get_running_loop())
    network = model.engine.network
    network.prefix_cache.clear()
    model.engine._watched.clear()
    hooks = [part.register_forward_pre_hook(found.wait) for part in (network.model, network.model.vision_encoder)]
    read_clip = visuals.read_clip

    def read(*args: Any) -> Any:
        found.wait()
        return read_clip(*args)

    monkeypatch.setattr(visuals, "read_clip", read)
    yield found
    for hook in hooks:
        hook.remove()


async def invoked(model: ChatVideoChat, messages: list[BaseMessage]) -> str:
    return str((await model.ainvoke(messages)).content)


async def streamed(model: ChatVideoChat, messages: list[BaseMessage]) -> str:
    return "".join([str(chunk.content) async for chunk in model.astream(messages)])


async def batched(model: ChatVideoChat, messages: list[BaseMessage]) -> str:
    first, second = await model.abatch([messages, messages])
    assert first.content == second.content
    return str(first.content)


async def told_in_events(model: ChatVideoChat, messages: list[BaseMessage]) -> str:
    events = [event async for event in model.astream_events(messages)]
    return "".join(str(event["data"]["chunk"].content) for event in events if event["event"] == "on_chat_model_stream")


async def cached(model: ChatVideoChat, messages: list[BaseMessage]) -> str:
    return await invoked(model.model_copy(update={"cache": InMemoryCache()}), messages)


@pytest.mark.parametrize("form", [invoked, streamed, batched, told_in_events, cached])
async def test_the_loop_answers_at_every_step(
    model: ChatVideoChat, steps: Steps, color_video: Path, form: Callable[..., Awaitable[str]]
) -> None:
    messages = ask(create_video_block(url=str(color_video)))
    reply = await form(model, messages)
    assert steps.answers == steps.count > 3  # read, watched, and some tokens
    assert reply == await asyncio.to_thread(lambda: str(model.invoke(messages).content))


async def test_calls_of_tools_too(model: ChatVideoChat, steps: Steps) -> None:
    bound = model.bind_tools([ADD], tool_choice="any")
    reply = await bound.ainvoke("add")
    chunks = [chunk async for chunk in bound.astream("add")]
    assert reply.tool_calls[0]["name"] == "add"
    assert any(chunk.tool_call_chunks for chunk in chunks)  # type: ignore[attr-defined]
    assert steps.answers == steps.count > 3


@pytest.fixture
def endless(model: ChatVideoChat) -> Iterator[tuple[list[int], threading.Event, threading.Event]]:
    """A model that never ends: its steps, an event that is set at the third, and one that the third waits for."""
    steps: list[int] = []
    third, go_on = threading.Event(), threading.Event()

    def say(module: Any, inputs: Any, output: Any) -> Any:
        steps.append(len(steps))
        if len(steps) == 3:
            third.set()
            assert go_on.wait(PATIENCE)
        output.logits = torch.zeros_like(output.logits)
        output.logits[..., model.engine.token_ids("a")[-1]] = 1.0
        return output

    model.engine.network.prefix_cache.clear()
    hook = model.engine.network.model.register_forward_hook(say)
    yield steps, third, go_on
    hook.remove()


@pytest.mark.parametrize("form", [invoked, streamed])
async def test_a_cancelled_reply_goes_no_further(
    model: ChatVideoChat,
    endless: tuple[list[int], threading.Event, threading.Event],
    form: Callable[..., Awaitable[str]],
) -> None:
    steps, third, go_on = endless
    asking = asyncio.create_task(form(model, [HumanMessage("tell me")]))  # type: ignore[arg-type]
    assert await asyncio.to_thread(third.wait, PATIENCE)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go_on.set()
    kept = model.engine.network.prefix_cache
    async with asyncio.timeout(PATIENCE):
        while len(kept) == 0:  # what was run is kept when the reply has ended
            await asyncio.sleep(0.01)
    assert len(steps) == 3
