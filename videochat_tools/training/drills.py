"""Drills of the language stage: what talking about clips rests on, practised on words without sense.

Copying, looking up what stands with what, reading a transcript, finding the letter of an option, calling a tool with
what a question names.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from random import Random
from typing import Any

from videochat_tools.context import citation, cited_answer
from videochat_tools.tool_calling import ReplyForm, ToolSpec, call_text
from videochat_tools.training.conversations import Conversation, Piece, assemble
from videochat_tools.training.world.choices import lettered
from videochat_tools.training.world.language import NUMBERS
from videochat_tools.training.world.narration import PHRASES, SPEAKERS, narrate, random_words
from videochat_tools.training.world.questions import Question
from videochat_tools.training.world.scene import COLOURS, DIRECTIONS, SHAPES
from videochat_tools.types import TimeSpan, format_timecode

__all__ = [
    "TRANSCRIPT_KINDS",
    "ask_transcript",
    "binding_drill",
    "copy_drill",
    "draw_transcript",
    "option_drill",
    "read_transcript",
    "tool_drill",
    "transcript_drill",
]

TRANSCRIPT_KINDS = ("first", "last", "at", "after", "before", "who")
_Line = tuple[TimeSpan, str, str]  # when, who, what


def draw_transcript(rng: Random, count: int, *, short: bool = False) -> list[_Line]:
    """Lines of a transcript one after another; whoever speaks says one thing, of a word or two where ``short``."""
    time = float(rng.randrange(0, 3400) if rng.random() < 0.9 else rng.randrange(3600, 9000))
    lines, taken = [], set[str]()
    for speaker in rng.sample(SPEAKERS, count):
        if short:
            words = random_words(rng, rng.randint(1, 2))
        else:
            words = narrate(rng, taken).text if rng.random() < 0.6 else random_words(rng, rng.randint(2, 7))
        end = time + rng.uniform(2.0, 5.0)
        lines.append((TimeSpan(time, end), speaker, words))
        time = end + rng.uniform(0.0, 30.0)
    return lines


def read_transcript(lines: Sequence[_Line]) -> str:
    """A transcript: when, who, what, one line each; written as beside a clip, with a name for "They say"."""
    return "".join(f'{citation(span)} {speaker}: "{words}"\n' for span, speaker, words in lines)


def ask_transcript(rng: Random, lines: Sequence[_Line], kind: str) -> Question:
    """One question about a transcript of two lines or more; ``kind`` is one of :data:`TRANSCRIPT_KINDS`."""
    place = {"first": 0, "last": len(lines) - 1}.get(kind, rng.randrange(len(lines)))
    if kind in ("after", "before"):  # what is quoted is the neighbour
        place = rng.randrange(1, len(lines)) if kind == "after" else rng.randrange(len(lines) - 1)
    span, speaker, words = lines[place]
    answer = f'"{words}"'
    if kind == "who":
        question, answer = f'who says "{words}"?', speaker
    elif kind == "at":
        question = f"what is said at {format_timecode(span.start)}?"
    elif kind in ("after", "before"):
        quoted = lines[place - 1 if kind == "after" else place + 1][2]
        question = f'what is said {kind} "{quoted}"?'
    else:
        question = f"what is said {kind}?"
    return Question(kind, question, cited_answer(answer, span), frozenset())


def transcript_drill(rng: Random) -> Conversation:
    """Reading a given transcript."""
    # Few lines, and lines of few words, first show what is asked.
    lines = draw_transcript(rng, rng.choice((2, 3, 4, 4, 5, 6, 6)), short=rng.random() < 0.25)
    if rng.random() < 0.4:
        lines = _alike(rng, lines)
    kinds = dict.fromkeys(rng.choices(TRANSCRIPT_KINDS, (1, 1, 3, 4, 4, 1), k=8))  # those learned late more often
    asked = [ask_transcript(rng, lines, kind) for kind in kinds][:4]
    pieces = [Piece(f"###Human: {read_transcript(lines)}")]
    pieces += assemble([], [(question.question, question.answer) for question in asked])
    return Conversation(tuple(pieces), tuple(f"t_{question.kind}" for question in asked))


def _alike(rng: Random, lines: Sequence[_Line]) -> list[_Line]:
    """The same lines with other words, which begin with the same word as far as there are such: most confused."""
    first, taken = narrate(rng).text.split()[0], set[str]()
    said = []
    for span, speaker, _ in lines:
        drawn = [narrate(rng, taken).text for _ in range(4)]
        said.append((span, speaker, next((words for words in drawn if words.split()[0] == first), drawn[0])))
    return said


def copy_drill(rng: Random) -> Conversation:
    """Repeat words, or what stands beside a word: the circuit that quoting and citing need."""
    form = rng.random()
    if form < 0.4:
        words = random_words(rng, rng.randint(2, 9)) if form < 0.25 else _foreign(rng)
        return Conversation(tuple(assemble([], [(f'say "{words}"', f'"{words}"')])), ("copy",))
    if form < 0.6:
        letters = "".join(rng.choice(string.ascii_letters) for _ in range(rng.randint(3, 9)))
        one, other = (f"{rng.randrange(100):02d}:{rng.randrange(60):02d}" for _ in range(2))
        times = f"{letters} [{one}–{other}]"
        return Conversation(tuple(assemble([], [(f'say "{times}"', f'"{times}"')])), ("copy",))
    lines = []
    spans = []
    for _ in range(rng.randint(2, 4)):
        start = rng.randrange(0, 5900)
        spans.append(TimeSpan(start, start + rng.randint(2, 90)))
        lines.append((" " + random_words(rng, rng.randint(1, 3)) + " ", spans[-1], ""))
    rounds = []
    for place in rng.sample(range(len(lines)), 2):
        rounds.append((f"when is{lines[place][0].rstrip()}?", cited_answer("there", spans[place])))
    return Conversation(tuple(assemble(lines, rounds)), ("lookup",) * 2)


def option_drill(rng: Random) -> Conversation:
    """Multiple choice that gives its answer away: what is left is to find the letter.

    The word is named before the options, as questions are, after them, or both: after them it is found first. No round
    has words of an earlier one, where they stood beside other letters.
    """
    rounds = []
    for pool in rng.sample(_OPTIONS, rng.choice((1, 2, 2, 3))):
        options = rng.sample(pool, rng.choice((2, 2, 3, 4)))
        right = rng.choice(options)
        ask = rng.choice((f'say "{right}"', f"what is with {right}?"))
        question, answer = lettered(rng, ask, options, right)
        place = rng.random()
        if place < 0.35:
            question = f"{question}\n{ask}"
        elif place < 0.6:
            question = f"{question.removeprefix(f'Question: {ask}').lstrip()}\n{ask}"
        rounds.append((question, answer))
    return Conversation(tuple(assemble([], rounds)), ("option",) * len(rounds))


_OPTIONS = (tuple(COLOURS), SHAPES, tuple(DIRECTIONS), NUMBERS[1:6])


def binding_drill(rng: Random) -> Conversation:
    """Which word stands with which: pairs, asked from either side.

    What stands between the two words varies: the letter of an option and the name of a speaker are not next to theirs.
    """
    count = rng.randint(2, 4)
    firsts, seconds = _pair_words(rng)
    before, between, after = rng.choice(_PAIRINGS)
    if before == "(":
        firsts = list("ABCD")
    pairs = list(zip(firsts[:count], seconds[:count], strict=True))
    text = " " + ", ".join(f"{before}{one}{between}{other}{after}" for one, other in pairs) + " "
    rounds = []
    for one, other in rng.sample(pairs, len(pairs)):
        form = rng.random()
        if form < 0.3:
            rounds.append((f"what is with {one}?", other))
        elif form < 0.8:
            rounds.append((f"what is with {other}?", one))
        else:
            true = rng.random() < 0.5
            shown = other if true else rng.choice([wrong for _, wrong in pairs if wrong != other])
            rounds.append((f"is there a {one} {shown}?", "yes" if true else "no"))
    return Conversation(tuple(assemble([(text, None, "")], rounds)), ("binding",) * len(rounds))


_PAIRINGS = (("", " ", ""), ("", " ", ""), ("(", ") ", ""), ("(", ") ", ""), ("", ": ", ""), ("", ': "', '"'))


def _pair_words(rng: Random) -> tuple[list[str], list[str]]:
    if rng.random() < 0.6:
        return rng.sample(tuple(COLOURS), 4), rng.sample(SHAPES, 4)
    if rng.random() < 0.5:
        return rng.sample(SPEAKERS, 4), rng.sample(PHRASES[2], 4)
    words = list(dict.fromkeys(random_words(rng, 30).split()))
    return words[:4], words[4:8]


_SCRIPTS = ((0x4E00, 0x9FA0), (0x3041, 0x3097), (0x30A1, 0x30FB), (0x0430, 0x0450), (0x05D0, 0x05EB))


def tool_drill(rng: Random) -> Conversation:
    """Calling a tool with what the question says: its name and its arguments have to be copied.

    Tools are told by their signatures: schemas are spelled letter by letter, several hundred tokens of them.
    """
    specs = [_draw_tool(rng) for _ in range(rng.choice((1, 1, 1, 2)))]
    told = ReplyForm.of(specs, "any").instructions(len, 10_000, brief=True)
    rounds = [_tool_round(rng, rng.choice(specs)) for _ in range(2)]
    return Conversation((Piece(told), *assemble([], rounds)), ("call",) * len(rounds))


def _identifier(rng: Random) -> str:
    """A name in a programming language: of known words, or of letters, as most names are to so few words."""
    parts = []
    for _ in range(rng.choice((1, 1, 2))):
        letters = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 8)))
        parts.append(letters if rng.random() < 0.35 else rng.choice(rng.choice(PHRASES)).replace("'", ""))
    return "_".join(parts)


def _draw_tool(rng: Random) -> ToolSpec:
    parameters = {_identifier(rng): rng.choice(("integer", "string")) for _ in range(rng.choice((1, 1, 2)))}
    schema: dict[str, Any] = {
        "properties": {name: {"type": kind} for name, kind in parameters.items()},
        "required": [*parameters],
        "type": "object",
    }
    return ToolSpec(_identifier(rng), "", schema)


def _tool_round(rng: Random, tool: ToolSpec) -> tuple[str, str]:
    types = {name: schema["type"] for name, schema in tool.parameters["properties"].items()}
    values: dict[str, Any] = {}
    said: list[str] = []
    noun = rng.choice(rng.choice(PHRASES))
    if [*types.values()] == ["string", "string"] and rng.random() < 0.6:  # a name, and what is said of it
        called, kind = _argument(rng), random_words(rng, rng.randint(1, 3))
        if rng.random() < 0.5:  # "a Chinese company"
            kind = kind.capitalize()
        quote = rng.choice("'\"")
        other = random_words(rng, 2)
        if rng.random() < 0.6:  # a name in other letters
            other = other.title()
        words = f"{noun.capitalize()} a {noun} named {quote}{called}{quote} ({other}) - a {kind}"
        return words, call_text(tool.name, dict(zip(types, (called, kind), strict=True)))
    for name, kind in types.items():
        if kind == "integer":
            values[name] = rng.randrange(-9, 1000) if rng.random() < 0.5 else rng.randrange(10)
            said.append(str(values[name]))
        else:
            values[name] = _argument(rng)
            quote = rng.choice(("'", '"', "'", "“"))
            closing = "”" if quote == "“" else quote
            plain = " " not in values[name] and rng.random() < 0.3
            said.append(values[name] if plain else f"{quote}{values[name]}{closing}")
    if len(said) == 1 and rng.random() < 0.5:
        first = said[0]
        question = rng.choice(
            (
                f"What is the value of {tool.name}({first})? Use the tool.",
                f"Using the tool, {noun} a {first} {rng.choice(rng.choice(PHRASES))}.",
                f"{noun.capitalize()} a {noun} named {first} ({random_words(rng, 2)}) - a {random_words(rng, 2)}",
                f"{noun} {first}",
            )
        )
    else:
        listed = " and ".join(f"{name} {word}" for name, word in zip(types, said, strict=True))
        question = rng.choice((f"Call {tool.name} with {listed}.", f"use {tool.name}: {listed}", f"{listed}"))
    return question, call_text(tool.name, values)


def _argument(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.45:
        words = random_words(rng, rng.randint(1, 4))
        return words.capitalize() if rng.random() < 0.4 else words
    if draw < 0.6:
        return "".join(rng.choice(string.ascii_letters) for _ in range(rng.randint(2, 8))).capitalize()
    return _foreign(rng)


def _foreign(rng: Random) -> str:
    """Letters of which every one is several bytes, and most begin alike; often of two scripts, as in Japanese."""
    scripts = rng.sample(_SCRIPTS, rng.choice((1, 1, 2)))
    most = 9 // len(scripts) + 1
    return "".join(chr(rng.randrange(*script)) for script in scripts for _ in range(rng.randint(2, most)))
