"""What a question names of looks and deeds, beside what is true of the object or event that it is about.

A false premise, and a no, is one word that does not fit. The answer says only that there is one. Heads that ask
(:mod:`~videochat_tools.training.lines`) ask for more where the answer begins: what the question named, what the row
that it is about holds, and the word that does not fit. The three together are the comparison that has to be made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import chain

from videochat_tools.context import NOT_FOUND
from videochat_tools.training.slots import OBJECT_VALUES
from videochat_tools.training.world.language import VERBS
from videochat_tools.training.world.scene import INTERACTIONS
from videochat_tools.training.world.wording import OTHER_WORDS, PAST_TENSE

__all__ = ["ASKED", "NOT_TRUE", "SEEN", "SLOTS", "WHOM", "compared"]

ASKED, SEEN, NOT_TRUE, WHOM = "asked_", "seen_", "not_true", "whom_"
SLOTS = ("colour", "shape", "deed", "whom_colour", "whom_shape", "size", "texture")
_FITS = "yes"  # stands for the word that does not fit where all do
_MOVE = "move"  # a deed that "in which direction" takes for granted
_DENIALS = ("no", NOT_FOUND)
_OPTIONS = re.compile(r"\nOptions:.*", re.DOTALL)


def compared(question: str, answer: str, values: Mapping[str, str]) -> dict[str, str]:
    """Words to be told where an answer begins, by what is asked for.

    Args:
        question: As it is put.
        answer: Without what it cites.
        values: True of the object or event, as :func:`~videochat_tools.training.slots.tell_objects` and ``tell_events``
            have them.

    Returns:
        By the names of the heads' questions, :data:`ASKED` and :data:`SEEN` before each of :data:`SLOTS` that is named
        or told, and :data:`NOT_TRUE`, where it can be told which word that is.
    """
    named, told = _named(_OPTIONS.sub("", question)), _told(values)
    words = {f"{ASKED}{slot}": named[slot][0] for slot in SLOTS if named.get(slot)}
    words |= {f"{SEEN}{slot}": told[slot] for slot in SLOTS if slot in told}
    if " before " in question or " after " in question:  # it names another event than the one it asks about
        return words
    if answer not in _DENIALS:
        return words | {NOT_TRUE: _FITS}
    false = [word for slot, names in named.items() if slot in told for word in names if word != told[slot]]
    if not false and ("direction" in question or "which way" in question):
        false = [_MOVE]
    return words | ({NOT_TRUE: false[0]} if false else {})


def _told(values: Mapping[str, str]) -> dict[str, str]:
    """What is true, under the names that :func:`_named` gives; some colours have no name."""
    told = {"deed": _word(values["kind"])} if "kind" in values else {}
    for slot, allowed in OBJECT_VALUES.items():
        for name, value in (
            (slot, values.get(slot) or values.get(f"who_{slot}")),
            (f"{WHOM}{slot}", values.get(f"{WHOM}{slot}")),
        ):
            if value in allowed:
                told[name] = value
    return told


def _named(question: str) -> dict[str, list[str]]:
    """The looks and deeds that a question names: who does it before an interaction, to whom after it."""
    text, deeds = " ".join(question.rstrip("?").split()), []
    who, whom = text, ""
    for phrase, kind in _phrases():
        if found := re.search(rf"\b{phrase}\b", text):
            deeds.append(_word(kind))
            if kind in INTERACTIONS:
                who, whom = text[: found.start()], text[found.end() :]
            text = text.replace(phrase, "")
    named: dict[str, list[str]] = {}
    for prefix, part in (("", who), (WHOM, whom)):
        for slot, values in OBJECT_VALUES.items():
            offered = slot in ("size", "texture") and " or " in question  # to choose from
            named[f"{prefix}{slot}"] = [] if offered else [word for word in part.split() if word in values]
    return named | {"deed": deeds}


@cache
def _phrases() -> list[tuple[str, str]]:
    """All ways to say a deed, with its kind, the longest first."""
    phrases = {phrase: kind for kind, wordings in VERBS.items() for phrase in chain.from_iterable(wordings)}
    for usual, other in OTHER_WORDS:
        phrases |= {phrase.replace(usual, other): kind for phrase, kind in [*phrases.items()]}
    for phrase, kind in [*phrases.items()]:
        first, *rest = phrase.split()
        phrases[" ".join([PAST_TENSE.get(first, first), *rest])] = kind
    return sorted(phrases.items(), key=lambda pair: -len(pair[0]))


def _word(kind: str) -> str:
    """The word of the plain wording that tells a deed from the others: it stands last, or first."""
    words = VERBS[kind][0][0].split()
    return next((word for word in words if word == kind), words[-1] if words[-1] == "still" else words[0])
