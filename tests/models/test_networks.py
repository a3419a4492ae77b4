"""The networks at a few thousand weights: what a user or a trainer of them would notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, LlamaConfig

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models import (
    VideoChat2Config,
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
    VideoChat2RetrievalConfig,
    VideoChat2VisionConfig,
    VideoChat2VisionModel,
)

VISION: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
    "initializer_range": 0.2,
}  # fmt: skip
QFORMER: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 32, "num_query_tokens": 3, "num_extra_query_tokens": 2, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0, "initializer_range": 0.2,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50,
    "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
TOKENS = 5


@pytest.fixture
def retrieval() -> VideoChat2ForRetrieval:
    torch.manual_seed(0)
    config = VideoChat2RetrievalConfig(
        vision_config=VISION, qformer_config=QFORMER, projection_dim=16, initializer_range=0.2
    )
    return VideoChat2ForRetrieval(config).eval()


@pytest.fixture
def chat() -> VideoChat2ForConditionalGeneration:
    torch.manual_seed(0)
    config = VideoChat2Config(
        vision_config=VISION, qformer_config=QFORMER, text_config=LlamaConfig(**TEXT), initializer_range=0.5
    )
    return VideoChat2ForConditionalGeneration(config).eval()


def clips(count: int, frames: int = 4, side: int = 32) -> Tensor:
    return torch.randn(count, frames, 3, side, side, generator=torch.Generator().manual_seed(count + frames))


def texts(count: int, length: int = 6) -> Tensor:
    return torch.randint(5, 59, (count, length), generator=torch.Generator().manual_seed(count + length))


def prompt(chat: VideoChat2ForConditionalGeneration, counts: list[int]) -> tuple[dict[str, Tensor], Tensor]:
    """A batch, padded on the left, whose row i shows counts[i] clips between words; and the clips' tokens."""
    generator = torch.Generator().manual_seed(7)
    rows = []
    for count in counts:
        ids, mask = torch.randint(3, 50, (3,), generator=generator).tolist(), [False] * 3
        for _ in range(count):
            ids += [0] * TOKENS + torch.randint(3, 50, (2,), generator=generator).tolist()
            mask += [True] * TOKENS + [False] * 2
        rows.append((ids, mask))
    length = max(len(ids) for ids, _ in rows)
    batch = {
        "input_ids": torch.tensor([[0] * (length - len(ids)) + ids for ids, _ in rows]),
        "visual_mask": torch.tensor([[False] * (length - len(ids)) + mask for ids, mask in rows]),
        "attention_mask": torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids, _ in rows]),
    }
    tokens = torch.randn(sum(counts), TOKENS, QFORMER["hidden_size"], generator=generator)
    return batch, tokens


