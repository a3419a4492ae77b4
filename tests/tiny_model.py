"""A chat model of a few thousand random weights: it says nonsense, but everything around it is real."""

from __future__ import annotations

import json
from pathlib import Path

SENTENCES = [
    '###Human: <Video><VideoHere></Video> [00:42–00:51] They say: "the harbour opens at nine"',
    "###Human: what colour is the ring that spins? ###Assistant: red [00:42–00:51]###",
    "Not found in the video. the small blue square moves left, right, up and down and bumps into the large green star",
    "Watch the video and answer the question. Observe the image and answer the question.",
]


def make_tiny_chat_model(
    folder: Path, *, seed: int = 0, context_tokens: int = 512, max_clips: int | None = None, family: str = "vicuna"
) -> Path:
    """Write a random VideoChat2 with its processor into a folder: 4 frames of 32x32, 6 tokens a clip."""
    import torch

    from videochat_tools.models.videochat2 import (
        ProcessorOptions,
        VideoChat2Config,
        VideoChat2ForConditionalGeneration,
        VideoChat2Processor,
    )

    words, pieces = _language_tokenizer(), _qformer_tokenizer()
    config = VideoChat2Config(
        family=family,
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "image_size": 32, "patch_size": 16, "num_frames": 4, "position_image_size": 32,
        },
        qformer_config={
            "vocab_size": len(pieces), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 64, "num_query_tokens": 4,
            "num_extra_query_tokens": 2,
        },
        text_config={
            "model_type": "llama", "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64,
            "max_position_embeddings": context_tokens, "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
        },
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VideoChat2ForConditionalGeneration(config)
        with torch.no_grad():  # large weights, so that what is seen and said changes what comes out
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.4)
    model.save_pretrained(folder)
    options = ProcessorOptions(family=family, image_size=32, num_visual_tokens=6, max_text_length=64)
    VideoChat2Processor(words, pieces, options).save_pretrained(folder)
    if max_clips is not None:
        (folder / "grounding.json").write_text(json.dumps({"max_clips": max_clips}))
    return folder


def _language_tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _qformer_tokenizer():  # type: ignore[no-untyped-def]
    from transformers import BertTokenizerFast

    words = sorted({word for sentence in SENTENCES for word in sentence.lower().split()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for word in words if word not in pieces] + ["[DEC]"]
    return BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}, bos_token="[DEC]")
