"""One program, written for a chat model of another package and run with this one: only the constructor differs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage, trim_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from openai_server import calls, openai_server, says
from PIL import Image
from pydantic import BaseModel
from tiny_model import make_tiny_chat_model

from videochat_tools.chat_model import ChatVideoChat

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class Scene(BaseModel):
    """What is seen."""

    colour: Literal["red", "blue"]
    count: int


class Note(TypedDict):
    """A note about a scene."""

    text: str


@tool
def count_objects(colour: str) -> str:
    """Count the objects of a colour."""
    return f"3 {colour} objects"


@dataclass
class Outcome:
    """What came of the program."""

    words: str
    same_words: list[str]
    scenes: list[Any]
    notes: list[Any]
    raw: dict[str, Any]
    call: BaseMessage
    streamed_call: AIMessageChunk
    answer: BaseMessage
    limited: BaseMessage
    trimmed: list[BaseMessage]
    conversation: list[BaseMessage]
    structured: Any
    usage: dict[str, Any]


async def program(model: BaseChatModel) -> Outcome:
    """Everything that one does with a chat model. It knows langchain-core and langchain, and no package beside them."""
    prompt = ChatPromptTemplate.from_messages([
        ("system", "be brief"),
        ("placeholder", "{history}"),
        ("human", [
            {"type": "text", "text": "{question}"},
            {"type": "image", "base64": "{picture}", "mime_type": "image/png"},
        ]),
    ])  # fmt: skip
    asked = {"question": "what is it?", "picture": red_picture()}
    later = {**asked, "history": [HumanMessage("who?"), AIMessage("the ring")]}
    chain = prompt | model.with_retry(stop_after_attempt=2) | StrOutputParser()
    counting = prompt | model.bind_tools([count_objects], tool_choice="any")
    with get_usage_metadata_callback() as usage:
        words = chain.invoke(asked)
        same_words = [
            "".join(chain.stream(asked)),
            *chain.batch([asked, asked]),
            await chain.ainvoke(asked),
            "".join([piece async for piece in chain.astream(asked)]),
            *(await chain.abatch([asked])),
        ]
        chain.invoke(later)
        structured = {
            method: prompt | model.with_structured_output(Scene, method=method)  # type: ignore[arg-type]
            for method in ("json_schema", "function_calling")
        }
        scenes = [each.invoke(asked) for each in structured.values()]
        scenes += [await each.ainvoke(asked) for each in structured.values()]
        notes = [
            (prompt | model.with_structured_output(Note)).invoke(asked),
            (prompt | model.with_structured_output(Note, method="function_calling")).invoke(asked),
        ]
        raw = (prompt | model.with_structured_output(Scene, include_raw=True)).invoke(asked)
        call = counting.invoke(asked)
        streamed_call = joined(list(counting.stream(asked)))
        assert isinstance(call, AIMessage)
        result = count_objects.invoke(call.tool_calls[0])
        messages = [*prompt.invoke(asked).to_messages(), call, result]
        answer = model.bind_tools([count_objects], tool_choice="none").invoke(messages)
        limited = model.bind(stop=["\n", "never said"], max_tokens=30).invoke(messages)
        trimmed = trim_messages(
            [*later["history"], *prompt.invoke(asked).to_messages()],  # type: ignore[misc]
            max_tokens=1, token_counter=len, strategy="last",
        )  # fmt: skip
        agent = create_agent(model, [count_objects], system_prompt="be brief")
        conversation = (await agent.ainvoke({"messages": [("user", "count the red objects")]}))["messages"]
        formed = create_agent(model, [], response_format=ProviderStrategy(Scene))
        structured_response = formed.invoke({"messages": [("user", "what is it?")]})["structured_response"]
    return Outcome(
        words, same_words, scenes, notes, raw, call, streamed_call, answer, limited, trimmed, conversation,
        structured_response, dict(usage.usage_metadata),
    )  # fmt: skip


def joined(chunks: Sequence[Any]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    return whole


def red_picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (220, 30, 30)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def brain(request: dict[str, Any]) -> dict[str, Any]:
    """The other model: calls the first tool where one is offered, and says something when its result is there."""
    heard = [message["role"] for message in request["messages"]]
    if request.get("tools") and request.get("tool_choice") != "none" and "tool" not in heard:
        function = request["tools"][0]["function"]
        arguments = {"count_objects": {"colour": "red"}, "Scene": SCENE, "Note": NOTE}
        return calls(function["name"], **arguments[function["name"]])
    if wanted := request.get("response_format"):
        return says(json.dumps(NOTE if wanted["json_schema"]["name"] == "Note" else SCENE))
    return says("a red thing")


SCENE = {"colour": "red", "count": 1}
NOTE = {"text": "a red thing"}


@contextmanager
def another(folder: Path) -> Iterator[BaseChatModel]:
    with openai_server(brain) as server:
        yield server.chat_model()


@contextmanager
def ours(folder: Path) -> Iterator[BaseChatModel]:
    yield ChatVideoChat(
        model=str(make_tiny_chat_model(folder / "chat", context_tokens=2048)), max_tokens=120, call_first=True
    )


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of langchain-openai's parsed messages
@pytest.mark.parametrize("constructor", [another, ours])
async def test_only_the_constructor_differs(constructor: Callable[..., Any], tmp_path: Path) -> None:
    with constructor(tmp_path) as model:
        found = await program(model)
    assert found.words and found.same_words == [found.words] * 6
    assert all(isinstance(scene, Scene) for scene in [*found.scenes, found.raw["parsed"], found.structured])
    assert [set(note) for note in found.notes] == [{"text"}] * 2
    assert isinstance(found.raw["raw"], AIMessage) and found.raw["parsing_error"] is None
    for message in (found.call, found.streamed_call):
        assert isinstance(message, AIMessage)
        (call,) = message.tool_calls
        assert (call["name"], set(call["args"]), type(call["id"])) == ("count_objects", {"colour"}, str)
        assert message.response_metadata["finish_reason"] == "tool_calls"
    for message in (found.answer, found.limited):
        assert isinstance(message, AIMessage)
        assert message.text and not message.tool_calls
        assert message.usage_metadata is not None and message.usage_metadata["output_tokens"] > 0
        assert {"model_name", "model_provider", "finish_reason"} <= set(message.response_metadata)
    assert [message.type for message in found.trimmed] == ["human"]
    assert [message.type for message in found.conversation] == ["human", "ai", "tool", "ai"]
    assert isinstance(found.conversation[2], ToolMessage) and "objects" in found.conversation[2].text
    (usage,) = found.usage.values()
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
