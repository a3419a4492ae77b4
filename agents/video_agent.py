"""A tool-calling agent over a library of videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware, ToolCallLimitMiddleware
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel

from videochat_tools.agents.citations import CheckedCitations
from videochat_tools.agents.guided_brain import GuidedBrain
from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.tools import VideoToolkit

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

    from videochat_tools.video_library import VideoLibrary

__all__ = ["create_video_agent"]

MODEL_CALLS = 12  # of one run; create_agent itself would go on for 9,999 steps
TOOL_CALLS = 20

INSTRUCTIONS = (
    "You answer questions about the videos of a library with the tools you have. "
    "Do not guess what is in a video: look it up. ask_video answers most questions; search_video, watch_clip and "
    "read_transcript are for looking closer. When a tool reports an error, do what it says. "
    "Answer briefly, and cite the moments your answer rests on by their times in square brackets, exactly as the tools "
    "gave them, for example [00:42–00:51]. When the tools do not find the answer, say that it is not in the videos."
)


def create_video_agent(
    model: str | BaseChatModel,
    library: VideoLibrary,
    *,
    tools: Sequence[BaseTool | Callable[..., Any]] = (),
    system_prompt: str = INSTRUCTIONS,
    middleware: Iterable[AgentMiddleware[Any, Any, Any]] = (),
    checkpointer: Checkpointer = None,
    model_call_limit: int = MODEL_CALLS,
    tool_call_limit: int = TOOL_CALLS,
    allow_changes: bool = False,
    add_from: Path | None = None,
    answerer: BaseChatModel | None = None,
    frames: bool | None = None,
    check_citations: bool = True,
    guided: bool | None = None,
    **options: Any,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """An agent that searches, watches and reads the videos of a library to answer.

    >>> agent = create_video_agent(any_tool_calling_chat_model, library)                     # doctest: +SKIP
    >>> agent.invoke({"messages": [("user", "what happens after the red circle leaves?")]})  # doctest: +SKIP

    The result of :func:`langchain.agents.create_agent`: ``invoke``, ``stream`` (``stream_mode="updates"`` for the
    steps, ``"messages"`` for tokens), and their asynchronous forms.

    Args:
        model: the brain: any chat model that calls tools, or its name for LangChain's ``init_chat_model``.
        library: where to look.
        tools: further tools.
        system_prompt: what the brain is told first.
        middleware: further middleware, after the limits.
        checkpointer: keeps conversations, by the ``thread_id`` of the call.
        model_call_limit: calls of the brain in one run; then it ends with a message that says so.
        tool_call_limit: calls of tools in one run; further ones are answered with an error message.
        allow_changes: whether the agent may add and remove videos.
        add_from: the only folder from which it may add them.
        answerer: the chat model that answers within the tools; default is the library's own.
        frames: whether the agent has get_frames; by default where the ``profile`` of the brain says that it takes
            pictures in the results of tools.
        check_citations: take out of the final answer the times that no tool has looked at.
        guided: lead the brain through its turn, as :class:`~videochat_tools.agents.guided_brain.GuidedBrain` says; by
            default where it is a ``ChatVideoChat``, which watches clips but was never trained to use tools.
        **options: further ones of ``create_agent``, such as ``response_format`` and ``store``.

    Raises:
        ValueError: a limit below 1, a brain that calls no tools, or guidance for one that is no ``ChatVideoChat``.
    """
    if min(model_call_limit, tool_call_limit) < 1:
        raise ValueError(
            f"the limits on calls must be at least 1, got model_call_limit={model_call_limit}, "
            f"tool_call_limit={tool_call_limit}"
        )
    if isinstance(model, str):
        model = init_chat_model(model)
    if type(model).bind_tools is BaseChatModel.bind_tools:
        raise ValueError(f"a {type(model).__name__} does not call tools; take another chat model as the brain")
    if frames is None:
        profile: Any = model.profile or {}
        frames = bool(profile.get("image_inputs")) and bool(profile.get("image_tool_message"))
    toolkit = VideoToolkit(library, allow_changes=allow_changes, add_from=add_from, model=answerer, frames=frames)
    checks: list[AgentMiddleware[Any, Any, Any]] = [
        ModelCallLimitMiddleware(run_limit=model_call_limit, exit_behavior="end"),
        ToolCallLimitMiddleware(run_limit=tool_call_limit, exit_behavior="continue"),
    ]
    if check_citations:
        checks.append(CheckedCitations())
    if guided is None:
        guided = isinstance(model, ChatVideoChat)
    if guided:
        if not isinstance(model, ChatVideoChat):
            raise ValueError(f"only a ChatVideoChat can be guided, got a {type(model).__name__}; leave guided out")
        checks.append(GuidedBrain(library))
    return create_agent(
        model,
        [*toolkit.get_tools(), *tools],
        system_prompt=system_prompt,
        middleware=[*checks, *middleware],
        checkpointer=checkpointer,
        **{"name": "video_agent", **options},
    )
