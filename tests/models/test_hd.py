"""The HD model (stage 4): every tap of the goldens, and what its tiles ask of prompts, batches and the chat model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models import VideoChat2Processor
from videochat_tools.models.videochat2 import ProcessorOptions, TilingOptions
from videochat_tools.models.videochat2.stopping import StopOnSequences
from videochat_tools.models.videochat2.tiling import split_views

VISUAL, LOGITS = 1e-4, 1e-3  # absolute tolerances; typical mistakes move visual embeddings by 0.06 and more

Golden = tuple[Path, dict[str, Any], Any, Any]


def close(ours: Tensor, golden: Tensor, tolerance: float = VISUAL) -> None:
    torch.testing.assert_close(ours, golden.reshape(ours.shape), rtol=0, atol=tolerance)


def first_letter(processor: VideoChat2Processor) -> VideoChat2Processor:
    """The same processor with the mistake of the released notebooks."""
    options = replace(processor.options, first_letter_instruction=True)
    return VideoChat2Processor(processor.tokenizer, processor.qformer_tokenizer, options)


def six_tiles(processor: VideoChat2Processor) -> VideoChat2Processor:
    """The same processor with the released way to cut, whatever the golden says."""
    options = replace(processor.options, tiling=TilingOptions())
    return VideoChat2Processor(processor.tokenizer, processor.qformer_tokenizer, options)


def frames(seed: int, count: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@torch.no_grad()
def test_every_tap(hd_golden: Golden) -> None:
    folder, golden, model, processor = hd_golden
    options = processor.options
    for name, case in golden["cases"].items():
        taps = load_file(folder / case["file"])
        rows, columns = case["tiles"]
        whole = taps.pop("pixel_values").float()
        views = split_views(whole, options.image_size, global_view=options.tiling.global_view)
        assert len(views) == rows * columns + 1, name
        if "global_view" in taps:
            close(views[-1], taps.pop("global_view"))

        close(model.vision_encoder(views[:1]).last_hidden_state, taps.pop("vit_out_first_tile"))
        if "vision_layernorm_global" in taps:
            close(model.encode_frames(views[-1:]), taps.pop("vision_layernorm_global"))
        tokens = model.get_clip_tokens(views, **processor.instruction_inputs(len(views), case["instruction"]))
        close(tokens, taps.pop("qformer_queries"))
        assert tokens.shape[0] * tokens.shape[1] == case["n_tokens"]
        close(model.project(tokens), taps.pop("llm_visual_embeds"))
        quirk = first_letter(processor).instruction_inputs(len(views), case["instruction"])
        effective = processor.instruction_inputs(len(views), case["string_quirk_effective_instruction"])
        assert torch.equal(quirk["qformer_input_ids"], effective["qformer_input_ids"])
        close(model.project(model.get_clip_tokens(views, **quirk)), taps.pop("llm_visual_embeds_string_quirk"))

        prompt = processor(case["prompt"], views=[len(views)])
        assert [prompt["visual_mask"].sum().item()] == case["n_visual"]
        close(model.embed_prompt(prompt["input_ids"], prompt["visual_mask"], tokens), taps.pop("inputs_embeds"))
        close(model(**prompt, clip_tokens=tokens).logits[:, -1], taps.pop("logits_last"), LOGITS)
        assert not taps, f"{name}: not compared"

        length = case["prompt_len"]
        inputs = {**prompt, "clip_tokens": tokens, "do_sample": False, "max_new_tokens": case["max_new_tokens"]}
        assert model.generate(**inputs)[0, length:].tolist() == case["greedy_ids"], name
        stop = [StopOnSequences(case["stop_sequences_test"])]
        made = model.generate(**inputs, stopping_criteria=stop)[0, length:].tolist()
        assert made == case["greedy_ids_with_stops"], name


def test_a_list_of_instructions_is_never_cut(hd_golden: Golden) -> None:
    processor = six_tiles(hd_golden[3])
    texts = ["Watch the video.", "Observe the image."]
    size = processor.options.image_size
    clips = np.stack([frames(0, 2, size, 2 * size), frames(1, 2, size, 2 * size)])
    inputs, quirk = processor.visual_inputs(clips, texts), first_letter(processor).visual_inputs(clips, texts)
    assert len(inputs["pixel_values"]) == 6  # two tiles and the whole, of either clip
    for name in inputs:
        assert torch.equal(inputs[name], quirk[name])
    one = processor.visual_inputs(clips[1], texts[1])["qformer_input_ids"]
    kept = inputs["qformer_input_ids"][3:]
    assert kept[kept > 0].tolist() == one.flatten().tolist()  # padding of the batch is on the left


@torch.no_grad()
def test_visuals_of_different_tiles_in_one_prompt_and_one_batch(hd_golden: Golden) -> None:
    model, processor = hd_golden[2], six_tiles(hd_golden[3])
    size = processor.options.image_size
    shown = [frames(0, 2, size, 2 * size), frames(1, 2, 2 * size, 3 * size), frames(2, 1, size, size)]
    views = [processor.num_views(*clip.shape[1:3]) for clip in shown]
    assert views == [3, 7, 2]
    tokens = [model.get_clip_tokens(**processor.visual_inputs(clip, image=len(clip) == 1)) for clip in shown]
    prompts = [
        "[INST] <Video><VideoHere></Video> [/INST] [INST] <Video><VideoHere></Video> [/INST] [INST] What? [/INST]",
        "[INST] <Image><ImageHere></Image> [/INST] [INST] And this? [/INST]",
    ]
    batch = processor(prompts, views=views)
    places = processor.options.num_visual_tokens
    assert batch["visual_mask"].sum(dim=1).tolist() == [10 * places, 2 * places]
    together = model.generate(**batch, clip_tokens=torch.cat(tokens), do_sample=False, max_new_tokens=6)
    for row, (prompt, mine) in enumerate(zip(prompts, (tokens[:2], tokens[2:]), strict=True)):
        single = processor(prompt, views=[len(clip) for clip in mine])
        logits = model(**single, clip_tokens=torch.cat(mine)).logits[:, -1]
        close(logits, model(**batch, clip_tokens=torch.cat(tokens)).logits[row, -1], LOGITS)
        alone = model.generate(**single, clip_tokens=torch.cat(mine), do_sample=False, max_new_tokens=6)
        assert torch.equal(alone[0, single["input_ids"].shape[1] :], together[row, batch["input_ids"].shape[1] :])
    # The pixels of clips of one length may also be given at once; beams keep the views of a clip together.
    first = [processor.visual_inputs(clip) for clip in shown[:2]]
    pixels = {name: torch.cat([inputs[name] for inputs in first]) for name in first[0]}
    single = processor(prompts[0], views=[len(inputs["pixel_values"]) for inputs in first])
    close(model(**single, **pixels).logits[:, -1], model(**single, clip_tokens=torch.cat(tokens[:2])).logits[:, -1])
    beams = {"num_beams": 2, "do_sample": False, "max_new_tokens": 4}
    by_pixels = model.generate(**single, **pixels, **beams)
    assert torch.equal(by_pixels, model.generate(**single, clip_tokens=torch.cat(tokens[:2]), **beams))


def test_prompts_need_the_number_of_views(hd_golden: Golden) -> None:
    processor = hd_golden[3]
    prompt = "[INST] <Video><VideoHere></Video> [/INST] [INST] What? [/INST]"
    with pytest.raises(UnsupportedContentError, match=r"pass views=\[len\(pixel_values\)"):
        processor(prompt)
    with pytest.raises(UnsupportedContentError, match="the prompt has 2 visuals, but views of 1 are given"):
        processor([prompt, prompt], views=[3])
    assert not processor("[INST] What? [/INST]")["visual_mask"].any()


def test_a_saved_folder_tiles_by_itself(hd_golden: Golden, tmp_path: Path) -> None:
    processor = hd_golden[3]
    tiling = TilingOptions(max_tiles=12, grid=(2, 1))
    options = replace(processor.options, tiling=tiling, first_letter_instruction=True)
    VideoChat2Processor(processor.tokenizer, processor.qformer_tokenizer, options).save_pretrained(tmp_path)
    loaded = VideoChat2Processor.from_pretrained(tmp_path)
    assert loaded.options == options
    size = options.image_size
    assert loaded.visual_inputs(frames(0, 2, 50, 90))["pixel_values"].shape == (3, 2, 3, size, size)


@torch.no_grad()
def test_the_chat_model_drives_it(hd_golden: Golden, tmp_path: Path) -> None:
    from langchain_core.messages import HumanMessage
    from PIL import Image

    from videochat_tools import ChatVideoChat

    model, processor = hd_golden[2], six_tiles(hd_golden[3])
    model.save_pretrained(tmp_path / "hd")
    processor.save_pretrained(tmp_path / "hd")
    size, places = processor.options.image_size, processor.options.num_visual_tokens
    wide, tall = frames(0, 1, size, 2 * size), frames(1, 1, 3 * size, 2 * size)
    Image.fromarray(wide[0]).save(tmp_path / "wide.png")
    Image.fromarray(tall[0]).save(tmp_path / "tall.png")
    chat = ChatVideoChat(model=str(tmp_path / "hd"), device="cpu", max_tokens=6)
    content = [{"type": "image", "url": str(tmp_path / name)} for name in ("wide.png", "tall.png")]
    reply = chat.invoke([HumanMessage([*content, {"type": "text", "text": "What is it?"}])])
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["input_token_details"]["video"] == (3 + 7) * places

    prompt = "".join(f"[INST] {processor.template.visual_text('image')} " for _ in content)
    inputs = processor(f"{prompt}[INST] What is it? [/INST]", views=[3, 7])
    tokens = [model.get_clip_tokens(**processor.visual_inputs(picture, image=True)) for picture in (wide, tall)]
    kept = torch.cat(tokens).half().float()  # the chat model keeps clip tokens in half precision
    made = model.generate(**inputs, clip_tokens=kept, do_sample=False, max_new_tokens=6)
    expected = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert reply.content == expected.split("</s>")[0].strip()

    # A library's clips are squares of one tile's size: the tile, and the whole that is the same.
    engine = chat.engine
    clips = np.stack([frames(seed, 4, size, size) for seed in range(5)])
    kept_tokens = engine.watch(clips)
    assert kept_tokens.shape == (5, engine.tokens_per_clip, kept_tokens.shape[2])
    assert engine.tokens_per_clip == 2 * places
    close(torch.from_numpy(engine.watch(clips[3:4])[0]), torch.from_numpy(kept_tokens[3]), 1e-2)
    answer = chat.model_copy(update={"clip_source": lambda name: kept_tokens[0]}).invoke(
        [HumanMessage([{"type": "video", "file_id": "a"}, {"type": "text", "text": "What?"}])]
    )
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_token_details"]["video"] == 2 * places


def test_the_released_hd_model_takes_96_tokens_a_tile() -> None:
    hd = VideoChat2Processor(None, None, ProcessorOptions.released("mistral_hd"))
    assert hd.num_views(1080, 1920) * hd.options.num_visual_tokens == 96 * (2 + 1)
    assert hd.num_views(480, 640) * hd.options.num_visual_tokens == 96 * (6 + 1)
