"""CLIP, SigLIP, SigLIP 2 and X-CLIP as video encoders: tiny ones with random weights, saved as released ones are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videochat_tools.dual_encoders import DualEncoder
from videochat_tools.embeddings import VideoEncoder, load_encoder
from videochat_tools.errors import ModelLoadError
from videochat_tools.library import LibraryStore
from videochat_tools.video_embeddings import VideoEmbeddings

WORDS = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", *"a red green blue ring spins the square".split()]
TEXTS = ["a red ring", "the blue square spins", "ring"]
KINDS = ("clip", "siglip", "siglip2", "xclip")
MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """``make_model("clip", seed=0)``: a folder with weights, tokenizer and image processor; pictures of 32x32."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        AutoImageProcessor,
        CLIPConfig,
        CLIPModel,
        PreTrainedTokenizerFast,
        Siglip2Config,
        Siglip2Model,
        SiglipConfig,
        SiglipModel,
        XCLIPConfig,
        XCLIPModel,
    )

    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    text = {**tower, "vocab_size": len(WORDS), "max_position_embeddings": 8, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    video = {
        "num_frames": 4, "mit_hidden_size": 12, "mit_intermediate_size": 24, "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 2,
    }  # fmt: skip
    models: dict[str, tuple[Any, Any, str]] = {
        "clip": (CLIPModel, CLIPConfig(text_config=text, vision_config=vision, projection_dim=12), "CLIP"),
        "siglip": (
            SiglipModel, SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=vision), "Siglip"
        ),
        "siglip2": (
            Siglip2Model,
            Siglip2Config(
                text_config={**text, "projection_size": 16},
                vision_config={**tower, "patch_size": 16, "num_patches": 4},
            ),
            "Siglip2",
        ),
        "xclip": (
            XCLIPModel,
            XCLIPConfig(
                text_config=text, vision_config={**vision, **video}, projection_dim=12, prompt_num_attention_heads=2
            ),
            "CLIP",
        ),
    }  # fmt: skip

    def make(kind: str, *, seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp(kind) / "a model"
        model_class, config, processor = models[kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(config)
            with torch.no_grad():  # large weights, so that different input gives different output
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        parameter.normal_(std=0.3)
        model.save_pretrained(folder)
        words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
        words.pre_tokenizer = Whitespace()
        words.post_processor = TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)])
        PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
        ).save_pretrained(folder)
        sizes: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        if processor == "Siglip":
            sizes = {"size": {"height": 32, "width": 32}}
        if processor == "Siglip2":
            sizes = {"patch_size": 16, "max_num_patches": 4}
        settings = {"image_processor_type": f"{processor}ImageProcessor", **sizes}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        assert AutoImageProcessor.from_pretrained(folder) is not None
        return folder

    return make


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, make_model: MakeModel) -> tuple[str, Path]:
    return request.param, make_model(request.param)


def direct(folder: Path, clips: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Texts and clips as transformers itself embeds them, one by one."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    network = AutoModel.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": 8} if kind.startswith("siglip") else {}

    def unit(output: Any) -> np.ndarray:
        vector = output.pooler_output[0].numpy()
        return vector / np.linalg.norm(vector)

    with torch.inference_mode():
        texts = [unit(network.get_text_features(**tokenizer(text, return_tensors="pt", **padding))) for text in TEXTS]
        seen = []
        for clip in clips:
            frames = [processor(Image.fromarray(frame), return_tensors="pt") for frame in clip]
            if kind == "xclip":
                pixels = torch.stack([frame["pixel_values"][0] for frame in frames])[None]
                seen.append(unit(network.get_video_features(pixel_values=pixels)))
            else:
                mean = np.mean([unit(network.get_image_features(**frame)) for frame in frames], axis=0)
                seen.append(mean / np.linalg.norm(mean))
    return np.stack(texts), np.stack(seen)


