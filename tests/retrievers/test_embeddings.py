"""The real encoder over a real (tiny, random) stage-1 network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from videochat_tools.embeddings import (
    Calibration,
    ClipEmbeddings,
    VideoChat2Encoder,
    VideoEncoder,
    load_encoder,
    text_similarity,
)
from videochat_tools.errors import ModelLoadError
from videochat_tools.library import LibraryStore

TEXTS = ["a red ring spins", "the blue square", "ring"]


@pytest.fixture(scope="module")
def folder(make_model: Callable[..., Path]) -> Path:
    return make_model()


@pytest.fixture(scope="module")
def encoder(folder: Path) -> VideoEncoder:
    return load_encoder(folder)


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 4, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize(("aggregation", "rows"), [("mean", 1), ("max", 4)])
def test_the_similarity_is_the_network_s_own(
    make_model: Callable[..., Path], clips: np.ndarray, aggregation: str, rows: int
) -> None:
    import torch

    from videochat_tools.models.videochat2 import VideoChat2ForRetrieval, VideoChat2Processor

    folder = make_model(aggregation=aggregation)
    encoder = load_encoder(folder)
    model = VideoChat2ForRetrieval.from_pretrained(folder).eval()
    processor = VideoChat2Processor.from_pretrained(folder)
    with torch.inference_mode():
        features = model.encode_frames(processor.pixel_values(clips))
        texts = model.text_embeds(**processor.encode_texts(TEXTS))
        similarity = model.similarity(model.video_embeds(features), texts).numpy()
        tokens = processor.encode_texts([TEXTS[0]] * len(clips))
        matched = model.match_logits(features, **tokens).softmax(-1)[:, 1].numpy()

    made = encoder.embed_clips(clips)
    assert encoder.rows == rows
    assert made.vectors.shape == (20, rows, encoder.dimension)
    assert made.vectors.dtype == np.float32
    vectors = encoder.embed_texts(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(text_similarity(vectors, made.vectors).T, similarity, atol=1e-5)
    assert text_similarity(vectors, made.vectors[:0]).shape == (len(TEXTS), 0)

    assert made.features is not None
    assert made.features.dtype == np.float16
    judged = encoder.match(TEXTS[0], made.features)
    assert judged.shape == (20,)
    assert np.allclose(judged, matched, atol=5e-3)  # the features are kept in half precision
    assert np.ptp(judged) > 0.01
    assert len(encoder.match(TEXTS[0], made.features[:0])) == 0
    assert encoder.embed_texts([]).shape == (0, encoder.dimension)


def test_the_fingerprint_names_what_makes_the_vectors(
    make_model: Callable[..., Path], folder: Path, encoder: VideoEncoder
) -> None:
    assert VideoChat2Encoder(folder).fingerprint == encoder.fingerprint
    assert VideoChat2Encoder(make_model(seed=1)).fingerprint != encoder.fingerprint
    assert VideoChat2Encoder(make_model(aggregation="max")).fingerprint != encoder.fingerprint
    copy = make_model()
    assert VideoChat2Encoder(copy).fingerprint == encoder.fingerprint
    (copy / "calibration.json").write_text("{}")
    assert VideoChat2Encoder(copy).fingerprint == encoder.fingerprint
    settings = json.loads((copy / "processor_config.json").read_text())
    (copy / "processor_config.json").write_text(json.dumps({**settings, "max_text_length": 8}))
    assert VideoChat2Encoder(copy).fingerprint != encoder.fingerprint


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_the_protocol_can_be_chosen_whatever_the_configuration_says(
    make_model: Callable[..., Path], clips: np.ndarray, aggregation: str
) -> None:
    says = {name: load_encoder(make_model(aggregation=name)) for name in ("mean", "max")}
    other = {"mean": "max", "max": "mean"}[aggregation]
    chosen = load_encoder(make_model(aggregation=other), aggregation=aggregation)  # type: ignore[arg-type]
    assert np.array_equal(chosen.embed_clips(clips).vectors, says[aggregation].embed_clips(clips).vectors)
    assert chosen.fingerprint not in {each.fingerprint for each in says.values()}  # another space than its own default
    assert load_encoder(make_model(), aggregation="mean").fingerprint == says["mean"].fingerprint
    with pytest.raises(ValueError, match="'mean' or 'max', got 'sum'"):
        load_encoder(make_model(), aggregation="sum")  # type: ignore[arg-type]


def test_langchain_embeddings_keep_the_exact_protocol(make_model: Callable[..., Path], color_video: Path) -> None:
    """An inner product of LangChain's vectors is the network's own similarity: over one vector a clip, or over all."""
    import torch

    from videochat_tools.library.clips import ClipShape, clip_batches
    from videochat_tools.media import probe
    from videochat_tools.models.videochat2 import VideoChat2ForRetrieval, VideoChat2Processor
    from videochat_tools.types import TimeSpan
    from videochat_tools.video_embeddings import VideoEmbeddings

    folder = make_model()
    model = VideoChat2ForRetrieval.from_pretrained(folder).eval()
    processor = VideoChat2Processor.from_pretrained(folder)
    shape, spans = ClipShape(4, 32), [TimeSpan(0, 3), TimeSpan(2, 6)]
    (batch,) = clip_batches(probe(color_video), spans, [shape], batch_size=2)
    with torch.inference_mode():
        videos = model.video_embeds(model.encode_frames(processor.pixel_values(batch.clips[shape])))  # [2, Q, d]
        texts = model.text_embeds(**processor.encode_texts(TEXTS))
        each = torch.einsum("td,nqd->tnq", texts, videos).numpy()
    names = [f"{color_video}#t=0,3", f"{color_video}#t=2,6"]
    mean = VideoEmbeddings(folder)
    queries = np.array([mean.embed_query(text) for text in TEXTS])
    assert np.allclose(queries @ np.array(mean.embed_documents(names)).T, each.mean(axis=-1), atol=1e-5)
    best = VideoEmbeddings(folder, aggregation="max")
    assert np.allclose(text_similarity(queries, best.embed_document_rows(names)), each.max(axis=-1), atol=1e-5)
    with pytest.raises(ValueError, match="either a loaded encoder"):
        VideoEmbeddings(encoder=best.encoder, aggregation="max")


def test_features_that_are_too_large_are_not_kept(make_model: Callable[..., Path], clips: np.ndarray) -> None:
    encoder = VideoChat2Encoder(make_model(patch_size=4, hidden_size=516))  # 256 tokens x 516 x 2 bytes > 256 KiB
    assert not encoder.keeps_features
    assert encoder.embed_clips(clips[:2]).features is None


def test_calibration_is_read_from_the_folder(make_model: Callable[..., Path]) -> None:
    folder = make_model()
    assert VideoChat2Encoder(folder).calibration == Calibration()
    file = folder / "calibration.json"
    file.write_text(json.dumps({"match_threshold": 0.7, "similarity_weight": 0.5, "fitted_on": "held-out clips"}))
    assert VideoChat2Encoder(folder).calibration == Calibration(match_threshold=0.7, similarity_weight=0.5)
    for wrong in ("[1]", "no JSON", '{"match_threshold": "high"}', '{"match_threshold": NaN}'):
        file.write_text(wrong)
        with pytest.raises(ModelLoadError, match=r"calibration\.json"):
            VideoChat2Encoder(folder)


def test_a_stretch_counts_as_found_by_either_channel() -> None:
    calibration = Calibration(match_threshold=0.9, speech_threshold=0.5)
    assert calibration.accepts(0.95, None)
    assert calibration.accepts(0.1, 0.6)
    assert not calibration.accepts(0.8, 0.4)
    assert not calibration.accepts(None, None)


def test_what_the_search_is_not_sure_of_may_be_worth_a_look() -> None:
    calibration = Calibration(match_threshold=0.9, look_threshold=0.2, speech_threshold=0.5)
    assert calibration.is_worth_a_look(0.3, None) and not calibration.accepts(0.3, None)
    assert not calibration.is_worth_a_look(0.1, 0.4)
    assert calibration.is_worth_a_look(0.1, 0.6) and calibration.is_worth_a_look(0.95, None)
    assert not Calibration(match_threshold=0.9).is_worth_a_look(0.8, None)  # nobody said from where on


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no video encoder in"):
        load_encoder(tmp_path / "nothing")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelLoadError):
        load_encoder(tmp_path)


def test_vectors_of_clips_have_rows() -> None:
    with pytest.raises(ValueError, match=r"\[n, rows, dimension\], got \[3, 12\]"):
        ClipEmbeddings(np.zeros((3, 12), np.float32), None)


def test_missing_weights_are_an_error_and_never_random(make_model: Callable[..., Path]) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_model()
    tensors = load_file(folder / "model.safetensors")
    del tensors["itm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"1 tensors? .*itm_head\.weight"):
        load_encoder(folder)


def test_it_serves_a_library(encoder: VideoEncoder, color_video: Path, tmp_path: Path) -> None:
    with LibraryStore(tmp_path / "lib", encoder=encoder, transcriber=None) as store:
        assert store.add(color_video)[0].status == "added"
        hits = store.search("a red ring", k=3)
    assert [hit.span.start for hit in sorted(hits, key=lambda hit: hit.span)] == [0.0, 2.0, 4.0]
    assert all(0 <= hit.score <= 1 for hit in hits)
