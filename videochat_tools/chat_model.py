"""VideoChat as a LangChain chat model: text, pictures and videos in, words out.

A thin adapter. Messages become turns in :mod:`videochat_tools.content`; videos, weights and tokens are the business of
:mod:`videochat_tools.engine`, which is loaded with the first call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from operator import itemgetter
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough, run_in_executor
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field

from videochat_tools.cached_replies import told_apart
from videochat_tools.constrained import check_form
from videochat_tools.content import Turn, read_message, read_messages
from videochat_tools.engine import ChatEngine, ClipSource, ReplySettings, context_tokens, load_engine
from videochat_tools.errors import ModelLoadError
from videochat_tools.tool_binding import ANSWER, FORM_ARGUMENTS, ChunkReader, answer_schema, answer_tool, reply_form
from videochat_tools.tool_calling import ReplyForm

PROVIDER = "videochat"


class ChatVideoChat(BaseChatModel):
    """A VideoChat2 model of any size, run in this process.

    >>> model = ChatVideoChat()                                  # the bundled nano; no network  # doctest: +SKIP
    >>> model.invoke([HumanMessage(content=[                     # doctest: +SKIP
    ...     {"type": "video", "url": "clip.mp4", "extras": {"start": 4.0, "end": 9.5}},
    ...     {"type": "text", "text": "what colour is the ring?"}])])

    Weights are loaded with the first call and shared by all instances of the same model and device. Replies are
    greedy, and so reproducible, unless ``temperature`` is above 0; then ``seed`` makes them reproducible.

    Tools and structured output work with any checkpoint: its replies are kept to the form that is asked for, whether
    it was trained for that or not. A tool's result may hold pictures and videos. Later turns of a conversation only
    run what is new (``response_metadata["prefilled_tokens"]``); what is kept for that is bounded, and can be bounded
    otherwise: ``model.engine.network.prefix_cache.max_bytes = …``.
    """

    model_config = ConfigDict(extra="forbid")  # a mistyped argument is an error, not a wish that nobody hears

    model: str | None = None
    """Folder or hub id of a converted checkpoint; ``None`` is the nano that comes with the package."""
    device: str = "auto"
    """``"cpu"``, ``"cuda"``, ``"cuda:1"`` …; ``"auto"`` is the first GPU, or else the CPU."""
    temperature: float = Field(default=0.0, ge=0.0)
    """0 always takes the likeliest token; above 0 tokens are drawn."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """When drawing: only from the likeliest tokens that together have this probability."""
    seed: int | None = None
    """When drawing: the same seed gives the same reply."""
    max_tokens: int = Field(default=200, ge=1)
    """Longest reply, in tokens (200 is the default of the released models)."""
    stop: list[str] | None = None
    """A reply ends before the first of these strings."""
    streaming: bool = False
    """Stream under the hood even where ``invoke`` is called, for callbacks that want tokens."""
    allow_remote: bool | tuple[str, ...] = False
    """Whether videos and pictures may be fetched by http(s): never, from everywhere (True), or from these hosts."""
    call_first: bool = False
    """For models that cannot decide it themselves: with tools and no ``tool_choice``, one is called before anything is
    answered, and after its result the model answers."""
    reuse_turns: bool = True
    """Keep what was run for a conversation, so that its next turn is cheap."""
    timeout: float | None = None
    """Accepted, so that code written for a remote model runs unchanged; there is no connection that could time out."""
    max_retries: int | None = None
    """Accepted like ``timeout``; a local model has nothing to retry."""
    clip_source: ClipSource | None = Field(default=None, exclude=True, repr=False)
    """Gives the cached clip tokens of a library segment by its name (``file_id``), so that no frame is decoded."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Read it back with ``load(…, allowed_objects=[ChatVideoChat], valid_namespaces=["videochat_tools"])``."""
        return True

    @property
    def engine(self) -> ChatEngine:
        """The loaded model behind this adapter."""
        return load_engine(self.model, self.device)

    @property
    def _llm_type(self) -> str:
        return "videochat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model": self._model_name(),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider=PROVIDER,
            ls_model_name=kwargs.get("model") or self._model_name(),
            ls_model_type="chat",
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        if ls_stop := stop or self.stop:
            params["ls_stop"] = ls_stop
        return params

    def _model_name(self) -> str:
        return self.model or "videochat2-nano"

    def _resolve_model_profile(self) -> ModelProfile | None:
        profile = ModelProfile(
            text_inputs=True,
            image_inputs=True,
            image_url_inputs=self.allow_remote is not False,
            video_inputs=True,
            audio_inputs=False,
            pdf_inputs=False,
            image_tool_message=True,
            text_outputs=True,
            tool_calling=find_spec("llguidance") is not None,
            tool_choice=find_spec("llguidance") is not None,
            tool_call_streaming=find_spec("llguidance") is not None,
            structured_output=find_spec("llguidance") is not None,
            reasoning_output=False,
            max_output_tokens=self.max_tokens,
        )
        with suppress(ModelLoadError):  # of a hub id that is not here yet
            if (tokens := context_tokens(self.model)) is not None:
                profile["max_input_tokens"] = tokens
        return profile

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text in the model's own vocabulary; ``get_num_tokens`` counts them."""
        return self.engine.token_ids(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None, **kwargs: Any
    ) -> int:
        """Tokens of a conversation as a prompt, those of its clips and tools included; no file is opened."""
        turns = [read_message(message, remote=True) for message in messages]
        form = reply_form({"tools": tools}, messages, call_first=self.call_first)
        return self.engine.prompt_tokens([*turns, *_told(form, self.engine)])

    def generate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """As in langchain-core; a cache of replies is asked about what is in the files, not about their names."""
        return super().generate([self._told_apart(each) for each in messages], *args, **kwargs)

    async def agenerate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """As :meth:`generate`."""
        told = await run_in_executor(None, lambda: [self._told_apart(each) for each in messages])
        return await super().agenerate(told, *args, **kwargs)

    def _told_apart(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        if self.cache is False or (self.cache is None and get_llm_cache() is None):
            return messages
        return told_apart(messages, self.engine.weights_state, self.clip_source)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """The whole reply at once: the stream, put together."""
        return generate_from_stream(
            ChatGenerationChunk(message=message) for message in self._chunks(messages, stop, kwargs)
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for message in self._chunks(messages, stop, kwargs):
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(str(message.content), chunk=chunk)
            yield chunk

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Token by token in a thread, so that a task which is cancelled runs no more than the one it is at."""
        return await agenerate_from_stream(self._astream(messages, stop, None, **kwargs))

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Iterator[AIMessageChunk]:
        """Pieces of text and of calls as they are made, then one empty chunk with the usage and the reason it ended."""
        model = kwargs.pop("model", None)
        engine = load_engine(model, self.device) if model else self.engine
        turns = read_messages(messages, remote=self.allow_remote)
        form = reply_form(kwargs, messages, call_first=self.call_first)
        turns += _told(form, engine)
        reply = engine.reply(turns, self._settings(stop, kwargs, form), self.clip_source)
        reader = ChunkReader(form)
        yield from reader.chunks(iter(reply))
        details = InputTokenDetails(cache_read=reply.input_tokens - reply.prefilled_tokens)
        details["video"] = reply.video_tokens  # type: ignore[typeddict-unknown-key]
        usage = UsageMetadata(
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            total_tokens=reply.input_tokens + reply.output_tokens,
            input_token_details=details,
        )
        metadata = {
            "model_name": model or self._model_name(),
            "model_provider": PROVIDER,
            "finish_reason": "tool_calls" if reader.calls and reply.finish_reason == "stop" else reply.finish_reason,
            "prefilled_tokens": reply.prefilled_tokens,
        }
        yield AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last")

    def _settings(self, stop: list[str] | None, kwargs: dict[str, Any], form: ReplyForm | None) -> ReplySettings:
        """The settings of one call: those of the instance, and over them those of the call."""
        names = ("temperature", "top_p", "seed", "max_tokens")
        known = {*names, *FORM_ARGUMENTS, "stream"}  # `stream` is langchain-core's own switch
        if unknown := sorted(set(kwargs) - known):
            allowed = ", ".join((*names, *FORM_ARGUMENTS))
            raise ValueError(f"unknown argument {', '.join(unknown)}; a call takes {allowed}, model and stop")
        given = {name: value for name in names if (value := kwargs.get(name)) is not None}
        values = {name: getattr(self, name) for name in names} | given
        # With nothing to keep to, words are free from the start.
        kept = form if form is not None and (form.callable_names or form.schema is not None) else None
        asked = self.stop or () if stop is None else stop
        stops = (asked,) if isinstance(asked, str) else tuple(asked)
        return ReplySettings(stop=stops, reuse=self.reuse_turns, form=kept, **values)

    # Tools and structured output

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """This model with tools that it may call.

        Args:
            tools: Functions, LangChain tools, Pydantic models, or OpenAI's descriptions of tools.
            tool_choice: ``"auto"`` (default): a call or words, as the model likes. ``"any"``: some tool must be called.
                The name of a tool: that one must be. ``"none"``: none may be.
            **kwargs: of every call: ``parallel_tool_calls=True`` for several calls in one reply, ``response_format``
                for the schema of an answer that is no call, ``max_tokens``, …

        Raises:
            MissingDependencyError: llguidance is not installed.
            UnsupportedSchemaError: the schema of a tool cannot be expressed.
        """
        options = {"tools": list(tools), "tool_choice": tool_choice, **kwargs}
        if (form := reply_form(options, (), call_first=False)) is not None:
            check_form(form)
        if tool_choice is None:
            del options["tool_choice"]
        options["tools"] = [convert_to_openai_tool(tool) for tool in tools]  # plain data, for tracing and caches
        return self.bind(**options)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | Any]:
        """This model, answering with an object of a schema.

        Args:
            schema: Pydantic model, TypedDict or JSON schema. May be left out in ``json_mode``.
            method: ``"json_schema"``: the reply is JSON of the schema. ``"function_calling"``: it is a call of a tool
                with the schema. ``"json_mode"``: as ``"json_schema"``, or any JSON object where no schema is given.
            include_raw: Give ``{"raw": message, "parsed": object, "parsing_error": error}``.
            strict: Accepted; a reply always keeps to the schema.
            **kwargs: of every call: ``max_tokens``, ``temperature``, …

        Raises:
            MissingDependencyError: llguidance is not installed.
            UnsupportedSchemaError: the schema cannot be expressed.
        """
        traced = {"kwargs": {"method": method, "strict": strict}, "schema": schema or {"type": "object"}}
        data_class: Any = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
        model: Runnable[LanguageModelInput, AIMessage]
        parser: BaseOutputParser[Any]
        if method == "function_calling":
            tool = answer_tool(_required(schema))
            model = self.bind_tools([tool], tool_choice="any", ls_structured_output_format=traced, **kwargs)
            parser = JsonOutputKeyToolsParser(key_name=tool["function"]["name"], first_tool_only=True)
            if data_class is not None:
                parser = PydanticToolsParser(tools=[data_class], first_tool_only=True)
        elif method in ("json_schema", "json_mode"):
            anything = schema is None and method == "json_mode"
            plain = {"type": "object"} if anything else answer_schema(_required(schema))
            check_form(ReplyForm(schema=plain))
            response_format = {"type": "json_schema", "json_schema": {"name": ANSWER, "schema": plain}}
            model = self.bind(response_format=response_format, ls_structured_output_format=traced, **kwargs)
            parser = JsonOutputParser() if data_class is None else PydanticOutputParser(pydantic_object=data_class)
        else:
            raise ValueError(f"unknown method {method!r}; allowed are json_schema, function_calling and json_mode")
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _told(form: ReplyForm | None, engine: ChatEngine) -> list[Turn]:
    """What a model is told about the form that is asked for."""
    if form is None:
        return []
    told = form.instructions(
        lambda text: len(engine.token_ids(text)), engine.context_tokens // 2, brief=engine.grounding.brief_tools
    )
    return [Turn("system", told)]


def _required(schema: dict[str, Any] | type | None) -> dict[str, Any] | type:
    if schema is None:
        raise ValueError("structured output needs a schema; give a Pydantic model, a TypedDict or a JSON schema")
    return schema
