"""The bundled chat model through transformers' own arguments: precision, devices, adapters, sampling, streaming."""

from __future__ import annotations

from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    TextIteratorStreamer,
)

from videochat_tools.engine import BUNDLED
from videochat_tools.models import VideoChat2Config, VideoChat2ForConditionalGeneration  # registers the families too
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import sample_scene

FAMILIES = ("videochat", "videochat2")


@pytest.fixture(scope="module")
def chat() -> Any:
    return AutoModelForImageTextToText.from_pretrained(BUNDLED).eval()


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(BUNDLED)


@pytest.fixture(scope="module")
def inputs(chat: Any, processor: Any) -> dict[str, torch.Tensor]:
    """Two questions of different length about a clip each, one batch."""
    scenes = [sample_scene(Random(seed)) for seed in (1, 2)]
    frames = [render_clip(scene, [scene.duration * (n + 0.5) / 8 for n in range(8)], 64, 64) for scene in scenes]
    clips = processor.pixel_values(np.stack(frames))
    visual = processor.instruction_inputs(2)
    questions = ("how many objects are there?", "is there a purple circle?")
    visuals = processor.template.visual_text("video")
    prompts = [processor.render_chat([("user", visuals), ("user", question)]) for question in questions]
    return {**processor(prompts), "pixel_values": clips, **visual}


def answers(chat: Any, processor: Any, inputs: dict[str, torch.Tensor], **options: Any) -> list[str]:
    torch.manual_seed(0)
    ids = chat.generate(**inputs, pad_token_id=processor.tokenizer.pad_token_id, **{"max_new_tokens": 8, **options})
    new = ids[:, inputs["input_ids"].shape[1] :]
    return [processor.tokenizer.decode(row, skip_special_tokens=True) for row in new]


def test_both_families_are_known_by_their_model_type() -> None:
    for family in FAMILIES:
        assert AutoConfig.for_model(family).model_type == family


def test_half_precision_and_a_device_map_give_the_same_answers(
    chat: Any, processor: Any, inputs: dict[str, torch.Tensor]
) -> None:
    pytest.importorskip("accelerate")
    placed = AutoModelForImageTextToText.from_pretrained(BUNDLED, dtype=torch.bfloat16, device_map="auto").eval()
    said = [answers(model, processor, inputs, do_sample=False) for model in (placed, chat)]
    assert placed.dtype == torch.bfloat16
    # Up to the mark that ends an answer: what is made after it is read by nobody, and precision decides about it.
    half, single = ([text.split("###")[0] for text in texts] for texts in said)
    assert half == single and all(half)


def test_an_adapter_is_added_and_taken_off(
    chat: Any, processor: Any, inputs: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    plain = answers(chat, processor, inputs, do_sample=False)
    model = AutoModelForImageTextToText.from_pretrained(BUNDLED).eval()
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(model, lora)
    changed = answers(tuned, processor, inputs, do_sample=False)
    assert changed != plain
    with tuned.disable_adapter():
        assert answers(tuned, processor, inputs, do_sample=False) == plain
    tuned.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(BUNDLED), tmp_path).eval()
    assert answers(again, processor, inputs, do_sample=False) == changed


def test_the_ways_to_generate(chat: Any, processor: Any, inputs: dict[str, torch.Tensor]) -> None:
    greedy = answers(chat, processor, inputs, do_sample=False)
    # So little mass is left that only the likeliest token can be drawn.
    assert answers(chat, processor, inputs, do_sample=True, top_p=1e-6) == greedy
    sampled = answers(chat, processor, inputs, do_sample=True, temperature=3.0)
    assert sampled == answers(chat, processor, inputs, do_sample=True, temperature=3.0)
    assert sampled != greedy
    assert len(answers(chat, processor, inputs, do_sample=False, num_beams=3, length_penalty=-1.0)) == 2
    new = chat.generate(**inputs, do_sample=False, min_new_tokens=12, max_new_tokens=12)[
        :, inputs["input_ids"].shape[1] :
    ]
    assert new.shape[1] == 12


def test_words_stream_out_as_they_come(chat: Any, processor: Any, inputs: dict[str, torch.Tensor]) -> None:
    one = {name: value[:1] for name, value in inputs.items()}
    (whole,) = answers(chat, processor, one, do_sample=False)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    thread = Thread(target=chat.generate, kwargs={**one, "do_sample": False, "max_new_tokens": 8, "streamer": streamer})
    thread.start()
    parts = list(streamer)
    thread.join()
    assert "".join(parts).strip() == whole.strip()
    assert len(parts) > 1


def test_eight_bit_weights_answer_alike(chat: Any, processor: Any, inputs: dict[str, torch.Tensor]) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    config = BitsAndBytesConfig(load_in_8bit=True)
    small = AutoModelForImageTextToText.from_pretrained(BUNDLED, quantization_config=config, device_map="cpu")
    assert isinstance(small.language_model.model.layers[0].mlp.up_proj, bitsandbytes.nn.Linear8bitLt)
    assert small.get_memory_footprint() < 0.6 * chat.get_memory_footprint()
    assert answers(small, processor, inputs, do_sample=False) == answers(chat, processor, inputs, do_sample=False)


def test_four_bit_weights_see_and_project_alike(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    # On a CPU it wants widths that are multiples of 64, which those of the nano are not.
    widths = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    config = VideoChat2Config(
        vision_config={**widths, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16, "num_frames": 4},
        qformer_config={**widths, "num_hidden_layers": 2, "vocab_size": 50},
        text_config={"model_type": "llama", **widths, "num_hidden_layers": 2, "vocab_size": 128},
    )
    torch.manual_seed(0)
    whole = VideoChat2ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    small = AutoModelForImageTextToText.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map="cpu"
    ).eval()
    assert isinstance(small.projection, bitsandbytes.nn.Linear4bit)
    with torch.no_grad():
        tokens = whole.get_clip_tokens(torch.rand(1, 4, 3, 32, 32))
        likeness = torch.cosine_similarity(whole.project(tokens), small.project(tokens).float(), dim=-1)
    assert float(likeness.min()) > 0.97
