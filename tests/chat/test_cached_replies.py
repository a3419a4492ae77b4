"""LangChain's cache of replies: it answers where the same is asked about the same pictures, and only there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ask
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages.content import create_image_block, create_video_block
from PIL import Image

from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.errors import MediaNotFoundError


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    """The cache of all models."""
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


def kept(cache: InMemoryCache) -> int:
    """How many replies a cache holds."""
    return len(cache._cache)


def test_langchains_cache_answers_without_the_model(model: ChatVideoChat, color_video: Path) -> None:
    cached = model.model_copy(update={"cache": InMemoryCache()})
    messages = ask(create_video_block(url=str(color_video)))
    first = cached.invoke(messages)
    model.engine.network.prefix_cache.clear()
    assert cached.invoke(messages).content == first.content
    assert len(model.engine.network.prefix_cache) == 0  # nothing was run
    cached.invoke(messages, max_tokens=3)
    assert len(model.engine.network.prefix_cache) == 1


def test_a_file_that_has_changed_is_looked_at_again(
    model: ChatVideoChat, cache: InMemoryCache, color_video: Path, write_video: Callable[..., Path]
) -> None:
    def asked() -> str:
        return str(model.invoke(ask(create_video_block(url=color_video.as_uri()))).content)

    red = asked()
    assert asked() == red and kept(cache) == 1  # though every block has a number of its own
    write_video(color_video, (np.full((64, 96, 3), (40, 60, 220), np.uint8) for _ in range(20)))
    blue = asked()
    assert blue != red and kept(cache) == 2
    assert asked() == blue and kept(cache) == 2
    color_video.unlink()
    with pytest.raises(MediaNotFoundError):
        asked()


async def test_asynchronously_too(model: ChatVideoChat, cache: InMemoryCache, tmp_path: Path) -> None:
    replies = []
    for color in ((220, 30, 30), (220, 30, 30), (40, 60, 220)):
        if not replies or color != (220, 30, 30):
            Image.new("RGB", (40, 30), color).save(tmp_path / "a.png")
        replies.append(str((await model.ainvoke(ask(create_image_block(url=str(tmp_path / "a.png"))))).content))
    assert replies[0] == replies[1] != replies[2]
    assert kept(cache) == 2


def test_a_segment_of_another_library_is_another_one(model: ChatVideoChat, cache: InMemoryCache) -> None:
    rows: dict[str, Any] = {"tokens": np.zeros((6, 16), np.float16)}
    library = model.model_copy(update={"clip_source": lambda name: rows["tokens"]})
    messages = ask(create_video_block(file_id="file:///a.mp4#t=4,9"))
    first = library.invoke(messages)
    assert library.invoke(messages).content == first.content and kept(cache) == 1
    rows["tokens"] = np.ones((6, 16), np.float16)
    library.invoke(messages)
    assert kept(cache) == 2


def test_other_weights_in_the_same_folder_are_another_model(
    tiny_chat: Path, tmp_path: Path, cache: InMemoryCache
) -> None:
    folder = Path(shutil.copytree(tiny_chat, tmp_path / "chat"))
    model = ChatVideoChat(model=str(folder), max_tokens=4)
    first = model.invoke("hello")
    assert model.invoke("hello").content == first.content and kept(cache) == 1
    os.utime(folder / "model.safetensors", ns=(0, 0))  # as if it had been converted again
    model.invoke("hello")
    assert kept(cache) == 2


def test_what_is_kept_says_nothing_to_the_model(model: ChatVideoChat, cache: InMemoryCache, color_video: Path) -> None:
    messages = ask(create_video_block(url=str(color_video)))
    with_cache = model.invoke(messages)
    without = model.model_copy(update={"cache": False}).invoke(messages)
    assert with_cache.content == without.content
    assert kept(cache) == 1
    assert with_cache.usage_metadata is not None and without.usage_metadata is not None
    assert with_cache.usage_metadata["input_tokens"] == without.usage_metadata["input_tokens"]
    assert all(not message.additional_kwargs for message in messages)
