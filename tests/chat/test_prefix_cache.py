"""Later turns run only what is new, and say the same as if they had run everything."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered_chat_models import with_language_model
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.content import create_video_block

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.content import Turn
from videochat_tools.engine import ChatEngine, ReplySettings
from videochat_tools.media import frames_decoded_total
from videochat_tools.models.videochat2 import VideoChat2Config


@pytest.fixture
def model(tiny_chat: Path) -> ChatVideoChat:
    model = ChatVideoChat(model=str(tiny_chat), max_tokens=16)
    model.engine.network.prefix_cache.clear()
    return model


def prefilled(message: BaseMessage) -> int:
    return int(message.response_metadata["prefilled_tokens"])


def clips(count: int, rows: int, width: int, seed: int = 0) -> list[Any]:
    return list(np.random.default_rng(seed).normal(size=(count, rows, width)).astype(np.float16))


@pytest.fixture(scope="module")
def prefill(repository: Path) -> Any:
    """``benchmarks/prefill.py``, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("prefill", repository / "benchmarks" / "prefill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prefill"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dialogues", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_random_dialogues_are_the_same_with_and_without(prefill: Any, dialogues: int) -> None:
    """On the bundled nano."""
    found = prefill.compare(ChatVideoChat(), dialogues)
    assert 2 * dialogues <= found.equal == found.replies
    assert found.prefilled < found.prompt / 2


def test_five_turns_about_a_video_run_each_token_once(prefill: Any) -> None:
    """The reference runs six times what is new."""
    model = ChatVideoChat()
    model.engine.network.prefix_cache.clear()
    costs = prefill.measure(model)
    assert len(costs) == 5
    assert sum(cost.prefilled for cost in costs) <= 1.1 * sum(cost.new for cost in costs)
    assert sum(cost.prompt for cost in costs) > 5 * sum(cost.new for cost in costs)


def test_what_was_kept_is_counted_beside_what_was_run(model: ChatVideoChat) -> None:
    for history in (["who?"], ["who?", "the ring", "why?"]):
        reply = model.invoke([(HumanMessage, AIMessage)[n % 2](text) for n, text in enumerate(history)])
        assert reply.usage_metadata is not None
        read = reply.usage_metadata["input_token_details"]["cache_read"]
        assert read + prefilled(reply) == reply.usage_metadata["input_tokens"]
    assert read > 0


def test_what_is_shared_ends_where_another_clip_begins(tiny_chat: Path) -> None:
    engine = ChatEngine(tiny_chat, "cpu")
    network = engine.network
    one, other = clips(2, network.tokens_per_clip, 16)

    def run(tokens: Sequence[Any]) -> tuple[str, int]:
        blocks = tuple(HumanMessage([create_video_block(file_id=str(n))]) for n in range(len(tokens)))
        turns = [Turn("human", "", tuple(_visuals(blocks))), Turn("human", "what is it?")]
        reply = network.reply(turns, tokens, ReplySettings(max_tokens=8))
        return "".join(reply), reply.prefilled_tokens

    first, whole = run([one, other])
    assert run([one, other]) == (first, 1)  # the last token is run for what comes after it
    before_the_second = len(network.processor.tokenize_prompt("###Human: <Video><VideoHere></Video>\n<Video>")[0])
    assert run([one, one])[1] == whole - before_the_second
    half = one.copy()
    half[3:] = other[3:]  # a clip that differs anywhere is another one
    before_the_first = len(network.processor.tokenize_prompt("###Human: <Video>")[0])
    assert run([half, other])[1] == whole - before_the_first


def _visuals(messages: Sequence[BaseMessage]) -> list[Any]:
    from videochat_tools.content import read_messages

    return [visual for turn in read_messages(messages) for visual in turn.visuals]


def test_a_later_turn_decodes_no_video_again(model: ChatVideoChat, color_video: Path) -> None:
    history: list[BaseMessage] = [HumanMessage([create_video_block(url=str(color_video))]), HumanMessage("who?")]
    first = model.invoke(history)
    before = frames_decoded_total()
    later = model.invoke([*history, first, HumanMessage("why?")])
    assert frames_decoded_total() == before
    assert later.usage_metadata is not None and first.usage_metadata is not None
    assert later.usage_metadata["input_token_details"]["cache_read"] >= first.usage_metadata["input_tokens"]


def test_any_beginning_is_shared_not_only_whole_turns(model: ChatVideoChat) -> None:
    system = SystemMessage("watch the video and answer the question. " * 4)
    first = model.invoke([system, HumanMessage("who bumps the square?")])
    other = model.invoke([system, HumanMessage("what spins?")])
    assert prefilled(other) < prefilled(first) / 2


def test_conversations_are_kept_within_bounds(tiny_chat: Path) -> None:
    network = ChatEngine(tiny_chat, "cpu").network
    cache = network.prefix_cache
    turns = [[Turn("human", f"{word} is it?")] for word in ("red", "green", "blue", "Video")]

    def run(number: int) -> int:
        reply = network.reply(turns[number], [], ReplySettings(max_tokens=4))
        assert "".join(reply)
        return reply.prefilled_tokens

    whole = [run(number) for number in range(4)]
    assert len(cache) == 4 and [run(number) for number in range(4)] == [1] * 4
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
    cache.max_conversations = 2
    for number in (0, 1, 0, 2):  # 1 was used least recently
        run(number)
    assert len(cache) == 2
    assert run(0) == 1
    assert run(1) > 1
    one = max(cache.nbytes // 2, 1)
    cache.max_bytes = 2 * one - 1
    run(3)
    assert len(cache) == 1 and cache.nbytes <= cache.max_bytes
    cache.max_bytes = 0
    run(3)
    assert len(cache) == 0 and run(3) >= max(whole)


def test_an_interrupted_reply_is_kept_too(model: ChatVideoChat) -> None:
    first = next(iter(stream := model.stream("tell me about the ring")))
    stream.close()  # type: ignore[attr-defined]
    assert first.content
    assert prefilled(model.invoke("tell me about the ring")) == 1


def test_many_threads_share_one_cache(model: ChatVideoChat) -> None:
    system = SystemMessage("watch the video and answer the question")
    asked = [[system, HumanMessage(f"{word} spins?")] for word in ("what", "who", "where", "how")] * 4
    alone = [model.invoke(messages, max_tokens=6).content for messages in asked[:4]] * 4
    model.engine.network.prefix_cache.clear()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda messages: model.invoke(messages, max_tokens=6).content, asked))
    assert together == alone


