"""Frames and conversations to inputs, as the released models were shown them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoProcessor, BertTokenizer, PreTrainedTokenizerFast

from videochat_tools.errors import ModelLoadError, UnsupportedContentError
from videochat_tools.models.videochat2 import ProcessorOptions, VideoChat2Processor
from videochat_tools.models.videochat2.image_processing import CLIP_MEAN, CLIP_STD, normalise, resize_frames
from videochat_tools.models.videochat2.prompts import TEMPLATES

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] watch observe the video image and answer question . a red circle".split()


def small_processor(tmp_path: Path, **options: Any) -> VideoChat2Processor:
    words = ["<pad>", "<unk>", "</s>", "###", "Human", "Assistant", ":", "<", ">", "/", "Video", "Image", "a", "red"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("###", "isolated"),
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("contiguous"),
        ]
    )
    tokenizer.add_tokens(["###"])
    language = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES) + "\n")
    bert = BertTokenizer(vocab=str(vocabulary), do_lower_case=True)
    settings = {"image_size": 32, "num_visual_tokens": 4, "max_text_length": 8, **options}
    return VideoChat2Processor(language, bert, ProcessorOptions(**settings))


# Pixels


def test_frames_are_resized_cut_and_normalised_as_by_the_original_code(goldens: Any) -> None:
    cases = json.loads((goldens("preprocess") / "preprocess.json").read_text())["cases"]
    arrays = load_file(goldens("preprocess") / "preprocess.safetensors")
    for case in cases:
        raw = arrays[case["raw"]].numpy()
        raw = raw[: case["frames"]] if case["kind"] == "video" else raw[case["frame"] : case["frame"] + 1]
        squares = resize_frames(raw, case["size"], squash=case["kind"] != "video")
        expected = arrays[case["expect_uint8"]].numpy().reshape(-1, 3, case["size"], case["size"])
        assert np.array_equal(squares.transpose(0, 3, 1, 2), expected), case
        if case.get("normalised_first_frame"):
            torch.testing.assert_close(normalise(squares)[0], arrays[case["normalised_first_frame"]], rtol=0, atol=1e-5)


def test_the_centre_is_kept_and_its_colours(tmp_path: Path) -> None:
    frames = np.zeros((2, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = (255, 0, 128)  # the centre square
    pixels = small_processor(tmp_path).pixel_values(frames)
    assert pixels.shape == (1, 2, 3, 32, 32)
    assert pixels.dtype == torch.float32
    expected = (torch.tensor([1.0, 0.0, 128 / 255]) - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(pixels[0, 1, :, 16, 16], expected)
    squashed = small_processor(tmp_path).pixel_values(frames[:1], image=True)
    assert squashed[0, 0, 0, 16, 1] < 0 < squashed[0, 0, 0, 16, 16]  # the black sides are still there


def test_frames_of_the_right_size_and_several_clips(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3), dtype=np.uint8)
    frames.flags.writeable = False
    processor = small_processor(tmp_path)
    pixels = processor.pixel_values(frames)
    assert pixels.shape == (3, 2, 3, 32, 32)
    torch.testing.assert_close(pixels[1:2], processor.pixel_values(frames[1]))


@pytest.mark.parametrize("frames", [np.zeros((2, 32, 32, 3), np.float32), np.zeros((2, 32, 32), np.uint8)])
def test_other_arrays_are_refused(tmp_path: Path, frames: Any) -> None:
    with pytest.raises(UnsupportedContentError, match="uint8"):
        small_processor(tmp_path).pixel_values(frames)


# Text of the Q-Former


def test_texts_get_the_marks_of_bert_and_lose_their_start(tmp_path: Path) -> None:
    processor = small_processor(tmp_path)
    encoded = processor.encode_texts(["A red circle", "watch"])
    assert encoded["input_ids"].tolist() == [[2, 14, 15, 16, 3], [2, 5, 3, 0, 0]]
    assert encoded["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    long = processor.encode_texts("a a a a a a red circle red circle")["input_ids"]
    assert long.tolist() == [[2, 14, 14, 15, 16, 15, 16, 3]]
    assert processor.qformer_tokenizer is not None
    assert processor.qformer_tokenizer.bos_token_id == len(PIECES)


def test_instructions(tmp_path: Path) -> None:
    processor = small_processor(tmp_path, max_text_length=32)
    video, image = processor.instruction_inputs(2), processor.instruction_inputs(1, image=True)
    assert video["qformer_input_ids"].tolist() == [[2, 5, 7, 8, 10, 11, 7, 12, 13, 3]] * 2
    assert image["qformer_input_ids"][0, 1].item() == 6  # observe
    assert small_processor(tmp_path, video_instruction=None).instruction_inputs(1) == {}
    left = small_processor(tmp_path, family="mistral").instruction_inputs(2, ["a", "a red"])
    assert left["qformer_input_ids"].tolist() == [[0, 2, 14, 3], [2, 14, 15, 3]]


# Prompts


def test_prompts_of_the_released_models(chat_golden: Any, chat_processor: Any) -> None:
    _, golden, config = chat_golden
    template = chat_processor.template
    for case in golden["cases"].values():
        if "messages" not in case:
            continue
        messages = [("human" if role == template.human else "assistant", text) for role, text in case["messages"]]
        start = case.get("answer_prompt")
        prompt = chat_processor.render_chat(messages[:-1], system=case["system"], answer_start=start)
        assert prompt == case["prompt"]
        ids, mask = chat_processor.tokenize_prompt(prompt)
        before, after = case["segment_ids"]
        assert [token for token, visual in zip(ids, mask, strict=True) if not visual] == before + after
        assert mask == [False] * len(before) + [True] * config.num_visual_tokens + [False] * len(after)
    if "stop_sequences_hash3" in golden:
        assert chat_processor.stop_sequences == golden["stop_sequences_hash3"]


def test_visual_and_question_texts_make_the_released_prompts() -> None:
    expected = {
        "vicuna": "###Human: <Video><VideoHere></Video>\n###Human: Why?\n###Assistant: So."
        "###Human: When?\n###Assistant:",
        "mistral": "[INST] <Video><VideoHere></Video> [/INST] [INST] Why? [/INST] So.</s> [INST] When? [/INST]",
        "phi3": "<|user|>\n<Video><VideoHere></Video>\nWhy?<|end|>\n<|assistant|>So.<|end|>"
        "<|user|>\nWhen?<|end|>\n<|assistant|>",
    }
    for family, template in TEMPLATES.items():
        visual, question = template.visual_text("video"), template.question_text("Why?")
        opening = [("human", visual), ("human", question)] if template.visual_alone else [("human", visual + question)]
        rest = [
            ("assistant", template.answer_text(" So. ")),
            ("human", template.question_text("When?")),
            ("assistant", None),
        ]
        assert template.render([*opening, *rest]) == expected[family]  # type: ignore[list-item]
    assert TEMPLATES["vicuna"].visual_text("image", "a caption") == "<Image><ImageHere></Image> a caption\n"


def test_prompts_are_batched_on_either_side(tmp_path: Path) -> None:
    processor = small_processor(tmp_path)
    prompts = ["Human a <VideoHere> red <ImageHere>", "Human <VideoHere>"]
    left, right = processor(prompts), processor(prompts, padding_side="right")
    assert left["visual_mask"].sum(dim=1).tolist() == [8, 4]
    assert left["attention_mask"].tolist()[1] == [0] * 6 + [1] * 5
    assert right["attention_mask"].tolist()[1] == [1] * 5 + [0] * 6
    assert torch.equal(left["input_ids"][1, 6:], right["input_ids"][1, :5])
    assert not (left["visual_mask"] & (left["attention_mask"] == 0)).any()


@pytest.mark.parametrize(
    ("family", "text", "answer"),
    [
        ("vicuna", "a red circle ###Human: and?", "a red circle"),
        ("vicuna", "Human: x Assistant: red</s>", "red"),
        ("mistral", " red.</s></s>", "red."),
        ("phi3", "red<|end|>\n<|assistant|>", "red"),
    ],
)
def test_answers_are_cleaned(tmp_path: Path, family: str, text: str, answer: str) -> None:
    assert small_processor(tmp_path, family=family).clean_answer(text) == answer


# Disk


def test_processor_survives_the_disk(tmp_path: Path) -> None:
    processor = small_processor(tmp_path, image_mean=(0.5, 0.4, 0.3))
    processor.save_pretrained(tmp_path / "model")
    for loaded in (
        VideoChat2Processor.from_pretrained(tmp_path / "model"),
        AutoProcessor.from_pretrained(tmp_path / "model"),
    ):
        assert loaded.options == processor.options
        prompt = "###Human: <VideoHere> a red ###"
        assert loaded.tokenize_prompt(prompt) == processor.tokenize_prompt(prompt)
        assert loaded.stop_sequences == processor.stop_sequences == [[3]]
        for name, value in processor.encode_texts(["watch the video"]).items():
            assert torch.equal(value, loaded.encode_texts(["watch the video"])[name])
        assert loaded.qformer_tokenizer is not None
        assert loaded.qformer_tokenizer.bos_token_id == len(PIECES)


def test_a_retrieval_processor_has_no_prompts(tmp_path: Path) -> None:
    VideoChat2Processor(None, small_processor(tmp_path).qformer_tokenizer).save_pretrained(tmp_path / "model")
    loaded = VideoChat2Processor.from_pretrained(tmp_path / "model")
    assert loaded.tokenizer is None
    assert loaded.encode_texts("a")["input_ids"].tolist() == [[2, 14, 3]]
    with pytest.raises(UnsupportedContentError, match="retrieval"):
        loaded.tokenize_prompt("a")


def test_a_folder_without_processor_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no VideoChat2 processor"):
        VideoChat2Processor.from_pretrained(tmp_path)
