"""A conversation with a memory: ``python examples/chatbot.py [QUESTION …]``.

The memory is any LangGraph checkpointer. With ``SqliteSaver`` or ``PostgresSaver`` in place of ``InMemorySaver`` the
conversation goes on in another process, by the same thread id.
"""

from __future__ import annotations

import sys

from langgraph.checkpoint.memory import InMemorySaver
from sample_library import open_sample_library

from videochat_tools.agents import create_grounded_qa

QUESTIONS = [
    "which object bumps into the square?",
    "what colour was it?",
    "what happens after that?",
]


def main(questions: list[str]) -> None:
    """Ask one question after the other in one thread."""
    chatbot = create_grounded_qa(open_sample_library(), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "me"}}
    for question in questions:
        print(f"> {question}\n{chatbot.invoke(question, thread).text}")


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
