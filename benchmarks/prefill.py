"""What later turns cost, and that nothing else comes of it: tokens that are run before each reply.

``python benchmarks/prefill.py [MODEL]``; the bundled nano without a model. First a five-turn dialogue about one video,
whose answers are scripted, so that every machine measures the same; all else is what a chat does. Without a kept cache
each turn runs its whole prompt (the reference: 1471 tokens over five such turns, where 237 are new). Then random
dialogues, each held with the kept cache and without: the answers must be the same, token for token.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from videochat_tools import ChatVideoChat
from videochat_tools.content import read_messages
from videochat_tools.generation import ChatNetwork, render_turns

DIALOGUE = (
    ("What is going on in this video?",
     "A small red circle moves to the right, bumps into a large blue square and leaves at the top of the picture."),
    ("What colour is the large square?",
     "The large square is blue. It does not change its colour while the small circle moves around it."),
    ("Where does the small circle go after that?",
     "It moves up along the left side of the square, turns around once, and then it is gone from the picture."),
    ("Does anything else move in the video?",
     "Yes, a green star spins in the middle before the circle comes in. It stops when the two of them bump."),
    ("How many things are there in the end?",
     "Two things are left in the end, the blue square and the green star, because the circle has left the picture."),
)  # fmt: skip
CLIPS = 4
DIALOGUES = 50
WORDS = (
    "what who where is the a small large red green blue yellow square circle star ring moves spins bumps into after "
    "before left right does it colour how many and then nothing [00:42–00:51]"
).split()


@dataclass(frozen=True)
class Cost:
    """Tokens of one turn: its whole prompt, those not seen in earlier turns, and those that were run."""

    prompt: int
    new: int
    prefilled: int


@dataclass
class Comparison:
    """Random dialogues, held with the kept cache and without.

    Attributes:
        replies: how many pairs of replies there were.
        equal: how many of them were the same text of as many tokens.
        prefilled: tokens that were run before the replies, with the cache.
        prompt: the same without it: every prompt as a whole.
    """

    replies: int = 0
    equal: int = 0
    prefilled: int = 0
    prompt: int = 0


def measure(model: ChatVideoChat) -> list[Cost]:
    """Hold the dialogue with a model and count."""
    network = model.engine.network
    model = with_clips(model)
    history: list[BaseMessage] = [HumanMessage([video(number) for number in range(CLIPS)])]
    costs: list[Cost] = []
    seen: list[int] = []
    for question, answer in DIALOGUE:
        history.append(HumanMessage(question))
        ids = prompt_ids(network, history)
        answered = answered_ids(network, [*history, AIMessage(answer)])
        reply = scripted(network, [*answered[len(ids) :], min(network.stop_ids)], model, history)
        assert answer in str(reply.content), reply.content
        new = len(ids) - common(ids, seen)
        costs.append(Cost(len(ids), new, reply.response_metadata["prefilled_tokens"]))
        seen = answered
        history.append(AIMessage(answer))
    return costs


def compare(model: ChatVideoChat, dialogues: int = DIALOGUES) -> Comparison:
    """Hold random dialogues of two or three turns; they share videos and beginnings, and answers come back as given."""
    rng = Random(0)
    kept = with_clips(model).model_copy(update={"max_tokens": 8})
    alone = kept.model_copy(update={"reuse_turns": False})
    kept.engine.network.prefix_cache.clear()
    found = Comparison()
    for _ in range(dialogues):
        shown = [video(rng.randrange(CLIPS)) for _ in range(rng.randrange(CLIPS))]
        history: list[BaseMessage] = [HumanMessage(shown)] if shown else []
        for _ in range(rng.randint(2, 3)):
            history.append(HumanMessage(" ".join(rng.choices(WORDS, k=rng.randint(1, 9)))))
            cheap, full = kept.invoke(history), alone.invoke(history)
            found.replies += 1
            found.equal += (cheap.content, output_tokens(cheap)) == (full.content, output_tokens(full))
            found.prefilled += cheap.response_metadata["prefilled_tokens"]
            found.prompt += full.response_metadata["prefilled_tokens"]
            history.append(AIMessage(cheap.content))
    return found


def output_tokens(reply: AIMessage) -> int:
    """Tokens of a reply."""
    assert reply.usage_metadata is not None
    return reply.usage_metadata["output_tokens"]


def with_clips(model: ChatVideoChat) -> ChatVideoChat:
    """The model with ``CLIPS`` videos to talk about, of which it is given clip tokens drawn at random."""
    network = model.engine.network
    width = network.model.config.qformer_config.hidden_size
    rows = np.random.default_rng(0).normal(size=(CLIPS, network.tokens_per_clip, width)).astype(np.float16)
    return model.model_copy(update={"clip_source": lambda name: rows[int(name)]})


def video(number: int) -> Any:
    """The block of one of these videos."""
    return {"type": "video", "file_id": str(number)}


def prompt_ids(network: ChatNetwork, messages: list[BaseMessage]) -> list[int]:
    """Ids of a conversation up to the reply that is asked for."""
    return ids_of(network, render_turns(read_messages(messages), network.processor))


def answered_ids(network: ChatNetwork, messages: list[BaseMessage]) -> list[int]:
    """Ids of a conversation up to the end of its last answer."""
    prompt = render_turns(read_messages(messages), network.processor)
    return ids_of(network, prompt[: prompt.rindex(messages[-1].text) + len(messages[-1].text)])


def ids_of(network: ChatNetwork, prompt: str) -> list[int]:
    """Ids of a prompt with the places of its clips."""
    views = network.tokens_per_clip // network.tokens_per_view
    return network.processor.tokenize_prompt(prompt, [views] * CLIPS)[0]


def scripted(network: ChatNetwork, script: list[int], model: ChatVideoChat, messages: list[BaseMessage]) -> Any:
    """The reply of a model that happens to say just these tokens; its layers run as ever."""
    words = iter(script)

    def say(module: Any, inputs: Any, output: Any) -> Any:
        output.logits = torch.full_like(output.logits, -1.0)
        output.logits[..., next(words)] = 1.0
        return output

    hook = network.model.register_forward_hook(say)
    try:
        return model.invoke(messages)
    finally:
        hook.remove()


def common(left: list[int], right: list[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(left, right, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))


def main() -> None:
    """Print the tokens of each turn, how often the new ones were run, and how many random answers were the same."""
    model = ChatVideoChat(model=sys.argv[1] if len(sys.argv) > 1 else None)
    costs = measure(model)
    print("turn  prompt   new  prefilled")
    for number, cost in enumerate(costs, start=1):
        print(f"{number:4} {cost.prompt:7} {cost.new:5} {cost.prefilled:10}")
    prompts, new, run = (sum(getattr(cost, name) for cost in costs) for name in ("prompt", "new", "prefilled"))
    print(
        f" all {prompts:7} {new:5} {run:10}   prefilled / new = {run / new:.3f} (without a cache {prompts / new:.2f})"
    )
    found = compare(model)
    print(
        f"{DIALOGUES} random dialogues: {found.equal} of {found.replies} replies are the same with the cache and "
        f"without; prefilled {found.prefilled} tokens, {found.prompt} without"
    )


if __name__ == "__main__":
    main()
