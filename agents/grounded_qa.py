"""Grounded question answering as a fixed graph: condense, retrieve, watch, answer, verify.

::

    question ─► condense ─► retrieve ─┬─► watch ─► answer ─► verify ─► Answer
                                      │     ▲                  │ │
                                      │     └─ the next clips ─┘ │
                                      └──── nothing found ───────┘

The steps are those of :meth:`VideoLibrary.ask`; the graph adds a memory (any LangGraph checkpointer), streaming of the
steps, and a chat model that puts follow-up questions into words of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import START, StateGraph

from videochat_tools.agents.state import GroundedState, from_plain_answer, from_plain_hit, plain
from videochat_tools.answering import check_answer, not_found
from videochat_tools.dialogue import question_to_ask, retrieval_query
from videochat_tools.tools import AskVideo
from videochat_tools.types import Answer, SearchHit, TimeSpan
from videochat_tools.video_library import DEFAULT_K

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

    from videochat_tools.video_library import VideoLibrary

__all__ = ["GroundedQA", "create_grounded_qa"]

_INPUTS = ("question", "history", "videos", "span", "k", "threshold")
_CONDENSE = (
    "Rewrite the last question of this conversation so that it can be understood by itself: put in what its pronouns "
    "stand for. Reply with the question alone."
)


class _Steps:
    """The nodes of the graph."""

    def __init__(self, library: VideoLibrary, model: BaseChatModel | None, condenser: BaseChatModel | None) -> None:
        self.library = library
        self.model = model
        self.condenser = condenser

    def condense(self, state: GroundedState) -> GroundedState:
        """The words to search with: what a follow-up leans on stands in them."""
        question, history = state["question"], state.get("messages", [])
        if self.condenser is None or not history:
            return {"query": retrieval_query(question, [each.text for each in history if each.type == "human"])}
        asked = [SystemMessage(_CONDENSE), *history, HumanMessage(question)]
        return {"query": self.condenser.invoke(asked).text.strip() or question}

    def retrieve(self, state: GroundedState) -> GroundedState:
        """The clips that may hold the answer."""
        found = self.library.find_clips(
            state["query"],
            k=state["k"],
            videos=state["videos"],
            span=None if state["span"] is None else TimeSpan(*state["span"]),
            threshold=state["threshold"],
        )
        clips = [plain(clip) for clip in found.clips]
        return {"clips": clips, "unknown_words": list(found.unknown_words), "glance": 0, "shown": []}

    def watch(self, state: GroundedState) -> GroundedState:
        """The clips that the model looks at next, with as many earlier turns as fit beside them."""
        answerer = self.library.answerer(self.model)
        glance = self._glances(state)[state["glance"]]
        shown, recalled = answerer.choose_first(_asked(state), glance, state.get("messages", []))
        return {"shown": [plain(clip) for clip in shown], "recalled": len(recalled), "glance": state["glance"] + 1}

    def answer(self, state: GroundedState) -> GroundedState:
        """What the model says about them."""
        history = _last(state.get("messages", []), state["recalled"])
        return {"draft": self.library.answerer(self.model).answer(_asked(state), _hits(state["shown"]), history)}

    def verify(self, state: GroundedState) -> GroundedState:
        """The checked answer; it joins the conversation unless there is more to look at."""
        question = state["question"]
        if state["shown"]:
            answer = check_answer(question, state["draft"], _hits(state["shown"]))
        else:
            answer = not_found(question, unknown_words=state["unknown_words"])
        result: GroundedState = {"answer": plain(answer)}
        if answer.found or not self._more(state):
            result["messages"] = [HumanMessage(question), AIMessage(answer.text)]
        return result

    def after_retrieval(self, state: GroundedState) -> Literal["watch", "verify"]:
        """Nothing found is verified at once."""
        return "watch" if state["clips"] else "verify"

    def after_verification(self, state: GroundedState) -> Literal["watch", "__end__"]:
        """A model that looks at one clip at a time is shown the next best when it refuses."""
        return "watch" if not state["answer"]["found"] and self._more(state) else "__end__"

    def _more(self, state: GroundedState) -> bool:
        return bool(state["clips"]) and state["glance"] < len(self._glances(state))

    def _glances(self, state: GroundedState) -> list[list[SearchHit]]:
        threshold = state["threshold"]
        clips = _hits(state["clips"])
        return self.library.answerer(self.model).glances(clips, lambda clip: self.library.convinces(clip, threshold))


def _asked(state: GroundedState) -> str:
    return question_to_ask(state["question"], state["query"])


def _hits(values: Sequence[dict[str, Any]]) -> list[SearchHit]:
    return [from_plain_hit(value) for value in values]


def _last(messages: Sequence[AnyMessage], count: int) -> list[AnyMessage]:
    return list(messages[len(messages) - count :])


class GroundedQA(Runnable[Any, Answer]):
    """The graph as a Runnable, from a question to an :class:`~videochat_tools.types.Answer`.

    ``graph`` is the compiled LangGraph graph: ``qa.graph.stream(qa.inputs(question), config, stream_mode="updates")``
    yields the steps, ``stream_mode="messages"`` the tokens of the model (those of the node ``"answer"``).
    """

    def __init__(self, library: VideoLibrary, graph: CompiledStateGraph[Any, Any, Any, Any]) -> None:
        self.library = library
        self.graph = graph
        self.name = graph.name

    @staticmethod
    def inputs(asked: str | Mapping[str, Any]) -> GroundedState:
        """What the graph is started with. What is not given falls back, also where a thread is gone on with.

        Raises:
            ValueError: no question, or a key that is not known.
        """
        given: dict[str, Any] = {"question": asked} if isinstance(asked, str) else dict(asked)
        if "question" not in given or not set(given) <= set(_INPUTS):
            names = ", ".join(sorted(given)) or "nothing"
            raise ValueError(f"grounded QA needs a question and takes {', '.join(_INPUTS)}; got {names}")
        if not str(given["question"]).strip():
            raise ValueError("grounded QA needs a question, got an empty one; ask in a few words")
        span, videos = given.get("span"), given.get("videos")
        if span is not None and not isinstance(span, TimeSpan):
            span = TimeSpan(*map(float, span))
        return {
            "messages": cast("list[AnyMessage]", convert_to_messages(given.get("history") or ())),
            "question": str(given["question"]),
            "k": given.get("k", DEFAULT_K),
            "videos": None if videos is None else [str(video) for video in videos],
            "span": None if span is None else [span.start, span.end],
            "threshold": given.get("threshold"),
        }

    def invoke(self, input: str | Mapping[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        """Answer a question."""
        return from_plain_answer(self.graph.invoke(self.inputs(input), config, **kwargs)["answer"])

    async def ainvoke(
        self, input: str | Mapping[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Answer:
        """Answer a question; the steps run in threads."""
        return from_plain_answer((await self.graph.ainvoke(self.inputs(input), config, **kwargs))["answer"])

    def tool(self) -> AskVideo:
        """The graph as the tool ask_video. It has no memory of its own: an agent asks whole questions."""
        graph = self.graph.builder.compile(checkpointer=False, name=self.name)
        qa = GroundedQA(self.library, graph)

        def ask(question: str, **options: Any) -> Answer:
            return qa.invoke({"question": question, **options})

        return AskVideo(library=self.library, ask=ask)


def create_grounded_qa(
    library: VideoLibrary,
    *,
    model: BaseChatModel | None = None,
    condenser: BaseChatModel | None = None,
    checkpointer: Checkpointer = None,
) -> GroundedQA:
    """The library's own way to answer, as a graph: for use in any chain, and with a memory.

    >>> chain = create_grounded_qa(library) | (lambda answer: answer.text)   # doctest: +SKIP
    >>> chain.invoke("what colour is the ring that spins?")                  # doctest: +SKIP
    >>> qa = create_grounded_qa(library, checkpointer=InMemorySaver())       # doctest: +SKIP
    >>> thread = {"configurable": {"thread_id": "1"}}                        # doctest: +SKIP
    >>> qa.invoke("who bumps into the square?", thread)                      # doctest: +SKIP
    >>> qa.invoke("what colour was it?", thread)                             # doctest: +SKIP

    Args:
        library: where to look.
        model: the chat model that answers, shown the clips as :mod:`videochat_tools.answerers` says; default is the
            library's.
        condenser: a chat model that rewrites follow-up questions for the search; default is the rule of
            :mod:`videochat_tools.dialogue`.
        checkpointer: keeps conversations, by the ``thread_id`` of the call. Earlier turns that do not fit the model
            are not shown to it, the oldest first.

    Returns:
        A Runnable from a question, or a mapping with ``question`` and any of ``history`` (earlier messages),
        ``videos``, ``span``, ``k`` and ``threshold``, to an :class:`~videochat_tools.types.Answer`. Its ``tool()`` is
        the same for an agent.
    """
    steps = _Steps(library, model, condenser)
    builder = StateGraph(GroundedState)
    builder.add_node("condense", steps.condense)
    builder.add_node("retrieve", steps.retrieve)
    builder.add_node("watch", steps.watch)
    builder.add_node("answer", steps.answer)
    builder.add_node("verify", steps.verify)
    builder.add_edge(START, "condense")
    builder.add_edge("condense", "retrieve")
    builder.add_conditional_edges("retrieve", steps.after_retrieval)
    builder.add_edge("watch", "answer")
    builder.add_edge("answer", "verify")
    builder.add_conditional_edges("verify", steps.after_verification)
    return GroundedQA(library, builder.compile(checkpointer=checkpointer, name="grounded_qa"))
