"""A tool-calling agent over a library: ``python examples/agent.py [--model PROVIDER:NAME] [QUESTION …]``.

The brain is any LangChain chat model that calls tools. Without ``--model`` it is ChatVideoChat itself, offline: it was
never trained to call tools, so constrained decoding sees to it that what it writes is a call, and then it is shown the
clips that were found.
"""

from __future__ import annotations

import argparse

from langchain.chat_models import init_chat_model
from langgraph.checkpoint.memory import InMemorySaver
from sample_library import open_sample_library

from videochat_tools import ChatVideoChat
from videochat_tools.agents import create_video_agent

QUESTIONS = [
    "which object bumps into the square?",
    "what colour was it?",
]


def main() -> None:
    """Print every step of the agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--model", help="a model for init_chat_model, such as openai:NAME; its package is needed")
    options = parser.parse_args()
    brain = ChatVideoChat() if options.model is None else init_chat_model(options.model)
    agent = create_video_agent(brain, open_sample_library(), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "me"}}
    for question in options.questions:
        print(f"> {question}")
        for step in agent.stream({"messages": [("user", question)]}, thread, stream_mode="updates"):
            for update in step.values():
                for message in (update or {}).get("messages", ()):
                    message.pretty_print()


if __name__ == "__main__":
    main()
