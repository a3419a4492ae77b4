"""Several wordings of one query, for a search that goes by all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

__all__ = ["rephrased"]

WORDINGS = 3  # asked of a chat model
_MOST = 8  # used of what comes back: a model that cannot count must not start a hundred searches
_INSTRUCTIONS = (
    f"Write {WORDINGS} other wordings of what the user is looking for in videos, one a line, as captions of the moment "
    "would put it. Keep the meaning. No numbering, nothing else."
)
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


def rephrased(
    query: str,
    rephrase: BaseChatModel | Callable[[str], Sequence[str]],
    callbacks: BaseCallbackManager | None = None,
) -> list[str]:
    """The query and further wordings of it, each once.

    Args:
        query: as a person writes it; stays the first.
        rephrase: a chat model, which is asked for wordings, or a function that gives them.
        callbacks: of the run, for the chat model.
    """
    if isinstance(rephrase, BaseChatModel):
        messages = [SystemMessage(_INSTRUCTIONS), HumanMessage(query)]
        written = rephrase.invoke(messages, {"callbacks": callbacks}).text
        wordings: Sequence[str] = [_LIST_MARK.sub("", line) for line in written.splitlines()]
    else:
        wordings = rephrase(query)
    others = [each.strip() for each in wordings if each.strip()]
    return list(dict.fromkeys([query, *others[:_MOST]]))
