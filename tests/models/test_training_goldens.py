"""What the original code trains on, and its loss: every file ``golden_train_*``, captioning and stage 1."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertTokenizer

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models import VideoChat2Config
from videochat_tools.models.videochat2 import ProcessorOptions, VideoChat2Processor
from videochat_tools.models.videochat2.conversion import convert_chat, convert_retrieval
from videochat_tools.models.videochat2.tiling import split_views
from videochat_tools.training.released import (
    IGNORED,
    CaptionSample,
    EncodingRecipe,
    InstructionSample,
    Span,
    TrainingText,
    Turn,
    collate,
    encode_spans,
    encode_text,
    loss_inputs,
    released_recipe,
    render_caption,
    render_instruction,
)

VISUAL, LOSS = 1e-4, 1e-3  # absolute tolerances of the goldens

# By folder: family, captioning stage, stage of conversations.
STAGES = {
    "v1": ("videochat", 1, 2),
    "vc2_vicuna": ("vicuna", 2, 3),
    "vc2_mistral": ("mistral", 2, 3),
    "vc2_mistral_hd": ("mistral", 2, 4),
    "vc2_phi": ("phi3", 2, 3),
}


def close(ours: Tensor, golden: Tensor, tolerance: float = VISUAL) -> None:
    torch.testing.assert_close(ours, golden.reshape(ours.shape), rtol=0, atol=tolerance)


# The texts of the goldens, read back into samples


def parse(family: str, text: str) -> tuple[InstructionSample, list[float] | None]:
    """Sample and times of a text that the original data code wrote."""
    reader = {"mistral": _parse_mistral, "phi3": _parse_phi3}.get(family, _parse_vicuna)
    instruction, kind, message, turns = reader(text)
    first, *others = [Turn(question or "", answer) for question, answer in turns]
    times = [float(time) for time in re.findall(r"\d+\.\d+", message or "")] or None
    sample = InstructionSample((replace(first, instruction=instruction or ""), *others), kind and kind.lower())
    return sample, times


Parsed = tuple[str | None, str | None, str | None, list[tuple[str, str]]]


def _parse_vicuna(text: str) -> Parsed:
    opening = re.match(r"(?:(.*?) )?###Human: <(Video|Image)></\2>( The video .*?seconds\.)? (?=###)", text)
    assert opening, text
    turns = re.findall(r"(?:###Human: (.*?) )?###Assistant: (.*?) (?=###)", text[opening.end() :])
    return (*opening.groups(), turns)


def _parse_mistral(text: str) -> Parsed:
    opening = re.match(r"(?:(.*?) )?\[INST\] <(Video|Image)></\2>( The video .*?seconds\.)? \[/INST\] ", text)
    groups: tuple[Any, ...] = (None, None, None)
    if opening:
        groups, text = opening.groups(), text[opening.end() :]
    elif not text.startswith("[INST]"):
        groups, text = (text[: text.index(" [INST]")], None, None), text[text.index("[INST]") :]
    return (*groups, re.findall(r" ?(?:\[INST\] (.*?) \[/INST\] )?(.*?) </s>", text))


def _parse_phi3(text: str) -> Parsed:
    system = re.match(r"<\|system\|>\n(.*?)<\|end\|>\n", text)
    visual = re.search(r"<(Video|Image)></\1>(.*?)\n", text)
    rows = re.findall(r"<\|user\|>\n(?:<Video></Video>.*?\n|<Image></Image>.*?\n)?(.*?)<\|end\|>\n<\|assistant\|>\n"
                      r"(.*?)<\|end\|>", text)  # fmt: skip
    return (system and system[1], visual and visual[1], visual and visual[2], rows)


# The goldens


@dataclass(frozen=True)
class Goldens:
    """A folder of goldens with the models and the processor that its cases need."""

    folder: Path
    golden: dict[str, Any]
    processor: Any
    chat: Any
    caption: Any = None  # model of the captioning stage, if the folder has one

    def cases(self) -> dict[str, dict[str, Any]]:
        """Training entries of golden.json by file; none of the files may lack one."""
        entries = [entry for entry in self.golden.values() if isinstance(entry, dict) and "max_txt_len" in entry]
        cases = {entry["file"]: entry for entry in entries}
        assert {path.name for path in self.folder.glob("golden_train_*")} <= set(cases), "not in golden.json"
        return cases

    def recipe(self, entry: dict[str, Any]) -> EncodingRecipe:
        family, captions, conversations = STAGES[self.folder.name]
        recipe = released_recipe(family, captions if "prompt_template" in entry else conversations)
        return replace(recipe, max_text_length=entry["max_txt_len"])

    def clips(self, entry: dict[str, Any], tensors: dict[str, Tensor]) -> list[Tensor]:
        """Clips of every row as the networks see them: [views, T, C, H, W]; none for text alone."""
        if "pixel_values_0" in tensors:
            tiling = self.golden["dynamic_config"]
            rows = [tensors[f"pixel_values_{row}"].float() for row in range(len(entry["text_input"]))]
            return [split_views(row, tiling["local_size"], global_view=tiling["add_global"]) for row in rows]
        if name := entry.get("pixel_values_from"):
            case = self.golden["cases"].get(name)
            tensors = load_file(self.folder / (case["file"] if case else self.golden[f"cases_{name}_file"]))
        return list(tensors["pixel_values"].float()[:, None]) if "pixel_values" in tensors else []


def captions_of(entry: dict[str, Any], recipe: EncodingRecipe) -> list[TrainingText]:
    """Our texts for the captions; they must be the very texts that the original code was given."""
    assert recipe.captions is not None
    assert (recipe.captions.prompt, recipe.captions.end) == (entry["prompt_template"], entry["end_sym"])
    asked = re.fullmatch(r"<(Video|Image)><\1Here></\1> (.*)", entry["prompt"])
    assert asked, entry["prompt"]
    texts = []
    for caption in entry.get("captions") or entry["text_input"]:
        text = render_caption(CaptionSample(caption, asked[1].lower()), recipe, request=asked[2])
        assert text.text == entry["prompt_template"].format(entry["prompt"]) + caption + entry["end_sym"]
        texts.append(text)
    return texts


def conversations_of(entry: dict[str, Any], recipe: EncodingRecipe) -> list[TrainingText]:
    """The same for conversations. What the Q-Former is told was made up by hand in the goldens of HD."""
    texts = []
    for number, written in enumerate(entry["text_input"]):
        sample, times = parse(recipe.family, written)
        text = render_instruction(sample, recipe, times=times)
        assert text.text.replace("<VideoHere>", "").replace("<ImageHere>", "") == written
        if "instruction" in entry:
            told = entry["instruction"][number]
            assert recipe.stage == 4 or text.instruction == told
            text = replace(text, instruction=told)
        texts.append(text)
    return texts


@torch.no_grad()
def check(goldens: Goldens) -> None:
    """Every tensor of every training golden of a folder."""
    cases = goldens.cases()
    assert cases, "no training goldens at all"
    for file, entry in cases.items():
        recipe, tensors = goldens.recipe(entry), load_file(goldens.folder / file)
        captions = recipe.captions is not None
        if "train_loss" in tensors:  # the file also has taps of the networks, which test_goldens.py looks at
            kept = [name for name in tensors if name.startswith(("train_", "pixel_values"))]
            tensors = {name.removeprefix("train_"): tensors[name] for name in kept}
        model = goldens.caption if captions else goldens.chat
        tokenizer, per_clip = goldens.processor.tokenizer, model.config.num_visual_tokens

        texts = captions_of(entry, recipe) if captions else conversations_of(entry, recipe)
        clips = goldens.clips(entry, tensors)
        places = [per_clip * len(clip) for clip in clips] or [0] * len(texts)
        assert places == entry.get("lens", places)
        rows = [
            encode_text(tokenizer, text, recipe, visual_tokens=count) for text, count in zip(texts, places, strict=True)
        ]
        batch = collate(rows, tokenizer, recipe)
        looked_at = {name for name in tensors if name.startswith("pixel_values")}
        for name in ("attention_mask", "labels"):
            assert getattr(batch, name).tolist() == tensors[name].tolist(), (file, name)
            looked_at.add(name)

        watched = None
        if clips:
            told = batch.clip_instructions(per_clip)
            inputs = goldens.processor.instruction_inputs(len(told), told) if told else {}
            assert bool(inputs) == (recipe.qformer_text != "nothing")
            watched = model.get_clip_tokens(torch.cat(clips), **inputs)
            shown = model.project(watched).split([len(clip) for clip in clips])
            for name in tensors:
                if name.startswith("llm_visual_embeds_"):
                    close(shown[int(name.rpartition("_")[2])], tensors[name])
                    looked_at.add(name)

        # The original conversations begin with the number of the BOS id, its captions with the embedding.
        as_released = loss_inputs(model, batch, watched, constant_bos=not captions)
        close(as_released["inputs_embeds"], tensors["inputs_embeds"])
        close(model(**as_released).loss, tensors["loss"], LOSS)
        assert looked_at | {"inputs_embeds", "loss"} == set(tensors), file

        plain = loss_inputs(model, batch, watched)
        first = model.get_input_embeddings()(torch.tensor(tokenizer.bos_token_id))
        assert torch.equal(plain["inputs_embeds"][:, 0], first.expand(len(rows), -1))
        assert torch.equal(plain["inputs_embeds"][:, 1:], as_released["inputs_embeds"][:, 1:])
        assert torch.equal(plain["labels"], as_released["labels"])
        assert torch.equal(plain["attention_mask"], as_released["attention_mask"])
        names = ("input_ids", "attention_mask", "visual_mask", "labels")
        loss = model(**{name: getattr(batch, name) for name in names}, clip_tokens=watched).loss
        close(model(**plain).loss, loss)
        if not captions:
            numbers = as_released["inputs_embeds"][:, 0]
            assert torch.equal(numbers, torch.full_like(numbers, tokenizer.bos_token_id))
            assert not torch.isclose(loss, tensors["loss"], atol=1e-6), "the first embedding has no effect"


def test_videochat2(chat_golden: tuple[Path, dict[str, Any], Any], chat_model: Any, chat_processor: Any) -> None:
    folder, golden, config = chat_golden
    caption = None
    if "stage2" in golden:
        fields = config.to_dict()
        fields["qformer_config"]["text_input"] = False
        (checkpoint,) = folder.glob("*stage2.pth")
        caption = convert_chat(checkpoint, folder / "llm", VideoChat2Config(**fields))
    check(Goldens(folder, golden, chat_processor, chat_model, caption))


def test_videochat2_hd(hd_golden: tuple[Path, dict[str, Any], Any, Any]) -> None:
    folder, golden, model, processor = hd_golden
    check(Goldens(folder, golden, processor, model))


def test_videochat(
    videochat_golden: tuple[Path, dict[str, Any], Any], videochat_model: Any, videochat_processor: Any
) -> None:
    folder, golden, _ = videochat_golden
    check(Goldens(folder, golden, videochat_processor, videochat_model, videochat_model))


@torch.no_grad()
def test_stage_1(retrieval_golden: tuple[Path, dict[str, Any], Any], goldens: Callable[[str], Path]) -> None:
    """From captions as they are written to all that the three losses are made of."""
    folder, golden, config = retrieval_golden
    config = copy.deepcopy(config)
    model = convert_retrieval(folder / "umt_qformer.pth", config)
    options = ProcessorOptions(max_text_length=golden["max_txt_l"], truncation_side="right")
    processor = VideoChat2Processor(None, BertTokenizer.from_pretrained(goldens("bert")), options)
    texts = processor.encode_texts(golden["captions"])
    ids, mask = texts["input_ids"], texts["attention_mask"]
    length = ids.shape[1]  # ours are as long as the longest caption, the original ones as long as the longest allowed
    for case in golden["cases"].values():
        tensors = load_file(folder / case["file"])
        assert ids.tolist() == tensors["input_ids"][:, :length].tolist()
        assert mask.tolist() == tensors["attention_mask"][:, :length].tolist()
        assert not tensors["attention_mask"][:, length:].any()

        vision = model.encode_frames(tensors["pixel_values"].float())
        videos, captions = model.video_embeds(vision), model.text_embeds(ids, mask)
        for aggregation in ("mean", "max"):
            config.aggregation = aggregation
            similarity = model.similarity(videos, captions) / model.temperature
            close(similarity, tensors[f"sim_v2t_{aggregation}"], LOSS)
            close(similarity.T.contiguous(), tensors[f"sim_t2v_{aggregation}"], LOSS)
        config.aggregation = golden["reference_dims"]["agg_method"]
        output = model(tensors["pixel_values"].float(), ids, mask, sample_ids=tensors["idx"])
        close(output.contrastive_loss, tensors["loss_vtc"])
        close(output.caption_loss, tensors["loss_cap"])

        # [DEC] stands in place of [CLS]; padding is not learned.
        started = tensors["caption_input_ids"][:, :length]
        assert (started[:, 0] == config.qformer_config.decoder_start_token_id).all()
        assert started[:, 1:].tolist() == ids[:, 1:].tolist()
        logits = model.caption_logits(started, mask, vision_embeds=vision)
        if "caption_logits" in tensors:
            close(logits, tensors["caption_logits"][:, :length], LOSS)
        labels = tensors["caption_labels"][:, :length]
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=config.caption_label_smoothing
        )
        close(model.caption_loss(model.caption_logits(ids, mask, vision_embeds=vision), ids, mask), loss)


def test_every_folder_is_known(goldens: Callable[[str], Path]) -> None:
    root = goldens("manifest.json").parent
    assert {path.parent.name for path in root.glob("*/golden_train_*")} <= set(STAGES)


# Hand-made samples in the words of each family's own tokenizer

AWKWARD = {
    "several turns": [("What is she doing?", "Yoga."), ("Where?", "On a mat."), ("Who?", "A woman.")],
    "no question": [("", "A dog runs.")],
    "no question later": [("Where?", "Here."), ("", "A dog runs.")],
    "one word": [("Who", "I")],
    "white space at the ends": [("What is it? ", "A dog.  "), ("Where?\n", " Here.\n")],
    "lines": [("Name two:\n(A) dog\n(B) cat", "(A)\n\n(B)")],
    "signs of the template": [("Is # or ## a mark?", "### is. [INST] too."), ("<Video>?", "</Video> is one.")],
    "other alphabets": [("什么?", "狗 🐕"), ("Où ça ?", "Là — à côté…")],
}


@pytest.mark.parametrize("name", list(AWKWARD))
def test_just_the_answers_are_learned(
    name: str, chat_golden: tuple[Path, dict[str, Any], Any], chat_processor: Any
) -> None:
    family, tokenizer = chat_golden[2].family, chat_processor.tokenizer
    recipe = released_recipe(family, 3)
    turns = tuple(Turn(question, answer, "Answer.") for question, answer in AWKWARD[name])
    text = render_instruction(InstructionSample(turns, "video"), recipe, times=[0.5, 1.0])
    row = encode_text(tokenizer, text, recipe, visual_tokens=3)
    said = {
        "vicuna": lambda turn: ("###Human:" if turn.question else "") + "###Assistant:" + turn.answer,
        "mistral": lambda turn: turn.answer + "</s>",
        "phi3": lambda turn: turn.answer + "<|end|>",
    }[family]
    expected = "".join(map(said, turns)) + ("###" if family == "vicuna" else "")
    learned = tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert "".join(learned.split()) == "".join(expected.split())
    read = tokenizer.decode([i for i, visual in zip(row.input_ids, row.visual, strict=True) if not visual])
    whole = text.text.replace("<VideoHere>", "")
    assert "".join(read.removeprefix(tokenizer.bos_token).split()) == "".join(whole.split())


def test_a_token_across_a_border_is_refused(chat_processor: Any) -> None:
    tokenizer = chat_processor.tokenizer
    words = (word[1:] for word in tokenizer.get_vocab() if word.startswith("▁") and word[1:].isalpha())
    word = next(
        word for word in words if len(word) > 3 and len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1
    )
    ids, labels = encode_spans(tokenizer, [Span("One "), Span(f"{word} two", learned=True)])
    assert ids == tokenizer(f"One {word} two", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode([label for label in labels if label != IGNORED]).strip() == f"{word} two"
    with pytest.raises(UnsupportedContentError, match=r"joins the end of .* put a space between them") as caught:
        encode_spans(tokenizer, [Span(f"One {word[:2]}"), Span(f"{word[2:]} two", learned=True)])
    assert "\n" not in str(caught.value)
