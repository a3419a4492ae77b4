"""Follow-up questions: what to search for when a question leans on the ones before it.

One plain rule for now: a question that points back ("what colour was it?") or has no content of its own ("and
then?") is searched together with the question it leans on. A model that rewrites the question does this better
and can take this function's place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from videochat_tools.retrievers.query import analyse

_POINTING_BACK = frozenset(
    "it its itself he him his himself she her hers herself them their theirs this these those".split()
)
# "They" is left out: "what do they say about …" means the people of the video, whoever they are. "That" points
# back only at the end or after a preposition ("after that"), otherwise it joins a clause ("the ring that spins").
_THAT = re.compile(r"\b(?:after|before|during|since|about|of|like|with) that\b|\bthat\W*$")
_EMPTY = frozenset(
    "a an the and or but so then next else also again too ok okay please "
    "what when where who whom whose why how which is are was were be been do does did done has have had can could "
    "will would may i you we me tell show of in on at to for from by with about after before during as "
    "there here that they happen happens happened many much more often long "
    "colour color shape size direction number count kind sort thing time moment big large small fast".split()
)
# "what happens after that?", "and what happened just before it?", "what happens next?", "and then?"
_MOVES_ON = re.compile(
    r"(?:and |so |but )?(?:what (?:happen(?:s|ed)|comes|came|is (?:seen|shown))|what does (?:it|he|she) do)? ?"
    r"(?:(?:right|just|immediately|shortly|directly) )?"
    r"(?:(?P<relation>after|before)(?:wards)?(?: (?:that|this|it))?|next|then)",
    re.I,
)


def retrieval_query(question: str, earlier_questions: Sequence[str] = ()) -> str:
    """The words to search with.

    Args:
        question: what is asked now.
        earlier_questions: those before it in the conversation, oldest first.

    Returns:
        "What happens after that?" with what is meant in place of "that". Any other question after the earlier ones
        it leans on, back to the last one that stands on its own. One that adds no content ("what colour was it?")
        would only blur the search and is left out.
    """
    moved = _moves_on(question)
    if moved is not None and earlier_questions:
        meant = analyse(retrieval_query(earlier_questions[-1], earlier_questions[:-1]))
        relation = (moved["relation"] or "after").lower()
        return f"what happens {relation} {meant.in_one_scene or meant.text.rstrip('?!. ')}?"
    needed = [question.strip()]
    for earlier in reversed(earlier_questions):
        if not leans_back(needed[0]):
            break
        needed.insert(0, earlier.strip())
    return " ".join(part for part in needed if _content(part)) or needed[-1]


def question_to_ask(question: str, query: str) -> str:
    """What a model is asked: the question, or, where that says no more than "and then?", what is searched for."""
    return query if _moves_on(question) else question


def _moves_on(question: str) -> re.Match[str] | None:
    return _MOVES_ON.fullmatch(question.strip().rstrip("?!. "))


def leans_back(question: str) -> bool:
    """Whether a question makes sense only after another one."""
    pointing = any(word in _POINTING_BACK for word in _words(question)) or _THAT.search(question.lower()) is not None
    return pointing or not _content(question)


def _content(question: str) -> list[str]:
    return [word for word in _words(question) if word not in _EMPTY and word not in _POINTING_BACK]


def _words(question: str) -> list[str]:
    return re.findall(r"[^\W_]+", question.lower())
