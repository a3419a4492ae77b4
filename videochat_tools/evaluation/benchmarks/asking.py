"""Asking a whole library, and its chat model alone: what the benchmarks about libraries and their controls share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from videochat_tools.context import clip_messages
from videochat_tools.engine import ChatEngine, ClipTokens, load_engine
from videochat_tools.errors import VideoChatError
from videochat_tools.evaluation.benchmarks.footage import Frames, blank_frames
from videochat_tools.types import SearchHit, TimeSpan
from videochat_tools.video_library import VideoLibrary

__all__ = ["BlindableLibrary"]


class BlindableLibrary(VideoLibrary):
    """A library for the controls: its chat model can be blinded, or be asked without any search.

    With ``blind`` the search finds what it always finds, but the chat model is shown black clips; what is said in
    them it is told all the same.
    """

    blind = False

    @cached_property
    def engine(self) -> ChatEngine:
        """Its own chat model."""
        return load_engine(self._model)

    def clip_source(self, name: str) -> ClipTokens:
        """Tokens of a clip, or of a black one."""
        return self._black if self.blind else super().clip_source(name)

    @cached_property
    def _black(self) -> ClipTokens:
        black = blank_frames(self.engine.num_frames, self.engine.frame_size).frames
        tokens: ClipTokens = self.engine.watch(black[None])[0]
        return tokens

    def ask_alone(self, question: str) -> str:
        """What the chat model says without any clip."""
        return self.chat_model.invoke(question).text

    def ask_about(self, question: str, frames: Frames, video: Path, seconds: float) -> str:
        """What the chat model says about frames that are spread over all of a video."""
        tokens: ClipTokens = self.engine.watch(frames[None])[0]
        hit = SearchHit("all", video.name, video.absolute().as_uri(), TimeSpan(0.0, seconds), 1.0)
        shown = self.chat_model.model_copy(update={"clip_source": lambda name: tokens})
        return shown.invoke(clip_messages([hit], question, frames=self.engine.told_frames)).text

    def add_new(self, videos: Sequence[Path]) -> dict[Path, VideoChatError]:
        """Add those that are not here yet; returns what is wrong with those that cannot be added."""
        known = {record.path for record in self.list()}
        results = self.add([path for path in videos if path.absolute() not in known])
        return {result.source: result.error for result in results if result.error is not None}
