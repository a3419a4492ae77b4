"""VideoChat as a LangChain chat model: text, pictures and videos in, words out.

A thin adapter. Messages become turns in :mod:`videochat_tools.content`; videos, weights and tokens are the business of
:mod:`videochat_tools.engine`, which is loaded with the first call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field

from videochat_tools.content import read_messages
from videochat_tools.engine import ChatEngine, ClipSource, ReplySettings, context_tokens, load_engine

PROVIDER = "videochat"


class ChatVideoChat(BaseChatModel):
    """A VideoChat2 model of any size, run in this process.

    >>> model = ChatVideoChat()                                  # the bundled nano; no network  # doctest: +SKIP
    >>> model.invoke([HumanMessage(content=[                     # doctest: +SKIP
    ...     {"type": "video", "url": "clip.mp4", "extras": {"start": 4.0, "end": 9.5}},
    ...     {"type": "text", "text": "what colour is the ring?"}])])

    Weights are loaded with the first call and shared by all instances of the same model and device. Replies are
    greedy, and so reproducible, unless ``temperature`` is above 0; then ``seed`` makes them reproducible.
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
    timeout: float | None = None
    """Accepted, so that code written for a remote model runs unchanged; there is no connection that could time out."""
    max_retries: int | None = None
    """Accepted like ``timeout``; a local model has nothing to retry."""
    clip_source: ClipSource | None = Field(default=None, exclude=True, repr=False)
    """Gives the cached clip tokens of a library segment by its name (``file_id``), so that no frame is decoded."""

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
            image_url_inputs=False,
            video_inputs=True,
            audio_inputs=False,
            pdf_inputs=False,
            image_tool_message=True,
            text_outputs=True,
            tool_calling=False,
            structured_output=False,
            reasoning_output=False,
        )
        if (tokens := context_tokens(self.model)) is not None:
            profile["max_input_tokens"] = tokens
        return profile

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text in the model's own vocabulary; ``get_num_tokens`` counts them."""
        return self.engine.token_ids(text)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """The whole reply at once: the stream, put together."""
        chunks = list(self._chunks(messages, stop, kwargs))
        last = chunks[-1]
        message = AIMessage(
            content="".join(str(chunk.content) for chunk in chunks),
            usage_metadata=last.usage_metadata,
            response_metadata=last.response_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

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

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Iterator[AIMessageChunk]:
        """Pieces of text as they are made, then one empty chunk with the usage and the reason it ended."""
        model = kwargs.pop("model", None)
        engine = load_engine(model, self.device) if model else self.engine
        reply = engine.reply(read_messages(messages), self._settings(stop, kwargs), self.clip_source)
        for text in reply:
            yield AIMessageChunk(content=text)
        usage = UsageMetadata(
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            total_tokens=reply.input_tokens + reply.output_tokens,
            input_token_details={"video": reply.video_tokens},  # type: ignore[typeddict-unknown-key]
        )
        metadata = {
            "model_name": model or self._model_name(),
            "model_provider": PROVIDER,
            "finish_reason": reply.finish_reason,
        }
        yield AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last")

    def _settings(self, stop: list[str] | None, kwargs: dict[str, Any]) -> ReplySettings:
        """The settings of one call: those of the instance, and over them those of the call."""
        names = ("temperature", "top_p", "seed", "max_tokens")
        if unknown := sorted(set(kwargs) - set(names) - {"stream"}):  # `stream` is langchain-core's own switch
            raise ValueError(f"unknown argument {', '.join(unknown)}; a call takes {', '.join(names)}, model and stop")
        values = {name: kwargs.get(name, getattr(self, name)) for name in names}
        return ReplySettings(stop=tuple(self.stop or () if stop is None else stop), **values)
