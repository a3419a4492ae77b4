"""What the chat model says about single clips, and what it says when it cannot know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from videochat_tools.answering import parse_citations, says_not_found
from videochat_tools.context import clip_messages
from videochat_tools.evaluation.answers import majority_share, normalise
from videochat_tools.evaluation.held_out import render_views
from videochat_tools.evaluation.statistics import Score, rate
from videochat_tools.training.world.choices import ask_choice, ask_when
from videochat_tools.training.world.questions import DENIED, KINDS, Question, ask
from videochat_tools.training.world.scene import Scene
from videochat_tools.training.world.wording import reworded
from videochat_tools.types import SearchHit, TimeSpan

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from videochat_tools.chat_model import ChatVideoChat
    from videochat_tools.engine import ClipTokens

__all__ = [
    "ASKED_KINDS",
    "OTHER_WORDS",
    "TEXT_ONLY",
    "Asked",
    "about_clip",
    "ask_about_clips",
    "draw_questions",
    "hit_of",
    "reply_to_all",
    "score_replies",
    "watch_scenes",
    "word_anew",
]

TEXT_ONLY = "text only"  # the view of a model that is shown no clip at all
OTHER_WORDS = "other words"  # clips as they are, questions worded anew
ASKED_KINDS = (*KINDS, "choice", "when")
BATCH = 32  # clips watched, and conversations answered, at a time
NEAR = 1.0  # seconds that each end of an answer to "when" may be off
MAX_TOKENS = 48
_TRIES = 8  # of chance, to find other words


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about one of the clips; ``span`` is when that happens, in seconds, where the question is "when"."""

    clip: int
    question: Question
    span: TimeSpan | None = None


def draw_questions(
    scenes: Sequence[Scene], count: int, *, kinds: Iterable[str] = ASKED_KINDS, seed: int = 2
) -> list[Asked]:
    """``count`` questions of every kind, spread over the scenes; fewer of a kind that few scenes allow."""
    asked: list[Asked] = []
    for kind in kinds:
        rng = Random(f"{seed} {kind}")
        found = 0
        for clip in rng.sample(range(len(scenes)), len(scenes)):
            if found == count:
                break
            drawn = _draw(rng, clip, scenes[clip], kind)
            if drawn is not None:
                asked.append(drawn)
                found += 1
    return asked


def _draw(rng: Random, clip: int, scene: Scene, kind: str) -> Asked | None:
    if kind == "when":
        if not scene.events:
            return None
        event, shown = rng.choice(scene.events), hit_of(clip, scene).span
        span = TimeSpan(shown.start + event.start, shown.start + event.end)
        return Asked(clip, ask_when(rng, scene, shown, event), span)
    question = ask_choice(rng, scene) if kind == "choice" else ask(rng, scene, kind)
    return None if question is None else Asked(clip, question)


def word_anew(asked: Sequence[Asked], *, seed: int = 3) -> list[Asked]:
    """The questions in the past tense or in other words; those that have no other wording are left out."""
    rng = Random(seed)
    worded = []
    for each in asked:
        usual = each.question.question
        words = next((other for _ in range(_TRIES) if (other := reworded(rng, usual)) != usual), None)
        if words is not None:
            worded.append(replace(each, question=replace(each.question, question=words)))
    return worded


def ask_about_clips(chat: ChatVideoChat, scenes: Sequence[Scene], asked: Sequence[Asked], view: str) -> list[str]:
    """The model's replies, each question alone and with its clip as a library would show it.

    ``view`` is one of :data:`~videochat_tools.evaluation.held_out.VIEWS`, or :data:`TEXT_ONLY`.
    """
    from langchain_core.messages import HumanMessage

    if view == TEXT_ONLY:
        return reply_to_all(chat, [([HumanMessage(each.question.question)], []) for each in asked])
    tokens = watch_scenes(chat, scenes, sorted({each.clip for each in asked}), view)
    return reply_to_all(
        chat,
        [
            (about_clip(chat, each.clip, scenes[each.clip], each.question.question), [tokens[each.clip]])
            for each in asked
        ],
    )


def about_clip(
    chat: ChatVideoChat, clip: int, scene: Scene, question: str, history: Sequence[BaseMessage] = ()
) -> list[BaseMessage]:
    """A conversation about one clip, which stands somewhere in some long video, as a library would show it."""
    return clip_messages([hit_of(clip, scene)], question, history, frames=chat.engine.told_frames)