def test_the_callers_may_do_without(model: ChatVideoChat) -> None:
    without = model.model_copy(update={"reuse_turns": False})
    assert prefilled(without.invoke("tell me")) == prefilled(without.invoke("tell me")) > 1
    assert len(model.engine.network.prefix_cache) == 0


LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "factor": 8.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text_config", "reused"),
    [
        ({"model_type": "mistral", "sliding_window": 12}, True),
        ({"model_type": "phi3", "sliding_window": 12}, True),
        ({"model_type": "phi3", "rope_parameters": LONG_ROPE}, True),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, False),
    ],
    ids=["mistral with a window", "phi3 with a window", "phi3 with a long context", "dynamic frequencies"],
)
def test_other_language_models(tiny_chat: Path, tmp_path: Path, text_config: dict[str, Any], reused: bool) -> None:
    """Windows and frequencies that change with the length: the same replies, or nothing is taken over."""
    folder = with_language_model(tiny_chat, tmp_path / "chat", **text_config)
    assert VideoChat2Config.from_pretrained(folder).text_config.model_type == text_config["model_type"]
    network = ChatEngine(folder, "cpu").network
    turns: list[Turn] = []
    counts = []
    for question in ("who is it?", "what colour is the ring?", "where does it go after that? " * 2, "why?"):
        turns.append(Turn("human", question))
        reply = network.reply(turns, [], ReplySettings(max_tokens=12))
        text = "".join(reply)
        counts.append((reply.prefilled_tokens, reply.input_tokens))
        again = network.reply(turns, [], ReplySettings(max_tokens=12, reuse=False))
        assert "".join(again) == text
        if "rope_parameters" not in text_config or text_config["rope_parameters"]["rope_type"] == "longrope":
            made = list(again_ids(network, turns, 12))  # every step from the very beginning, without any cache
            assert network.text(made).split("###")[0].strip() == text
        turns.append(Turn("assistant", text))
    assert counts[0][1] < 64 < counts[-1][1]
    assert any(run < whole for run, whole in counts) is reused


def again_ids(network: Any, turns: Sequence[Turn], count: int) -> Any:
    import torch

    from videochat_tools.generation import render_turns

    ids = network.processor.tokenize_prompt(render_turns(turns, network.processor))[0]
    for _ in range(count):
        with torch.inference_mode():
            logits = network.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        token = int(logits[0, -1].argmax())
        if token in network.stop_ids:
            return
        ids.append(token)
        yield token
