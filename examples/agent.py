"""A tool-calling agent over a library: ``python examples/agent.py [--model PROVIDER:NAME] [QUESTION]``.

The brain is any LangChain chat model that calls tools. Without ``--model`` a stand-in plays it, so that the example
runs offline: it knows nothing but to ask the tool ``ask_video`` and to pass the answer on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from langchain.chat_models import init_chat_model
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from sample_library import open_sample_library

from videochat_tools.agents import create_video_agent

QUESTION = "what colour is the object that passes in front of the cyan star?"


class StandIn(BaseChatModel):
    """In place of a chat model that thinks."""

    @property
    def _llm_type(self) -> str:
        return "stand-in"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> StandIn:
        """It knows the one tool that it uses."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        last = messages[-1]
        if last.type == "tool":
            message = AIMessage(last.text.splitlines()[0])
        else:
            message = AIMessage("", tool_calls=[ToolCall(name="ask_video", args={"question": last.text}, id="1")])
        return ChatResult(generations=[ChatGeneration(message=message)])


def main() -> None:
    """Print every step of the agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--model", help="a model for init_chat_model, such as openai:NAME; its package is needed")
    options = parser.parse_args()
    brain = StandIn() if options.model is None else init_chat_model(options.model)
    agent = create_video_agent(brain, open_sample_library())
    for step in agent.stream({"messages": [("user", options.question)]}, stream_mode="values"):
        step["messages"][-1].pretty_print()


if __name__ == "__main__":
    main()
