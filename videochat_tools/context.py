"""Evidence into a prompt: the exact words around every clip, and what of it fits the model.

The strings here are the only place where they are written. The code that trains the nano imports the same
functions, so that a question about a library looks at run time as it looked in training::

    ###Human: <Video><VideoHere></Video> [00:42–00:51] They say: "the harbour opens at nine"
    <Video><VideoHere></Video> [01:10–01:16]
    ###Human: what is said about the harbour?
    ###Assistant: the harbour opens at nine [00:42–00:51]###

This module writes the part between ``###Human: `` and the next ``###``; roles and separators belong to the
prompt templates of the model's processor. Nothing heavy is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from videochat_tools.errors import ContextTooLongError
from videochat_tools.types import SearchHit, TimeSpan, format_timecode, media_fragment

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from videochat_tools.stills import Still

VIDEO_TAG = "<Video><VideoHere></Video>"  # VideoChat2's own tags; the clip tokens stand where <VideoHere> is
IMAGE_TAG = "<Image><ImageHere></Image>"
FRAMES_LABEL = "seen from"  # before the times at which the parts of a clip begin and the last one ends
SPEECH_LABEL = "They say:"
SIGHT_LABEL = "In the picture:"  # of a caption, for models that only read
NOT_FOUND = "Not found in the video."  # also what the model is trained to say when no clip holds the answer

_PLACEHOLDER = re.compile(r"</?(?:Video|Image)>|<(?:Video|Image)Here>")
_SEPARATOR = re.compile(r"#{3,}")


def neutral_text(text: str) -> str:
    """Defuse in somebody's words what the templates would read as their own marks: tags and ``###``."""
    return _SEPARATOR.sub("##", _PLACEHOLDER.sub(lambda tag: tag[0].strip("<>"), text))


def spoken_text(text: str) -> str:
    """A transcript as it stands between the quotation marks: one line, no double quotes, no template marks."""
    return " ".join(neutral_text(text).replace('"', "'").split())


def citation(span: TimeSpan) -> str:
    """How a span is written in a clip line and cited in an answer: ``[00:42–00:51]`` (en dash)."""
    return f"[{span}]"


def clip_caption(span: TimeSpan | None, text: str = "", frames: int = 0) -> str:
    """What stands beside one clip: its timecode, the times of its parts, what is said; each where there is one.

    Args:
        span: of the clip.
        text: what is said in it.
        frames: how many frames it is seen in, for models that were trained to be told the times: a frame is taken from
            the middle of a part, and every part's beginning is told, then the end.
    """
    parts = []
    if span is not None:
        parts.append(citation(span))
        if frames:
            parts.append(f"{FRAMES_LABEL} {' '.join(part_timecodes(span, frames))}")
    if spoken := spoken_text(text):
        parts.append(f'{SPEECH_LABEL} "{spoken}"')
    return " ".join(parts)


def part_timecodes(span: TimeSpan, frames: int) -> list[str]:
    """Where the parts of a clip begin that its frames are taken from, and where the last one ends: ``12:35.4``."""
    borders = (span.start + span.duration * number / frames for number in range(frames + 1))
    return [format_timecode(border, tenths=True) for border in borders]


def clip_line(span: TimeSpan | None, text: str = "", frames: int = 0) -> str:
    r"""One clip of a visual message: tag, :func:`clip_caption` and the closing ``\n``."""
    caption = clip_caption(span, text, frames)
    return f"{VIDEO_TAG} {caption}\n" if caption else f"{VIDEO_TAG}\n"


def cited_answer(text: str, span: TimeSpan | None) -> str:
    """An answer as the model is trained to give it: ``red [00:42–00:51]``, without a span just ``red``."""
    return text if span is None else f"{text} {citation(span)}"


@dataclass(frozen=True, slots=True)
class Budget:
    """What fits a model. All counts are tokens of the model's own tokenizer."""

    max_input_tokens: int
    tokens_per_clip: int  # clip tokens of one clip; 0 for a model that reads only the words
    max_clips: int  # as many as the model was trained to compare
    count_tokens: Callable[[str], int]
    frames: int = 0  # whose times stand beside each clip

    def count_line(self, clip: SearchHit, text: str = "") -> int:
        """Tokens of a clip's line beside those of the clip itself."""
        return self.count_tokens(clip_line(clip.span, text, self.frames))


