"""The tiny chat model with another language model, or with something to say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from langchain_core.runnables import Runnable

from videochat_tools.engine import load_engine
from videochat_tools.models.videochat2 import VideoChat2Config, VideoChat2ForConditionalGeneration


def with_language_model(source: Path, folder: Path, *, std: float = 0.4, **text_config: Any) -> Path:
    """A copy whose language model has another configuration and random weights."""
    shutil.copytree(source, folder)
    config = VideoChat2Config.from_pretrained(source).to_dict()
    old = config["text_config"]
    sizes = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
    ids = "bos_token_id eos_token_id pad_token_id max_position_embeddings"
    config["text_config"] = {**{name: old[name] for name in (sizes + " " + ids).split()}, **text_config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VideoChat2ForConditionalGeneration(VideoChat2Config(**config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=std)
    model.save_pretrained(folder)
    return folder


def taught(folder: Path, lessons: Sequence[tuple[Runnable[Any, Any], str, str]]) -> Path:
    """Teach a model, in place, to say given words: (a model of the folder, maybe with tools; question; reply).

    Nothing is trained: what its random layers make of each lesson is looked up, and its output layer is solved for the
    next token of each. Everywhere else it goes on talking nonsense. There must be fewer tokens than its width.
    """
    network = load_engine(folder).network
    head = network.model.get_output_embeddings()
    states: list[torch.Tensor] = []
    said: list[int] = []
    for model, question, reply in lessons:
        words = iter(network.token_ids(reply))

        def say(module: Any, inputs: Any, output: Any, words: Iterator[int] = words) -> Any:
            states.append(inputs[0][0, -1])
            said.append(next(words, min(network.stop_ids)))
            return torch.nn.functional.one_hot(torch.tensor(said[-1:]), output.shape[-1])[None].float()

        hook = head.register_forward_hook(say)
        model.invoke(question)
        hook.remove()
    wanted = torch.nn.functional.one_hot(torch.tensor(said), head.weight.shape[0]).double()
    assert len(said) < head.weight.shape[1]
    weight = torch.linalg.lstsq(torch.stack(states).double(), wanted, driver="gelsd").solution.T
    network.prefix_cache.clear()
    with torch.no_grad():
        head.weight.copy_(weight)
    network.model.save_pretrained(folder)
    return folder
