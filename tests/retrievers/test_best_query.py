"""Libraries of an encoder that goes by its best query: they find what the network itself, asked about all, finds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rendering import render

from videochat_tools.embeddings import VideoChat2Encoder, VideoEncoder
from videochat_tools.library import LibraryStore
from videochat_tools.library.catalog import Catalog
from videochat_tools.library.clips import ClipShape, clip_batches
from videochat_tools.library.source import LibrarySource
from videochat_tools.library.vector_index import VectorIndex
from videochat_tools.retrievers.faiss_index import FaissIndex
from videochat_tools.segmenting import make_segmenter
from videochat_tools.types import TimeSpan

TEXTS = ["a red ring spins", "the blue square", "ring"]
SCENES, FILMS = 9, 3  # of a second each, a segment a scene

Place = tuple[str, int]  # id of the video, number of the segment
Truth = dict[Place, "np.ndarray"]  # similarity of a segment with each of TEXTS


@pytest.fixture(scope="module")
def make_encoder(make_model: Callable[..., Path]) -> Callable[[str], VideoChat2Encoder]:
    """``make_encoder("max")``: equal weights whatever the aggregation, and hits in the order of their similarity."""

    def make(aggregation: str) -> VideoChat2Encoder:
        folder = make_model(aggregation=aggregation)
        # The matching head does not count, and nothing is so sure that it is joined with its neighbour.
        values = {"similarity_weight": 1.0, "similarity_scale": 4.0, "similarity_offset": 0.0, "match_threshold": 0.999}
        (folder / "calibration.json").write_text(json.dumps(values))
        return VideoChat2Encoder(folder)

    return make


@pytest.fixture(scope="module")
def encoder(make_encoder: Callable[[str], VideoChat2Encoder]) -> VideoChat2Encoder:
    return make_encoder("max")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Scenes of large random blocks, ten frames each."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    made = []
    for name in range(FILMS):
        blocks = rng.integers(0, 256, (SCENES, 4, 4, 3)).astype(np.uint8).repeat(16, axis=1).repeat(16, axis=2)
        made.append(render(folder / f"{name}.mp4", blocks.repeat(10, axis=0)))
    return made


@dataclass(frozen=True)
class Opened:
    store: LibraryStore
    truth: Truth


def open_with(folder: Path, encoder: VideoEncoder) -> LibraryStore:
    segmenter = make_segmenter("fixed", seconds=1.0)
    return LibraryStore(folder, encoder=encoder, transcriber=None, segmenter=segmenter)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, films: list[Path], encoder: VideoChat2Encoder) -> Opened:
    """A library with the films in it, made once."""
    store = open_with(tmp_path_factory.mktemp("made") / "lib", encoder)
    assert [result.status for result in store.add(films)] == ["added"] * FILMS
    truth = network_s_own(encoder, store)
    store.close()
    return Opened(store, truth)


@pytest.fixture
def opened(made: Opened, encoder: VideoChat2Encoder, tmp_path: Path) -> Iterator[Opened]:
    """A copy of the library, which a test may change."""
    shutil.copytree(made.store.path, tmp_path / "lib")
    with open_with(tmp_path / "lib", encoder) as store:
        yield Opened(store, made.truth)


def network_s_own(encoder: VideoChat2Encoder, store: LibraryStore) -> Truth:
    """The network's ``similarity()`` of every segment with every text, without vectors, rows or an index."""
    import torch

    model, processor = encoder._model, encoder._processor
    shape, truth = ClipShape.of(encoder), {}
    with torch.inference_mode():
        texts = model.text_embeds(**processor.encode_texts(TEXTS))
        for record in store.list():
            spans = [s.span for s in store.segments_during(record.video_id, TimeSpan(0.0, record.info.duration))]
            for batch in clip_batches(record.info, spans, [shape], batch_size=SCENES):
                embeds = model.video_embeds(model.encode_frames(processor.pixel_values(batch.clips[shape])))
                for row, values in zip(batch.rows, model.similarity(embeds, texts).numpy(), strict=True):
                    truth[record.video_id, row] = values
    assert len(truth) == SCENES * len(store.list())
    return truth


def found(store: LibraryStore, text: str, *, k: int = 100, **where: object) -> list[Place]:
    hits = store.search(text, k=k, channels=("visual",), **where)  # type: ignore[arg-type]
    assert all(len(hit.segments) == 1 for hit in hits)
    return [(hit.video_id, hit.segments[0]) for hit in hits]


def assert_finds(store: LibraryStore, truth: Truth, **where: object) -> None:
    """Every text finds exactly these segments, the most similar first."""
    for column, text in enumerate(TEXTS):
        places = found(store, text, **where)
        assert sorted(places) == sorted(truth)
        values = np.array([truth[place][column] for place in places])
        assert np.allclose(values, np.sort(values)[::-1], atol=1e-5)


