"""A trained network grown into a larger recipe does what it did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videochat_tools.engine import BUNDLED
from videochat_tools.errors import ModelLoadError
from videochat_tools.evaluation.held_out import held_out_scenes, render_views
from videochat_tools.models.videochat2 import VideoChat2ForConditionalGeneration
from videochat_tools.models.videochat2.configuration_videochat2 import VideoChat2RetrievalConfig
from videochat_tools.models.videochat2.modeling_videochat2 import VideoChat2ForRetrieval
from videochat_tools.training.recipe import chat_config
from videochat_tools.training.tokenizers import build_llm_tokenizer, build_qformer_tokenizer
from videochat_tools.training.warm_start import deepen, grow, read_folder, read_vocabulary


@pytest.fixture(scope="module")
def old() -> VideoChat2ForConditionalGeneration:
    return VideoChat2ForConditionalGeneration.from_pretrained(BUNDLED, dtype=torch.float32).eval()


def test_more_layers_and_more_words_answer_alike(old: VideoChat2ForConditionalGeneration) -> None:
    words, pieces = build_llm_tokenizer(), build_qformer_tokenizer()
    added = ["zyzzyva", "quokka"]
    words.add_tokens(added)
    config = chat_config(len(pieces), len(words))
    layers = old.config.text_config.num_hidden_layers
    config.text_config.num_hidden_layers = layers + 2
    places = [0, *range(2, layers + 1)]  # a new one after the first, another at the end
    new = VideoChat2ForConditionalGeneration(config).eval()
    vocabulary = read_vocabulary(BUNDLED)
    language = {name: value for name, value in read_folder(BUNDLED).items() if name.startswith("language_model.")}
    grow(new, language, [(vocabulary, words)], layers=places)

    text = "is there a red circle that moves left?"
    before = torch.tensor([[vocabulary[token] for token in words.tokenize(text)]])
    after = torch.tensor([words.convert_tokens_to_ids(words.tokenize(text))])
    with torch.no_grad():
        told = old.language_model(input_ids=before).logits[0]
        grown = new.language_model(input_ids=after).logits[0]
    kept = [word for word in vocabulary if word not in added and word in words.get_vocab()]
    assert len(kept) > 2000
    old_ids = torch.tensor([vocabulary[word] for word in kept])
    new_ids = torch.tensor(words.convert_tokens_to_ids(kept))
    assert torch.allclose(told[:, old_ids], grown[:, new_ids], atol=1e-3)


def test_a_tensor_without_a_place_is_an_error(old: VideoChat2ForConditionalGeneration, tmp_path: Path) -> None:
    words = build_llm_tokenizer()
    network = VideoChat2ForConditionalGeneration(chat_config(1, len(words)))
    with pytest.raises(ModelLoadError, match="no_such_part has no place"):
        grow(network, {"no_such_part": torch.zeros(2)}, [])
    with pytest.raises(ModelLoadError, match=r"vision_layernorm.weight is \(7,\), its place \(160,\)"):
        grow(network, {"vision_layernorm.weight": torch.zeros(7)}, [])


def test_a_deeper_qformer_embeds_nearly_alike() -> None:
    old = VideoChat2ForRetrieval.from_pretrained(BUNDLED.parent / "retrieval", dtype=torch.float32).eval()
    config = VideoChat2RetrievalConfig.from_dict(old.config.to_dict())
    config.qformer_config.num_hidden_layers += 2
    new = VideoChat2ForRetrieval(config).eval()
    deepen(new, old.state_dict())
    scenes = held_out_scenes(24, new_pairs=False)
    clips = torch.from_numpy(render_views(scenes, "video", 8, 64)).permute(0, 1, 4, 2, 3) / 127.5 - 1.0
    with torch.no_grad():
        seen = old.encode_frames(clips)
        assert torch.equal(seen, new.encode_frames(clips))
        before, after = old.video_embeds(seen), new.video_embeds(seen)
    assert float((before * after).sum(dim=-1).mean()) > 0.9  # of one clip, row by row
    near = torch.einsum("aqp,bqp->abq", before, after).mean(dim=-1)
    assert torch.equal(near.argmax(dim=1), torch.arange(24))
    with pytest.raises(ModelLoadError, match="does not fit the network"):
        deepen(new, {"query_tokens": torch.zeros(1, 3, 4)})
