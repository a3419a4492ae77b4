"""Tools and schemas as forms of a reply: what a model is told about them, what it may write, how it is read back.

A call is one line of JSON, ``{"name": "add", "arguments": {"a": 1}}``, spelled as ``json.dumps`` does it, so that a
call of an earlier turn stands in the prompt token for token as it was made. The grammar of a form is written for
llguidance; it is compiled and obeyed in :mod:`videochat_tools.constrained`. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from videochat_tools.context import neutral_text

MAX_PARALLEL_CALLS = 4
ToolChoice = Literal["auto", "any"] | str
"""``"auto"``: a call or words; ``"any"``: a call of some tool; otherwise the name of the one that must be called."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool: what a model is told about it, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def head(self) -> str:
        """How every call of it begins, up to its arguments."""
        return f'{{"name": {_dumps(self.name)}, "arguments": '

    @property
    def signature(self) -> str:
        """``add(a: integer, b?: integer)``."""
        required = self.parameters.get("required", ())
        names = [
            f"{name}{'' if name in required else '?'}: {schema.get('type', 'any')}"
            for name, schema in self.parameters.get("properties", {}).items()
        ]
        return f"{self.name}({', '.join(names)})"


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """What a reply may be.

    Attributes:
        tools: tools that the model is told about.
        callable_names: names of those that it may call.
        words: whether it may answer in plain words in place of a call.
        schema: JSON schema of an answer that is no call; None for none but words.
        max_calls: calls in one reply, one a line.
    """

    tools: tuple[ToolSpec, ...] = ()
    callable_names: tuple[str, ...] = ()
    words: bool = False
    schema: Mapping[str, Any] | None = None
    max_calls: int = 1

    @classmethod
    def of(
        cls,
        tools: Sequence[ToolSpec],
        choice: ToolChoice = "auto",
        *,
        schema: Mapping[str, Any] | None = None,
        parallel: bool = False,
    ) -> ReplyForm:
        """The form for tools of which one may, or must be called.

        Raises:
            ValueError: the choice names no tool.
        """
        names = tuple(tool.name for tool in tools)
        if choice not in ("auto", "any", *names):
            raise ValueError(f"tool_choice {choice!r} is no tool; allowed are auto, any, none, {', '.join(names)}")
        return cls(
            tools=tuple(tools),
            callable_names=names if choice in ("auto", "any") else (choice,),
            words=choice == "auto" and schema is None,
            schema=schema if choice == "auto" or not tools else None,
            max_calls=MAX_PARALLEL_CALLS if parallel else 1,
        )

    def grammar(self) -> str:
        """What may be written, as a grammar of llguidance (Lark with ``%json``)."""
        called = [tool for tool in self.tools if tool.name in self.callable_names]
        rules = []
        kinds = []
        for number, tool in enumerate(called):
            # All of it as JSON, though only the arguments vary: beside an answer that is JSON as well, an alternative
            # that begins with a longer literal would win over one that begins with a brace.
            rules.append(f"call_{number}: %json {_dumps(_exact(_call_schema(tool)))}")
        if called:
            kinds.append("calls")
            rules.append(f"call: {' | '.join(f'call_{number}' for number in range(len(called)))}")
            more = f'("\\n" call){{0,{self.max_calls - 1}}}' if self.max_calls > 1 else ""
            rules.append(f"calls: call {more}")
        if self.schema is not None:
            kinds.append("answer")
            rules.append(f"answer: %json {_dumps(_exact(self.schema))}")
        # A vocabulary of words writes a space before the first of them; it is no part of what is said.
        start = [f'" "? ({" | ".join(kinds)})'] if kinds else []
        if self.words:  # what begins with a brace is a call
            start.append("WORDS")
            rules.append(r"WORDS: /(\s*[^\s{](.|\n)*)?/")
        return "\n".join([f"start: {' | '.join(start)}", *rules])

    def instructions(self, count_tokens: Callable[[str], int], room: int, *, brief: bool = False) -> str:
        """What the model is told: as much about the tools as fits ``room`` tokens, down to their bare names.

        ``brief``: no more than their signatures.
        """
        details = (_in_brief, _by_name) if brief else (_in_full, _in_brief, _by_name)
        texts = [self._instructions(detail) for detail in details]
        return next((text for text in texts if count_tokens(text) <= room), texts[-1])

    def _instructions(self, detail: Callable[[ToolSpec], str]) -> str:
        parts = []
        if self.tools:
            several = ", one line for each call" if self.max_calls > 1 else ""
            parts.append(
                f'To call a tool, reply with nothing but {{"name": "…", "arguments": {{…}}}}{several}. Tools:\n'
                + "\n".join(map(detail, self.tools))
            )
        if self.schema is not None:
            answer = detail(ToolSpec("JSON", "the answer", self.schema))
            parts.append(f"{'Otherwise reply' if self.tools else 'Reply'} with nothing but {answer}")
        return neutral_text("\n".join(parts))


def _in_full(tool: ToolSpec) -> str:
    return f"{tool.name}: {tool.description.rstrip('.')}. Schema: {_dumps(tool.parameters)}"


