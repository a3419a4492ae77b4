"""The released recipes on hand-made samples: what a row says, what is learned of it, and how rows make a batch."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch

from videochat_tools.errors import ContextTooLongError, UnsupportedContentError
from videochat_tools.models import VideoChat2ForConditionalGeneration, VideoChat2Processor
from videochat_tools.training.released import (
    IGNORED,
    CaptionSample,
    EncodedRow,
    InstructionSample,
    Turn,
    collate,
    encode_text,
    loss_inputs,
    read_sample,
    released_recipe,
    render_caption,
    render_instruction,
)

VICUNA, MISTRAL, PHI3 = (released_recipe(family, 3) for family in ("vicuna", "mistral", "phi3"))
TIMES = [0.25, 1.0, 12.34]
SENTENCE = "The video contains 3 frames sampled at 0.2, 1.0, 12.3 seconds."
TALK = {
    "video": "talks/one.mp4",
    "QA": [
        {"i": "Answer the question.", "q": "What is red?", "a": "The circle."},
        {"i": "Answer in a word.", "q": "Where does it go?", "a": "Left."},
    ],
}


@pytest.fixture(scope="module")
def nano(repository: Any) -> tuple[Any, Any]:
    """The bundled chat model and its processor."""
    folder = repository / "videochat_tools" / "models" / "nano" / "chat"
    model = VideoChat2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return model, VideoChat2Processor.from_pretrained(folder)


def talk(**changes: Any) -> InstructionSample:
    sample = read_sample({**TALK, **changes})
    assert isinstance(sample, InstructionSample)
    return sample


def learned_text(tokenizer: Any, row: EncodedRow) -> list[str]:
    """Every unbroken stretch that is learned."""
    stretches: list[list[int]] = [[]]
    for label in row.labels:
        if label == IGNORED:
            stretches.append([])
        else:
            stretches[-1].append(label)
    return [tokenizer.decode(stretch).strip() for stretch in stretches if stretch]


# What a row says


def test_every_family_writes_its_own_way() -> None:
    texts = {recipe.family: render_instruction(talk(), recipe, times=TIMES).text for recipe in (VICUNA, MISTRAL, PHI3)}
    assert texts == {
        "vicuna": f"Answer the question. ###Human: <Video><VideoHere></Video> {SENTENCE} "
        "###Human: What is red? ###Assistant: The circle. ###Human: Where does it go? ###Assistant: Left. ###",
        "mistral": "Answer the question. [INST] <Video><VideoHere></Video> [/INST] "
        "[INST] What is red? [/INST] The circle. </s> [INST] Where does it go? [/INST] Left. </s>",
        "phi3": "<|system|>\nAnswer the question.<|end|>\n<|user|>\n<Video><VideoHere></Video>\nWhat is red?<|end|>\n"
        "<|assistant|>\nThe circle.<|end|>\n<|user|>\nWhere does it go?<|end|>\n<|assistant|>\nLeft.<|end|>",
    }
    first = render_instruction(talk(), released_recipe("videochat", 2), times=TIMES)
    assert (first.text, first.instruction) == (texts["vicuna"], None)  # the first VideoChat's Q-Former reads nothing


def test_times_can_be_asked_of_every_family() -> None:
    mistral = render_instruction(talk(), replace(MISTRAL, timestamps=True), times=TIMES)
    assert f"[INST] <Video><VideoHere></Video> {SENTENCE} [/INST] [INST]" in mistral.text
    phi3 = render_instruction(talk(), replace(PHI3, timestamps=True), times=TIMES)
    assert f"<Video><VideoHere></Video> {SENTENCE}\nWhat is red?" in phi3.text
    with pytest.raises(UnsupportedContentError, match="stage 3 of vicuna names the times of the frames; give times"):
        render_instruction(talk(), VICUNA)


def test_an_image_has_no_times() -> None:
    picture = InstructionSample((Turn("What is red?", "The circle."),), "image", "a.jpg")
    text = render_instruction(picture, VICUNA, times=TIMES).text
    assert text == "###Human: <Image><ImageHere></Image> ###Human: What is red? ###Assistant: The circle. ###"


def test_without_a_question_the_answer_follows_the_clip() -> None:
    dense = talk(QA=[{"q": "", "a": "A circle goes left."}])
    clip = "<Video><VideoHere></Video>"
    assert render_instruction(dense, VICUNA, times=TIMES).text == (
        f"###Human: {clip} {SENTENCE} ###Assistant: A circle goes left. ###"
    )
    assert render_instruction(dense, MISTRAL).text == f"[INST] {clip} [/INST] A circle goes left. </s>"
    assert render_instruction(dense, PHI3).text == (
        f"<|user|>\n{clip}\n<|end|>\n<|assistant|>\nA circle goes left.<|end|>"
    )


def test_what_the_qformer_is_told() -> None:
    assert render_instruction(talk(), VICUNA, times=TIMES).instruction == "Answer the question. What is red?"
    assert render_instruction(talk(), MISTRAL).instruction == "Answer the question."
    asked = replace(MISTRAL, qformer_text="question")
    assert render_instruction(talk(), asked).instruction == "Answer the question. What is red?"
    # Without an instruction the question is not told either: so the released models were trained.
    plain = talk(QA=[{"q": "What is red?", "a": "The circle."}])
    assert [render_instruction(plain, recipe, times=TIMES).instruction for recipe in (VICUNA, MISTRAL)] == ["", ""]
    alone = InstructionSample((Turn("What is red?", "Blood."),))
    assert render_instruction(alone, MISTRAL).instruction is None


def test_shuffling_takes_the_instruction_along() -> None:
    orders = {talk().shuffled(Random(seed)).turns for seed in range(20)}
    assert len(orders) == 2
    for turns in orders:
        text = render_instruction(replace(talk(), turns=turns), MISTRAL)
        assert text.instruction == turns[0].instruction
        assert text.text.startswith(turns[0].instruction) and turns[1].instruction not in text.text


def test_captions() -> None:
    sample = read_sample({"image": "a.jpg", "caption": "a red circle"})
    assert sample == CaptionSample("a red circle", "image", "a.jpg")
    texts = {
        family: render_caption(sample, released_recipe(family, stage), request="What is this?").text
        for family, stage in (("videochat", 1), ("vicuna", 2), ("mistral", 2), ("phi3", 2))
    }
    shown = "<Image><ImageHere></Image> What is this?"
    assert texts == {
        "videochat": f"###Human: {shown} ###Assistant: a red circle###",
        "vicuna": f"###Human: {shown} ###Assistant: a red circle###",
        "mistral": f"[INST] {shown} [/INST]a red circle</s>",
        "phi3": f"<|user|>\n{shown}<|end|>\n<|assistant|>\na red circle<|end|>",
    }


def test_a_recipe_takes_its_own_kind_of_sample() -> None:
    with pytest.raises(UnsupportedContentError, match="stage 2 of vicuna learns captions; use render_caption"):
        render_instruction(talk(), released_recipe("vicuna", 2))
    with pytest.raises(UnsupportedContentError, match="stage 3 of phi3 learns conversations; use render_instruction"):
        render_caption(CaptionSample("a", "video"), PHI3)
    with pytest.raises(UnsupportedContentError, match="no recipe for stage 4 of 'vicuna'; there are: videochat 1, "):
        released_recipe("vicuna", 4)


# Samples


def test_start_and_end() -> None:
    sample = talk(start=3, end=4.5)
    assert (sample.kind, sample.path, sample.start, sample.end) == ("video", "talks/one.mp4", 3.0, 4.5)
    assert (talk().start, talk().end) == (None, None)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**TALK, "start": 3}, "needs both start and end, got 3.0 and None"),
        ({**TALK, "start": 4, "end": 3}, "start 4.0 and end 3.0 are no span of time"),
        ({"image": "a.jpg", "QA": TALK["QA"], "start": 0, "end": 1}, "only a part of a video has start and end"),
        ({**TALK, "image": "a.jpg"}, "one video or one image, got both"),
        ({"video": "a.mp4", "QA": []}, "at least one question"),
        ({"video": "a.mp4", "qa": TALK["QA"]}, "'caption' or a list 'QA' of objects, got the keys 'video', 'qa'"),
        ({"video": "a.mp4", "QA": [{"q": "What?"}]}, "'a' of a sample must be text, got None"),
        ({"caption": "a circle"}, "a caption needs its 'video' or 'image'"),
    ],
)
def test_bad_records(record: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedContentError, match=message) as caught:
        read_sample(record)
    assert "\n" not in str(caught.value)


def test_text_alone_must_ask_something() -> None:
    with pytest.raises(UnsupportedContentError, match="text alone needs a question"):
        render_instruction(InstructionSample((Turn("", "A dog is an animal."),)), MISTRAL)


# Labels


def test_what_is_learned(nano: tuple[Any, Any]) -> None:
    model, processor = nano
    places = model.config.num_visual_tokens
    rows = {
        recipe.family: encode_text(
            processor.tokenizer, render_instruction(talk(), recipe, times=TIMES), recipe, visual_tokens=places
        )
        for recipe in (VICUNA, MISTRAL)
    }
    assert learned_text(processor.tokenizer, rows["vicuna"]) == [
        "###Human:",
        "###Assistant: The circle. ###Human:",
        "###Assistant: Left. ###",
    ]
    assert learned_text(processor.tokenizer, rows["mistral"]) == ["The circle. </s>", "Left. </s>"]
    for row in rows.values():
        assert row.input_ids[0] == processor.tokenizer.bos_token_id and row.labels[0] == IGNORED
        assert sum(row.visual) == places
        assert all(label == IGNORED for label, visual in zip(row.labels, row.visual, strict=True) if visual)


def rows_of(nano: tuple[Any, Any], samples: list[InstructionSample], recipe: Any, places: int) -> list[EncodedRow]:
    tokenizer = nano[1].tokenizer
    texts = [render_instruction(sample, recipe, times=TIMES) for sample in samples]
    return [encode_text(tokenizer, text, recipe, visual_tokens=places) for text in texts]


def test_truncation_on_the_right_keeps_labels_in_their_place(nano: tuple[Any, Any]) -> None:
    model, processor = nano
    places = model.config.num_visual_tokens
    rows = rows_of(nano, [talk(), talk(QA=[{"q": "", "a": "Left."}])], VICUNA, places)
    whole = collate(rows, processor.tokenizer, VICUNA)
    longest = len(rows[0].input_ids)
    assert whole.labels.shape == (2, longest) and longest < 512 + places  # the BOS token is counted in
    for spare in (0, 1, 9):
        recipe = replace(VICUNA, max_text_length=longest - places - spare)
        batch = collate(rows, processor.tokenizer, recipe)
        length = longest - spare
        for name in ("input_ids", "attention_mask", "visual_mask", "labels"):
            assert torch.equal(getattr(batch, name), getattr(whole, name)[:, :length]), name
        learned = batch.labels != IGNORED
        assert torch.equal(batch.labels[learned], batch.input_ids[learned])
        assert not (learned & (batch.attention_mask == 0)).any()
    padding = whole.attention_mask[1] == 0
    assert padding.tolist() == sorted(padding.tolist()) and padding.any()  # all of it on the right
    assert set(whole.input_ids[1, padding].tolist()) == {processor.tokenizer.eos_token_id}


def test_a_cut_through_the_clip_is_refused(nano: tuple[Any, Any]) -> None:
    places = nano[0].config.num_visual_tokens
    long = talk(QA=[{"i": "Answer the question. " * 9, "q": "What is red?", "a": "The circle."}])
    rows = rows_of(nano, [talk(), long], VICUNA, places)
    with pytest.raises(ContextTooLongError, match=r"row 1 has \d+ tokens before its clip.*raise max_text_length"):
        collate(rows, nano[1].tokenizer, replace(VICUNA, max_text_length=20))


def test_a_batch_with_nothing_to_learn_is_refused(nano: tuple[Any, Any]) -> None:
    places = nano[0].config.num_visual_tokens
    rows = rows_of(nano, [talk()], MISTRAL, places)
    with pytest.raises(ContextTooLongError, match="nothing to learn is left of a batch that is cut at"):
        collate(rows, nano[1].tokenizer, replace(MISTRAL, max_text_length=30))
    with pytest.raises(UnsupportedContentError, match="at least one row"):
        collate([], nano[1].tokenizer, MISTRAL)


def test_a_caption_is_cut_by_itself(nano: tuple[Any, Any]) -> None:
    tokenizer = nano[1].tokenizer
    recipe = replace(released_recipe("vicuna", 2), max_text_length=4)
    text = render_caption(CaptionSample("a circle goes left and a circle goes right", "video"), recipe)
    row = encode_text(tokenizer, text, recipe, visual_tokens=2)
    assert learned_text(tokenizer, row) == ["a circle goes left"]
    assert sum(label != IGNORED for label in row.labels) == 4
    batch = collate([row], tokenizer, recipe)
    assert batch.labels.shape[1] == len(row.input_ids)  # prompt and clip stay whole


# Batches and the loss


@torch.no_grad()
def test_videos_images_and_text_side_by_side_lose_what_each_loses(nano: tuple[Any, Any]) -> None:
    model, processor = nano
    places = model.config.num_visual_tokens
    recipe = replace(MISTRAL, family="vicuna")
    torch.manual_seed(0)
    sizes = model.config.vision_config
    video = torch.randn(1, sizes.num_frames, 3, sizes.image_size, sizes.image_size)
    tiles = torch.randn(2, sizes.num_frames, 3, sizes.image_size, sizes.image_size)  # as of a tiled clip
    samples = [talk(), InstructionSample((Turn("What is red?", "Blood."),)), replace(talk(), kind="image")]
    clips = [model.get_clip_tokens(video), None, model.get_clip_tokens(tiles)]
    rows = [
        rows_of(nano, [sample], recipe, 0 if clip is None else places * len(clip))[0]
        for sample, clip in zip(samples, clips, strict=True)
    ]
    batch = collate(rows, processor.tokenizer, recipe)
    assert batch.clip_instructions(places) == ["Answer the question."] * 3  # one for the video, two for the tiles
    together = torch.cat([clip for clip in clips if clip is not None])
    loss = model(**loss_inputs(model, batch, together)).loss

    single, counts = [], []
    for row, clip in zip(rows, clips, strict=True):
        alone = collate([row], processor.tokenizer, recipe)
        single.append(model(**loss_inputs(model, alone, clip)).loss)
        counts.append((alone.labels != IGNORED).sum())
    weights = torch.stack(counts) / torch.stack(counts).sum()
    torch.testing.assert_close(loss, (torch.stack(single) * weights).sum(), rtol=0, atol=1e-4)

    with pytest.raises(UnsupportedContentError, match="clip tokens"):
        loss_inputs(model, batch, together[:-1])


def test_the_constant_first_embedding_is_off_by_default(nano: tuple[Any, Any]) -> None:
    model, processor = nano
    rows = rows_of(nano, [InstructionSample((Turn("What is red?", "Blood."),))], MISTRAL, 0)
    batch = collate(rows, processor.tokenizer, MISTRAL)
    plain, quirk = loss_inputs(model, batch, None), loss_inputs(model, batch, None, constant_bos=True)
    embeds = model.get_input_embeddings()(batch.input_ids)
    assert torch.equal(plain["inputs_embeds"], embeds)
    assert (quirk["inputs_embeds"][:, 0] == processor.tokenizer.bos_token_id).all()
    assert torch.equal(quirk["inputs_embeds"][:, 1:], embeds[:, 1:])
