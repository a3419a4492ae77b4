"""Ask a library, and get the moments that prove the answer: ``python examples/ask.py [QUESTION …]``."""

from __future__ import annotations

import sys

from sample_library import open_sample_library

QUESTIONS = [
    "which object bumps into the square?",
    "what happens after the red circle bumps into the square?",
    "what is said about the umbrella?",
    "what colour is the dog?",
]


def main(questions: list[str]) -> None:
    """Ask each question and print the answer with its evidence."""
    library = open_sample_library()
    for question in questions:
        answer = library.ask(question)
        print(f"{question}\n  {answer.text}")
        for evidence in answer.evidence:
            print(f"  proof: {evidence}")


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
