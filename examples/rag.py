"""Retrieval-augmented generation in LangChain's own words: ``python examples/rag.py [QUESTION …]``.

Retriever, prompt, chat model and parser are ordinary parts of a chain, and each can be exchanged. ``library.ask`` does
the same and more: it refuses where the evidence is weak, and checks what the answer cites.
"""

from __future__ import annotations

import sys
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from sample_library import open_sample_library

from videochat_tools import VideoLibrary
from videochat_tools.retrievers import HybridRetriever

QUESTIONS = [
    "what colour is the star that moves up?",
    "which object bumps into the square?",
]


def prompt(found: dict[str, Any]) -> list[BaseMessage]:
    """The retrieved clips as video blocks; their names are answered from kept tokens, so that nothing is decoded."""
    clips = [{"type": "video", "file_id": document.metadata["file_id"]} for document in found["clips"]]
    return [HumanMessage(clips), HumanMessage(found["question"])]


def make_chain(library: VideoLibrary) -> Runnable[str, str]:
    """From a question to an answer."""
    retriever = HybridRetriever(library=library, k=1)  # the nano looks at one clip at a time
    found = {"clips": retriever, "question": RunnablePassthrough()}
    return found | RunnableLambda(prompt) | library.chat_model | StrOutputParser()


def main(questions: list[str]) -> None:
    """Ask all questions as one batch."""
    chain = make_chain(open_sample_library())
    for question, answer in zip(questions, chain.batch(questions), strict=True):
        print(f"{question}\n  {answer}")


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
