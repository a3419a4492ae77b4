"""A brain that watches clips, but was never trained to use tools: what it may do is narrowed to what it can."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from videochat_tools.answerers import TokenAnswerer
from videochat_tools.answering import not_found, says_not_found
from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.dialogue import question_to_ask, retrieval_query
from videochat_tools.tools import SearchVideo
from videochat_tools.tools.base import VideoTool
from videochat_tools.types import SearchHit, TimeSpan, parse_media_fragment

if TYPE_CHECKING:
    from videochat_tools.video_library import VideoLibrary

__all__ = ["GuidedBrain"]

Request = ModelRequest[Any]
Response = ModelResponse[Any]
Turns = Generator[Request, Response, Response | AIMessage]


class GuidedBrain(AgentMiddleware[AgentState[Any], Any, Any]):
    """Leads a ``ChatVideoChat`` through an agent's turn. None of its checkpoints learned to call tools.

    Asked something, it must call search_video or a tool that is not of this package. Constrained decoding leaves it the
    choice of the tool; texts among the arguments are the question (of a follow-up with what it leans on), and arguments
    that may be left out are. It is then shown the clips that were found, as clips, not as text about
    them, in the form in which it learned to answer. Where nothing convincing was found, the answer says so.
    """

    def __init__(self, library: VideoLibrary) -> None:
        super().__init__()
        self.library = library

    def wrap_model_call(self, request: Request, handler: Callable[[Request], Response]) -> Response | AIMessage:
        """One call of the brain, or a few where it looks at one clip after another."""
        turns = self._turns(request)
        try:
            asked = next(turns)
            while True:
                asked = turns.send(handler(asked))
        except StopIteration as end:
            return _result(end)

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> Response | AIMessage:
        """The same; what is prepared between the calls runs in threads."""
        turns = self._turns(request)

        def step(response: Response | None) -> Request | StopIteration:
            try:
                return next(turns) if response is None else turns.send(response)
            except StopIteration as end:  # it cannot leave a thread as an exception
                return end

        asked = await asyncio.to_thread(step, None)
        while not isinstance(asked, StopIteration):
            asked = await asyncio.to_thread(step, await handler(asked))
        return _result(asked)

    def _turns(self, request: Request) -> Turns:
        """What the brain is asked, one request after another; returns what it said."""
        earlier, turn = _parts(request.messages)
        if not turn or not isinstance(request.model, ChatVideoChat):  # which other middleware may have exchanged
            return (yield request)
        question = turn[0].text
        query = retrieval_query(question, [message.text for message in earlier if message.type == "human"])
        results = [message for message in turn if isinstance(message, ToolMessage)]
        if not results:
            tools = [_narrowed(tool, query) for tool in _offered(request.tools)]
            # Only what it is asked: told all of an agent's instructions, small models run out of room.
            only = request.override(messages=turn, system_message=None, tools=tools)  # type: ignore[arg-type]
            return (yield only.override(tool_choice="any" if tools else None))
        found = [message.artifact for message in results if "hits" in (message.artifact or ())]
        if not found:  # only words of other tools
            return (yield request.override(messages=turn, system_message=None, tools=[], tool_choice=None))
        hits = [_hit(entry, bool(each["unknown_words"])) for each in found for entry in each["hits"]]
        unfound = not_found(question, unknown_words=[word for each in found for word in each["unknown_words"]])
        response: Response | AIMessage = AIMessage(unfound.text)
        if not any(map(self.library.is_worth_a_look, hits)):
            return response
        answerer = self.library.answerer(request.model)
        assert isinstance(answerer, TokenAnswerer)  # as for every ChatVideoChat
        asked = question_to_ask(question, query)
        for glance in answerer.glances(self.library.clips(hits), self.library.convinces):
            shown, recalled = answerer.choose_first(asked, glance, earlier)
            response = yield request.override(
                model=answerer.watching,
                messages=answerer.messages(asked, shown, recalled),  # type: ignore[arg-type]
                system_message=None,
                tools=[],
                tool_choice=None,
            )
            if not says_not_found(response.result[-1].text):
                break
        return response


def _result(end: StopIteration) -> Response | AIMessage:
    said: Response | AIMessage = end.value
    return said


def _parts(messages: Sequence[AnyMessage]) -> tuple[list[AnyMessage], list[AnyMessage]]:
    """The questions and answers before the last question, and all messages from that on; nothing where none is."""
    last = max((number for number, message in enumerate(messages) if message.type == "human"), default=len(messages))
    earlier: list[AnyMessage] = [
        each for each in messages[:last] if each.type == "human" or (each.type == "ai" and each.text)
    ]
    return earlier, list(messages[last:])


def _offered(tools: Sequence[BaseTool | dict[str, Any]]) -> list[BaseTool | dict[str, Any]]:
    """The search of the library, and tools of other kinds."""
    return [tool for tool in tools if isinstance(tool, SearchVideo) or not isinstance(tool, VideoTool)]


def _narrowed(tool: BaseTool | dict[str, Any], words: str) -> dict[str, Any]:
    """A tool as a model is told about it, with required arguments alone, and the given words for its free texts."""
    told = convert_to_openai_tool(tool)
    if "function" not in told:
        return told
    function: Mapping[str, Any] = told["function"]
    parameters = function.get("parameters") or {}
    required = parameters.get("required", ())
    properties = {
        name: {"type": "string", "enum": [words]} if _is_free_text(schema) else schema
        for name, schema in parameters.get("properties", {}).items()
        if name in required
    }
    return {"type": "function", "function": {**function, "parameters": {**parameters, "properties": properties}}}


def _is_free_text(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "string" and not {"enum", "const", "pattern", "format"} & schema.keys()


def _hit(entry: Mapping[str, Any], only_heard: bool) -> SearchHit:
    """A hit from the artifact of search_video; what it looks like counts for nothing where the words are unknown."""
    return SearchHit(
        video_id=entry["video_id"],
        video=entry["video"],
        uri=parse_media_fragment(entry["uri"])[0],
        span=TimeSpan(entry["start"], entry["end"]),
        score=(entry["speech"] or 0.0) if only_heard else entry["score"],
        visual=None if only_heard else entry["visual"],
        speech=entry["speech"],
        text=entry["text"],
        anchor=None if entry["anchor"] is None else TimeSpan(*entry["anchor"]),
    )
