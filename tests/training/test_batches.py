"""Rows of like length in one group."""

from __future__ import annotations

from random import Random

from videochat_tools.training import batches
from videochat_tools.training.batches import by_length, encode_conversations
from videochat_tools.training.instruct import language_conversations
from videochat_tools.training.tokenizers import build_llm_tokenizer


def test_groups_are_cut_where_padding_would_cost_more() -> None:
    assert batches._cheapest_cuts([]) == [0]
    assert batches._cheapest_cuts([100] * 4) == [0, 4]
    assert batches._cheapest_cuts([50] * 8 + [500]) == [0, 8, 9]
    assert batches._cheapest_cuts([50, 60]) == [0, 2]  # two calls cost more than ten tokens


def test_every_conversation_is_in_one_group_and_little_is_padding() -> None:
    words = build_llm_tokenizer()
    rows = language_conversations(Random(0), 24)
    groups = by_length(words, rows, 0)
    assert sorted(map(id, (row for group in groups for row in group))) == sorted(map(id, rows))
    assert len(groups) > 1

    def padding(parts: list) -> float:
        encoded = [encode_conversations(words, part, 0).input_ids for part in parts]
        return sum(int((ids == words.pad_token_id).sum()) for ids in encoded) / sum(ids.numel() for ids in encoded)

    assert padding(groups) < 0.5 * padding([rows[start : start + 6] for start in range(0, 24, 6)])
