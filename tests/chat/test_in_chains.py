"""What LangChain does around a chat model: callbacks, counts, limits, templates, settings made at run time."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from asking import ask, video_tokens
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, trim_messages
from langchain_core.messages.content import create_video_block
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.errors import MediaNotFoundError


class Listener(BaseCallbackHandler):
    """Counts what it is told, and keeps what it was told last."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.last: dict[str, Any] = {}
        self.words = ""

    def hear(self, event: str, **said: Any) -> None:
        self.told[event] += 1
        self.last[event] = said

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.hear("start", messages=messages, **kwargs)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.words += token
        self.hear("token", **kwargs)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.hear("end", response=response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.hear("error", error=error)


def test_callbacks_hear_the_settings_the_tokens_and_the_end(model: ChatVideoChat) -> None:
    listener = Listener()
    chunks = list(model.stream("tell me", config={"callbacks": [listener]}, temperature=0.5, seed=1, stop=["never"]))
    start = listener.last["start"]
    assert start["invocation_params"]["seed"] == 1 and start["invocation_params"]["stop"] == ["never"]
    assert {key: value for key, value in start["metadata"].items() if key.startswith("ls_")} == {
        "ls_provider": "videochat",
        "ls_model_name": model.model,
        "ls_model_type": "chat",
        "ls_temperature": 0.5,
        "ls_max_tokens": 16,
        "ls_stop": ["never"],
        "ls_integration": start["metadata"].get("ls_integration"),
    }
    assert listener.words == "".join(str(chunk.content) for chunk in chunks)
    assert listener.told["token"] >= len([chunk for chunk in chunks if chunk.content])
    assert (listener.told["start"], listener.told["end"], listener.told["error"]) == (1, 1, 0)
    assert listener.last["end"]["response"].generations[0][0].text == listener.words
    whole = Listener()
    model.model_copy().invoke("tell me", config={"callbacks": [whole]})
    assert (whole.told["token"], whole.told["end"]) == (0, 1)
    streaming = ChatVideoChat(model=model.model, max_tokens=16, streaming=True)
    told = Listener()
    assert streaming.invoke("tell me", config={"callbacks": [told]}).content == told.words != ""


def test_callbacks_hear_of_errors(model: ChatVideoChat, tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(MediaNotFoundError):
        model.invoke(ask(create_video_block(url=str(tmp_path / "none.mp4"))), config={"callbacks": [listener]})
    assert listener.told == {"start": 1, "error": 1}
    assert isinstance(listener.last["error"]["error"], MediaNotFoundError)


def test_usage_adds_up_over_a_batch(model: ChatVideoChat, color_video: Path) -> None:
    with get_usage_metadata_callback() as usage:
        replies = model.batch([ask(create_video_block(url=str(color_video))), ask()])
    (total,) = usage.usage_metadata.values()
    used = [reply.usage_metadata for reply in replies]
    assert total["input_tokens"] == sum(each["input_tokens"] for each in used if each is not None)
    assert total["input_token_details"]["video"] == video_tokens(replies[0])  # type: ignore[typeddict-item]


def test_one_bad_input_of_a_batch_is_given_back_as_its_error(model: ChatVideoChat) -> None:
    good, bad = model.batch([ask(), ask({"type": "audio", "url": "/a.wav"})], return_exceptions=True)
    assert isinstance(good, AIMessage) and isinstance(bad, ValueError)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_tokens_are_counted_as_they_are_used(model: ChatVideoChat, color_video: Path) -> None:
    messages: list[BaseMessage] = [
        SystemMessage("be brief"),
        *ask(create_video_block(url=str(color_video)), create_video_block(url="/counted/without/being/opened.mp4")),
        AIMessage("the ring"),
        HumanMessage("why?"),
    ]
    counted = model.get_num_tokens_from_messages(messages)
    messages[1] = ask(*[create_video_block(url=str(color_video))] * 2)[0]
    used = model.invoke(messages).usage_metadata
    assert used is not None and counted == used["input_tokens"]
    bound = model.bind_tools([add], tool_choice="none").invoke("what is it?").usage_metadata
    assert bound is not None
    assert model.get_num_tokens_from_messages(ask(), tools=[add]) == bound["input_tokens"]


def test_a_long_conversation_is_trimmed_to_what_fits(model: ChatVideoChat, color_video: Path) -> None:
    talk = [HumanMessage("which colour is the ring?"), AIMessage("the ring is blue")] * 40
    video = ask(create_video_block(url=str(color_video)))
    kept = trim_messages(
        [SystemMessage("be brief"), *talk, *video],
        max_tokens=200, token_counter=model, strategy="last", include_system=True, start_on="human",
    )  # fmt: skip
    used = model.invoke(kept).usage_metadata
    assert used is not None and 150 < used["input_tokens"] <= 200
    assert kept[0].type == "system" and kept[-1] == video[0]


@pytest.mark.parametrize("stops", [1, 2])
def test_the_stop_sequence_that_comes_first_ends_the_reply(model: ChatVideoChat, stops: int) -> None:
    whole = str(model.invoke("tell me", max_tokens=40).content)
    late, early = whole[12:15], whole[5:8]
    given = [late, early][-stops:]
    cut = whole[: min(whole.index(stop) for stop in given)].strip()
    reply = model.invoke("tell me", max_tokens=40, stop=given)
    assert (reply.content, reply.response_metadata["finish_reason"]) == (cut, "stop")
    assert "".join(str(chunk.content) for chunk in model.stream("tell me", max_tokens=40, stop=given)) == cut
    assert model.bind(stop=given, max_tokens=40).invoke("tell me").content == cut
    settled = ChatVideoChat(model=model.model, max_tokens=40, stop=given)
    assert settled.invoke("tell me").content == cut
    assert settled.invoke("tell me", stop=[]).content == whole  # none, for this call
    assert model.invoke("tell me", max_tokens=40, stop=early).content == whole[: whole.index(early)].strip()


def test_a_template_fills_in_the_video_and_its_part(model: ChatVideoChat, color_video: Path) -> None:
    block = {"type": "video", "url": "{path}", "extras": {"start": "{start}", "end": "{end}", "num_frames": 4}}
    prompt = ChatPromptTemplate.from_messages([("human", [block, {"type": "text", "text": "{question}"}])])
    told = {"path": str(color_video), "question": "what is it?"}
    red = (prompt | model).invoke({**told, "start": 0.5, "end": 1.5})
    blue = (prompt | model).invoke({**told, "start": "00:04.5", "end": "00:05.5"})
    direct = create_video_block(url=str(color_video), start=0.5, end=1.5, num_frames=4)
    assert red.content == model.invoke(ask(direct)).content != blue.content


def test_settings_may_be_made_when_it_runs(model: ChatVideoChat) -> None:
    chosen = model.configurable_fields(max_tokens=ConfigurableField(id="length"))
    short = chosen.invoke("tell me", config={"configurable": {"length": 2}})
    assert isinstance(short, AIMessage) and short.usage_metadata is not None
    assert short.usage_metadata["output_tokens"] == 2
    assert chosen.invoke("tell me").content == model.invoke("tell me").content
    assert pickle.loads(pickle.dumps(model)).invoke("tell me").content == model.invoke("tell me").content


def test_another_model_steps_in_where_one_fails(model: ChatVideoChat, tmp_path: Path) -> None:
    broken = ChatVideoChat(model=str(tmp_path / "nowhere"))
    assert broken.with_fallbacks([model]).invoke("tell me").content == model.invoke("tell me").content


def test_a_profile_is_there_before_the_model_is(model: ChatVideoChat) -> None:
    profile = ChatVideoChat(model="somebody/videochat2").profile
    assert profile is not None and profile["video_inputs"]
    assert "max_input_tokens" not in profile
