"""Reading a given transcript, and dialogues whose later questions lean on earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from videochat_tools.answering import parse_citations
from videochat_tools.evaluation.answers import majority_share, normalise
from videochat_tools.evaluation.generation import about_clip, reply_to_all, watch_scenes
from videochat_tools.evaluation.statistics import Score, rate
from videochat_tools.training.drills import (
    TRANSCRIPT_KINDS,
    ask_transcript,
    draw_transcript,
    read_transcript,
)
from videochat_tools.training.world.dialogues import dialogue
from videochat_tools.training.world.questions import Question
from videochat_tools.training.world.scene import Scene
from videochat_tools.types import TimeSpan

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from videochat_tools.chat_model import ChatVideoChat

__all__ = ["dialogue_scores", "draw_dialogues", "transcript_scores"]

TURNS = 3
_SEED = 10**11  # no training run draws from it


def transcript_scores(chat: ChatVideoChat, count: int) -> tuple[list[Score], list[Score]]:
    """Questions about transcripts of two to six lines, ``count`` of each kind.

    Returns:
        Shares with every word of the quotation, or the name, right; and shares with the line's times cited, too.
    """
    from langchain_core.messages import HumanMessage

    asked: list[tuple[str, Question]] = []
    for number in range(count):
        rng = Random(_SEED + number)
        lines = draw_transcript(rng, rng.randint(2, 6))
        text = read_transcript(lines)
        asked += [(text, ask_transcript(rng, lines, kind)) for kind in TRANSCRIPT_KINDS]
    replies = reply_to_all(
        chat, [([HumanMessage(text.rstrip("\n")), HumanMessage(question.question)], []) for text, question in asked]
    )
    words, cited = [], []
    for kind in TRANSCRIPT_KINDS:
        pairs = [
            (reply, question.answer)
            for (_, question), reply in zip(asked, replies, strict=True)
            if question.kind == kind
        ]
        right = [normalise(reply) == normalise(answer) for reply, answer in pairs]
        timed = [_spans(reply) == _spans(answer) for reply, answer in pairs]
        words.append(rate(f"transcript, {kind}", right))
        cited.append(rate(f"transcript, {kind}, with its times", map(all, zip(right, timed, strict=True))))
    return words, cited


def _spans(text: str) -> list[TimeSpan | None]:
    return [citation.span for citation in parse_citations(text)]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Three questions about one clip; at least one says "it"."""

    clip: int
    turns: tuple[Question, ...]


def draw_dialogues(scenes: Sequence[Scene], count: int) -> list[Dialogue]:
    """Dialogues about the scenes in their order, at most one each."""
    found: list[Dialogue] = []
    for clip, scene in enumerate(scenes):
        if len(found) == count:
            break
        turns = dialogue(Random(f"dialogue {clip}"), scene, TURNS, KINDS_TALKED_ABOUT)
        if len(turns) == TURNS and any(leans(turn) for turn in turns):
            found.append(Dialogue(clip, tuple(turns)))
    return found


KINDS_TALKED_ABOUT = ("colour", "shape", "size", "texture", "direction", "motion", "count", "which", "yesno")


def leans(question: Question) -> bool:
    """Whether a pronoun stands for the object of the question before."""
    return "it" in question.question.rstrip("?").split()


def dialogue_scores(chat: ChatVideoChat, scenes: Sequence[Scene], count: int, view: str) -> list[Score]:
    """Dialogues in which the model reads its own earlier answers, right or wrong."""
    from langchain_core.messages import AIMessage, HumanMessage

    talks = draw_dialogues(scenes, count)
    tokens = watch_scenes(chat, scenes, [talk.clip for talk in talks], view)
    histories: list[list[BaseMessage]] = [[] for _ in talks]
    right: list[list[bool]] = [[] for _ in talks]
    for turn in range(TURNS):
        conversations = [
            (about_clip(chat, talk.clip, scenes[talk.clip], talk.turns[turn].question, history), [tokens[talk.clip]])
            for talk, history in zip(talks, histories, strict=True)
        ]
        for talk, history, outcome, reply in zip(
            talks, histories, right, reply_to_all(chat, conversations), strict=True
        ):
            history += [HumanMessage(talk.turns[turn].question), AIMessage(reply)]
            outcome.append(normalise(reply) == normalise(talk.turns[turn].answer))
    leaning = [
        (question.answer, correct)
        for talk, outcome in zip(talks, right, strict=True)
        for question, correct in zip(talk.turns, outcome, strict=True)
        if leans(question)
    ]
    return [
        rate(
            "dialogue, turns with a pronoun",
            [correct for _, correct in leaning],
            chance=majority_share(answer for answer, _ in leaning) if leaning else None,
        ),
        rate("dialogue, all turns", [correct for outcome in right for correct in outcome]),
        rate("dialogue, all three turns right", [all(outcome) for outcome in right]),
    ]
