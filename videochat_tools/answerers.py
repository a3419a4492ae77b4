"""Who answers: every kind of chat model is shown the clips in the way in which it can take them in.

=====================================  ==================================================================
chat model                             is shown
=====================================  ==================================================================
``ChatVideoChat``                      the clips themselves: their kept tokens, or else the frames again
one whose ``profile`` takes images     pictures of each clip, with its time and transcript
any other                              time, transcript and caption of each clip (the VideoChat-Text way)
=====================================  ==================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.context import Budget, clip_messages, fit_clips, picture_messages, text_messages
from videochat_tools.errors import ContextTooLongError
from videochat_tools.retrievers.query import without_anchor, without_moment
from videochat_tools.stills import take_stills
from videochat_tools.types import SearchHit, uri_to_path

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

    from videochat_tools.engine import ClipSource

__all__ = ["Answerer", "PictureAnswerer", "TextAnswerer", "TokenAnswerer", "can_see"]

MAX_GLANCES = 3  # clips that a model which looks at one at a time is shown, best first
PICTURES_PER_CLIP = 4
MAX_CLIPS_IN_PICTURES = 4
PICTURE_TOKENS = 400  # of one still in the context of common vision models, counted high
CAPTION_TOKENS = 64
ASSUMED_CONTEXT_TOKENS = 4096  # of another chat model that does not state its own
CHARACTERS_PER_TOKEN = 3  # of English in common vocabularies it is about 4; the count must not come out too low
TURN_TOKENS = 12  # roles and separators of one turn, in any of the templates


def can_see(chat: BaseChatModel) -> bool:
    """Whether a chat model says of itself that it takes pictures."""
    profile: Any = chat.profile or {}
    return isinstance(chat, ChatVideoChat) or bool(profile.get("image_inputs"))


class Answerer(ABC):
    """A chat model that is asked about clips."""

    chat: BaseChatModel

    def glances(self, clips: Sequence[SearchHit], convinces: Callable[[SearchHit], bool]) -> list[list[SearchHit]]:
        """What the model is shown, until it finds the answer there: all clips at once, unless it says otherwise."""
        return [list(clips)]

    def choose(self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage] = ()) -> list[SearchHit]:
        """Those of the clips that fit the model beside the question and the earlier turns, best first.

        Raises:
            ContextTooLongError: question and history do not fit the model.
        """
        other = "\n".join([*(message.text for message in history), question])
        return fit_clips(clips, other, self._budget(TURN_TOKENS * (len(history) + 2), len(clips)))

    def choose_first(
        self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage]
    ) -> tuple[list[SearchHit], list[BaseMessage]]:
        """As :meth:`choose`, with as many of the last turns (question and answer) as fit beside the clips.

        Raises:
            ContextTooLongError: the question alone does not fit the model.
        """
        recalled = list(history)
        while True:
            try:
                return self.choose(question, clips, recalled), recalled
            except ContextTooLongError:
                if not recalled:
                    raise
                recalled = recalled[2:]

    def answer(self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage] = ()) -> str:
        """What the model says about the chosen clips."""
        return self.chat.invoke(self.messages(question, clips, history)).text

    @abstractmethod
    def messages(
        self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage] = ()
    ) -> list[BaseMessage]:
        """The conversation that the model is sent."""

    @abstractmethod
    def _budget(self, room: int, clips: int) -> Budget:
        """What fits the model, less ``room`` tokens."""


@dataclass(frozen=True)
class TokenAnswerer(Answerer):
    """Our own model, which watches clips.

    ``clip_source`` gives the library's kept tokens. It is ``None`` where another model made them, to which they mean
    nothing, or where the clips are no whole segments; then the clips are decoded again.
    """

    chat: ChatVideoChat
    clip_source: ClipSource | None = None

    def glances(self, clips: Sequence[SearchHit], convinces: Callable[[SearchHit], bool]) -> list[list[SearchHit]]:
        """All clips, or one after another.

        A model that was trained to look at one clip at a time may still tell that a clip is not the one asked about,
        so it is shown the next best.
        """
        if self.chat.engine.grounding.max_clips > 1:
            return [list(clips)]
        return [[clips[0]], *([clip] for clip in clips[1:MAX_GLANCES] if convinces(clip))]

    @property
    def watching(self) -> ChatVideoChat:
        """The model with the library's kept tokens at hand."""
        return self.chat if self.clip_source is None else self.chat.model_copy(update={"clip_source": self.clip_source})

    def answer(self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage] = ()) -> str:
        """What the model says about the chosen clips."""
        return self.watching.invoke(self.messages(question, clips, history)).text

    def messages(
        self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage] = ()
    ) -> list[BaseMessage]:
        """The clips, the earlier turns, the question."""
        if all(clip.anchor is not None for clip in clips):  # what the question speaks of is not shown
            question = without_anchor(question)
        engine = self.chat.engine
        if engine.grounding.max_clips == 1:  # the search has found the moment, and the model is shown no other
            question = without_moment(question)
        cached = self.clip_source is not None
        return clip_messages(clips, question, history, cached=cached, frames=engine.told_frames)

    def _budget(self, room: int, clips: int) -> Budget:
        engine = self.chat.engine
        # The reply needs room too; a quarter of a small context is enough for an answer with its citation.
        size = engine.context_tokens - min(self.chat.max_tokens, engine.context_tokens // 4)
        return Budget(
            max_input_tokens=size - room,
            tokens_per_clip=engine.tokens_per_clip,
            max_clips=engine.grounding.max_clips,
            count_tokens=self.chat.get_num_tokens,
            frames=engine.told_frames,
        )


@dataclass(frozen=True)
class PictureAnswerer(Answerer):
    """A chat model of another kind that sees pictures."""

    chat: BaseChatModel

    def messages(
        self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage] = ()
    ) -> list[BaseMessage]:
        """The earlier turns, then pictures and notes of the clips with the question; decodes the pictures."""
        pictures = {clip: take_stills(uri_to_path(clip.uri), clip.span, PICTURES_PER_CLIP) for clip in clips}
        return picture_messages(pictures, question, history)

    def _budget(self, room: int, clips: int) -> Budget:
        tokens = PICTURES_PER_CLIP * PICTURE_TOKENS
        return _assumed_budget(self.chat, room, tokens, min(clips, MAX_CLIPS_IN_PICTURES))


@dataclass(frozen=True)
class TextAnswerer(Answerer):
    """A chat model that only reads. ``caption`` says what is seen in a clip; empty where it cannot tell."""

    chat: BaseChatModel
    caption: Callable[[SearchHit], str]

    def messages(
        self, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage] = ()
    ) -> list[BaseMessage]:
        """The earlier turns, then notes of the clips with the question; makes the captions."""
        return text_messages(clips, question, history, captions={clip: self.caption(clip) for clip in clips})

    def _budget(self, room: int, clips: int) -> Budget:
        return _assumed_budget(self.chat, room, CAPTION_TOKENS, clips)


def _assumed_budget(chat: BaseChatModel, room: int, tokens_per_clip: int, max_clips: int) -> Budget:
    """The budget of a model whose tokenizer is not at hand."""
    profile: Any = chat.profile or {}
    size = int(profile.get("max_input_tokens") or ASSUMED_CONTEXT_TOKENS)
    return Budget(size - room, tokens_per_clip, max_clips, lambda text: len(text) // CHARACTERS_PER_TOKEN + 1)