def test_vectors_are_those_of_the_model_itself(model: tuple[str, Path], clips: np.ndarray) -> None:
    kind, folder = model
    encoder = DualEncoder(folder, num_frames=4, batch_size=8)
    assert isinstance(encoder, VideoEncoder)
    texts, seen = direct(folder, clips, kind)
    assert np.allclose(encoder.embed_texts(TEXTS), texts, atol=1e-5)
    made = encoder.embed_clips(clips)
    assert made.features is None
    assert made.vectors.shape == (5, encoder.rows, encoder.dimension)
    assert np.allclose(made.vectors[:, 0], seen, atol=1e-5)
    assert np.ptp(texts @ seen.T) > 0.01
    assert (encoder.num_frames, encoder.frame_size) == (4, 32)
    assert encoder.embed_texts([]).shape == (0, encoder.dimension)
    assert encoder.embed_clips(clips[:0]).vectors.shape == (0, 1, encoder.dimension)
    long = encoder.embed_texts(["a red ring spins the blue square a red ring", "a red ring spins the blue square"])
    assert np.isfinite(long).all()  # cut off where the model ends


def test_it_serves_libraries_and_vector_stores(model: tuple[str, Path], color_video: Path, tmp_path: Path) -> None:
    _, folder = model
    encoder = load_encoder(folder)
    assert isinstance(encoder, DualEncoder)
    made = np.array(VideoEmbeddings(encoder=encoder).embed_documents([f"{color_video}#t=0,2", f"{color_video}#t=2,4"]))
    assert made.shape == (2, encoder.dimension + 1)
    with LibraryStore(tmp_path / "lib", encoder=encoder, transcriber=None) as store:
        store.add(color_video)
        similarities = {hit.span.start: hit.score for hit in store.search("a red ring", k=3, channels=("visual",))}
    query = encoder.embed_texts(["a red ring"])
    logits = encoder.calibration.similarity_logit(query @ made[:, :-1].T)[0]
    assert [similarities[0.0], similarities[2.0]] == pytest.approx((1 / (1 + np.exp(-logits))).tolist(), abs=1e-3)


def test_siglip_says_a_probability_of_its_own(make_model: MakeModel) -> None:
    import torch
    from transformers import AutoModel

    folder = make_model("siglip")
    encoder, network = DualEncoder(folder), AutoModel.from_pretrained(folder)
    similarity = np.array([0.3], np.float32)
    own = torch.tensor(0.3) * network.logit_scale.exp() + network.logit_bias
    assert encoder.calibration.similarity_logit(similarity)[0] == pytest.approx(float(own.detach()), abs=1e-5)


def test_the_fingerprint_names_what_makes_the_vectors(make_model: MakeModel) -> None:
    folder = make_model("clip")
    name = DualEncoder(folder).fingerprint
    assert DualEncoder(make_model("clip")).fingerprint == name
    assert DualEncoder(make_model("clip", seed=1)).fingerprint != name
    assert DualEncoder(folder, num_frames=4).fingerprint != name
    settings = folder / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("{", '{"image_mean": [0.1, 0.2, 0.3], ', 1))
    assert DualEncoder(folder).fingerprint != name


def test_what_is_no_dual_encoder_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file
    from transformers import BertConfig, BertModel

    with pytest.raises(ModelLoadError, match="no model in"):
        DualEncoder(tmp_path)
    with pytest.raises(ModelLoadError, match="4 frames, not 8"):
        DualEncoder(make_model("xclip"), num_frames=8)
    with pytest.raises(ValueError, match="stage-1 models; .* clip model"):
        load_encoder(make_model("clip"), aggregation="max")
    folder = make_model("clip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"1 tensors.*text_projection"):
        load_encoder(folder)
    folder = make_model("clip")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelLoadError, match="no complete dual encoder"):
        load_encoder(folder)
    folder = make_model("clip")
    BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        folder
    )
    with pytest.raises(ModelLoadError, match="bert"):
        load_encoder(folder)
