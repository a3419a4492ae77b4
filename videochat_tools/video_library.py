"""A library that answers: search, watch the clips, ask a chat model, verify what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videochat_tools.answering import check_answer, not_found, without_citations
from videochat_tools.dialogue import question_to_ask, retrieval_query
from videochat_tools.engine import ChatEngine, ClipTokens, load_engine
from videochat_tools.errors import UnknownVideoError
from videochat_tools.library import LibraryStore
from videochat_tools.retrievers.query import analyse, content_words
from videochat_tools.retrievers.temporal import CHANNELS
from videochat_tools.types import Answer, SearchHit, TimeSpan, parse_media_fragment

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

    from videochat_tools.answerers import Answerer
    from videochat_tools.embeddings import ClipWatcher

DEFAULT_K = 5  # stretches searched for a question
CAPTION_REQUEST = "describe the video."  # also in these words when the nano was trained


@dataclass(frozen=True, slots=True)
class FoundClips:
    """What the search gives a chat model to look at: single clips, best first."""

    clips: tuple[SearchHit, ...]
    unknown_words: tuple[str, ...] = ()  # where there are no clips: words whose look the encoder has not learned


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
            model: any LangChain chat model, shown the clips as :mod:`videochat_tools.answerers` says. Default is the
                library's own.
            threshold: search score (0..1) under which the answer is "not found" before the model has seen anything.
                By default the encoder's calibration says what is worth a look, which may be more than what it is sure
                of: the model can still say that it is not there.

        Raises:
            UnknownVideoError: the library holds no such video.
            ContextTooLongError: question and history do not fit the model.
        """
        earlier = [message.text for message in history if message.type == "human"]
        query = retrieval_query(question, earlier)
        found = self.find_clips(query, k=k, videos=videos, span=span, threshold=threshold)
        asked = question_to_ask(question, query)
        answer = not_found(question, unknown_words=found.unknown_words)
        if not found.clips:
            return answer
        answerer = self.answerer(model)
        for glance in answerer.glances(found.clips, lambda clip: self.convinces(clip, threshold)):
            shown = answerer.choose(asked, glance, history)
            answer = check_answer(question, answerer.answer(asked, shown, history), shown)
            if answer.found:
                break
        return answer

    def find_clips(
        self,
        query: str,
        *,
        k: int = DEFAULT_K,
        videos: Sequence[str] | None = None,
        span: TimeSpan | None = None,
        threshold: float | None = None,
    ) -> FoundClips:
        """The clips that may answer a question, best first; none where not even the best is worth a look.

        Args and errors are those of :meth:`ask`; what a follow-up leans on must stand in the query.
        """
        if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
            raise ValueError(f"threshold must be a score of 0..1, or None for the encoder's own, got {threshold!r}")
        asked = analyse(query)
        unknown = self.encoder.calibration.has_not_learned(content_words(asked.described))
        where: dict[str, Any] = {"videos": videos, "span": span, "channels": ("speech",) if unknown else CHANNELS}
        hits = self.search(asked.text, k=4 * k if asked.asks_speech else k, **where)
        if asked.asks_speech:  # a silent stretch cannot hold the answer
            hits = [hit for hit in hits if hit.text]
        elif asked.anchor is not None and not any(self.convinces(hit, threshold) for hit in hits):
            hits = self.search(asked.in_one_scene, k=k, **where)  # both may be seen in one shot
        if not any(self.is_worth_a_look(hit, threshold) for hit in hits):
            return FoundClips((), tuple(unknown))
        clips = self.clips(hits)
        return FoundClips(tuple(clips if asked.asks_speech or asked.visual else self._with_anchors(clips)))

    def _with_anchors(self, clips: Sequence[SearchHit]) -> list[SearchHit]:
        """Clips of whatever comes after something, each before the clips of that: models that see several read both."""
        shown: list[SearchHit] = []
        for clip in clips:
            shown.append(clip)
            if clip.anchor is not None:
                for segment in self.segments_during(clip.video_id, clip.anchor):
                    text = self.said_during(clip.video_id, segment.span)
                    before = replace(clip, span=segment.span, segments=(segment.index,), text=text, anchor=None)
                    shown.append(before)
        return _each_once(shown)

    def convinces(self, hit: SearchHit, threshold: float | None = None) -> bool:
        """Whether a hit is evidence enough; by default each channel has its own threshold."""
        if threshold is None:
            return self.encoder.calibration.accepts(hit.visual, hit.speech)
        return hit.score >= threshold

    def is_worth_a_look(self, hit: SearchHit, threshold: float | None = None) -> bool:
        """Whether a chat model should see a hit, which may find more in it, or nothing; the search need not be sure."""
        if threshold is None:
            return self.encoder.calibration.is_worth_a_look(hit.visual, hit.speech)
        return self.convinces(hit, threshold)

    def answerer(self, model: BaseChatModel | None = None, *, whole_segments: bool = True) -> Answerer:
        """How a chat model answers questions about clips of this library.

        Args:
            model: any LangChain chat model; default is the library's own.
            whole_segments: the clips are segments, of which the library keeps tokens; otherwise any stretches.
        """
        from videochat_tools.answerers import PictureAnswerer, TextAnswerer, TokenAnswerer, can_see
        from videochat_tools.chat_model import ChatVideoChat

        chat = self.chat_model if model is None else model
        if isinstance(chat, ChatVideoChat):
            cached = whole_segments and self._kept_tokens_suit(chat.engine)
            return TokenAnswerer(chat, self.clip_source if cached else None)
        return PictureAnswerer(chat) if can_see(chat) else TextAnswerer(chat, self.caption)

    def caption(self, clip: SearchHit) -> str:
        """What the library's own model sees in a clip, in its words; empty where that would be a guess.

        It is a guess where the search did not recognise the picture, and where the model is the bundled nano but
        the encoder does not know what the nano has learned.
        """
        calibration = self.encoder.calibration
        if not calibration.accepts(clip.visual, None) or (self._model is None and not calibration.known_words):
            return ""
        seen = check_answer(CAPTION_REQUEST, self.answerer().answer(CAPTION_REQUEST, [replace(clip, text="")]), [clip])
        return without_citations(seen.text) if seen.found else ""

    def watch(self, video: str | Path, span: TimeSpan, question: str, *, model: BaseChatModel | None = None) -> Answer:
        """What a chat model says about one stretch of a video. Nothing is searched: the stretch is decoded and shown.

        Args:
            video: id, name or path.
            span: the stretch, in seconds.
            question: in plain words.
            model: any LangChain chat model, as in :meth:`ask`.

        Raises:
            UnknownVideoError: the library holds no such video.
            UnsupportedContentError: the stretch lies outside the video.
            MediaError: the file is gone or cannot be read.
            ContextTooLongError: the question does not fit the model.
        """
        from videochat_tools.visuals import part_of_video

        record = self.get(video)
        span = part_of_video(span.start, span.end, record.info.duration)
        text = self.said_during(record.video_id, span)
        clip = SearchHit(record.video_id, record.name, record.path.absolute().as_uri(), span, 1.0, text=text)
        answerer = self.answerer(model, whole_segments=False)
        shown = answerer.choose(question, [clip])
        return check_answer(question, answerer.answer(question, shown), shown)

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
        return _each_once(clips)

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

    def _kept_tokens_suit(self, engine: ChatEngine) -> bool:
        """Whether the library's clip tokens were made by this model; those of another mean nothing to it."""
        watcher = self.watcher
        return watcher is not None and (engine is watcher or engine.fingerprint == watcher.fingerprint)


def _each_once(clips: Sequence[SearchHit]) -> list[SearchHit]:
    """Clips in their order, of several with one place the first."""
    return list({(clip.video_id, clip.span): clip for clip in reversed(clips)}.values())[::-1]
