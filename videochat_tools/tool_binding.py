"""LangChain's tools and schemas, in all the ways they are written, as the form of a reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from videochat_tools.errors import UnsupportedSchemaError
from videochat_tools.tool_calling import CallPiece, CallReader, ReplyForm, ToolSpec

FORM_ARGUMENTS = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "strict")
"""What of a call says which form its reply has. ``strict`` is accepted: a reply always keeps to the schema."""


def tool_specs(tools: Sequence[Any]) -> tuple[ToolSpec, ...]:
    """Functions, LangChain tools, Pydantic models, TypedDicts or OpenAI's own descriptions of tools.

    Raises:
        UnsupportedSchemaError: something is no tool, or the server of another provider should run it.
    """
    specs = []
    for tool in tools:
        try:
            function = convert_to_openai_tool(tool).get("function")
        except (TypeError, ValueError):
            function = None
        if not isinstance(function, Mapping):
            raise UnsupportedSchemaError(
                f"cannot call {tool!r:.200}; allowed are functions, LangChain tools, Pydantic models and descriptions "
                "with type 'function'"
            )
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        specs.append(ToolSpec(str(function["name"]), str(function.get("description") or ""), parameters))
    return tuple(specs)


def answer_schema(schema: Any) -> dict[str, Any]:
    """The JSON schema of an answer: of a Pydantic model, a TypedDict, a schema or a tool, however it is written.

    Raises:
        UnsupportedSchemaError: it is none of these.
    """
    if isinstance(schema, Mapping):
        if isinstance(schema.get("schema"), Mapping):  # as OpenAI names a schema: {"name": …, "schema": …}
            return answer_schema(schema["schema"])
        if not schema.keys() & {"function", "parameters", "input_schema"}:  # else the description of a tool
            return dict(schema)
    if isinstance(schema, type) and is_basemodel_subclass(schema) and hasattr(schema, "model_json_schema"):
        return dict(schema.model_json_schema())  # with its bounds and definitions as they are
    return _converted(convert_to_json_schema, schema)


def answer_tool(schema: Any) -> dict[str, Any]:
    """The tool that a model calls to answer: its arguments are the answer. ``schema`` as of :func:`answer_schema`."""
    if isinstance(schema, Mapping) and isinstance(schema.get("schema"), Mapping):
        schema = {"title": schema.get("name") or ANSWER, **schema["schema"]}
    if isinstance(schema, Mapping) and not schema.keys() & {"function", "name", "title"}:
        schema = {"title": ANSWER, **schema}
    return _converted(convert_to_openai_tool, schema)


ANSWER = "answer"  # what a schema without a name is called


def _converted(convert: Callable[[Any], dict[str, Any]], schema: Any) -> dict[str, Any]:
    try:
        return convert(schema)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UnsupportedSchemaError(
            f"cannot read {schema!r:.200} as a schema ({reason}); give a Pydantic model, a TypedDict or a JSON schema"
        ) from error


def reply_form(arguments: Mapping[str, Any], messages: Sequence[BaseMessage], *, call_first: bool) -> ReplyForm | None:
    """The form that the arguments of a call ask for; None where they ask for nothing.

    Args:
        arguments: of the call, those of ``FORM_ARGUMENTS`` among them.
        messages: the conversation.
        call_first: where the model may choose, it calls a tool before it answers, and then it answers.
    """
    tools, schema = tool_specs(arguments.get("tools") or ()), _format_schema(arguments.get("response_format"))
    choice = _choice(arguments.get("tool_choice"), tools)
    if choice == "auto" and tools and call_first:
        choice = "none" if _has_results(messages) else "any"
    if not tools and choice not in ("auto", "none"):
        raise ValueError(f"tool_choice {choice!r} needs tools to choose from; give tools, or leave it out")
    if choice == "none" or not tools:
        return ReplyForm(tools, (), words=schema is None, schema=schema) if tools or schema is not None else None
    return ReplyForm.of(tools, choice, schema=schema, parallel=bool(arguments.get("parallel_tool_calls")))


def _choice(given: Any, tools: Sequence[ToolSpec]) -> str:
    """``auto``, ``any``, ``none`` or the name of a tool, however it is written."""
    if isinstance(given, Mapping):  # {"type": "function", "function": {"name": …}}, {"type": "tool", "name": …} or
        given = given.get("function", given).get("name") or given.get("type")  # {"type": "any"}
    names = {tool.name for tool in tools}
    spellings = {None: "auto", True: "any", False: "none", "required": "any"}
    return str(given) if given in names else spellings.get(given, str(given))


def _has_results(messages: Sequence[BaseMessage]) -> bool:
    """Whether a tool has answered since somebody last asked something."""
    last = next((message for message in reversed(messages) if message.type in ("human", "tool")), None)
    return isinstance(last, ToolMessage)


def _format_schema(response_format: Any) -> dict[str, Any] | None:
    """The schema in OpenAI's ``response_format``, or one given as it stands."""
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return answer_schema(schema)
        case {"type": "json_schema"}:
            raise UnsupportedSchemaError(
                f"response_format holds no schema: {response_format!r:.200}; give it as json_schema.schema"
            )
    return answer_schema(response_format)


class ChunkReader:
    """Pieces of text of a reply as message chunks: words as they are, calls as chunks of tool calls."""

    def __init__(self, form: ReplyForm | None) -> None:
        self._reader = CallReader(form or ReplyForm())

    @property
    def calls(self) -> int:
        """Calls so far."""
        return self._reader.calls

    def chunks(self, pieces: Iterator[str]) -> Iterator[AIMessageChunk]:
        """Chunks of a whole reply, while it is being made."""
        for piece in pieces:
            yield from map(_chunk, self._reader.read(piece))
        yield from map(_chunk, self._reader.end())


def _chunk(piece: str | CallPiece) -> AIMessageChunk:
    if isinstance(piece, str):
        return AIMessageChunk(content=piece)
    identity = None if piece.name is None else f"call_{uuid4().hex}"
    call = tool_call_chunk(name=piece.name, args=piece.arguments, id=identity, index=piece.index)
    return AIMessageChunk(content="", tool_call_chunks=[call])
