"""Frames and conversations to inputs, as the released models were shown them."""

from __future__ import annotations

import shutil
from dataclasses import replace
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
from videochat_tools.models.videochat2.image_processing import CLIP_MEAN, CLIP_STD
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


# Images and several videos together


@torch.no_grad()
def test_an_image_and_several_videos_in_one_prompt(chat_golden: Any, chat_model: Any, chat_processor: Any) -> None:
    """The original code could not mix them; what the language model is given is known all the same."""
    folder, golden, _ = chat_golden
    stills, videos = [], []
    for case in golden["cases"].values():
        taps = load_file(folder / case["file"])
        if "prompt" in case and {"pixel_values", "llm_visual_embeds"} <= set(taps):
            shown = (taps["pixel_values"].float(), case["instruction"], taps["llm_visual_embeds"])
            (stills if shown[0].shape[1] == 1 else videos).append(shown)
    order = [videos[0], stills[0], videos[-1]]
    template = chat_processor.template
    kinds = ("video", "image", "video")
    texts = [template.visual_text(kind) for kind in kinds]
    question = template.question_text("Compare them.")
    if template.visual_alone:
        messages = [*(("human", text) for text in texts), ("human", question)]
    else:
        messages = [("human", "".join(texts) + question)]
    batch = chat_processor(chat_processor.render_chat(messages))
    tokens = [
        chat_model.get_clip_tokens(pixels, **chat_processor.instruction_inputs(1, instruction))
        for pixels, instruction, _ in order
    ]
    embeds = chat_model.embed_prompt(batch["input_ids"], batch["visual_mask"], torch.cat(tokens))
    golden_rows = torch.cat([rows for _, _, rows in order], dim=1)
    torch.testing.assert_close(embeds[batch["visual_mask"]][None], golden_rows, rtol=0, atol=1e-4)
    words = embeds[~batch["visual_mask"]]
    assert torch.equal(words, chat_model.get_input_embeddings()(batch["input_ids"])[~batch["visual_mask"]])
    made = chat_model.generate(**batch, clip_tokens=torch.cat(tokens), do_sample=False, max_new_tokens=4)
    swapped = torch.cat([tokens[2], tokens[1], tokens[0]])
    other = chat_model(**batch, clip_tokens=swapped).logits[:, -1]
    assert made.shape[1] == batch["input_ids"].shape[1] + 4
    assert not torch.allclose(other, chat_model(**batch, clip_tokens=torch.cat(tokens)).logits[:, -1], atol=1e-3)


# Times


def test_the_chat_model_says_when_frames_were_taken(tmp_path: Path, color_video: Path) -> None:
    from langchain_core.messages import HumanMessage
    from tiny_model import make_tiny_chat_model

    from videochat_tools import ChatVideoChat

    folder = make_tiny_chat_model(tmp_path / "chat", family="phi3")
    processor = VideoChat2Processor.from_pretrained(folder)
    told = replace(processor.options, timestamps=True)
    VideoChat2Processor(processor.tokenizer, processor.qformer_tokenizer, told).save_pretrained(tmp_path / "told")
    for file in (*folder.glob("*.safetensors"), folder / "config.json"):
        shutil.copy(file, tmp_path / "told")

    def places(model: Path, **extras: Any) -> int:
        content = [{"type": "video", "url": str(color_video), "extras": extras}, {"type": "text", "text": "what?"}]
        reply = ChatVideoChat(model=str(model), max_tokens=1).invoke([HumanMessage(content)])
        assert reply.usage_metadata is not None
        return reply.usage_metadata["input_tokens"]

    def written(caption: str) -> int:
        text = processor.template.visual_text("video", caption) + processor.template.question_text("what?")
        return len(processor.tokenize_prompt(processor.render_chat([("human", text)]))[0])

    # 6 seconds at 10 frames a second: the frames on screen in the middle of each of four parts.
    message = "The video contains 4 frames sampled at 0.7, 2.2, 3.7, 5.2 seconds."
    assert places(folder) == written("")
    assert places(tmp_path / "told") == written(message)
    assert places(tmp_path / "told", caption="my own words") == written("my own words")
    part = "The video contains 2 frames sampled at 2.5, 3.5 seconds."
    assert places(tmp_path / "told", start=2.0, end=4.0, num_frames=2) == written(part)
