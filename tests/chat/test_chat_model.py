"""The chat model on real videos and pictures, with a tiny random network behind it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ask, video_tokens
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.messages.content import create_image_block, create_video_block
from langchain_core.rate_limiters import BaseRateLimiter
from PIL import Image
from tiny_model import make_tiny_chat_model

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.content import read_messages
from videochat_tools.errors import (
    UnsupportedContentError,
)
from videochat_tools.generation import render_turns
from videochat_tools.media import frames_decoded_total
from videochat_tools.models.videochat2 import ProcessorOptions, VideoChat2Processor

CLIP_TOKENS = 6


def test_a_video_takes_part_in_the_answer(model: ChatVideoChat, color_video: Path) -> None:
    red = model.invoke(ask(create_video_block(url=str(color_video), start=0.0, end=1.9)))
    blue = model.invoke(ask(create_video_block(url=color_video.as_uri(), start=4.1, end=6.0)))
    unseen = model.invoke(ask())
    assert red.content and red.content != blue.content
    assert video_tokens(red) == CLIP_TOKENS and video_tokens(unseen) == 0
    assert model.invoke(ask(create_video_block(url=f"{color_video.as_uri()}#t=0,1.9"))).content == red.content


def test_a_video_by_its_bytes_is_the_same_video(model: ChatVideoChat, color_video: Path) -> None:
    data = base64.b64encode(color_video.read_bytes()).decode()
    inline = create_video_block(base64=data, mime_type="video/mp4")
    assert model.invoke(ask(inline)).content == model.invoke(ask(create_video_block(url=str(color_video)))).content


def test_the_number_of_frames_is_the_callers_choice(model: ChatVideoChat, color_video: Path) -> None:
    def decoded(frames: int) -> int:
        before = frames_decoded_total()
        model.invoke(ask(create_video_block(url=str(color_video), num_frames=frames)))
        return frames_decoded_total() - before

    assert decoded(1) < decoded(12)
    few = model.invoke(ask(create_video_block(url=str(color_video), num_frames=1)))
    assert few.content != model.invoke(ask(create_video_block(url=str(color_video), num_frames=12))).content


def test_pictures_by_path_and_by_bytes(model: ChatVideoChat, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), (220, 30, 30)).save(path)
    data = base64.b64encode(path.read_bytes()).decode()
    by_path = model.invoke(ask(create_image_block(url=str(path))))
    assert by_path.content == model.invoke(ask(create_image_block(base64=data, mime_type="image/png"))).content
    Image.new("RGB", (40, 30), (40, 60, 220)).save(path)
    assert by_path.content != model.invoke(ask(create_image_block(url=str(path)))).content


def test_several_visuals_in_one_conversation(model: ChatVideoChat, color_video: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (220, 30, 30)).save(tmp_path / "red.png")
    video = create_video_block(url=str(color_video))
    reply = model.invoke([
        HumanMessage([video, create_image_block(url=str(tmp_path / "red.png")), video]),
        *ask(question="are they the same?"),
    ])  # fmt: skip
    assert video_tokens(reply) == 3 * CLIP_TOKENS


def test_the_conversation_is_written_in_the_models_own_template(model: ChatVideoChat) -> None:
    messages = [
        SystemMessage("be brief"),
        HumanMessage([
            create_video_block(file_id="a", caption='[00:42–00:51] They say: "hello"'),
            create_video_block(file_id="b", caption="[01:10–01:16]"),
        ]),
        HumanMessage("who bumps the square?"),
        AIMessage("the circle"),
        HumanMessage("what colour is it?"),
    ]  # fmt: skip
    assert render_turns(read_messages(messages), model.engine.network.processor) == (
        'be brief###Human: <Video><VideoHere></Video> [00:42–00:51] They say: "hello"\n'
        "<Video><VideoHere></Video> [01:10–01:16]\n"
        "###Human: who bumps the square?\n"
        "###Assistant: the circle###Human: what colour is it?\n"
        "###Assistant:"
    )


@pytest.mark.parametrize(
    ("family", "prompt"),
    [
        ("mistral", "[INST] <Video><VideoHere></Video> one [/INST] [INST] <Video><VideoHere></Video> [/INST] "
                    "[INST] who? [/INST] the circle</s> [INST] why? [/INST]"),
        ("phi3", "<|user|>\n<Video><VideoHere></Video> one\n<Video><VideoHere></Video>\nwho?<|end|>\n<|assistant|>"
                 "the circle<|end|><|user|>\nwhy?<|end|>\n<|assistant|>"),
    ],
)  # fmt: skip
def test_other_families_have_other_templates(family: str, prompt: str) -> None:
    messages = [
        HumanMessage([create_video_block(file_id="a", caption="one"), create_video_block(file_id="b")]),
        HumanMessage("who?"),
        AIMessage("the circle"),
        HumanMessage("why?"),
    ]
    processor = VideoChat2Processor(options=ProcessorOptions(family=family))
    assert render_turns(read_messages(messages), processor) == prompt


def test_earlier_turns_are_heard(model: ChatVideoChat) -> None:
    alone = model.invoke([HumanMessage("what colour is it?")])
    later = model.invoke([HumanMessage("who?"), AIMessage("the circle"), HumanMessage("what colour is it?")])
    assert alone.content != later.content


def test_streaming_gives_the_same_reply_piece_by_piece(model: ChatVideoChat, color_video: Path) -> None:
    messages = ask(create_video_block(url=str(color_video)))
    model.invoke(messages)  # from then on the same is kept
    whole = model.invoke(messages)
    chunks = list(model.stream(messages))
    assert len([chunk for chunk in chunks if chunk.content]) > 1
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined = joined + chunk
    assert isinstance(joined, AIMessageChunk)
    assert joined.content == whole.content
    assert joined.usage_metadata == whole.usage_metadata
    assert joined.response_metadata == whole.response_metadata
    assert [chunk.chunk_position for chunk in chunks].count("last") == 1
    assert chunks[-1].chunk_position == "last"
    assert len([chunk for chunk in chunks if chunk.usage_metadata]) == 1


def test_greedy_is_reproducible_and_so_is_a_seed(model: ChatVideoChat) -> None:
    def reply(**settings: Any) -> str:
        return str(model.invoke("tell me", **settings).content)

    assert reply() == reply() == reply(seed=5)
    assert reply(temperature=1.5, seed=1) == reply(temperature=1.5, seed=1)
    assert len({reply(temperature=1.5, seed=seed) for seed in range(4)}) > 1
    assert reply(temperature=1.5, seed=1, top_p=1e-6) == reply()  # only the likeliest token is left


def test_the_length_of_a_reply_is_bounded(model: ChatVideoChat) -> None:
    reply = model.invoke("tell me", max_tokens=3)
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 3
    assert reply.response_metadata["finish_reason"] == "length"
    assert reply.response_metadata["model_provider"] == "videochat"


def test_a_library_segment_is_answered_from_its_kept_tokens(model: ChatVideoChat, color_video: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (1, 4, 32, 32, 3), np.uint8)
    tokens = model.engine.watch(pictures)[0]
    assert tokens.shape == (CLIP_TOKENS, 16) and tokens.dtype == np.float16
    block = create_video_block(file_id="file:///a.mp4#t=4,9")
    with pytest.raises(UnsupportedContentError, match=r"clip_source=library\.clip_source"):
        model.invoke(ask(block))
    asked: list[str] = []

    def source(name: str) -> Any:
        asked.append(name)
        return tokens

    before = frames_decoded_total()
    reply = model.model_copy(update={"clip_source": source}).invoke(ask(block))
    assert reply.content != model.invoke(ask()).content
    assert asked == ["file:///a.mp4#t=4,9"]
    assert frames_decoded_total() == before


def test_the_fingerprint_names_what_clip_tokens_depend_on(tiny_chat: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from videochat_tools.engine import ChatEngine

    folder = make_tiny_chat_model(tmp_path / "chat")  # the same seed
    original = ChatEngine(tiny_chat).fingerprint
    assert ChatEngine(folder).fingerprint == original
    weights = load_file(folder / "model.safetensors")
    for name, changes in (("language_model.lm_head.weight", False), ("vision_layernorm.bias", True)):
        save_file({**weights, name: weights[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
        assert (ChatEngine(folder).fingerprint != original) is changes


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_it_comes_back_from_its_own_serialisation(model: ChatVideoChat) -> None:
    told = model.model_copy(update={"temperature": 0.5, "seed": 3, "clip_source": lambda name: None})
    again = load(dumpd(told), allowed_objects=[ChatVideoChat], valid_namespaces=["videochat_tools"])
    assert isinstance(again, ChatVideoChat)
    assert (again.model, again.temperature, again.seed, again.max_tokens) == (model.model, 0.5, 3, 16)
    assert again.clip_source is None
    assert again.invoke("hello").content == told.invoke("hello").content


def test_a_rate_limiter_is_asked_before_each_reply(model: ChatVideoChat) -> None:
    asked: list[bool] = []

    class Counter(BaseRateLimiter):
        def acquire(self, *, blocking: bool = True) -> bool:
            asked.append(blocking)
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            return self.acquire(blocking=blocking)

    limited = model.model_copy(update={"rate_limiter": Counter()})
    limited.batch(["one", "two"])
    list(limited.stream("three"))
    assert asked == [True] * 3


def test_the_profile_says_what_the_model_takes(model: ChatVideoChat) -> None:
    profile: Any = model.profile
    assert profile["video_inputs"] and profile["image_inputs"] and not profile["audio_inputs"]
    assert profile["tool_calling"] and profile["structured_output"]
    assert (profile["max_input_tokens"], profile["max_output_tokens"]) == (512, 16)
    assert not profile["image_url_inputs"]
    assert ChatVideoChat(model=model.model, allow_remote=True).profile["image_url_inputs"]  # type: ignore[index]


def test_a_language_model_in_half_precision_is_told_by_its_config(tiny_chat: Path, tmp_path: Path) -> None:
    import json
    import shutil

    import torch

    from videochat_tools.generation import language_dtype

    assert language_dtype(tiny_chat) is None
    folder = Path(shutil.copytree(tiny_chat, tmp_path / "chat"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(config))
    assert language_dtype(folder) == torch.bfloat16
    network = ChatVideoChat(model=str(folder), device="cpu").engine.network
    assert {parameter.dtype for parameter in network.model.parameters()} == {torch.float32}
