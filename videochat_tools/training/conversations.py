"""Conversations about clips: what the language model practises, first with words in the place of clips, then clips.

The strings around the clips come from :mod:`videochat_tools.context`, so that training and use look the same. A
conversation is a list of pieces; those marked as answers are what the loss is taken on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from videochat_tools.context import NOT_FOUND, cited_answer, clip_line
from videochat_tools.training.claims import compared
from videochat_tools.training.slots import tell_source
from videochat_tools.training.syllabus import ALL, Syllabus
from videochat_tools.training.world.choices import ask_choice, ask_when
from videochat_tools.training.world.dialogues import dialogue
from videochat_tools.training.world.language import clause, name, verb
from videochat_tools.training.world.narration import narrate, random_words
from videochat_tools.training.world.questions import Question, Source, ask, describe
from videochat_tools.training.world.scene import COLOURS, FRAMES, HELD_OUT, SHAPES, Scene
from videochat_tools.training.world.wording import reworded
from videochat_tools.types import TimeSpan, format_timecode

__all__ = ["Conversation", "Piece", "assemble", "converse", "dense_text"]

_HERE = "<VideoHere>"
_COMPARABLE = ("colour", "shape", "direction", "count", "which", "motion", "order", "texture")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text, or the place of a clip (``clip`` is its number, ``text`` is empty)."""

    text: str
    is_answer: bool = False
    clip: int | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Pieces in order and, for the record, the kind of every question asked.

    Of every question, or of none: ``seen``, the numbers of the frames whose times are the answer; ``sources``, the
    clip by its number and the object or event in it that have to be looked at; ``compared``, what the question named
    beside what is true of that (:func:`~videochat_tools.training.claims.compared`).
    """

    pieces: tuple[Piece, ...]
    kinds: tuple[str, ...]
    seen: tuple[tuple[int, int] | None, ...] = ()
    sources: tuple[tuple[int, Source] | None, ...] = ()
    compared: tuple[Mapping[str, str] | None, ...] = ()


def dense_text(rng: Random, scene: Scene) -> str:
    """All that a clip shows, in words: the objects in any order, then the events, each with its eighths of the clip."""
    things = [name(thing.look) for thing in scene.things]
    rng.shuffle(things)
    events = []
    for event in scene.events:
        one = scene.things[event.subject]
        words = f"{one.colour} {one.shape} {verb(rng, event.kind)}"
        if event.target is not None:
            other = scene.things[event.target]
            words += f" {other.colour} {other.shape}"
        words += f" {scene.eighth(event.start)}–{scene.eighth(event.end)}"
        events.append(words)
    return " " + ", ".join(things) + ("; " + ", then ".join(events) if events else "") + " "


def assemble(lines: Sequence[tuple[int | str, TimeSpan | None, str]], turns: Sequence[tuple[str, str]]) -> list[Piece]:
    """The vicuna template: clips (numbers, or words in their place), then question and answer in turn."""
    pieces = [Piece("###Human: ")] if lines else []
    for clip, span, said in lines:
        before, after = clip_line(span, said, FRAMES).split(_HERE)
        pieces.append(Piece(before))
        pieces.append(Piece("", clip=clip) if isinstance(clip, int) else Piece(clip))
        pieces.append(Piece(after))
    for question, answer in turns:
        pieces.append(Piece(f"###Human: {question}\n###Assistant:"))
        pieces.append(Piece(f" {answer}", is_answer=True))
    pieces.append(Piece("###"))
    return pieces


def _spans(rng: Random, scenes: Sequence[Scene]) -> list[TimeSpan]:
    """Where the clips lie in a long video; in order, mostly in its first hour."""
    time = float(rng.randrange(0, 3400) if rng.random() < 0.95 else rng.randrange(3600, 9000))
    spans = []
    for scene in scenes:
        spans.append(TimeSpan(time, time + scene.duration))
        time += scene.duration + (rng.uniform(0.0, 400.0) if rng.random() < 0.8 else 0.0)
    return spans


def converse(
    rng: Random,
    scenes: Sequence[Scene],
    numbers: Sequence[int] | None,
    *,
    turns: int = 4,
    kinds: Sequence[str] = (),
    any_pair: bool = False,
    syllabus: Syllabus = ALL,
) -> Conversation:
    """A conversation about one to three clips.

    Args:
        rng: Source of chance.
        scenes: What the clips show, in order of time.
        numbers: Numbers of the clips, or ``None`` to put words in their place.
        turns: Questions to ask, if as many are possible.
        kinds: Ask only these kinds.
        any_pair: Whether the clips may show any pair of colour and shape, also one that is held out.
        syllabus: How often what is asked.
    """
    timed = len(scenes) > 1 or rng.random() < 0.5
    # What no clip shows may be denied in words only: denied of clips, it would never be seen in one.
    unspoken = frozenset[tuple[str, str]]() if numbers is None or any_pair else HELD_OUT
    spans: list[TimeSpan | None] = [*_spans(rng, scenes)] if timed else [None] * len(scenes)
    said, topics = _say(rng, len(scenes))
    asked: list[tuple[Question, int | None]] = []
    pool = tuple(kinds) or _pool(syllabus)
    if not kinds and all(len(scene.events) > 1 for scene in scenes):  # few scenes allow it, and it is learned last
        pool += ("order",) * int(len(pool) * syllabus.order)
    if len(scenes) == 1 and rng.random() < 0.4:
        asked = [(question, 0) for question in dialogue(rng, scenes[0], turns, pool, unspoken)]
    for _ in range(turns * 4):
        if len(asked) >= turns:
            break
        drawn = _draw(rng, scenes, spans, said, topics, pool, unspoken, syllabus)
        if drawn is not None and all(drawn[0].question != other.question for other, _ in asked):
            asked.append(drawn)
    rounds = []
    for question, place in asked:
        span = None if place is None or question.answer == NOT_FOUND else spans[place]
        words = reworded(rng, question.question) if rng.random() < syllabus.reworded else question.question
        rounds.append((words, cited_answer(question.answer, span)))
    lines: list[tuple[int | str, TimeSpan | None, str]] = [
        (dense_text(rng, scene) if numbers is None else numbers[i], spans[i], said[i]) for i, scene in enumerate(scenes)
    ]
    shown: tuple[tuple[int, Source] | None, ...] = ()
    claims: tuple[Mapping[str, str] | None, ...] = ()
    if numbers is not None:
        shown = tuple(_shown(question, place, numbers) for question, place in asked)
        claims = tuple(_compared(one, words, scenes) for one, (words, _) in zip(asked, rounds, strict=True))
    return Conversation(
        tuple(assemble(lines, rounds)),
        tuple(question.kind for question, _ in asked),
        tuple(question.seen for question, _ in asked),
        shown,
        claims,
    )


def _pool(syllabus: Syllabus) -> tuple[str, ...]:
    """Every kind as often as it weighs, in halves."""
    return tuple(kind for kind, weight in syllabus.kinds.items() for _ in range(round(weight * 2)))


def _compared(asked: tuple[Question, int | None], words: str, scenes: Sequence[Scene]) -> Mapping[str, str] | None:
    question, place = asked
    if place is None or question.source is None:
        return None
    return compared(words, question.answer, tell_source(scenes[place], question.source))


def _shown(question: Question, place: int | None, numbers: Sequence[int]) -> tuple[int, Source] | None:
    return None if place is None or question.source is None else (numbers[place], question.source)


def _say(rng: Random, count: int) -> tuple[list[str], list[str]]:
    """What is said during each clip (often nothing) and a word that only it holds."""
    said, topics, taken = [], [], set[str]()
    for _ in range(count):
        if rng.random() < 0.45:
            said.append("")
            topics.append("")
        elif rng.random() < 0.5:
            sentence = narrate(rng, taken)
            said.append(sentence.text)
            topics.append(sentence.topic)
        else:
            words = random_words(rng, rng.randint(2, 9))
            said.append(words[0].upper() + words[1:] if rng.random() < 0.4 else words)
            topics.append(rng.choice(words.split()))
    for i, topic in enumerate(topics):
        if topic and any(topic in other.lower().split() for j, other in enumerate(said) if j != i):
            topics[i] = ""
    return said, topics


def _draw(
    rng: Random,
    scenes: Sequence[Scene],
    spans: Sequence[TimeSpan | None],
    said: Sequence[str],
    topics: Sequence[str],
    pool: Sequence[str],
    unspoken: frozenset[tuple[str, str]],
    syllabus: Syllabus,
) -> tuple[Question, int | None] | None:
    """One question that exactly one of the clips (or none) can answer, and the number of that clip."""
    place = rng.randrange(len(scenes))
    scene = scenes[place]
    if any(said) and rng.random() < 0.15:
        return _draw_said(rng, scenes, spans, said, topics)
    span = spans[place]
    if span is not None and scene.events and rng.random() < syllabus.when:
        timed = ask_when(rng, scene, span, rng.choice(scene.events))
        return (timed, place) if _only(timed.facts, scenes, place) else None
    if len(scenes) == 1:
        if rng.random() < 0.03:
            return describe(rng, scene), place
        choose = rng.random() < syllabus.choice
        question = ask_choice(rng, scene) if choose else ask(rng, scene, rng.choice(pool), unspoken)
        return None if question is None else (question, place)
    if rng.random() < 0.08:
        question = ask(rng, scene, "absent", unspoken)  # not "mistaken": another clip may be what is asked about
        if question is None:
            return None
        return None if _happens(question, scenes) else (question, None)
    question = ask(rng, scene, rng.choice([kind for kind in pool if kind in _COMPARABLE] or list(_COMPARABLE)))
    if question is None or not question.facts or not _only(question.facts, scenes, place):
        return None
    return question, place


def _only(facts: frozenset, scenes: Sequence[Scene], place: int) -> bool:
    return all((facts <= scene.facts) == (i == place) for i, scene in enumerate(scenes))


def _happens(question: Question, scenes: Sequence[Scene]) -> bool:
    """Whether any clip may answer the question after all; its words decide, since it asserts nothing here."""
    words = set(question.question.rstrip("?").split())
    for scene in scenes:
        for thing in scene.things:
            if {thing.colour, thing.shape} & words == words & (set(COLOURS) | set(SHAPES)):
                return True
    return False


def _draw_said(
    rng: Random,
    scenes: Sequence[Scene],
    spans: Sequence[TimeSpan | None],
    said: Sequence[str],
    topics: Sequence[str],
) -> tuple[Question, int | None] | None:
    place = rng.choice([i for i, words in enumerate(said) if words])
    scene, answer = scenes[place], f'"{said[place]}"'
    form = rng.random()
    if form < 0.5 and topics[place]:
        topic = topics[place]
        the = "the " if f"the {topic}" in said[place] else ""
        words = rng.choice(
            (
                f"what is said about {the}{topic}?",
                f"what do they say about {the}{topic}?",
                f"what did the speaker say about {the}{topic}?",
                f"what does someone say about {the}{topic}?",
            )
        )
        return Question("said", words, answer, frozenset()), place
    span = spans[place]
    if form < 0.6 and span is not None:
        return Question("said", f"what is said at {format_timecode(span.start)}?", answer, frozenset()), place
    if form < 0.85 and scene.events:
        happening = clause(rng, scene, rng.choice(scene.events))
        if not _only(happening.facts, scenes, place):
            return None
        word = rng.choice(("when", "while"))
        return Question("said", f"what is said {word} {happening.text}?", answer, happening.facts), place
    if sum(1 for words in said if words) > 1:
        return None
    return Question("said", rng.choice(("what is said?", "what do they say?")), answer, frozenset()), place