def fit_clips(clips: Sequence[SearchHit], other_text: str, budget: Budget) -> list[SearchHit]:
    """Choose the clips that fit, and shorten what is said in them, at word borders, where it does not.

    Clips are taken best first, at most ``budget.max_clips``. Each may use an equal share of what is left, so that
    one long transcript cannot push out the next clip; what it leaves over goes to the clips after it.

    Args:
        clips: best first.
        other_text: everything else in the prompt: instructions, earlier turns, the question.
        budget: what fits.

    Returns:
        The chosen clips, best first, their ``text`` as it goes into the prompt.

    Raises:
        ContextTooLongError: when not even the question and the best clip without its transcript fit.
    """
    left = budget.max_input_tokens - budget.count_tokens(other_text)
    wanted = list(clips[: budget.max_clips])
    chosen: list[SearchHit] = []
    for index, clip in enumerate(wanted):
        bare = budget.tokens_per_clip + budget.count_line(clip)
        if bare > left:
            break
        share = max(left // (len(wanted) - index), bare)
        text = _shorten(clip, share - budget.tokens_per_clip, budget)
        chosen.append(replace(clip, text=text))
        left -= budget.tokens_per_clip + budget.count_line(clip, text)
    if wanted and not chosen:
        raise ContextTooLongError(
            f"the question with its history leaves {max(left, 0)} of {budget.max_input_tokens} tokens, too few for a "
            f"clip of {budget.tokens_per_clip} tokens; ask a shorter question or drop earlier turns"
        )
    return chosen


def _shorten(clip: SearchHit, room: int, budget: Budget) -> str:
    """The longest run of first words whose clip line has at most ``room`` tokens."""
    words = spoken_text(clip.text).split()
    if budget.count_line(clip, " ".join(words)) <= room:
        return " ".join(words)
    low, high = 0, len(words) - 1  # `low` words fit, `high + 1` do not
    while low < high:
        middle = (low + high + 1) // 2
        if budget.count_line(clip, " ".join(words[:middle]) + " …") <= room:
            low = middle
        else:
            high = middle - 1
    return " ".join(words[:low]) + " …" if low else ""


def in_order_of_time(clips: Iterable[SearchHit]) -> list[SearchHit]:
    """Clips as the model sees them: video after video (that of the best clip first), each from its start on."""
    given = list(clips)
    videos = list(dict.fromkeys(clip.video_id for clip in given))
    return sorted(given, key=lambda clip: (videos.index(clip.video_id), clip.span))


def clip_messages(
    clips: Sequence[SearchHit],
    question: str,
    history: Sequence[BaseMessage] = (),
    *,
    cached: bool = True,
    frames: int = 0,
) -> list[BaseMessage]:
    """The conversation for a model that watches clips: the clips, the earlier turns, the question.

    Args:
        clips: the chosen clips, best first.
        question: what is asked now.
        history: earlier questions and answers, oldest first.
        cached: name the clips as library segments (``file_id``, answered from the token cache); otherwise by the
            place in their file, which decodes them again.
        frames: how many frames of each clip to tell the times of, see :func:`clip_caption`.
    """
    from langchain_core.messages import HumanMessage

    blocks: list[str | dict[str, Any]] = []
    for clip in in_order_of_time(clips):
        name = media_fragment(clip.uri, clip.span)
        blocks.append(
            {
                "type": "video",
                "file_id" if cached else "url": name,
                "extras": {"caption": clip_caption(clip.span, clip.text, frames)},
            }
        )
    return [HumanMessage(content=blocks), *history, HumanMessage(content=question)]


_RULES = (
    "Answer in one short sentence and cite the clip it rests on by its time in square brackets, exactly as written, "
    f"for example {citation(TimeSpan(42, 51))}. If the {{shown}} do not hold the answer, reply exactly: {NOT_FOUND}"
)
TEXT_INSTRUCTIONS = (
    "You answer questions about videos from notes on the clips that a search has found. Use nothing but the notes. "
    + _RULES.format(shown="notes")
)
PICTURE_INSTRUCTIONS = (
    "You answer questions about videos from pictures and notes of the clips that a search has found. Use nothing else. "
    + _RULES.format(shown="pictures and notes")
)


def text_messages(
    clips: Sequence[SearchHit],
    question: str,
    history: Sequence[BaseMessage] = (),
    captions: Mapping[SearchHit, str] = MappingProxyType({}),
) -> list[BaseMessage]:
    """The conversation for a chat model that reads: notes of time, picture and transcript (the VideoChat-Text way).

    Args:
        clips: the chosen clips, best first.
        question: what is asked now.
        history: earlier questions and answers, oldest first.
        captions: what is seen in a clip, in words, where that is known.
    """
    from langchain_core.messages import HumanMessage, SystemMessage

    notes = "\n".join(text_note(clip, captions.get(clip, "")) for clip in in_order_of_time(clips))
    return [
        SystemMessage(content=TEXT_INSTRUCTIONS),
        *history,
        HumanMessage(content=f"Notes on the clips:\n{notes}\n\nQuestion: {question}"),
    ]


def text_note(clip: SearchHit, caption: str = "") -> str:
    """One clip for a model that reads: name of the video, time, what is seen (if that is known), what is said."""
    said, seen = spoken_text(clip.text), spoken_text(caption)
    parts = [f'{SIGHT_LABEL} "{seen}"'] if seen else []
    parts.append(f'{SPEECH_LABEL} "{said}"' if said else "(nothing is said)")
    return f"{clip.video} {citation(clip.span)} " + " ".join(parts)


def picture_messages(
    pictures: Mapping[SearchHit, Sequence[Still]], question: str, history: Sequence[BaseMessage] = ()
) -> list[BaseMessage]:
    """The conversation for a chat model that sees pictures: every chosen clip as its note and its pictures.

    Args:
        pictures: those of each clip, in order of time; the clips best first.
        question: what is asked now.
        history: earlier questions and answers, oldest first.
    """
    from langchain_core.messages import HumanMessage, SystemMessage

    blocks: list[str | dict[str, Any]] = []
    for clip in in_order_of_time(pictures):
        blocks.append({"type": "text", "text": f"{text_note(clip)} Its pictures:"})
        blocks += [picture.image_block() for picture in pictures[clip]]
    blocks.append({"type": "text", "text": f"Question: {question}"})
    return [SystemMessage(content=PICTURE_INSTRUCTIONS), *history, HumanMessage(content=blocks)]