def _in_brief(tool: ToolSpec) -> str:
    return tool.signature


def _by_name(tool: ToolSpec) -> str:
    return tool.name


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as the model writes it."""
    return _dumps({"name": name, "arguments": arguments})


@dataclass(frozen=True, slots=True)
class CallPiece:
    """Some characters of a call: its arguments as JSON, of which the pieces together are all. The first has a name."""

    index: int
    arguments: str
    name: str | None = None


class CallReader:
    """Tells calls from words while a reply is still being written."""

    def __init__(self, form: ReplyForm) -> None:
        self.calls = 0
        self._names = {tool.head: tool.name for tool in form.tools if tool.name in form.callable_names}
        self._waiting = ""  # what may still become the head of a call
        self._inside: _JsonEnd | None = None  # the arguments that are being read
        self._words = not self._names

    def read(self, text: str) -> Iterator[str | CallPiece]:
        """What the next piece of text of a reply is: words, or a piece of a call."""
        if self._words:
            yield text
            return
        self._waiting += text
        while self._waiting:
            if self._inside is not None:
                length = self._inside.find(self._waiting)
                piece, self._waiting = self._waiting[:length], self._waiting[length:]
                if piece:
                    yield CallPiece(self.calls - 1, piece)
                if not self._inside.ended:
                    return
                self._inside = None
            # Between calls stand the closing brace of the one before and the end of its line.
            rest = self._waiting.lstrip("}\n" if self.calls else "")
            head = next((head for head in self._names if rest.startswith(head)), None)
            if head is None:
                if any(known.startswith(rest) for known in self._names):
                    self._waiting = rest
                    return
                self._words, self._waiting = True, ""
                yield rest
                return
            yield CallPiece(self.calls, "", self._names[head])
            self.calls += 1
            self._waiting = rest[len(head) :]
            self._inside = _JsonEnd()

    def end(self) -> Iterator[str]:
        """What was held back when the reply ended in the middle of the head of a call."""
        if self._waiting and self._inside is None and not self.calls:
            yield self._waiting


class _JsonEnd:
    """Finds where a JSON object ends, given in pieces."""

    def __init__(self) -> None:
        self.ended = False
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def find(self, text: str) -> int:
        """How many of the characters belong to the object."""
        for number, character in enumerate(text, start=1):
            if self._quoted:
                self._quoted = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.ended = True
                    return number
        return len(text)


def _call_schema(tool: ToolSpec) -> dict[str, Any]:
    """The schema of a whole call."""
    arguments = _moved(tool.parameters, "#/properties/arguments")
    properties = {"name": {"const": tool.name}, "arguments": arguments}
    return {"type": "object", "properties": properties, "required": ["name", "arguments"]}


def _moved(schema: Any, place: str) -> Any:
    """A schema that now stands at ``place`` of another one, with its references to itself put right."""
    if isinstance(schema, Mapping):
        return {
            key: place + value[1:] if key == "$ref" and str(value).startswith("#") else _moved(value, place)
            for key, value in schema.items()
        }
    return [_moved(part, place) for part in schema] if isinstance(schema, list | tuple) else schema


def _exact(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema for the grammar: no keys but those it lists, and the spelling of ``json.dumps``."""
    spelling = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
    return {**_closed(schema), "x-guidance": spelling}


_SCHEMAS_BY_NAME = ("properties", "$defs", "definitions", "patternProperties")
_SCHEMAS = ("items", "additionalProperties", "anyOf", "oneOf", "prefixItems")


def _closed(schema: Any) -> Any:
    """A schema whose objects take no keys but those they list, unless they say otherwise.

    A JSON schema is open where it says nothing, and a model could make up keys that nobody reads. Parts of an
    ``allOf`` stay as they are: each would forbid the keys of the others. Integers without bounds get wide ones.
    """
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_closed(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed(value) if key in _SCHEMAS else value for key, value in schema.items() if key not in _NOTES}
    if "discriminator" in schema and "oneOf" in closed:  # by which no two can be meant: any of them is one of them
        closed["anyOf"] = closed.pop("oneOf")
    for key in _SCHEMAS_BY_NAME:
        if isinstance(schema.get(key), Mapping):
            closed[key] = {name: _closed(part) for name, part in schema[key].items()}
    if "properties" in closed and "allOf" not in closed:
        closed.setdefault("additionalProperties", False)
    if "integer" in (kind := schema.get("type"), *(kind if isinstance(kind, list) else ())):
        if not {"minimum", "exclusiveMinimum"} & schema.keys():
            closed["minimum"] = -_LARGEST_INTEGER
        if not {"maximum", "exclusiveMaximum"} & schema.keys():
            closed["maximum"] = _LARGEST_INTEGER
    return closed


_LARGEST_INTEGER = (
    2**53 - 1
)  # that every reader of JSON takes as it is (RFC 8259, section 6); it also keeps calls short
_NOTES = ("title", "description", "default", "examples", "discriminator")  # say nothing about what is allowed


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
