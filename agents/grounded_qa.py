"""Grounded question answering as a Runnable: retrieve, watch, answer, verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableLambda

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from videochat_tools.types import Answer
    from videochat_tools.video_library import VideoLibrary

_INPUTS = ("question", "history", "videos", "span", "k", "threshold")


def create_grounded_qa(library: VideoLibrary, *, model: BaseChatModel | None = None) -> Runnable[Any, Answer]:
    """The library's own way to answer, for use in any chain.

    >>> chain = create_grounded_qa(library) | (lambda answer: answer.text)   # doctest: +SKIP
    >>> chain.invoke("what colour is the ring that spins?")                  # doctest: +SKIP
    >>> chain.invoke({"question": "and its size?", "history": messages})      # doctest: +SKIP

    Args:
        library: where to look.
        model: the chat model that answers; default is the library's.

    Returns:
        A Runnable from a question, or a mapping with ``question`` and any of the options of
        :meth:`VideoLibrary.ask`, to an :class:`~videochat_tools.types.Answer`.
    """

    def answer(asked: str | Mapping[str, Any]) -> Answer:
        inputs = {"question": asked} if isinstance(asked, str) else dict(asked)
        if "question" not in inputs or not set(inputs) <= set(_INPUTS):
            given = ", ".join(sorted(inputs)) or "nothing"
            raise ValueError(f"grounded QA needs a question and takes {', '.join(_INPUTS)}; got {given}")
        return library.ask(**inputs, model=model)

    return RunnableLambda(answer, name="grounded_qa")
