"""Retrievers in a chain: ``python examples/retriever_chain.py [--model PROVIDER:NAME] [QUESTION …]``.

What is seen is found in a vector store, filled by a loader and embedded by the nano; any other LangChain store would do
as well. What is said is found by the words, in a library. Both go into one prompt, which any chat model could answer:
one that is given with ``--model`` does, otherwise the prompt itself is printed, so that the example runs offline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from langchain.chat_models import init_chat_model
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from sample_library import open_sample_library

from videochat_tools import FaissVideoStore, VideoEmbeddings, VideoLibrary, VideoLoader
from videochat_tools.retrievers import TranscriptRetriever

QUESTIONS = [
    "which object bumps into the square?",
    "what is said about the umbrella?",
]
PROMPT = ChatPromptTemplate.from_template(
    "Moments of a film that look like it:\n{seen}\nMoments in which its words are said:\n{said}\nQuestion: {question}"
)


def as_lines(found: Sequence[Document]) -> str:
    """One line a document: when it is, and what is said there."""
    lines = [f"- {each.metadata['start']:g}–{each.metadata['end']:g} s {each.metadata['transcript']}" for each in found]
    return "\n".join(line.rstrip() for line in lines) or "- none"


def make_chain(library: VideoLibrary) -> Runnable[str, object]:
    """From a question to a prompt."""
    documents = VideoLoader([record.path for record in library.list()]).load()
    store = FaissVideoStore.from_documents(documents, VideoEmbeddings())
    seen = store.as_retriever(search_kwargs={"k": 1, "filter": {"start": {"$lt": 60}}})  # of the first minute
    said = TranscriptRetriever(library=library, k=1, before=1.0, after=1.0)  # with a second around it
    return {"seen": seen | as_lines, "said": said | as_lines, "question": RunnablePassthrough()} | PROMPT


def main() -> None:
    """Print what the chain makes of each question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--model", help="a model for init_chat_model, such as openai:NAME; its package is needed")
    options = parser.parse_args()
    chain = make_chain(open_sample_library())
    if options.model is not None:
        chain = chain | init_chat_model(options.model) | StrOutputParser()
    for made in chain.batch(options.questions):
        print(made if isinstance(made, str) else made.to_string())  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
