"""Parity with the original code, at every point that the goldens hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from videochat_tools.models.videochat2.conversion import convert_chat, convert_retrieval
from videochat_tools.models.videochat2.image_processing import normalise
from videochat_tools.models.videochat2.stopping import StopOnSequences

VISUAL, LOGITS = 1e-4, 1e-3  # absolute tolerances; typical mistakes move visual embeddings by 0.06 and more


def close(ours: Tensor, golden: Tensor, tolerance: float = VISUAL) -> None:
    torch.testing.assert_close(ours, golden.reshape(ours.shape), rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def retrieval(retrieval_golden: tuple[Path, dict[str, Any], Any]) -> Any:
    folder, _, config = retrieval_golden
    return convert_retrieval(folder / "umt_qformer.pth", config)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_stage_1(retrieval: Any, retrieval_golden: tuple[Path, dict[str, Any], Any], implementation: str) -> None:
    folder, golden, _ = retrieval_golden
    model = retrieval
    model.set_attn_implementation(implementation)
    for case in golden["cases"].values():
        taps = load_file(folder / case["file"])
        ids, mask = taps["input_ids"], taps["attention_mask"]
        vision = model.encode_frames(taps["pixel_values"].float())
        close(vision, taps["vision_embeds"])
        queries = model.query_outputs(vision)
        close(queries, taps["query_output"])
        close(model.vision_proj(queries), taps["vision_proj"])
        text = model.qformer(input_ids=ids, attention_mask=mask).last_hidden_state
        close(text, taps["text_embeds"])
        close(model.text_proj(text[:, 0]), taps["text_proj"])

        similarity = model.similarity(model.video_embeds(vision), model.text_embeds(ids, mask))
        close(similarity, taps["sim_v2t_mean_temp1"])
        close(similarity / model.temperature, taps["sim_v2t_mean"], LOGITS)
        close(model.contrastive_loss(similarity, taps["idx"]), taps["loss_vtc"])
        count = len(ids)
        videos, texts = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
        pairs = vision[videos], ids[texts], mask[texts]
        close(model.match_embeds(*pairs), taps["itm_embeds"])
        close(model.match_logits(*pairs), taps["itm_logits"])
        logits = model.caption_logits(ids, mask, vision_embeds=vision)
        if "caption_logits" in taps:
            close(logits, taps["caption_logits"], LOGITS)
        close(model.caption_loss(logits, ids, mask), taps["loss_cap"])

        output = model(pixel_values=taps["pixel_values"].float(), input_ids=ids, attention_mask=mask)
        close(output.caption_loss, taps["loss_cap"])
        total = output.contrastive_loss + output.matching_loss + output.caption_loss
        close(output.loss, total)


def _pixels(folder: Path, golden: dict[str, Any], case: dict[str, Any], taps: dict[str, Tensor]) -> Tensor:
    while "pixel_values" not in taps:
        case = golden["cases"][case.get("pixel_values_from") or case["visual_from"]]
        taps = load_file(folder / case["file"])
    return taps["pixel_values"].float()


@torch.no_grad()
def test_chat(chat_golden: tuple[Path, dict[str, Any], Any], chat_model: Any, chat_processor: Any) -> None:
    folder, golden, config = chat_golden
    model, tokens = chat_model, config.num_visual_tokens
    for name, case in golden["cases"].items():
        taps = load_file(folder / case["file"])
        if "frames_uint8" in taps or "pixel_values_b" in taps:
            continue
        pixels = _pixels(folder, golden, case, taps)
        vision = model.vision_encoder(pixels, output_hidden_states=True)
        states = [taps.get("block_in"), *(taps.get(f"block_out.{i}") for i in range(len(vision.hidden_states) - 1))]
        for ours, golden_state in zip(vision.hidden_states, states, strict=True):
            if golden_state is not None:
                close(ours, golden_state)
        if "vit_out" in taps:
            close(vision.last_hidden_state, taps["vit_out"])
        if "vision_layernorm" in taps:
            close(model.encode_frames(pixels), taps["vision_layernorm"])
        if "pos_embed" in taps:
            side = config.vision_config.image_size // config.vision_config.patch_size
            close(model.vision_encoder.position_table(pixels.shape[1], side, side, pixels), taps["pos_embed"])

        source = golden["cases"][case["visual_from"]] if "visual_from" in case else case
        instruction = source["instruction"]
        ids, mask = taps.get("instruction_input_ids"), taps.get("instruction_attention_mask")
        if ids is None or mask is None:
            inputs = chat_processor.instruction_inputs(len(pixels), instruction)
            if ids is not None:
                assert inputs["qformer_input_ids"].tolist() == ids.tolist(), name
            ids, mask = inputs["qformer_input_ids"], inputs["qformer_attention_mask"]
        clips = model.get_clip_tokens(pixels, ids, mask)
        if "qformer_embeddings" in taps:
            queries = torch.cat([model.query_tokens, model.extra_query_tokens], dim=1)
            close(model.qformer.embeddings(queries, ids), taps["qformer_embeddings"])
        if "qformer_out" in taps:
            close(clips, taps["qformer_out"][:, :tokens])
        if "llm_visual_embeds" in taps:
            close(model.project(clips), taps["llm_visual_embeds"])
        if "llm_visual_embeds_empty_instruction" in taps:
            empty = chat_processor.instruction_inputs(len(pixels), "")
            close(model.project(model.get_clip_tokens(pixels, **empty)), taps["llm_visual_embeds_empty_instruction"])
        if "prompt" in case:
            prompt = chat_processor(case["prompt"])
            assert prompt["input_ids"].shape[1] == case["prompt_len"]
            embeds = model.embed_prompt(prompt["input_ids"], prompt["visual_mask"], clips)
            close(embeds, taps["inputs_embeds"])
            logits = model(**prompt, clip_tokens=clips).logits
            if "logits" in taps:
                close(logits, taps["logits"], LOGITS)
            else:
                close(logits[:, -1], taps["logits_last"], LOGITS)
            options = {"do_sample": False, "max_new_tokens": case["max_new_tokens"]}
            length = case["prompt_len"]
            made = model.generate(**prompt, clip_tokens=clips, **options)[0, length:].tolist()
            assert made == case["greedy_ids"], name
            if "greedy_ids_with_stops" in case:
                stop = StopOnSequences(case["stop_sequences_test"])
                made = model.generate(**prompt, clip_tokens=clips, stopping_criteria=[stop], **options)[0, length:]
                assert made.tolist() == case["greedy_ids_with_stops"], name


@torch.no_grad()
def test_full_size_frames(chat_golden: tuple[Path, dict[str, Any], Any], chat_model: Any, chat_processor: Any) -> None:
    folder, golden, _ = chat_golden
    case = golden["cases"].get("T8_img224")
    if case is None:
        pytest.skip("these goldens have no frames of 224 pixels")
    taps = load_file(folder / case["file"])
    pixels = normalise(taps["frames_uint8"].permute(0, 1, 3, 4, 2).numpy())
    states = chat_model.vision_encoder(pixels).last_hidden_state
    close(states[:, 0], taps["vit_out_frame0"])
    close(states.mean(dim=2), taps["vit_out_mean_per_frame"])
    clips = chat_model.get_clip_tokens(pixels, **chat_processor.instruction_inputs(1, case["instruction"]))
    close(chat_model.project(clips), taps["llm_visual_embeds"])


@torch.no_grad()
def test_training_loss(chat_golden: tuple[Path, dict[str, Any], Any], chat_model: Any) -> None:
    folder, _, _ = chat_golden
    taps = load_file(folder / "golden_train_it.safetensors")
    inputs = {name: taps[name] for name in ("inputs_embeds", "attention_mask", "labels")}
    close(chat_model(**inputs).loss, taps["loss"], LOGITS)


@torch.no_grad()
def test_lora_is_merged(chat_golden: tuple[Path, dict[str, Any], Any], chat_model: Any) -> None:
    folder, _, _ = chat_golden
    taps = load_file(folder / "golden_llm_lora.safetensors")
    close(chat_model(input_ids=taps["input_ids"]).logits, taps["logits_with_lora"], LOGITS)


@torch.no_grad()
def test_stage_2_reads_no_text(chat_golden: tuple[Path, dict[str, Any], Any]) -> None:
    from videochat_tools.models import VideoChat2Config

    folder, golden, config = chat_golden
    files = list(folder.glob("*stage2.pth"))
    if not files or "stage2" not in golden:
        pytest.skip("these goldens have no stage 2")
    fields = config.to_dict()
    fields["qformer_config"]["text_input"] = False
    model = convert_chat(files[0], folder / "llm", VideoChat2Config(**fields))
    taps = load_file(folder / golden["stage2"]["file"])
    pixels = taps["pixel_values"].float()
    close(model.vision_encoder(pixels).last_hidden_state, taps["vit_out"])
    close(model.encode_frames(pixels), taps["vision_layernorm"])
    clips = model.get_clip_tokens(pixels)
    close(clips, taps["qformer_out"])
    close(model.project(clips), taps["llm_visual_embeds"])
    inputs = {name.removeprefix("train_"): taps[name] for name in taps if name.startswith("train_")}
    loss = inputs.pop("loss")
    close(model(**inputs).loss, loss, LOGITS)
