"""Prompts, token ids, stops and the clean-up of answers equal those of the original code, in every family."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from videochat_tools.models import VideoChat2Processor, VideoChatProcessor
from videochat_tools.models.videochat2 import ProcessorOptions
from videochat_tools.models.videochat2.pieces import decode_pieces
from videochat_tools.models.videochat2.prompts import PLACEHOLDER, TEMPLATES, ChoicePrompt, PromptTemplate
from videochat_tools.models.videochat2.stopping import StopOnSequences

MODELS = {  # name of the options, by the "family" of a golden
    "videochat_v1": "videochat",
    "videochat2_vicuna": "vicuna",
    "videochat2_mistral": "mistral",
    "videochat2_mistral_hd": "mistral_hd",
    "videochat2_phi3": "phi3",
}
FOLDERS = ("v1", "vc2_vicuna", "vc2_mistral", "vc2_mistral_hd", "vc2_phi")


@pytest.fixture(scope="module", params=FOLDERS)
def family(request: pytest.FixtureRequest, goldens: Callable[[str], Path]) -> tuple[Path, dict[str, Any], Any]:
    """Folder, golden.json and processor of a chat model."""
    from transformers import AutoTokenizer, BertTokenizer

    folder = goldens(request.param)
    golden = json.loads((folder / "golden.json").read_text())
    path = Path(golden.get("files", {}).get("llm", "llm"))
    language_model = folder / path if path.parts[0] != ".." else goldens(path.parts[1]).joinpath(*path.parts[2:])
    dims = golden["reference_dims"]
    options = ProcessorOptions.released(
        MODELS[golden["family"]], num_visual_tokens=dims["num_query_token"] + dims["extra_num_query_token"]
    )
    words = AutoTokenizer.from_pretrained(language_model)
    if request.param == "v1":
        return folder, golden, VideoChatProcessor(words, None, options)
    return folder, golden, VideoChat2Processor(words, BertTokenizer.from_pretrained(goldens("bert")), options)


def written_again(template: PromptTemplate, text: str) -> str:
    """A recorded message with a visual, written by the template from its caption and question."""
    kind = "video" if "<VideoHere>" in text else "image"
    rest = text.split(f"</{kind.capitalize()}>", 1)[1]
    if template.visual_alone:
        return template.visual_text(kind, rest.removesuffix(template.visual_end).strip())  # type: ignore[arg-type]
    caption, question = rest.split("\n", 1) if kind == "video" else ("", rest.strip())
    return template.visual_text(kind, caption.strip()) + template.question_text(question)  # type: ignore[arg-type]


def test_prompts_and_their_ids(family: tuple[Path, dict[str, Any], Any]) -> None:
    _, golden, processor = family
    template, places = processor.template, processor.options.num_visual_tokens
    told_times = False
    for name, case in golden["cases"].items():
        if "prompt" not in case:
            assert case.get("visual_only") or "messages" not in case, name
            continue
        messages = [("human" if role == template.human else "assistant", text) for role, text in case["messages"]]
        prompt = processor.render_chat(messages[:-1], system=case["system"], answer_start=case.get("answer_prompt"))
        assert prompt == case["prompt"]
        assert case["sep"] == template.separator
        assert PLACEHOLDER.split(prompt) == case["segments"]
        ids, mask = processor.tokenize_prompt(prompt, [count // places for count in case["n_visual"]])
        expected_ids, expected_mask = list(case["segment_ids"][0]), [False] * len(case["segment_ids"][0])
        for count, piece in zip(case["n_visual"], case["segment_ids"][1:], strict=True):
            expected_ids += piece
            expected_mask += [True] * count + [False] * len(piece)
        assert mask == expected_mask, name
        assert [token for token, visual in zip(ids, mask, strict=True) if not visual] == expected_ids, name
        assert len(ids) == case["prompt_len"]
        for _, text in messages:
            if text is not None and PLACEHOLDER.search(text):
                assert written_again(template, text) == text, name
                told_times |= "frames sampled at" in text
    assert processor.options.timestamps == told_times


def test_multiple_choice_prompts(family: tuple[Path, dict[str, Any], Any]) -> None:
    _, golden, processor = family
    choice, template = ChoicePrompt(), processor.template
    for case in golden["cases"].values():
        if not case.get("answer_prompt"):
            continue
        asked = case["messages"][1][1].removesuffix(template.question_end)
        question = asked.removeprefix(choice.system).removesuffix(choice.question_end)
        assert len(question) == len(asked) - len(choice.system) - len(choice.question_end)
        messages = choice.messages(template, question)
        prompt = processor.render_chat(messages, system=choice.system, answer_start=choice.answer_start)
        assert prompt == case["prompt"]
        assert case["instruction"] == choice.system
        assert case["answer_prompt"] == choice.answer_start
    plain = ChoicePrompt(repeat_system=False).messages(template, "Which?")
    assert "".join(str(text) for _, text in plain).count("Carefully watch") == 0
    assert choice.prediction(" A) a dog\nBecause it barks.") == "(A) a dog"


def test_stops_and_special_tokens(family: tuple[Path, dict[str, Any], Any]) -> None:
    _, golden, processor = family
    tokenizer, stops = processor.tokenizer, processor.stop_sequences
    assert stops
    if "stop_sequences_hash3" in golden:
        assert stops == golden["stop_sequences_hash3"]
    if "stop_token_ids" in golden:
        assert sorted(stops) == sorted([token] for token in golden["stop_token_ids"])
    for token, number in golden.get("special_token_ids", {}).items():
        assert tokenizer.convert_tokens_to_ids(token) == number
    if "tokenizer_pad" in golden:
        assert tokenizer.eos_token == golden["tokenizer_pad"]
        assert [tokenizer.eos_token_id] in stops


def test_answers_are_decoded_and_cut(family: tuple[Path, dict[str, Any], Any]) -> None:
    _, golden, processor = family
    tokenizer = processor.tokenizer
    for name, case in golden["cases"].items():
        if "greedy_ids" not in case:
            continue
        ids, answer = case["greedy_ids"], case["greedy_text"]
        slow = processor.options.family == "vicuna"
        text = decode_pieces(tokenizer, ids) if slow else tokenizer.decode(ids)
        if slow and set(ids) & set(tokenizer.all_special_ids):
            # The tokenizer of the original environment put spaces before the text around special tokens.
            assert "".join(text.split()) == "".join(answer.split())
            answer = text
        assert text == answer, name
        for stop in processor.template.stop_texts:
            answer = answer.split(stop)[0]
        answer = answer.replace(tokenizer.bos_token, "").replace(tokenizer.eos_token, "").strip()
        assert processor.decode_answer(ids) == answer, name
        assert processor.decode_answer(torch.tensor([tokenizer.unk_token_id, tokenizer.bos_token_id, *ids])) == answer
        for stop in processor.stop_sequences:
            assert processor.decode_answer([*ids, *stop, *ids]) == answer, (name, stop)
    mark = processor.template.assistant + processor.template.open_answer
    if processor.options.family == "vicuna":
        assert processor.clean_answer(f"###Human: x###{mark} a man") == ""
        assert processor.clean_answer(f"Human: x {mark} <s>a man </s>") == "a man"


def test_texts_are_cut_as_by_sentencepiece(family: tuple[Path, dict[str, Any], Any], tmp_path: Path) -> None:
    """Spaces and special tokens in the middle of a text, which the prompts of the goldens have in one family only."""
    from sentencepiece import SentencePieceProcessor

    processor = family[2]
    processor.save_pretrained(tmp_path)
    pieces = SentencePieceProcessor(model_file=str(Path(processor.tokenizer.name_or_path) / "tokenizer.model"))
    for text in ("A dog.</s> [INST] Where?", "One###two ###three</s>###four", "</s></s> a", "two  spaces\nand a line "):
        expected = [processor.tokenizer.bos_token_id]
        for number, stretch in enumerate(text.split("</s>")):
            expected += [pieces.piece_to_id("</s>")] * (number > 0) + pieces.encode(stretch)
        assert processor.tokenize_prompt(text)[0] == expected, text
        assert type(processor).from_pretrained(tmp_path).tokenize_prompt(text)[0] == expected, text


def test_runs_of_spaces_as_in_the_released_vocabularies(goldens: Callable[[str], Path], tmp_path: Path) -> None:
    """LLaMA and Mistral have runs of spaces early in the vocabulary, with the lowest of all scores."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    from transformers import LlamaTokenizer

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((goldens("v1") / "llm" / "tokenizer.model").read_bytes())
    known = list(model.pieces)
    runs = [model.SentencePiece(piece="▁" * length, score=-1e9) for length in (2, 4)]
    first = next(number for number, piece in enumerate(known) if piece.type == piece.NORMAL)
    del model.pieces[:]
    model.pieces.extend([*known[:first], *runs, *(piece for piece in known[first:] if set(piece.piece) != {"▁"})])
    model.pieces.extend(piece for piece in known[first:] if piece.piece == "▁")
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    processor = VideoChat2Processor(LlamaTokenizer.from_pretrained(tmp_path))
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in ("the  video", "the   video", "a    man  is     here", "   the"):
        assert [token for token in processor.tokenize_prompt(text)[0] if token > 2] == pieces.encode(text), text
    processor.save_pretrained(tmp_path / "saved")
    again = VideoChat2Processor.from_pretrained(tmp_path / "saved")
    assert again.tokenize_prompt("a    man") == processor.tokenize_prompt("a    man")


