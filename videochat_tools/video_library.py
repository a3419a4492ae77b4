"""A library that answers: search, watch the clips, ask a chat model, verify what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videochat_tools.answering import check_answer, not_found
from videochat_tools.context import Budget, clip_messages, fit_clips, text_messages
from videochat_tools.dialogue import retrieval_query
from videochat_tools.engine import ChatEngine, ClipTokens, load_engine
from videochat_tools.errors import UnknownVideoError
from videochat_tools.library import LibraryStore
from videochat_tools.retrievers.query import analyse, content_words, without_moment
from videochat_tools.retrievers.temporal import CHANNELS
from videochat_tools.types import Answer, SearchHit, TimeSpan, parse_media_fragment

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

    from videochat_tools.embeddings import ClipWatcher

DEFAULT_K = 5  # stretches searched for a question
TEXT_MODEL_TOKENS = 4096  # assumed context of another chat model that does not state its own
CHARACTERS_PER_TOKEN = 3  # of English in common vocabularies it is about 4; the count must not come out too low
TURN_TOKENS = 12  # roles and separators of one turn, in any of the templates


class VideoLibrary(LibraryStore):
    """A folder of videos that can be searched and asked.

    >>> library = VideoLibrary("./lib")                      # doctest: +SKIP
    >>> library.add("talks/*.mp4")                           # doctest: +SKIP
    >>> answer = library.ask("what is said about the harbour?")  # doctest: +SKIP
    >>> print(answer.text, answer.evidence)                  # doctest: +SKIP
    """

    def __init__(self, path: str | Path, *, model: str | Path | None = None, **options: Any) -> None:
        """Open the library in a folder; it is made when the first video is added.

        Args:
            path: the folder.
            model: folder or hub id of the chat model that watches the clips and answers; default is the bundled nano.
            **options: those of :class:`~videochat_tools.library.LibraryStore`: ``encoder``, ``watcher``,
                ``transcriber``, ``segmenter``, ``create``, ``options``, ``backend``.
        """
        self._model = model
        super().__init__(path, **options)

    def _load_watcher(self) -> ClipWatcher:
        return load_engine(self._model)

    @cached_property
    def chat_model(self) -> BaseChatModel:
        """The model that answers where :meth:`ask` is given no other."""
        from videochat_tools.chat_model import ChatVideoChat

        return ChatVideoChat(model=None if self._model is None else str(self._model), clip_source=self.clip_source)

    def ask(
        self,
        question: str,
        *,
        k: int = DEFAULT_K,
        videos: Sequence[str] | None = None,
        span: TimeSpan | None = None,
        history: Sequence[BaseMessage] = (),
        model: BaseChatModel | None = None,
        threshold: float | None = None,
    ) -> Answer:
        """Answer a question about the videos, with the moments that prove it.

        Args:
            question: in plain words.
            k: how many stretches to search for; how many of them the model sees is up to what it was trained with.
            videos: ids, names or paths of the videos to look in; default is all.
            span: window of time to look in, in seconds.
            history: earlier questions and answers of the conversation, oldest first.
            model: any LangChain chat model. A ``ChatVideoChat`` watches the clips; any other reads their times and
                transcripts. Default is the library's own.
            threshold: search score (0..1) under which the answer is "not found"; default are those of
                the encoder's calibration for what is seen and what is said.

        Raises:
            UnknownVideoError: the library holds no such video.
            ContextTooLongError: question and history do not fit the model.
        """
        earlier = [message.text for message in history if message.type == "human"]
        query = analyse(retrieval_query(question, earlier))
        unknown = self.encoder.calibration.has_not_learned(content_words(query.visual))
        hits = self.search(
            query.text,
            k=4 * k if query.asks_speech else k,
            videos=videos,
            span=span,
            channels=("speech",) if unknown else CHANNELS,
        )
        if query.asks_speech:  # a silent stretch cannot hold the answer
            hits = [hit for hit in hits if hit.text]
        if not any(self._convinces(hit, threshold) for hit in hits):
            return not_found(question, unknown_words=unknown)
        chat = self.chat_model if model is None else model
        text, clips = self._reply(chat, question, self.clips(hits), history)
        return check_answer(question, text, clips)

    def _convinces(self, hit: SearchHit, threshold: float | None) -> bool:
        """Whether a hit is evidence enough; by default each channel has its own threshold."""
        if threshold is None:
            return self.encoder.calibration.accepts(hit.visual, hit.speech)
        return hit.score >= threshold

    def clips(self, hits: Sequence[SearchHit]) -> list[SearchHit]:
        """Hits as single clips, best first: what a chat model is shown, and may cite.

        Neighbours that were merged come apart again, one clip for each segment that the hit mostly covers, each with
        its own span and words. A hit shorter than a segment (something said) stays one clip with its own span.
        """
        clips: list[SearchHit] = []
        for hit in hits:
            inside = [
                segment
                for segment in self.segments_during(hit.video_id, hit.span)
                if segment.span.intersection(hit.span) >= segment.span.duration / 2
            ]
            if len(inside) < 2:
                clips.append(hit)
                continue
            for segment in inside:
                text = self.said_during(hit.video_id, segment.span)
                clips.append(replace(hit, span=segment.span, segments=(segment.index,), text=text))
        return list({(clip.video_id, clip.span): clip for clip in reversed(clips)}.values())[::-1]

    def clip_source(self, name: str) -> ClipTokens:
        """The kept tokens of the segment that a media fragment names, [queries, width]; decodes nothing.

        Raises:
            UnknownVideoError: the library holds no such video, or it has no segment there.
        """
        uri, span = parse_media_fragment(name)
        for record in self.list():
            if record.path.as_uri() != uri:
                continue
            around = self.segments_during(record.video_id, span or TimeSpan(0.0, record.info.duration))
            if around:
                best = max(around, key=lambda segment: segment.span.intersection(span) if span else 0.0)
                hit = SearchHit(record.video_id, record.name, uri, best.span, 0.0, segments=(best.index,))
                tokens: ClipTokens = self.clip_tokens(hit)[0]
                return tokens
        raise UnknownVideoError(f"no segment {name} in the library {self.path}; search it for the names of segments")

    def _reply(
        self, chat: BaseChatModel, question: str, clips: Sequence[SearchHit], history: Sequence[BaseMessage]
    ) -> tuple[str, list[SearchHit]]:
        """What the model says, and the clips that it was shown."""
        from videochat_tools.chat_model import ChatVideoChat

        other = "\n".join([*(message.text for message in history), question])
        room = TURN_TOKENS * (len(history) + 2)
        if not isinstance(chat, ChatVideoChat):
            profile: Any = chat.profile or {}
            size = int(profile.get("max_input_tokens") or TEXT_MODEL_TOKENS)
            budget = Budget(size - room, 0, len(clips), lambda text: len(text) // CHARACTERS_PER_TOKEN + 1)
            chosen = fit_clips(clips, other, budget)
            return chat.invoke(text_messages(chosen, question, history)).text, chosen
        engine = chat.engine
        # The reply needs room too; a quarter of a small context is enough for an answer with its citation.
        size = engine.context_tokens - min(chat.max_tokens, engine.context_tokens // 4)
        budget = Budget(size - room, engine.tokens_per_clip, engine.max_clips, chat.get_num_tokens)
        chosen = fit_clips(clips, other, budget)
        if engine.max_clips == 1:  # the search has found the moment, and the model is shown no other
            question = without_moment(question)
        cached = self._kept_tokens_suit(engine)
        if cached:
            chat = chat.model_copy(update={"clip_source": self.clip_source})
        return chat.invoke(clip_messages(chosen, question, history, cached=cached)).text, chosen

    def _kept_tokens_suit(self, engine: ChatEngine) -> bool:
        """Whether the library's clip tokens were made by this model; those of another mean nothing to it."""
        watcher = self.watcher
        return watcher is not None and (engine is watcher or engine.fingerprint == watcher.fingerprint)
