"""Asking a small library: what is found, what the model is shown, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from small_library import Scripted, make_small_library, open_small_library

from videochat_tools.agents import create_grounded_qa
from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.context import NOT_FOUND
from videochat_tools.embeddings import Calibration
from videochat_tools.errors import ContextTooLongError, UnknownVideoError
from videochat_tools.media import frames_decoded_total
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.types import TimeSpan
from videochat_tools.video_library import VideoLibrary


@pytest.fixture
def library(tmp_path: Path, tiny_chat: Path, write_video: Callable[..., Path]) -> VideoLibrary:
    """The two videos of colours, watched by the tiny chat model."""
    return make_small_library(tmp_path, write_video, model=tiny_chat)


def test_a_cited_answer_is_proved_by_the_clip(library: VideoLibrary) -> None:
    model = Scripted(replies=["It is green [00:02–00:04]."])
    answer = library.ask("what is seen while the screen is green?", model=model)
    assert answer.found and answer.text == "It is green [00:02–00:04]."
    (proof,) = answer.evidence
    assert proof.cited and proof.video == "colours.mp4"
    assert (proof.span.start, proof.span.end) == pytest.approx((2, 4), abs=0.11)
    assert "[00:02–00:04]" in model.heard[-1][-1].text


def test_what_was_not_retrieved_cannot_be_cited(library: VideoLibrary) -> None:
    answer = library.ask("a green screen", k=1, model=Scripted(replies=["green [03:00–03:04]"]))
    assert answer.text == "green"
    assert answer.dropped == ("03:00–03:04",)
    assert [item.cited for item in answer.evidence] == [False]


def test_weak_evidence_is_not_even_shown_to_the_model(library: VideoLibrary) -> None:
    model = Scripted(replies=["purple [00:00–00:02]"])
    answer = library.ask("a purple screen", model=model)
    assert (answer.found, answer.text, answer.evidence) == (False, NOT_FOUND, ())
    assert model.replies  # unused
    assert library.ask("a purple screen", model=model, threshold=0.0).found


def test_a_model_judges_where_the_search_is_not_sure(library: VideoLibrary, tmp_path: Path, tiny_chat: Path) -> None:
    question = "a green screen beside a purple one"  # half of which is there
    assert not library.ask(question, model=Scripted(replies=["green [00:02–00:04]"])).found
    curious = FakeVideoEncoder(calibration=Calibration(look_threshold=0.2))
    library = open_small_library(tmp_path, model=tiny_chat, encoder=curious)
    (hit,) = library.search(question, k=1)
    assert library.is_worth_a_look(hit) and not library.convinces(hit)
    assert library.ask(question, model=Scripted(replies=["green [00:02–00:04]"])).found
    assert not library.ask(question, model=Scripted(replies=["Not found in the video."])).found


def test_the_model_may_say_that_it_is_not_there(library: VideoLibrary) -> None:
    answer = library.ask("a green screen", model=Scripted(replies=["Not found in the video."]))
    assert (answer.found, answer.evidence) == (False, ())


def test_an_empty_library_has_no_answer(tmp_path: Path, tiny_chat: Path) -> None:
    assert not VideoLibrary(tmp_path / "none", model=tiny_chat, encoder=FakeVideoEncoder()).ask("anything?").found


def test_what_is_said_is_in_the_context_and_in_the_evidence(library: VideoLibrary) -> None:
    model = Scripted(replies=['"The harbour opens at nine." [00:04–00:05]'])
    answer = library.ask("what is said about the harbour?", model=model)
    assert 'They say: "The harbour opens at nine."' in model.heard[-1][-1].text
    (proof,) = answer.evidence
    assert proof.hit.text == "The harbour opens at nine."
    assert proof.span.overlaps(TimeSpan(4.5, 5.5))


def test_the_librarys_own_model_answers_without_decoding(library: VideoLibrary) -> None:
    before = frames_decoded_total()
    first = library.ask("what is seen while the screen is green?")
    again = library.ask("what is seen while the screen is green?")
    assert frames_decoded_total() == before
    assert first == again and first.found
    assert first.evidence[0].video == "colours.mp4"


def test_kept_tokens_are_those_of_the_same_clip_decoded(library: VideoLibrary, tiny_chat: Path, tmp_path: Path) -> None:
    (hit,) = library.search("a green screen", k=1)
    name = f"{hit.uri}#t={hit.span.start},{hit.span.end}"
    kept = library.clip_source(name)
    model = ChatVideoChat(model=str(tiny_chat), clip_source=library.clip_source)
    by_name = model.invoke([HumanMessage([{"type": "video", "file_id": name}]), HumanMessage("what is it?")])
    by_file = model.invoke([HumanMessage([{"type": "video", "url": name}]), HumanMessage("what is it?")])
    assert kept.shape == (6, 16)
    assert by_name.content == by_file.content
    with pytest.raises(UnknownVideoError, match="no segment"):
        library.clip_source("file:///elsewhere.mp4#t=0,2")


def test_a_model_with_other_weights_watches_for_itself(library: VideoLibrary, tmp_path: Path) -> None:
    from tiny_model import make_tiny_chat_model

    other = ChatVideoChat(model=str(make_tiny_chat_model(tmp_path / "other", seed=7)), max_tokens=8)
    before = frames_decoded_total()
    library.ask("what is seen while the screen is green?", model=other)
    assert frames_decoded_total() > before


def test_merged_neighbours_are_shown_as_single_clips(library: VideoLibrary) -> None:
    hit = library.search("a yellow screen", k=1)[0]
    assert len(hit.segments) == 2
    clips = library.clips([hit])
    assert [(round(clip.span.start), round(clip.span.end)) for clip in clips] == [(0, 2), (2, 4)]
    assert [len(clip.segments) for clip in clips] == [1, 1]
    model = Scripted(replies=["yellow [00:00–00:04]"])
    answer = library.ask("a yellow screen", model=model)
    assert answer.text == "yellow [00:00–00:02] [00:02–00:04]"
    assert len(answer.evidence) == 2


def test_only_as_many_clips_as_the_model_was_trained_to_compare(library: VideoLibrary) -> None:
    seen: list[BaseMessage] = []

    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: list[list[BaseMessage]], **kwargs: Any) -> None:
            seen.extend(messages[0])

    library.chat_model.callbacks = [Listener()]
    assert len(library.search("a screen", k=6)) > 3
    answer = library.ask("a screen", k=6, threshold=0.0)
    assert [block["type"] for block in seen[0].content_blocks] == ["video"] * 3
    assert answer.evidence


def test_follow_ups_are_searched_and_told_with_what_came_before(library: VideoLibrary) -> None:
    model = Scripted(replies=["green [00:02–00:04]", "not red [00:02–00:04]"])
    history: list[BaseMessage] = []
    for question in ("what happens while the screen is green?", "what colour was it?"):
        answer = library.ask(question, history=history, model=model)
        assert (answer.evidence[0].video, round(answer.evidence[0].span.start)) == ("colours.mp4", 2)
        history += [HumanMessage(question), AIMessage(answer.text)]
    assert [message.type for message in model.heard[-1]] == ["system", "human", "ai", "human"]


def test_filters_and_errors(library: VideoLibrary) -> None:
    model = Scripted(replies=["green"] * 3)
    assert not library.ask("a green screen", videos=["more.mp4"], model=model).found
    assert not library.ask("a green screen", span=TimeSpan(4, 6), model=model).found
    assert library.ask("a green screen", videos=["colours.mp4"], span=TimeSpan(0, 4), model=model).found
    with pytest.raises(UnknownVideoError):
        library.ask("a green screen", videos=["nothing.mp4"], model=model)
    with pytest.raises(ContextTooLongError, match="shorter question"):
        library.ask("a green screen " * 300)


def test_grounded_qa_runs_in_a_chain(library: VideoLibrary) -> None:
    chain = create_grounded_qa(library, model=Scripted(replies=["green [00:02]", "green [00:02]"])) | (lambda a: a.text)
    assert chain.invoke("a green screen") == "green [00:02–00:04]"
    assert chain.invoke({"question": "a green screen", "k": 1, "videos": ["colours.mp4"]}) == "green [00:02–00:04]"
    with pytest.raises(ValueError, match="grounded QA needs a question"):
        chain.invoke({"query": "a green screen"})