def test_the_order_is_that_of_the_network_s_similarity(
    opened: Opened, make_encoder: Callable[[str], VideoChat2Encoder]
) -> None:
    assert_finds(opened.store, opened.truth)
    by_mean = network_s_own(make_encoder("mean"), opened.store)  # the same network, were it to go by the mean
    places = sorted(opened.truth)
    orders = [np.argsort([values[place] for place in places], axis=0)[::-1] for values in (opened.truth, by_mean)]
    assert (orders[0] != orders[1]).any(axis=0).all()


def test_filters_choose_among_whole_segments(opened: Opened) -> None:
    one, _, other = sorted({video for video, _ in opened.truth})
    some = {place: value for place, value in opened.truth.items() if place[0] in (one, other)}
    assert_finds(opened.store, some, videos=[one, other])
    window = TimeSpan(2.0, 5.0)
    assert_finds(opened.store, {p: v for p, v in opened.truth.items() if 2 <= p[1] < 5}, span=window)
    assert_finds(opened.store, {p: v for p, v in some.items() if 2 <= p[1] < 5}, videos=[one, other], span=window)


def test_a_removed_video_is_gone_with_all_its_rows(
    opened: Opened, films: list[Path], encoder: VideoChat2Encoder
) -> None:
    gone = opened.store.remove("1.mp4").video_id
    index = FaissIndex.load(opened.store.path / "index.faiss")
    assert (len(index), index.rows) == (SCENES * (FILMS - 1), encoder.rows)
    left = {place: value for place, value in opened.truth.items() if place[0] != gone}
    assert_finds(opened.store, left)
    assert [result.status for result in opened.store.add(films)] == ["unchanged", "added", "unchanged"]
    assert_finds(opened.store, opened.truth)


def test_k_segments_are_k_different_segments(opened: Opened, encoder: VideoChat2Encoder) -> None:
    catalog = Catalog(opened.store.path / "catalog.db")
    index = VectorIndex(opened.store.path / "index.faiss", catalog, encoder)
    source = LibrarySource(catalog, opened.store.cache, index, encoder)
    ids = index.current()[0].ids
    rows = catalog.vectors(ids, encoder.rows, encoder.dimension)
    crowded = 0
    for column, vector in enumerate(encoder.embed_texts(TEXTS)):
        best = np.sort([values[column] for values in opened.truth.values()])[::-1]
        for k in (1, 2, 5, SCENES * FILMS, 1000):
            candidates = source.similar_segments(vector, k, None, None)
            places = [(each.segment.video_id, each.segment.index) for each in candidates]
            assert len(set(places)) == len(places) == min(k, len(opened.truth))
            assert np.allclose([each.similarity for each in candidates], best[:k], atol=1e-5)
            assert np.allclose([opened.truth[place][column] for place in places], best[:k], atol=1e-5)
        nearest = np.argsort(-(rows @ vector).ravel())[:5] // encoder.rows
        crowded += len(nearest) - len(np.unique(nearest))
    catalog.close()
    assert crowded  # five rows are not five segments: there was something to tell apart


@pytest.mark.parametrize("damage", ["missing", "one row each", "other rows", "rows missing"])
def test_the_index_is_made_again(opened: Opened, encoder: VideoChat2Encoder, damage: str, tmp_path: Path) -> None:
    path = opened.store.path / "index.faiss"
    index = FaissIndex.load(path)
    if damage == "missing":
        path.unlink()
    elif damage == "rows missing":
        import faiss

        raw = faiss.read_index(str(path))
        entries = faiss.IndexIDMap2(faiss.IndexFlatIP(raw.d))
        entries.add_with_ids(raw.index.reconstruct_n(0, raw.ntotal - 1), index.ids.repeat(index.rows)[:-1])
        faiss.write_index(entries, str(path))
    else:
        stored = index.vectors(index.ids)
        changed = stored[:, :1] if damage == "one row each" else stored[:, ::-1]
        other = FaissIndex(index.dimension, rows=changed.shape[1])
        other.add(index.ids, changed)
        other.save(path)
    opened.store.close()
    assert_finds(opened.store, opened.truth)
    made = FaissIndex.load(path)
    assert (len(made), made.rows) == (SCENES * FILMS, encoder.rows)


def test_both_kinds_of_encoder_share_a_library(
    opened: Opened, films: list[Path], make_encoder: Callable[[str], VideoChat2Encoder]
) -> None:
    mean = make_encoder("mean")
    with open_with(opened.store.path, mean) as other:
        assert [result.status for result in other.add(films)] == ["updated"] * FILMS
        by_mean = network_s_own(mean, other)
        assert_finds(other, by_mean)
        assert_finds(opened.store, opened.truth)
        opened.store.close()
        assert_finds(opened.store, opened.truth)
        gone = other.remove("2.mp4").video_id
        for store, truth in ((other, by_mean), (opened.store, opened.truth)):
            assert_finds(store, {place: value for place, value in truth.items() if place[0] != gone})
