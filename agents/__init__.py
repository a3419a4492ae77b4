"""Ready-made ways to answer questions over a library: a fixed graph and a tool-calling agent.

Both need LangGraph, the second LangChain too: ``pip install 'videochat-tools[agents]'``.
"""

from __future__ import annotations

if __name__ == "agents":
    raise ImportError("this folder is no package of its own; import videochat_tools.agents")

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videochat_tools.agents.grounded_qa import GroundedQA, create_grounded_qa
    from videochat_tools.agents.video_agent import create_video_agent

__all__ = ["GroundedQA", "create_grounded_qa", "create_video_agent"]

_HOME = {"GroundedQA": "grounded_qa", "create_grounded_qa": "grounded_qa", "create_video_agent": "video_agent"}
_EXTRA = ("langchain", "langgraph")


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562); MissingDependencyError without the extra."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        from videochat_tools.errors import MissingDependencyError

        raise MissingDependencyError(missing, "agents", name) from error
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return __all__
