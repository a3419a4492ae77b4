"""The models that a benchmark puts its questions to, loaded when first needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from videochat_tools.context import neutral_text
from videochat_tools.errors import BenchmarkError
from videochat_tools.evaluation.benchmarks.footage import Frames

if TYPE_CHECKING:
    from videochat_tools.embeddings import VideoEncoder
    from videochat_tools.engine import ClipTokens
    from videochat_tools.models.videochat2.prompts import ChoicePrompt

__all__ = ["ChatUnderTest", "Models", "VideoChatUnderTest", "thinned"]

MAX_SUBTITLE_TOKENS = 4096  # of the released Video-MME notebooks


class ChatUnderTest(Protocol):
    """What a benchmark needs of a chat model."""

    @property
    def identity(self) -> dict[str, Any]:
        """Names the model in results; a run that is gone on with must have the same."""
        ...

    @property
    def num_frames(self) -> int:
        """Frames that it is shown of a video."""
        ...

    @property
    def frame_size(self) -> int | None:
        """Side of the frames in pixels; None takes them as they are."""
        ...

    def answer(
        self, prompt: ChoicePrompt, question: str, frames: Frames | None, *, before: str = "", max_tokens: int = 100
    ) -> str:
        """What it writes after the start of the answer that the prompt gives; greedy.

        Args:
            prompt: The words around the question.
            question: With its options.
            frames: Of the video; None asks without one.
            before: Stands before the video, such as its subtitles.
            max_tokens: Longest answer.
        """
        ...


class VideoChatUnderTest:
    """A VideoChat of any size, asked in the exact words of the released notebooks.

    Args:
        model: Folder or hub id; None is the bundled nano.
        device: Where it runs.
        frames: How many it is shown of a video; None are as many as it was trained with. The networks take any number,
            and the released tables are of twice or four times as many.
    """

    def __init__(self, model: str | Path | None = None, device: str = "auto", frames: int | None = None) -> None:
        from videochat_tools.engine import load_engine

        self._engine = load_engine(model, device)
        self._frames = frames
        self._watched: tuple[bytes, ClipTokens] | None = None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Name of the folder, a fingerprint of all weights, and the number of frames."""
        from videochat_tools.embeddings import fingerprint_folder

        folder = self._engine.folder
        name = "nano" if self._engine.model is None else folder.name
        return {"model": name, "fingerprint": fingerprint_folder(folder), "frames": self.num_frames}

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self._frames or self._engine.num_frames

    @property
    def frame_size(self) -> int | None:
        """Side of the frames; None where the model cuts them into tiles itself."""
        return None if self._engine.network.tiled else self._engine.frame_size

    def answer(
        self, prompt: ChoicePrompt, question: str, frames: Frames | None, *, before: str = "", max_tokens: int = 100
    ) -> str:
        """See :class:`ChatUnderTest`.

        Raises:
            ContextTooLongError: The question does not fit the model.
        """
        from videochat_tools.engine import ReplySettings

        network = self._engine.network
        tokens = [] if frames is None else [self._watch(frames, prompt.system)]
        question = neutral_text(question)

        def rendered(told: str) -> str:
            messages = prompt.messages(network.processor.template, question, video=frames is not None)
            messages[0] = (messages[0][0], neutral_text(told) + (messages[0][1] or ""))
            system, start = prompt.system, prompt.answer_start or None
            return network.processor.render_chat(messages, system=system, answer_start=start)

        if before:
            views = [len(each) // network.tokens_per_view for each in tokens]
            used = len(network.processor.tokenize_prompt(rendered(""), views)[0])
            room = min(MAX_SUBTITLE_TOKENS, self._engine.context_tokens - used - max_tokens)
            before = thinned(before, lambda text: len(self._engine.token_ids(neutral_text(text))), room)
        settings = ReplySettings(max_tokens=max_tokens)
        return "".join(network.continue_prompt(rendered(before), tokens, settings))

    def _watch(self, frames: Frames, instruction: str) -> ClipTokens:
        """Clip tokens; those of the last frames are kept, since many questions follow each other about one video."""
        key = instruction.encode() + frames.tobytes()
        if self._watched is None or self._watched[0] != key:
            tokens = self._engine.network.watch(frames[None], instruction=instruction or None)[0]
            self._watched = key, np.asarray(tokens, np.float16)
        return self._watched[1]


class Models:
    """The models of one run.

    Attributes:
        chat_model: Folder or hub id, or a model itself; None is the bundled nano.
        encoder_model: The same of the video encoder.
        device: Where they run.
        frames: How many the chat model is shown of a video; None are as many as it was trained with.
    """

    def __init__(
        self,
        chat: str | Path | ChatUnderTest | None = None,
        encoder: str | Path | VideoEncoder | None = None,
        device: str = "auto",
        frames: int | None = None,
    ) -> None:
        self.chat_model = chat
        self.encoder_model = encoder
        self.device = device
        self.frames = frames

    @cached_property
    def chat(self) -> ChatUnderTest:
        """The chat model."""
        if self.chat_model is None or isinstance(self.chat_model, str | Path):
            return VideoChatUnderTest(self.chat_model, self.device, self.frames)
        return self.chat_model

    @cached_property
    def encoder(self) -> VideoEncoder:
        """The video encoder."""
        from videochat_tools.embeddings import load_encoder

        if self.encoder_model is None or isinstance(self.encoder_model, str | Path):
            return load_encoder(self.encoder_model, device=None if self.device == "auto" else self.device)
        return self.encoder_model

    @property
    def chat_folder(self) -> str | None:
        """Folder or hub id of the chat model, for a library that loads it itself.

        Raises:
            BenchmarkError: The chat model was given as an object.
        """
        if self.chat_model is None or isinstance(self.chat_model, str | Path):
            return None if self.chat_model is None else str(self.chat_model)
        raise BenchmarkError("this benchmark asks a whole library; give the chat model by its folder or hub id")


def thinned(text: str, count: Callable[[str], int], room: int) -> str:
    """All lines that fit into ``room`` tokens, or evenly spaced ones: a video's end is told as well as its start."""
    lines = text.splitlines(keepends=True)
    keep = len(lines)
    while keep and count("".join(_spread(lines, keep))) > room:
        keep = keep * 9 // 10
    return "".join(_spread(lines, keep))


def _spread(lines: list[str], keep: int) -> list[str]:
    return [lines[number * len(lines) // keep] for number in range(keep)]
