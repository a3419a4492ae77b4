"""LLaMA's SentencePiece, as the slow tokenizers spoke it that the released models were trained and shown with.

transformers 5 builds its LLaMA tokenizer from ``tokenizer.model`` by other rules. Its ids differ from SentencePiece's
own after a special token such as ``</s>``, in a text that begins with a space, and where spaces follow each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import models, normalizers, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase

__all__ = ["decode_pieces", "use_sentencepiece_rules"]

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def use_sentencepiece_rules(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a LLaMA tokenizer give SentencePiece's own ids, changed in place.

    Others, such as those of folders with a ``tokenizer.json`` of their own, are left alone.
    """
    if not isinstance(tokenizer, LlamaTokenizer):
        return
    backend = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        # One space before each stretch of text between special tokens, whatever it begins with.
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    file = tokenizer.init_kwargs.get("vocab_file")  # none where it was saved by transformers, in the order made here
    if file is not None and Path(file).is_file():
        pieces = SentencePieceProcessor(model_file=str(file))
        state = json.loads(backend.to_str())["model"]
        scores = {pieces.id_to_piece(number): pieces.get_score(number) for number in range(len(pieces))}
        # By score, not by id: LLaMA's runs of spaces have low ids, but may only be made when nothing else can.
        merges = sorted(state["merges"], key=lambda pair: -scores["".join(pair)])
        backend.model = models.BPE(
            vocab=state["vocab"],
            merges=[tuple(pair) for pair in merges],
            fuse_unk=state["fuse_unk"],
            byte_fallback=state["byte_fallback"],
        )


def decode_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of ids, special tokens included. Of bytes that are no UTF-8, each becomes one replacement character.

    The fast tokenizers give up a whole run of bytes for a single bad one, and with it the characters that are good.
    """
    parts: list[str] = []
    data = b""
    for token in [*tokenizer.convert_ids_to_tokens(list(ids)), ""]:
        byte = _BYTE.fullmatch(token)
        if byte is not None:
            data += bytes.fromhex(byte[1])
            continue
        parts += [_characters(data), token]
        data = b""
    return tokenizer.convert_tokens_to_string(parts)


def _characters(data: bytes) -> str:
    text = ""
    while data:
        for length in range(1, 5):
            try:
                text += data[:length].decode()
                break
            except UnicodeDecodeError:
                continue
        else:
            text, length = f"{text}\ufffd", 1
        data = data[length:]
    return text
