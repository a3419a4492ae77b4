"""Ask a library, and get the moments that prove the answer: ``python examples/ask.py [QUESTION …]``."""

from __future__ import annotations

import sys

from sample_library import open_sample_library

QUESTIONS = [
    "what colour is the object that passes in front of the cyan star?",
    "what is said when the small dotted cyan circle appears?",
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
