"""Tools and schemas on checkpoints that were never trained for them: a valid call, or plain words, and nothing else."""

from __future__ import annotations

import json
import sys
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field, ValidationError, field_validator
from tiny_model import make_tiny_chat_model

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.errors import MissingDependencyError, UnsupportedSchemaError
from videochat_tools.tool_calling import CallPiece, CallReader, ReplyForm, ToolSpec, call_text


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def search_video(query: str, video: str | None = None, k: int = 5) -> str:
    """Find the moments that fit a description."""
    return f"{query} {video} {k}"


class Size(Enum):
    small = "small"
    large = "large"


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(ge=0, le=10)


class Square(BaseModel):
    kind: Literal["square"]
    side: int


class Scene(BaseModel):
    """What is seen."""

    title: str
    size: Size
    things: list[Circle | Square] = Field(max_length=3)
    first: Circle | Square = Field(discriminator="kind")
    counts: dict[str, int] = {}
    note: str | None = None
    code: str = Field(pattern=r"^[a-z]{2,4}x$")


class Tree(BaseModel):
    """A tree."""

    name: str
    branches: list[Tree] = []


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with room for what it is told about tools."""
    return make_tiny_chat_model(tmp_path_factory.mktemp("roomy") / "chat", context_tokens=2048)


@pytest.fixture
def model(folder: Path) -> ChatVideoChat:
    return ChatVideoChat(model=str(folder), max_tokens=120)


def is_valid(call: Any) -> bool:
    kinds = {"add": {"a": int, "b": int}, "search_video": {"query": str, "video": (str, type(None)), "k": int}}[
        call["name"]
    ]
    required = {"add": {"a", "b"}, "search_video": {"query"}}[call["name"]]
    arguments = call["args"]
    return required <= set(arguments) <= set(kinds) and all(
        isinstance(value, kinds[name]) for name, value in arguments.items()
    )


@pytest.mark.parametrize("bundled", [False, True])
def test_whatever_a_model_would_say_becomes_a_valid_call(model: ChatVideoChat, bundled: bool) -> None:
    """Drawn at a temperature at which it says anything at all; every call also ends within its tokens."""
    if bundled:
        model = ChatVideoChat(max_tokens=90)
    forced = model.bind_tools([add, search_video], tool_choice="any")
    names = set()
    for seed in range(4 if bundled else 15):
        reply = forced.invoke("what is one and two?", temperature=3.0, seed=seed)
        (call,) = reply.tool_calls
        assert is_valid(call), call
        assert (reply.content, reply.invalid_tool_calls) == ("", [])
        assert reply.response_metadata["finish_reason"] == "tool_calls"
        names.add(call["name"])
    assert bundled or names == {"add", "search_video"}


def test_in_few_tokens_a_call_is_short_but_whole(model: ChatVideoChat) -> None:
    long = model.bind_tools([search_video], tool_choice="any")
    for room in (60, 70, 90):
        reply = long.invoke("find it", max_tokens=room)
        assert is_valid(reply.tool_calls[0])
        assert reply.usage_metadata is not None
        assert reply.usage_metadata["output_tokens"] <= room
    with pytest.raises(UnsupportedSchemaError, match=r"at least \d+ tokens, but 8 are left .* raise max_tokens"):
        long.invoke("find it", max_tokens=8)


@pytest.mark.parametrize(
    "choice", ["add", {"type": "function", "function": {"name": "add"}}, {"type": "tool", "name": "add"}]
)
def test_one_tool_can_be_asked_for(model: ChatVideoChat, choice: Any) -> None:
    reply = model.bind_tools([search_video, add], tool_choice=choice).invoke("find the ring")
    assert [call["name"] for call in reply.tool_calls] == ["add"]


@pytest.mark.parametrize("choice", ["any", "required", True, {"type": "any"}])
def test_some_tool_can_be_asked_for(model: ChatVideoChat, choice: Any) -> None:
    assert model.bind_tools([search_video, add], tool_choice=choice).invoke("find the ring").tool_calls


def test_where_the_model_may_choose_it_says_words_or_makes_a_call(model: ChatVideoChat) -> None:
    eager = model.model_copy(update={"call_first": True})
    words = 0
    for seed in range(8):
        hot = {"temperature": 2.5, "seed": seed, "max_tokens": 60}
        called = eager.bind_tools([add]).invoke("tell me", **hot)
        assert is_valid(called.tool_calls[0]) and called.content == ""
        said = model.bind_tools([add]).invoke("tell me", **hot)
        if said.tool_calls:
            assert is_valid(said.tool_calls[0]) and said.content == ""
        else:
            assert not str(said.content).startswith("{") and not said.invalid_tool_calls
            words += 1
    assert words
    for choice in ("none", False, {"type": "none"}):  # where it would make a call
        silent = eager.bind_tools([add], tool_choice=choice)
        assert not silent.invoke("tell me", temperature=2.5, seed=0, max_tokens=60).tool_calls


def test_words_end_at_stop_sequences_and_calls_do_not(model: ChatVideoChat) -> None:
    whole = str(model.bind_tools([add], tool_choice="none").invoke("tell me").content)
    cut = model.bind_tools([add], tool_choice="none").invoke("tell me", stop=[whole[4:6]])
    assert cut.content == whole[: whole.index(whole[4:6])].strip()
    forced = model.bind_tools([search_video], tool_choice="any")
    assert is_valid(forced.invoke("find it", stop=['"', "}"]).tool_calls[0])


def test_several_calls_in_one_reply(model: ChatVideoChat) -> None:
    bound = model.bind_tools([add], tool_choice="any", parallel_tool_calls=True)
    counts = set()
    for seed in range(12):
        reply = bound.invoke("add", temperature=4.0, seed=seed, max_tokens=400)
        assert all(is_valid(call) for call in reply.tool_calls)
        assert len({call["id"] for call in reply.tool_calls}) == len(reply.tool_calls)
        counts.add(len(reply.tool_calls))
    assert max(counts) > 1 and min(counts) >= 1 and max(counts) <= 4


def test_calls_are_streamed_in_pieces(model: ChatVideoChat) -> None:
    bound = model.bind_tools([search_video], tool_choice="any")
    whole = bound.invoke("find it")
    chunks = list(bound.stream("find it"))
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]  # type: ignore[attr-defined]
    assert len(pieces) > 5
    assert [piece["name"] for piece in pieces if piece["name"]] == ["search_video"]
    assert [piece["id"] for piece in pieces if piece["id"]] == [pieces[0]["id"]]
    assert json.loads("".join(piece["args"] or "" for piece in pieces)) == whole.tool_calls[0]["args"]
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined = joined + chunk
    assert isinstance(joined, AIMessageChunk)
    assert joined.tool_calls[0]["args"] == whole.tool_calls[0]["args"]


def test_what_the_model_is_told_shrinks_to_what_fits(tmp_path: Path) -> None:
    many = [
        {"name": f"tool_{number}", "description": "does something. " * 9, "parameters": {
            "type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}
        for number in range(3)
    ]  # fmt: skip
    form = ReplyForm.of([ToolSpec(**described) for described in many])  # type: ignore[arg-type]

    def told(room: int) -> str:
        return form.instructions(len, room)

    assert "does something" in told(10_000) and '"required"' in told(10_000)
    assert "does something" not in told(400) and "tool_1(query: string)" in told(400)
    assert "query" not in told(100) and "tool_2" in told(100)
    small = ChatVideoChat(model=str(make_tiny_chat_model(tmp_path / "chat", context_tokens=256)), max_tokens=80)
    assert small.bind_tools(many, tool_choice="any").invoke("do it").tool_calls


def test_a_call_and_its_result_are_part_of_the_conversation(model: ChatVideoChat) -> None:
    from videochat_tools.content import read_messages

    bound = model.bind_tools([add])
    asked: list[BaseMessage] = [HumanMessage("what is one and two?")]
    call = model.bind_tools([add], tool_choice="any").invoke(asked)
    told = [*asked, call, add.invoke(call.tool_calls[0])]
    turns = read_messages(told)
    assert turns[1].text == call_text("add", call.tool_calls[0]["args"])
    assert turns[2].text.startswith("add returned:\n")
    failed = ToolMessage("no such number", tool_call_id="1", name="add", status="error")
    assert read_messages([*asked, failed])[1].text == "add failed:\nno such number"
    before = bound.invoke(asked)
    after = bound.invoke(told)
    assert after.usage_metadata is not None and before.usage_metadata is not None
    assert after.usage_metadata["input_token_details"]["cache_read"] >= before.usage_metadata["input_tokens"]


def test_a_model_that_cannot_decide_calls_first_and_then_answers(model: ChatVideoChat) -> None:
    brain = model.model_copy(update={"call_first": True}).bind_tools([add])
    messages: list[BaseMessage] = [SystemMessage("be brief"), HumanMessage("what is one and two?")]
    call = brain.invoke(messages)
    assert is_valid(call.tool_calls[0])
    messages += [call, add.invoke(call.tool_calls[0])]
    answer = brain.invoke(messages)
    assert answer.content and not answer.tool_calls
    assert brain.invoke([*messages, answer, HumanMessage("and twice that?")]).tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_keeps_to_its_schema(model: ChatVideoChat, method: Any) -> None:
    structured = model.with_structured_output(Scene, method=method, max_tokens=300, temperature=3.0)
    for seed in range(4):
        assert isinstance(structured.invoke("what is seen?", seed=seed), Scene)
    tree = model.with_structured_output(Tree.model_json_schema()).invoke("a tree")
    assert isinstance(tree, dict) and Tree(**tree)


class Named(TypedDict):
    """A thing with a name."""

    name: str


NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize(
    "schema",
    [
        Named,
        NAMED,
        {"title": "Named", **NAMED},
        {"name": "Named", "strict": True, "schema": NAMED},
        {"name": "Named", "description": "A thing.", "parameters": NAMED},
        {"name": "Named", "description": "A thing.", "input_schema": NAMED},
        {"type": "function", "function": {"name": "Named", "description": "A thing.", "parameters": NAMED}},
    ],
    ids=["TypedDict", "schema", "with a title", "OpenAI's", "function", "Anthropic's", "tool"],
)
def test_a_schema_in_any_form(model: ChatVideoChat, method: Any, schema: Any) -> None:
    found = model.with_structured_output(schema, method=method).invoke("a thing", max_tokens=40)
    assert isinstance(found, dict) and isinstance(found["name"], str)


class Twice(BaseModel):
    """A number that no grammar can find."""

    number: int = Field(ge=0, le=5)

    @field_validator("number")
    @classmethod
    def refuse(cls, number: int) -> int:
        raise ValueError(f"{number} is not the one")


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_what_a_grammar_cannot_know_is_an_error_or_told(model: ChatVideoChat, method: Any) -> None:
    with pytest.raises((ValidationError, OutputParserException), match="is not the one"):
        model.with_structured_output(Twice, method=method).invoke("a number")
    both = model.with_structured_output(Twice, method=method, include_raw=True).invoke("a number")
    assert isinstance(both, dict)
    assert isinstance(both["raw"], AIMessage) and both["parsed"] is None
    assert "is not the one" in str(both["parsing_error"])


def test_an_object_is_streamed_as_it_grows(model: ChatVideoChat) -> None:
    structured = model.with_structured_output(NAMED)
    pieces: list[Any] = list(structured.stream("a thing", max_tokens=60))
    assert len(pieces) > 2 and pieces[-1] == structured.invoke("a thing", max_tokens=60)
    names = [piece["name"] for piece in pieces if "name" in piece]
    assert all(later.startswith(earlier) for earlier, later in pairwise(names))


def test_json_mode_and_the_raw_message(model: ChatVideoChat) -> None:
    assert isinstance(model.with_structured_output(method="json_mode").invoke("anything"), dict)
    both = model.with_structured_output(Tree, include_raw=True).invoke("a tree")
    assert isinstance(both, dict)
    assert isinstance(both["raw"], AIMessage)
    assert both["parsed"] == Tree(**json.loads(str(both["raw"].content))) and both["parsing_error"] is None


def test_tools_beside_an_answer_with_a_schema(model: ChatVideoChat) -> None:
    """As agents bind them that want structured output from their model."""
    format_ = {"type": "json_schema", "json_schema": {"name": "Square", "schema": Square.model_json_schema()}}
    bound = model.bind_tools([add], strict=True, response_format=format_)
    kinds = set()
    for seed in range(20):
        reply = bound.invoke("go on", temperature=3.0, seed=seed)
        if reply.tool_calls:
            assert is_valid(reply.tool_calls[0])
        else:
            Square(**json.loads(str(reply.content)))
        kinds.add(bool(reply.tool_calls))
    assert kinds == {True, False}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}, 'Unimplemented keys: \\["not"\\]'),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "minimum \\(3\\) is greater"),
        ({"$ref": "https://example.org/schema"}, "example.org"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf constraints are not supported"),
    ],
)
def test_schemas_that_cannot_be_expressed(model: ChatVideoChat, schema: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=says) as caught:
        model.with_structured_output(schema)
    assert "\n" not in str(caught.value) and "use types, enums" in str(caught.value)
    described = {
        "name": "odd",
        "description": "",
        "parameters": {"type": "object", "properties": {"a": schema}, "required": ["a"]},
    }
    with pytest.raises(UnsupportedSchemaError, match=f"tool 'odd'.*({says}|required property 'a')"):
        model.bind_tools([add, described])


def test_tools_that_are_none(model: ChatVideoChat) -> None:
    with pytest.raises(ValueError, match="'subtract' is no tool; allowed are auto, any, none, add"):
        model.bind_tools([add], tool_choice="subtract")
    with pytest.raises(ValueError, match="tool_choice 'any' needs tools to choose from"):
        model.bind_tools([], tool_choice="any")
    with pytest.raises(ValueError, match="'allowed_tools' is no tool"):
        model.bind_tools([add], tool_choice={"type": "allowed_tools"})
    for odd in (int, list[int], "Square", Literal["a"]):
        for method in ("json_schema", "function_calling"):
            with pytest.raises(UnsupportedSchemaError, match=r"as a schema \(.*\); give a Pydantic model, a TypedDict"):
                model.with_structured_output(odd, method=method)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedSchemaError, match="cannot call .*web_search"):
        model.bind_tools([{"type": "web_search_preview"}])
    with pytest.raises(UnsupportedSchemaError, match="cannot call 'add'"):
        model.bind_tools(["add"])  # type: ignore[list-item]
    with pytest.raises(UnsupportedSchemaError, match="holds no schema"):
        model.invoke("hi", response_format={"type": "json_schema", "json_schema": {"name": "Square"}})
    with pytest.raises(ValueError, match="unknown method 'magic'"):
        model.with_structured_output(Tree, method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a schema"):
        model.with_structured_output(None)


def test_without_the_library_the_extra_is_named(model: ChatVideoChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'videochat-tools\[tool-calling\]'"):
        model.bind_tools([add])
    assert model.invoke("hello").content


def test_calls_are_told_from_words_in_any_pieces() -> None:
    spec = ToolSpec("say", "", {"type": "object", "properties": {"text": {"type": "string"}}})
    form = ReplyForm.of([spec], parallel=True)
    first, second = {"text": 'a } " \\ [ {\n'}, {"text": "é你"}
    text = f"{call_text('say', first)}\n{call_text('say', second)}"
    for size in (1, 2, 3, 7, len(text)):
        reader = CallReader(form)
        read = [piece for at in range(0, len(text), size) for piece in reader.read(text[at : at + size])]
        assert not list(reader.end()) and reader.calls == 2
        pieces = [piece for piece in read if isinstance(piece, CallPiece)]
        assert len(pieces) == len(read)
        arguments = ["".join(piece.arguments for piece in pieces if piece.index == index) for index in (0, 1)]
        assert [json.loads(one) for one in arguments] == [first, second]
        words = CallReader(form)
        said = '{"name": "other", "arguments": {}} is no call'
        assert (
            "".join(str(piece) for at in range(0, len(said), size) for piece in words.read(said[at : at + size]))
            == said
        )
    cut = CallReader(form)
    assert [*cut.read('{"name": "s'), *cut.end()] == ['{"name": "s']
