"""Other wordings of the questions: in the past tense, or with other words for the same."""

from __future__ import annotations

import re
from random import Random

__all__ = ["OTHER_WORDS", "PAST_TENSE", "reworded"]

PAST_TENSE = {
    "appears": "appeared",
    "are": "were",
    "blinks": "blinked",
    "bounces": "bounced",
    "bumps": "bumped",
    "can": "could",
    "disappears": "disappeared",
    "do": "did",
    "does": "did",
    "flashes": "flashed",
    "gets": "got",
    "goes": "went",
    "grows": "grew",
    "happens": "happened",
    "hits": "hit",
    "is": "was",
    "jumps": "jumped",
    "moves": "moved",
    "passes": "passed",
    "rotates": "rotated",
    "shows": "showed",
    "shrinks": "shrank",
    "spins": "spun",
    "stays": "stayed",
    "turns": "turned",
    "vanishes": "vanished",
}
OTHER_WORDS = (
    ("bumps into", "bumps"),
    ("bump into", "bump"),
    ("moves behind", "goes behind"),
    ("which object", "what object"),
)


def reworded(rng: Random, question: str) -> str:
    """The question in other words, or as it is where only its own words will do: those of a speaker, or options."""
    if "\n" in question or '"' in question or " about " in question:
        return question
    for usual, other in OTHER_WORDS:
        if rng.random() < 0.5:
            question = question.replace(usual, other)
    if rng.random() < 0.5:
        return question
    words = re.split(r"(\W+)", question)
    if {"did", "was"} & set(words):  # in the past already
        return question
    return "".join("do" if word == "do" and "does" in words else PAST_TENSE.get(word, word) for word in words)
