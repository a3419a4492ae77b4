"""The prompt of a library question is, token for token, what the nano was trained on."""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from videochat_tools.content import read_messages
from videochat_tools.context import clip_messages
from videochat_tools.types import SearchHit, TimeSpan


def test_run_time_prompt_is_the_trained_one() -> None:
    from videochat_tools.generation import render_turns
    from videochat_tools.models.videochat2 import ProcessorOptions, VideoChat2Processor
    from videochat_tools.training.batches import encode_conversations
    from videochat_tools.training.conversations import Conversation, assemble
    from videochat_tools.training.tokenizers import build_llm_tokenizer
    from videochat_tools.training.world.scene import FRAMES

    clips = [
        SearchHit("a", "a.mp4", "file:///a.mp4", TimeSpan(42.3, 51.7), 0.9, text="The harbour opens at nine."),
        SearchHit("a", "a.mp4", "file:///a.mp4", TimeSpan(70, 76), 0.8),
    ]
    turns = [("what colour is the ring?", "red [00:42–00:51]"), ("and where does it go?", "left [00:42–00:51]")]
    tokenizer = build_llm_tokenizer()
    pieces = assemble([(number, clip.span, clip.text) for number, clip in enumerate(clips)], turns)
    trained = encode_conversations(tokenizer, [Conversation(tuple(pieces), ("colour", "motion"))], tokens_per_clip=6)
    history: list[BaseMessage] = [HumanMessage(turns[0][0]), AIMessage(turns[0][1])]
    processor = VideoChat2Processor(tokenizer, None, ProcessorOptions(num_visual_tokens=6))
    prompt = render_turns(read_messages(clip_messages(clips, turns[1][0], history, frames=FRAMES)), processor)
    ids, mask = processor.tokenize_prompt(prompt)
    expected = trained.input_ids[0].tolist()[: len(ids)]
    assert tokenizer.convert_ids_to_tokens(ids) == tokenizer.convert_ids_to_tokens(expected)
    assert mask == trained.visual_mask[0].tolist()[: len(ids)]