def test_bytes_that_are_no_text(family: tuple[Path, dict[str, Any], Any]) -> None:
    tokenizer = family[2].tokenizer
    ids = tokenizer.convert_tokens_to_ids(["<0xFF>", "<0xC3>", "<0x96>", "<0x37>", "<0xE2>"])
    assert None not in ids
    assert decode_pieces(tokenizer, ids) == "\ufffdÖ7\ufffd"


def test_instructions_of_the_q_former(family: tuple[Path, dict[str, Any], Any]) -> None:
    folder, golden, processor = family
    sides = {golden["bert_padding_side"]} if "bert_padding_side" in golden else set()
    for name, case in golden["cases"].items():
        taps = load_file(folder / case["file"])
        if "instruction" not in case:
            assert "instruction_input_ids" not in taps, name
            continue
        instruction = case["instruction"]
        if "max_txt_len" in case:
            options = ProcessorOptions(family=processor.options.family, max_text_length=case["max_txt_len"])
            encoder = VideoChat2Processor(None, processor.qformer_tokenizer, options)
        else:
            encoder = processor
        made = encoder.instruction_inputs(1, instruction)
        for recorded in (case.get("instruction_input_ids"), taps.get("instruction_input_ids")):
            if recorded is not None:
                assert made["qformer_input_ids"].flatten().tolist() == torch.as_tensor(recorded).flatten().tolist()
        if "instruction_attention_mask" in taps:
            assert torch.equal(made["qformer_attention_mask"], taps["instruction_attention_mask"]), name
        if "bert_padding_side" in case:
            sides.add(case["bert_padding_side"])
    if processor.qformer_tokenizer is not None:
        ragged = processor.instruction_inputs(2, ["watch", "watch the video"])["qformer_attention_mask"][0]
        assert sides <= {"right" if ragged[0] else "left"}


