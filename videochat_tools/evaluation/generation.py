"""What the chat model says about single clips, and what it says when it cannot know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from videochat_tools.answering import says_not_found
from videochat_tools.context import clip_messages
from videochat_tools.evaluation.answers import majority_share, normalise
from videochat_tools.evaluation.held_out import render_views
from videochat_tools.evaluation.statistics import Score, rate
from videochat_tools.training.world.questions import KINDS, Question, ask
from videochat_tools.training.world.scene import Scene
from videochat_tools.types import SearchHit, TimeSpan, media_fragment

if TYPE_CHECKING:
    from videochat_tools.chat_model import ChatVideoChat

__all__ = ["TEXT_ONLY", "Asked", "ask_about_clips", "draw_questions", "score_replies"]

TEXT_ONLY = "text only"  # the view of a model that is shown no clip at all
BATCH = 32  # clips watched at a time


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about one of the clips."""

    clip: int
    question: Question


def draw_questions(scenes: Sequence[Scene], count: int, *, seed: int = 2) -> list[Asked]:
    """``count`` questions of every kind, spread over the scenes; fewer of a kind that few scenes allow."""
    asked: list[Asked] = []
    for kind in KINDS:
        rng = Random(f"{seed} {kind}")
        found = 0
        for clip in rng.sample(range(len(scenes)), len(scenes)):
            if found == count:
                break
            question = ask(rng, scenes[clip], kind)
            if question is not None:
                asked.append(Asked(clip, question))
                found += 1
    return asked


def ask_about_clips(chat: ChatVideoChat, scenes: Sequence[Scene], asked: Sequence[Asked], view: str) -> list[str]:
    """The model's replies, each question alone and with its clip as a library would show it.

    ``view`` is one of :data:`~videochat_tools.evaluation.held_out.VIEWS`, or :data:`TEXT_ONLY`.
    """
    if view == TEXT_ONLY:
        return [str(chat.invoke(each.question.question).text) for each in asked]
    tokens = _watch(chat, scenes, sorted({each.clip for each in asked}), view)
    shown = chat.model_copy(update={"clip_source": tokens.__getitem__})
    replies: list[str] = []
    for each in asked:
        hit = _hit(each.clip, scenes[each.clip])
        replies.append(str(shown.invoke(clip_messages([hit], each.question.question)).text))
    return replies


def _watch(
    chat: ChatVideoChat, scenes: Sequence[Scene], clips: Sequence[int], view: str
) -> dict[str, npt.NDArray[np.float16]]:
    engine = chat.engine
    tokens: dict[str, npt.NDArray[np.float16]] = {}
    for start in range(0, len(clips), BATCH):
        part = clips[start : start + BATCH]
        frames = render_views([scenes[clip] for clip in part], view, engine.num_frames, engine.frame_size)
        for clip, rows in zip(part, engine.watch(frames), strict=True):
            hit = _hit(clip, scenes[clip])
            tokens[media_fragment(hit.uri, hit.span)] = rows
    return tokens


def _hit(clip: int, scene: Scene) -> SearchHit:
    """A clip at some place of some long video."""
    start = float(clip * 7 % 1800)
    span = TimeSpan(start, start + scene.duration)
    return SearchHit(f"{clip:08d}", "clip.mp4", Path("/clip.mp4").as_uri(), span, 1.0)


def score_replies(asked: Sequence[Asked], replies: Sequence[str]) -> list[Score]:
    """Exact match by kind of question, and how well the model tells what it cannot know.

    Chance is the share of the most frequent answer among the true ones.
    """
    scores: list[Score] = []
    pairs = list(zip(asked, replies, strict=True))
    for kind in KINDS:
        group = [(each.question.answer, reply) for each, reply in pairs if each.question.kind == kind]
        if kind == "absent" or not group:
            continue
        right = [normalise(reply) == normalise(truth) for truth, reply in group]
        scores.append(rate(kind, right, chance=majority_share(truth for truth, _ in group)))
    for name, absent in (("absent, answered 'not found'", True), ("present, answered 'not found'", False)):
        group = [(each.question.answer, reply) for each, reply in pairs if (each.question.kind == "absent") is absent]
        if group:
            scores.append(rate(name, [says_not_found(reply) for _, reply in group]))
    return scores