# Tower


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (3, 16, 48), (9, 64, 32)])
@torch.no_grad()
def test_tower_takes_any_length_and_grid(frames: int, height: int, width: int) -> None:
    tower = VideoChat2VisionModel(VideoChat2VisionConfig(**VISION))
    states = tower(torch.randn(2, frames, 3, height, width)).last_hidden_state
    assert states.shape == (2, frames, height // 16 * (width // 16), 32)


def test_tower_refuses_sizes_that_patches_do_not_tile() -> None:
    tower = VideoChat2VisionModel(VideoChat2VisionConfig(**VISION))
    with pytest.raises(UnsupportedContentError, match="multiples of 16"):
        tower(torch.randn(1, 2, 3, 40, 32))


@pytest.mark.parametrize(("kernel", "stem"), [(1, ()), (3, ()), (1, (8, 12)), (5, (8, 12))])
@torch.no_grad()
def test_patch_embedding_is_the_convolution_that_it_stands_for(kernel: int, stem: tuple[int, ...]) -> None:
    config = VideoChat2VisionConfig(**VISION, temporal_kernel_size=kernel, stem_channels=stem)
    embedding = VideoChat2VisionModel(config).patch_embedding
    pixels = clips(2)
    maps = embedding.projection(pixels.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    for layer in embedding.stem:
        maps = layer(maps.relu())
    expected = maps.flatten(2).transpose(1, 2).reshape(2, 4, 4, 32)
    torch.testing.assert_close(embedding(pixels), expected, rtol=1e-4, atol=1e-5)
    # Neither drowned by the position table nor drowning it. Layers this narrow differ: 0.39 to 1.13 over 150 seeds.
    assert 0.25 < embedding(pixels).std() < 2.0


def test_stem_must_have_the_stride_of_the_patches() -> None:
    with pytest.raises(ValueError, match="stride"):
        VideoChat2VisionConfig(stem_channels=(64,), patch_size=16)


# Stage 1


@torch.no_grad()
def test_attention_implementations_agree(retrieval: VideoChat2ForRetrieval) -> None:
    ids, mask = texts(2), torch.tensor([[1] * 6, [1] * 3 + [0] * 3])

    def run() -> tuple[Tensor, Tensor]:
        vision = retrieval.encode_frames(clips(2))
        return retrieval.match_logits(vision, ids, mask), retrieval.caption_logits(ids, mask, vision_embeds=vision)

    retrieval.set_attn_implementation("sdpa")
    fused = run()
    retrieval.set_attn_implementation("eager")
    assert retrieval.vision_encoder.config._attn_implementation == "eager"
    for one, other in zip(fused, run(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_of_a_text_does_not_change_it(retrieval: VideoChat2ForRetrieval) -> None:
    ids, vision = texts(2), retrieval.encode_frames(clips(2))
    padded, mask = F.pad(ids, (0, 3)), F.pad(torch.ones_like(ids), (0, 3))
    torch.testing.assert_close(retrieval.text_embeds(padded, mask), retrieval.text_embeds(ids))
    torch.testing.assert_close(retrieval.match_logits(vision, padded, mask), retrieval.match_logits(vision, ids))


@torch.no_grad()
def test_features_are_unit_vectors_and_similarity_is_their_mean_product(retrieval: VideoChat2ForRetrieval) -> None:
    videos = retrieval.video_embeds(retrieval.encode_frames(clips(3)))
    words = retrieval.text_embeds(texts(2))
    assert videos.shape == (3, 3, 16)
    torch.testing.assert_close(videos.norm(dim=-1), torch.ones(3, 3))
    torch.testing.assert_close(words.norm(dim=-1), torch.ones(2))
    products = torch.stack([(videos[v] @ words.T).mean(dim=0) for v in range(3)])
    torch.testing.assert_close(retrieval.similarity(videos, words), products)


@torch.no_grad()
def test_a_caption_is_read_from_left_to_right(retrieval: VideoChat2ForRetrieval) -> None:
    vision, ids = retrieval.encode_frames(clips(1)), texts(1)
    changed = ids.clone()
    changed[0, 4] = 5 + (changed[0, 4] - 4) % 50
    one, other = (retrieval.caption_logits(i, vision_embeds=vision) for i in (ids, changed))
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4:], other[:, 4:])
    elsewhere = retrieval.caption_logits(ids, vision_embeds=retrieval.encode_frames(clips(1, frames=3)))
    assert not torch.allclose(one, elsewhere)  # the video is seen through the queries' cache


@torch.no_grad()
def test_per_frame_embedding_fits_every_length(retrieval: VideoChat2ForRetrieval) -> None:
    table = retrieval.vision_temp_embed
    table.copy_(torch.arange(4.0)[None, :, None, None].expand_as(table))
    retrieval.vision_layernorm = torch.nn.Identity()  # type: ignore[assignment]  # what is added shows
    for frames, added in ((4, [0, 1, 2, 3]), (2, [0.5, 2.5]), (1, [1.5])):
        pixels = clips(1, frames)
        plain = retrieval.vision_encoder(pixels).last_hidden_state
        difference = retrieval.encode_frames(pixels).view_as(plain) - plain
        torch.testing.assert_close(difference.mean(dim=(0, 2, 3)), torch.tensor(added, dtype=torch.float32))
    retrieval.config.broadcast_single_frame = True
    assert retrieval.encode_frames(clips(1, 1)).shape == (1, 4 * 4, 32)


@pytest.mark.parametrize("sample_ids", [None, [0, 1, 2], [5, 5, 5], [1, 2, 1]])
def test_losses_are_finite_for_any_mixture_of_samples(
    retrieval: VideoChat2ForRetrieval, sample_ids: list[int] | None
) -> None:
    ids = None if sample_ids is None else torch.tensor(sample_ids)
    output = retrieval.train()(clips(3), texts(3), sample_ids=ids)
    assert torch.isfinite(output.loss)
    output.loss.backward()
    unused = [name for name, weight in retrieval.named_parameters() if weight.grad is None]
    assert unused == []


def test_stage_1_learns_which_text_belongs_to_which_clip(retrieval: VideoChat2ForRetrieval) -> None:
    pixels, ids = clips(4), texts(4)
    optimizer = torch.optim.AdamW(retrieval.train().parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(40):
        loss = retrieval(pixels, ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        output = retrieval.eval()(pixels, ids)
        assert output.similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]
        yes = retrieval.match_logits(output.vision_embeds, ids).softmax(-1)[:, 1]
        no = retrieval.match_logits(output.vision_embeds, ids.roll(1, 0)).softmax(-1)[:, 1]
    assert yes.min() > no.max()


def test_gradient_checkpointing_changes_nothing(retrieval: VideoChat2ForRetrieval) -> None:
    gradients = []
    for checkpointing in (False, True):
        retrieval.zero_grad()
        if checkpointing:
            retrieval.gradient_checkpointing_enable()
        torch.manual_seed(0)
        retrieval.train()(clips(2), texts(2)).loss.backward()
        gradients.append(retrieval.vision_encoder.layers[0].fc1.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


# Chat


@torch.no_grad()
def test_the_instruction_steers_what_the_queries_read(chat: VideoChat2ForConditionalGeneration) -> None:
    pixels = clips(2)
    plain = chat.get_clip_tokens(pixels)
    told = chat.get_clip_tokens(pixels, texts(2), torch.ones(2, 6, dtype=torch.long))
    assert plain.shape == told.shape == (2, TOKENS, 24)
    assert not torch.allclose(plain, told, atol=1e-3)
    again = chat.get_clip_tokens(vision_embeds=chat.encode_frames(pixels))
    torch.testing.assert_close(plain, again)


@torch.no_grad()
def test_clips_stand_at_their_places(chat: VideoChat2ForConditionalGeneration) -> None:
    batch, tokens = prompt(chat, [2, 1])
    embeds = chat.embed_prompt(batch["input_ids"], batch["visual_mask"], tokens)
    torch.testing.assert_close(embeds[batch["visual_mask"]], chat.project(tokens).flatten(0, 1))
    words = ~batch["visual_mask"]
    torch.testing.assert_close(embeds[words], chat.get_input_embeddings()(batch["input_ids"])[words])
    with pytest.raises(UnsupportedContentError, match="15 visual places, but 10 clip tokens"):
        chat(**batch, clip_tokens=tokens[:2])


@torch.no_grad()
def test_rows_of_a_batch_answer_as_they_do_alone(chat: VideoChat2ForConditionalGeneration) -> None:
    counts = [2, 0, 1]
    batch, tokens = prompt(chat, counts)
    length = batch["input_ids"].shape[1]
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    together = chat.generate(**batch, clip_tokens=tokens, **options)[:, length:]
    without_cache = chat.generate(**batch, clip_tokens=tokens, use_cache=False, **options)[:, length:]
    assert torch.equal(together, without_cache)
    first = 0
    for row, count in enumerate(counts):
        real = batch["attention_mask"][row].bool()
        alone = {name: value[row : row + 1, real] for name, value in batch.items()}
        if count:
            alone["clip_tokens"] = tokens[first : first + count]
        first += count
        answer = chat.generate(**alone, **options)[0, int(real.sum()) :]
        assert answer.tolist() == together[row].tolist()


@torch.no_grad()
def test_beams_and_several_answers_keep_a_row_together_with_its_clips(
    chat: VideoChat2ForConditionalGeneration,
) -> None:
    counts = [2, 1]
    batch, tokens = prompt(chat, counts)
    length = batch["input_ids"].shape[1]
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "num_beams": 3, "num_return_sequences": 2}
    together = chat.generate(**batch, clip_tokens=tokens, **options)[:, length:]
    for row, some in enumerate((tokens[:2], tokens[2:])):
        real = batch["attention_mask"][row].bool()
        alone = {name: value[row : row + 1, real] for name, value in batch.items()}
        answers = chat.generate(**alone, clip_tokens=some, **options)[:, int(real.sum()) :]
        assert answers.tolist() == together[2 * row : 2 * row + 2].tolist()


@torch.no_grad()
def test_a_cached_prefix_is_continued(chat: VideoChat2ForConditionalGeneration) -> None:
    batch, tokens = prompt(chat, [2])
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    expected = chat.generate(**batch, clip_tokens=tokens, **options)
    start = 3 + TOKENS + 1  # in the words after the first clip
    prefix = chat(
        input_ids=batch["input_ids"][:, :start], visual_mask=batch["visual_mask"][:, :start], clip_tokens=tokens[:1]
    )
    continued = chat.generate(**batch, clip_tokens=tokens, past_key_values=prefix.past_key_values, **options)
    assert torch.equal(continued, expected)


@torch.no_grad()
def test_pixels_and_streaming(chat: VideoChat2ForConditionalGeneration) -> None:
    class Collect:
        def __init__(self) -> None:
            self.ids: list[int] = []

        def put(self, value: Tensor) -> None:
            self.ids += value.flatten().tolist()

        def end(self) -> None:
            self.ids.append(-1)

    batch, _ = prompt(chat, [1])
    pixels, streamer = clips(1), Collect()
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    from_tokens = chat.generate(**batch, clip_tokens=chat.get_clip_tokens(pixels, texts(1)), **options)
    from_pixels = chat.generate(**batch, pixel_values=pixels, qformer_input_ids=texts(1), streamer=streamer, **options)
    assert torch.equal(from_tokens, from_pixels)
    assert streamer.ids == [*from_pixels[0].tolist(), -1]
    torch.manual_seed(3)
    sampled = chat.generate(**batch, pixel_values=pixels, max_new_tokens=5, do_sample=True, num_return_sequences=4)
    assert len({tuple(row) for row in sampled.tolist()}) > 1


def test_gradients_reach_the_tower_and_the_loss_ignores_padding(chat: VideoChat2ForConditionalGeneration) -> None:
    batch, _ = prompt(chat, [1, 2])
    labels = batch["input_ids"].masked_fill(batch["visual_mask"] | (batch["attention_mask"] == 0), -100)
    loss = chat.train()(**batch, pixel_values=clips(3), qformer_input_ids=texts(3), labels=labels).loss
    loss.backward()
    assert [name for name, weight in chat.named_parameters() if weight.grad is None] == []


# Disk


@torch.no_grad()
def test_models_survive_the_disk(
    retrieval: VideoChat2ForRetrieval, chat: VideoChat2ForConditionalGeneration, tmp_path: Path
) -> None:
    retrieval.temp.fill_(0.123)
    retrieval.save_pretrained(tmp_path / "retrieval")
    chat.save_pretrained(tmp_path / "chat")
    loaded, info = AutoModel.from_pretrained(tmp_path / "retrieval", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected, found = retrieval(clips(2), texts(2)), loaded(clips(2), texts(2))
    torch.testing.assert_close(found.similarity, expected.similarity)
    assert loaded.temperature.item() == pytest.approx(0.123)
    loaded, info = AutoModel.from_pretrained(tmp_path / "chat", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch, tokens = prompt(chat, [1])
    torch.testing.assert_close(loaded(**batch, clip_tokens=tokens).logits, chat(**batch, clip_tokens=tokens).logits)
    half = AutoModel.from_pretrained(tmp_path / "chat", dtype=torch.bfloat16)
    assert half.generate(**batch, pixel_values=clips(1), max_new_tokens=2).shape[1] == batch["input_ids"].shape[1] + 2