def reply_to_all(
    chat: ChatVideoChat, conversations: Sequence[tuple[Sequence[BaseMessage], Sequence[ClipTokens]]]
) -> list[str]:
    """What ``chat.invoke`` says to each conversation, greedy, many at a time.

    Args:
        chat: The chat model.
        conversations: Messages, and the clip tokens of their visuals in order.
    """
    import torch

    from videochat_tools.content import read_messages
    from videochat_tools.generation import render_turns

    network = chat.engine.network
    prompts = []
    for messages, clips in conversations:
        ids, places = network.processor.tokenize_prompt(
            render_turns(read_messages(messages), network.processor),
            [len(tokens) // network.tokens_per_view for tokens in clips],
        )
        prompts.append((ids, places, clips))
    replies = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number][0]))  # little padding
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        batch = [prompts[number] for number in numbers]
        width = max(len(ids) for ids, _, _ in batch)
        filler = network.tokenizer.pad_token_id or 0
        padding = [width - len(ids) for ids, _, _ in batch]
        rows = torch.tensor([[filler] * pad + list(ids) for pad, (ids, _, _) in zip(padding, batch, strict=True)])
        marks = torch.tensor(
            [
                [False] * pad + [bool(mark) for mark in places]
                for pad, (_, places, _) in zip(padding, batch, strict=True)
            ]
        )
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        shown = [tokens for _, _, clips in batch for tokens in clips]
        made = network.model.generate(
            input_ids=rows.to(network.device),
            attention_mask=mask.to(network.device),
            visual_mask=marks.to(network.device),
            clip_tokens=torch.from_numpy(np.stack(shown)).float().to(network.device) if shown else None,
            do_sample=False,
            max_new_tokens=MAX_TOKENS,
            eos_token_id=sorted(network.stop_ids),
            pad_token_id=filler,
        )
        for number, row in zip(numbers, made[:, width:].tolist(), strict=True):
            replies[number] = network.processor.template.clean_answer(network.tokenizer.decode(row))
    return replies


def watch_scenes(
    chat: ChatVideoChat, scenes: Sequence[Scene], clips: Sequence[int], view: str
) -> dict[int, npt.NDArray[np.float16]]:
    """Clip tokens of the scenes with these numbers, in one of the views."""
    engine = chat.engine
    tokens: dict[int, npt.NDArray[np.float16]] = {}
    for start in range(0, len(clips), BATCH):
        part = clips[start : start + BATCH]
        frames = render_views([scenes[clip] for clip in part], view, engine.num_frames, engine.frame_size)
        tokens.update(zip(part, engine.watch(frames), strict=True))
    return tokens


def hit_of(clip: int, scene: Scene) -> SearchHit:
    """A clip at some place of some long video."""
    start = clip * 7.37 % 1800
    span = TimeSpan(start, start + scene.duration)
    return SearchHit(f"{clip:08d}", "clip.mp4", Path("/clip.mp4").as_uri(), span, 1.0)


def score_replies(asked: Sequence[Asked], replies: Sequence[str]) -> list[Score]:
    """Exact match by kind of question, and how well the model tells what it cannot know.

    Chance is the share of the most frequent answer among the true ones. An answer to "when" is right where both its
    ends are within :data:`NEAR` seconds.
    """
    scores: list[Score] = []
    pairs = list(zip(asked, replies, strict=True))
    for kind in ASKED_KINDS:
        group = [(each, reply) for each, reply in pairs if each.question.kind == kind]
        if kind in DENIED or not group:
            continue
        if kind == "when":
            scores.append(rate(f"when, within {NEAR:g} s", [_in_time(reply, each.span) for each, reply in group]))
            continue
        right = [normalise(reply) == normalise(each.question.answer) for each, reply in group]
        scores.append(rate(kind, right, chance=_chance(kind, [each for each, _ in group])))
    present = tuple(kind for kind in ASKED_KINDS if kind not in DENIED)
    for name, kinds in (*((kind, (kind,)) for kind in DENIED), ("present", present)):
        refused = [says_not_found(reply) for each, reply in pairs if each.question.kind in kinds]
        if refused:
            scores.append(rate(f"{name}, answered 'not found'", refused))
    return scores


def _chance(kind: str, asked: Sequence[Asked]) -> float:
    if kind != "choice":
        return majority_share(each.question.answer for each in asked)
    return sum(1 / each.question.question.count("\n(") for each in asked) / len(asked)


def _in_time(reply: str, truth: TimeSpan | None) -> bool:
    cited = [citation.span for citation in parse_citations(reply)]
    if truth is None or not cited or cited[0] is None:
        return False
    return abs(cited[0].start - truth.start) <= NEAR and abs(cited[0].end - truth.end) <= NEAR