# Ids of the full vocabularies


@pytest.fixture(scope="module")
def full(goldens: Callable[[str], Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(goldens("tokenization.json").read_text())
    assert set(found) == {"bert_base_uncased", "mistral_7b_v0.1_v0.2", "llama_known_ids", "phi3_known_ids"}
    return found


def test_word_pieces_of_the_full_vocabulary(full: dict[str, Any], tmp_path: Path) -> None:
    """The vocabulary itself is not here: its words that are needed stand at their ids, and nothing else does."""
    from transformers import BertTokenizer

    section = full["bert_base_uncased"]
    pieces = [f"[unused{number}]" for number in range(section["vocab_size"])]
    pieces[0], pieces[100], pieces[103] = "[PAD]", "[UNK]", "[MASK]"
    for entry in section["instructions"]:
        words = ["[CLS]", *re.findall(r"\w+|[^\w\s]", entry["text"].lower()), "[SEP]"]
        for word, number in zip(words, entry["input_ids"], strict=True):
            pieces[number] = word
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    processor = VideoChat2Processor(None, BertTokenizer(vocab=str(tmp_path / "vocab.txt"), do_lower_case=True))
    assert processor.qformer_tokenizer is not None
    assert len(processor.qformer_tokenizer) == section["len_after_adding_DEC"]
    assert processor.qformer_tokenizer.bos_token_id == section["dec_id"]
    for entry in section["instructions"]:
        assert processor.encode_texts(entry["text"])["input_ids"].tolist() == [entry["input_ids"]]
    defaults = ProcessorOptions()
    assert {defaults.video_instruction, defaults.image_instruction, ChoicePrompt().system} <= {
        entry["text"] for entry in section["instructions"]
    }
    example = section["left_truncation_example"]
    options = ProcessorOptions(max_text_length=example["max_length"])
    short = VideoChat2Processor(None, processor.qformer_tokenizer, options)
    assert short.encode_texts(example["text"])["input_ids"].tolist() == [example["input_ids"]]


def test_pieces_of_mistral_prompts(full: dict[str, Any]) -> None:
    for entry in full["mistral_7b_v0.1_v0.2"]["prompts"]:
        assert PLACEHOLDER.split(entry["prompt"]) == entry["segments"]


def test_ids_of_the_full_mistral_vocabulary(full: dict[str, Any], tmp_path: Path) -> None:
    from transformers import LlamaTokenizer

    section = full["mistral_7b_v0.1_v0.2"]
    if not (given := os.environ.get("VIDEOCHAT_MISTRAL_TOKENIZER")):
        pytest.skip("the full vocabulary is not here; set VIDEOCHAT_MISTRAL_TOKENIZER to the released tokenizer.model")
    source = Path(given)
    assert hashlib.sha256(source.read_bytes()).hexdigest() == section["tokenizer_model_sha256"]
    shutil.copy(source, tmp_path / "tokenizer.model")
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, **names}))
    options = ProcessorOptions.released("mistral", num_visual_tokens=1)
    processor = VideoChat2Processor(LlamaTokenizer.from_pretrained(tmp_path), None, options)
    assert processor.tokenizer is not None
    assert len(processor.tokenizer) == section["vocab_size"]
    assert (processor.tokenizer.bos_token_id, processor.tokenizer.eos_token_id) == (section["bos"], section["eos"])
    for entry in section["prompts"]:
        ids, mask = processor.tokenize_prompt(entry["prompt"])
        expected = [token for segment in entry["segment_ids"] for token in segment]
        assert [token for token, visual in zip(ids, mask, strict=True) if not visual] == expected
    # The released list has a second one, which is LLaMA's id of a space and never comes in this vocabulary.
    assert processor.stop_sequences == section["stop_sequences"][:1]


def test_stops_that_the_original_code_has_by_number(full: dict[str, Any], goldens: Callable[[str], Path]) -> None:
    llama, phi = full["llama_known_ids"], full["phi3_known_ids"]
    ways = [llama["hash3_with_space_before"], llama["hash3_after_newline_or_word"]]
    stop = StopOnSequences([*ways, *full["mistral_7b_v0.1_v0.2"]["stop_sequences"]])
    ends = [[llama["bos"], 7, *way][-3:] for way in ways] + [[7, *ways[0], 8], [7, ways[1][0], 8], [7, 8, llama["eos"]]]
    assert stop(torch.tensor(ends), None).tolist() == [True, True, False, False, True]
    # The small tokenizer has Phi-3's special tokens in Phi-3's order.
    small = json.loads((goldens("vc2_phi") / "golden.json").read_text())["special_token_ids"]
    first = "<|endoftext|>"
    for token, number in small.items():
        assert phi[token] - phi[first] == number - small[first]
    assert {token for token in phi if token != "note"} == set(small)
    assert set(TEMPLATES["phi3"].stop_texts) <= set(small)
