"""The first VideoChat: parity with the original code at every point that the goldens hold, and its four sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, LlamaConfig

from videochat_tools.content import Turn, Visual
from videochat_tools.engine import ChatEngine, ReplySettings
from videochat_tools.errors import ModelLoadError
from videochat_tools.models import (
    VideoChatConfig,
    VideoChatForConditionalGeneration,
    VideoChatProcessor,
)
from videochat_tools.models.loading import read_checkpoint
from videochat_tools.models.videochat.conversion import LAYOUT, convert_videochat, original_names
from videochat_tools.models.videochat2.stopping import StopOnSequences

VISUAL, LOGITS = 1e-4, 1e-3  # absolute tolerances; typical mistakes move visual embeddings by 0.06 and more

Golden = tuple[Path, dict[str, Any], Any]


def close(ours: Tensor, golden: Tensor, tolerance: float = VISUAL) -> None:
    assert ours.numel() == golden.numel()
    torch.testing.assert_close(ours, golden.reshape(ours.shape), rtol=0, atol=tolerance)


def taps_of(folder: Path, case: dict[str, Any]) -> dict[str, Tensor]:
    return load_file(folder / case["file"])


def clips_of(folder: Path, golden: dict[str, Any], case: dict[str, Any]) -> list[Tensor]:
    """Pixels [B, T, C, H, W] of every visual of a case; they may stand in the file of another case."""
    own = taps_of(folder, case)
    sources = case.get("visual_from", "pixel_values")
    found = []
    for source in [sources] if isinstance(sources, str) else sources:
        pixels = own[source] if source in own else taps_of(folder, golden["cases"][source])["pixel_values"]
        found.append(pixels.float())
    return found


def prompts_of(golden: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: case for name, case in golden["cases"].items() if "prompt" in case}


# Goldens


def test_every_golden_file_belongs_to_a_case(videochat_golden: Golden) -> None:
    folder, golden, _ = videochat_golden
    named = {case["file"] for case in golden["cases"].values()}
    named |= {entry["file"] for name, entry in golden.items() if name.startswith("train_")}
    assert {path.name for path in folder.glob("golden_*.safetensors")} == named
    assert prompts_of(golden)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_every_tap(
    videochat_golden: Golden, videochat_model: Any, videochat_processor: Any, implementation: str
) -> None:
    folder, golden, config = videochat_golden
    model = videochat_model
    model.set_attn_implementation(implementation)
    patch = config.vision_config.patch_size
    for name, case in golden["cases"].items():
        taps = taps_of(folder, case)
        clips = clips_of(folder, golden, case)
        pixels = clips[0]
        taps.pop("pixel_values", None)
        batch, frames = pixels.shape[:2]
        rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        tower = model.vision_encoder(pixels, output_hidden_states=True)
        patches = model.vision_encoder.patch_embedding(pixels).transpose(2, 3).transpose(1, 2)  # [B, D, T, N]
        tokens = torch.cat([model.get_clip_tokens(clip) for clip in clips])

        found = {
            "patch_embed": patches,
            "pos_embed_interpolated": model.vision_encoder.position_table(rows, columns),
            "block_in": tower.hidden_states[0],
            "vit_out": tower.last_hidden_state,
            "ln_vision": model.encode_frames(pixels),
            "qformer_out": tokens[:batch],
            "llm_visual_embeds": model.project(tokens[:batch]),
        }
        assert len(tower.global_states) == config.vision_config.num_global_layers
        found |= {f"block_out.{index}": state for index, state in enumerate(tower.hidden_states[1:])}
        found |= {f"gmhra_out.{index}": state for index, state in enumerate(tower.global_states)}
        assert found["patch_embed"].shape == (batch, config.vision_config.hidden_size, frames, rows * columns)
        if isinstance(case.get("visual_from"), list):
            for source, place in zip(case["visual_from"], model.project(tokens), strict=True):
                if source in taps:
                    taps.pop(source)
                    found[source.replace("pixel_values", "llm_visual_embeds")] = place[None]
        for tap, ours in found.items():
            if tap in taps:
                close(ours, taps.pop(tap))
        if "prompt" in case:
            prompt = videochat_processor(case["prompt"])
            close(model.embed_prompt(prompt["input_ids"], prompt["visual_mask"], tokens), taps.pop("inputs_embeds"))
            logits = model(**prompt, clip_tokens=tokens).logits
            whole = "logits" in taps
            close(logits if whole else logits[:, -1], taps.pop("logits" if whole else "logits_last"), LOGITS)
        assert not taps, f"{name}: {sorted(taps)} were not compared"


def test_prompts(videochat_golden: Golden, videochat_processor: Any) -> None:
    _, golden, _ = videochat_golden
    processor = videochat_processor
    assert processor.stop_sequences == golden["stop_sequences_hash3"]
    for case in prompts_of(golden).values():
        assert case["sep"] == processor.template.separator
        human = processor.template.human
        messages = [("human" if role == human else "assistant", text) for role, text in case["messages"]]
        prompt = processor.render_chat(messages, system=case["system"])
        assert prompt == case["prompt"]
        ids, mask = processor.tokenize_prompt(prompt)
        expected_ids, expected_mask = [], []
        for number, segment in enumerate(case["segment_ids"]):
            if number:
                count = case["n_visual"][number - 1]
                expected_ids += [None] * count
                expected_mask += [True] * count
            expected_ids += segment
            expected_mask += [False] * len(segment)
        assert mask == expected_mask
        assert [None if visual else i for i, visual in zip(ids, mask, strict=True)] == expected_ids
        assert len(ids) == case["prompt_len"]


@torch.no_grad()
def test_greedy_answers(videochat_golden: Golden, videochat_model: Any, videochat_processor: Any) -> None:
    folder, golden, _ = videochat_golden
    for name, case in prompts_of(golden).items():
        prompt = videochat_processor(case["prompt"])
        tokens = torch.cat([videochat_model.get_clip_tokens(clip) for clip in clips_of(folder, golden, case)])
        inputs = {**prompt, "clip_tokens": tokens, "do_sample": False, "max_new_tokens": case["max_new_tokens"]}

        def answer(inputs: dict[str, Any] = inputs, length: int = case["prompt_len"], **options: Any) -> list[int]:
            ids: list[int] = videochat_model.generate(**inputs, **options)[0, length:].tolist()
            return ids

        assert answer() == case["greedy_ids"], name
        if "\ufffd" not in case["greedy_text"]:  # slow and fast tokenizers put other signs for bytes that are no text
            assert videochat_processor.tokenizer.decode(case["greedy_ids"]) == case["greedy_text"]
        for number in ("", "2"):
            stop = StopOnSequences(case[f"stop_sequences_test{number}"])
            assert answer(stopping_criteria=[stop]) == case[f"greedy_ids_with_stops{number}"], name
        for field, expected in case.items():
            if field.startswith("greedy_ids_repetition_penalty_"):
                penalty = float(field.removeprefix("greedy_ids_repetition_penalty_").replace("p", "."))
                assert answer(repetition_penalty=penalty) == expected, name


@torch.no_grad()
def test_a_batch_answers_as_its_prompts_do_alone(
    videochat_golden: Golden, videochat_model: Any, videochat_processor: Any
) -> None:
    folder, golden, _ = videochat_golden
    cases = list(prompts_of(golden).values())
    batch = videochat_processor([case["prompt"] for case in cases])
    clips = [clip for case in cases for clip in clips_of(folder, golden, case)]
    tokens = torch.cat([videochat_model.get_clip_tokens(clip) for clip in clips])
    count = min(case["max_new_tokens"] for case in cases)
    together = videochat_model.generate(**batch, clip_tokens=tokens, do_sample=False, max_new_tokens=count)
    answers = together[:, batch["input_ids"].shape[1] :].tolist()
    # A row that ends before the others is filled up with the padding id.
    for ids, case in zip(answers, cases, strict=True):
        assert ids[: len(case["greedy_ids"])] == case["greedy_ids"][:count]


def test_answers_are_cleaned(videochat_processor: Any) -> None:
    tokenizer = videochat_processor.tokenizer
    before = [tokenizer.unk_token_id, tokenizer.bos_token_id]
    words = tokenizer("Human: a Assistant: The man is dancing.", add_special_tokens=False)["input_ids"]
    for stop in videochat_processor.stop_sequences:
        after = [tokenizer.eos_token_id, *stop, *words]
        assert videochat_processor.decode_answer([*before, *words, *after]) == "The man is dancing."
    assert videochat_processor.decode_answer(torch.tensor([*words, *before])).startswith("The man is dancing.")
    assert videochat_processor.decode_answer([]) == ""


def test_pixels_and_options_of_the_demo(videochat_processor: Any) -> None:
    side = videochat_processor.options.image_size
    frames = np.zeros((2, side, 2 * side, 3), np.uint8)
    frames[:, :, side // 2 : side // 2 + side] = 255  # the centre square
    video = videochat_processor.visual_inputs(frames)
    assert set(video) == {"pixel_values"}  # nothing is told to the Q-Former
    assert video["pixel_values"].shape == (1, 2, 3, side, side)
    assert video["pixel_values"].min() > 0  # cut to the centre
    image = videochat_processor.visual_inputs(frames[:1], image=True)["pixel_values"]
    assert image[0, 0, 0, 0, 0] < 0 < image[0, 0, 0, 0, side // 2]  # squashed: the dark sides are still there
    assert VideoChatProcessor().options.timestamps
    assert VideoChatProcessor().options.num_visual_tokens == VideoChatConfig().num_visual_tokens == 96


# The four sources


def with_image_size(config: VideoChatConfig, image_size: int) -> VideoChatConfig:
    fields = config.to_dict()
    fields["vision_config"]["image_size"] = image_size
    return VideoChatConfig(**fields)


@torch.no_grad()
def test_a_model_of_another_resolution(videochat_golden: Golden, videochat_sources: dict[str, Path]) -> None:
    folder, golden, config = videochat_golden
    sized = [case for case in golden["cases"].values() if "img_size" in case]
    assert sized
    for case in sized:
        model = convert_videochat(**videochat_sources, config=with_image_size(config, case["img_size"]))  # type: ignore[arg-type]
        taps = taps_of(folder, case)
        close(model.vision_encoder.position_embedding, taps["pos_embed_interpolated"])
        pixels = taps["pixel_values"].float()
        close(model.vision_encoder(pixels).last_hidden_state, taps["vit_out"])
        close(model.project(model.get_clip_tokens(pixels)), taps["llm_visual_embeds"])


def test_the_released_sizes_are_the_default(videochat_sources: dict[str, Path]) -> None:
    with pytest.raises(ModelLoadError, match="the configuration asks for"):
        convert_videochat(**videochat_sources)  # type: ignore[arg-type]


def test_the_report_counts_every_part(videochat_model: Any, videochat_sources: dict[str, Path]) -> None:
    report = videochat_model.load_report
    assert report.complete
    assert [count.name for count in report.counts] == [component.name for component in LAYOUT.components]
    originals = {original for name in videochat_model.state_dict() for original in original_names(name)}
    assert sum(count.loaded for count in report.counts) == len(originals)
    assert all(str(path) in report.source for path in videochat_sources.values())


@pytest.mark.parametrize(("argument", "given"), [("eva", "blip2"), ("blip2", "checkpoints"), ("checkpoints", "eva")])
def test_mixed_up_files_are_told_apart(
    videochat_golden: Golden, videochat_sources: dict[str, Path], argument: str, given: str
) -> None:
    with pytest.raises(ModelLoadError, match=rf"wrong stage: .*{videochat_sources[given].name} is .*; give "):
        convert_videochat(**{**videochat_sources, argument: videochat_sources[given]}, config=videochat_golden[2])  # type: ignore[arg-type]


def test_the_file_that_is_loaded_last_wins(videochat_sources: dict[str, Path], videochat_model: Any) -> None:
    last = read_checkpoint(videochat_sources["checkpoints"])["ln_vision.weight"]
    assert not torch.equal(last, read_checkpoint(videochat_sources["blip2"])["ln_vision.weight"])
    assert torch.equal(videochat_model.vision_layernorm.weight, last)


def test_several_files_of_videochat(
    videochat_golden: Golden, videochat_sources: dict[str, Path], tmp_path: Path
) -> None:
    tensors = read_checkpoint(videochat_sources["checkpoints"])
    changed = tensors["llama_proj.bias"] + 1
    later = {name: tensors[name] for name in tensors if name != "extra_query_tokens"}
    torch.save({"model": {**later, "llama_proj.bias": changed}}, tmp_path / "stage2.pth")
    paths = {**videochat_sources, "checkpoints": [videochat_sources["checkpoints"], tmp_path / "stage2.pth"]}
    model = convert_videochat(**paths, config=videochat_golden[2])  # type: ignore[arg-type]
    assert torch.equal(model.projection.bias, changed)
    assert torch.equal(model.extra_query_tokens, tensors["extra_query_tokens"])


@pytest.mark.parametrize(
    ("source", "dropped", "message"),
    [
        ("checkpoints", "visual_encoder.gmhra_cls_token", r"GMHRA: 1 tensor .*released in videochat_7b\.pth"),
        ("checkpoints", "extra_query_tokens", r"extra queries: 1 tensor .*released in videochat_7b\.pth"),
        ("checkpoints", "llama_proj.weight", r"projection: 1 tensor .*released in videochat_7b\.pth"),
        ("blip2", "query_tokens", r"queries: 1 tensor .*released in blip2_pretrained_flant5xxl\.pth"),
        ("eva", "blocks.0.attn.q_bias", r"vision tower: 1 tensor .*released in eva_vit_g\.pth"),
    ],
)
def test_a_missing_tensor_names_its_part_and_its_file(
    videochat_golden: Golden,
    videochat_sources: dict[str, Path],
    tmp_path: Path,
    source: str,
    dropped: str,
    message: str,
) -> None:
    tensors = read_checkpoint(videochat_sources[source])
    del tensors[dropped]
    torch.save({"model": tensors}, tmp_path / "cut.pth")
    with pytest.raises(ModelLoadError, match=message) as caught:
        convert_videochat(**{**videochat_sources, source: tmp_path / "cut.pth"}, config=videochat_golden[2])  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_belongs_to_no_part_is_refused(
    videochat_golden: Golden, videochat_sources: dict[str, Path], tmp_path: Path
) -> None:
    depth = videochat_golden[2].vision_config.num_hidden_layers
    for source, name in (
        ("eva", f"blocks.{depth + 1}.norm1.weight"),  # two blocks too many: the configuration is another model's
        ("checkpoints", "visual_encoder.blocks.0.lmhra1.weight"),
    ):
        tensors = read_checkpoint(videochat_sources[source])
        torch.save({"model": {**tensors, name: torch.zeros(1)}}, tmp_path / "more.pth")
        with pytest.raises(ModelLoadError, match=r"vision tower: 1 tensor .*does not have"):
            convert_videochat(**{**videochat_sources, source: tmp_path / "more.pth"}, config=videochat_golden[2])  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_released_names_and_shapes(shared: Path, size: str) -> None:
    inventory = json.loads((shared / "reference" / f"inventory_v1_{size}.json").read_text())
    with torch.device("meta"):
        model = VideoChatForConditionalGeneration(
            VideoChatConfig(text_config=LlamaConfig(**inventory["llm"]["config"]))
        )
    left = {name: tuple(entry["shape"]) for name, entry in inventory["keys"].items()}
    for name, tensor in model.state_dict().items():
        if name.startswith("language_model."):
            continue
        originals = original_names(name)
        shapes = [left.pop(original) for original in originals]
        expected = shapes[0] if len(shapes) == 1 else (3 * shapes[0][0],)  # keys have no bias
        assert tuple(tensor.shape) == expected, name
        for original in originals:
            released = inventory["keys"][original]["file"].replace("*", "7b")
            assert LAYOUT.component(original).files.split(" or ")[0] in released.split("[")[0], original
    assert list(left) == ["Qformer.bert.embeddings.position_ids"]
    assert model.language_model.config.vocab_size == inventory["llm"]["config"]["vocab_size"]


# Disk


@torch.no_grad()
def test_model_and_processor_survive_the_disk(
    videochat_golden: Golden, videochat_model: Any, videochat_processor: Any, tmp_path: Path
) -> None:
    folder, golden, _ = videochat_golden
    videochat_model.save_pretrained(tmp_path)
    videochat_processor.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), VideoChatConfig)
    expected = videochat_model.state_dict()
    for auto in (AutoModel, AutoModelForImageTextToText, VideoChatForConditionalGeneration):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is VideoChatForConditionalGeneration
        assert not info["missing_keys"] and not info["unexpected_keys"]
        state = loaded.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor) is VideoChatProcessor
    assert processor.options == videochat_processor.options
    assert processor.stop_sequences == videochat_processor.stop_sequences
    case = next(iter(prompts_of(golden).values()))
    prompt = processor(case["prompt"])
    for name, value in videochat_processor(case["prompt"]).items():
        assert torch.equal(prompt[name], value)
    clips = torch.cat(clips_of(folder, golden, case))
    options = {"do_sample": False, "max_new_tokens": case["max_new_tokens"]}
    made = loaded.generate(**prompt, pixel_values=clips, **options)
    assert made[0, case["prompt_len"] :].tolist() == case["greedy_ids"]


@torch.no_grad()
def test_the_chat_engine_runs_it(
    videochat_golden: Golden, videochat_model: Any, videochat_processor: Any, tmp_path: Path
) -> None:
    _, _, config = videochat_golden
    videochat_model.save_pretrained(tmp_path)
    videochat_processor.save_pretrained(tmp_path)
    engine = ChatEngine(tmp_path, "cpu")
    assert engine.tokens_per_clip == config.num_visual_tokens
    side = engine.frame_size
    frames = np.random.default_rng(0).integers(0, 256, (engine.num_frames, side, side, 3), dtype=np.uint8)
    tokens = engine.watch(frames[None])[0]
    inputs = videochat_processor.visual_inputs(frames)
    np.testing.assert_allclose(tokens, videochat_model.get_clip_tokens(**inputs)[0], rtol=2e-3, atol=1e-3)  # half
    turns = [Turn("human", "What is he doing?", (Visual(kind="video", file_id="clip"),))]
    reply = engine.reply(turns, ReplySettings(max_tokens=8), clip_source=lambda _: tokens)
    text = "".join(reply)
    prompt = videochat_processor("###Human: <Video><VideoHere></Video>\n###Human: What is he doing?\n###Assistant:")
    assert reply.input_tokens == prompt["input_ids"].shape[1]
    made = videochat_model.generate(
        **prompt, clip_tokens=torch.tensor(tokens)[None].float(), do_sample=False, max_new_tokens=8,
        stopping_criteria=[StopOnSequences(videochat_processor.stop_sequences)],
    )  # fmt: skip
    new = made[0, reply.input_tokens :]
    assert reply.output_tokens == len(new)
    answer = videochat_processor.tokenizer.decode(new, skip_special_tokens=True)
    if "\ufffd" not in answer:  # a piece shown may be no text any more when the next byte is known
        assert text == answer.split("###")[0].strip()
