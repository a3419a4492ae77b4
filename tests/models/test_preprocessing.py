"""Pixels and position tables equal those of the original code, every case and every tensor of the goldens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models.videochat2 import ProcessorOptions, TilingOptions, VideoChat2Processor
from videochat_tools.models.videochat2.image_processing import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Frames,
    normalise,
    resize_frames,
    standardise,
)
from videochat_tools.models.videochat2.modeling_vision import sincos_position_table
from videochat_tools.models.videochat2.tiling import choose_grid, fit_to_tiles, grid_candidates, split_views, tile_grid

VISUAL = 1e-4  # absolute tolerance of everything that the networks see


def close(ours: Tensor, golden: Tensor, tolerance: float = VISUAL) -> None:
    torch.testing.assert_close(ours, golden, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def preprocess(goldens: Callable[[str], Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((goldens("preprocess") / "preprocess.json").read_text())
    return found


@pytest.fixture(scope="module")
def arrays(goldens: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(goldens("preprocess") / "preprocess.safetensors")


def processor(model: str, **options: Any) -> VideoChat2Processor:
    return VideoChat2Processor(None, None, ProcessorOptions.released(model, **options))


def frames_of(case: dict[str, Any], arrays: dict[str, Tensor]) -> Frames:
    raw: Frames = arrays[case["raw"]].numpy()
    return raw[: case["frames"]] if case.get("kind") == "video" else raw[case["frame"] : case["frame"] + 1]


# Squares


def test_the_statistics_are_the_released_ones(preprocess: dict[str, Any]) -> None:
    assert list(CLIP_MEAN) == preprocess["clip_mean"]
    assert list(CLIP_STD) == preprocess["clip_std"]
    assert list(IMAGENET_MEAN) == preprocess["imagenet_mean"]
    assert list(IMAGENET_STD) == preprocess["imagenet_std"]


def test_frames_are_resized_cut_and_normalised(preprocess: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    for case in preprocess["cases"]:
        assert case["kind"] in ("video", "image_upload")
        image, size = case["kind"] == "image_upload", case["size"]
        frames = frames_of(case, arrays)
        expected = arrays[case["expect_uint8"]].numpy().reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
        assert np.array_equal(resize_frames(frames, size, squash=image), expected), case
        for model in ("videochat", "vicuna", "mistral"):
            close(processor(model, image_size=size).pixel_values(frames, image=image)[0], normalise(expected))
        # Phi-3's demo has statistics of its own for videos, and only for them.
        statistics = (CLIP_MEAN, CLIP_STD) if image else (IMAGENET_MEAN, IMAGENET_STD)
        phi = processor("phi3", image_size=size).pixel_values(frames, image=image)[0]
        close(phi, normalise(expected, *statistics))
        if name := case.get("normalised_first_frame"):
            close(processor("vicuna", image_size=size).pixel_values(frames)[0, 0], arrays[name])


# Tiles


def test_frames_are_fitted_to_tiles_without_padding(preprocess: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    for case in preprocess["hd_no_padding"]:
        frames, size = frames_of(case, arrays), case["image_size"]
        tiling = TilingOptions(max_tiles=case["hd_num"])
        fitted = standardise(fit_to_tiles(frames, size, tiling), IMAGENET_MEAN, IMAGENET_STD)
        assert list(fitted.shape) == case["out_shape"], case
        close(fitted[0, :, 0, 0], torch.tensor(case["corner_values"]))
        for name in ("mean", "std", "min", "max"):
            assert getattr(fitted, name)().item() == pytest.approx(case[name], abs=VISUAL), (case, name)
        if case["tensor"]:
            close(fitted, arrays[case["tensor"]])
        views = processor("mistral_hd", image_size=size, tiling=tiling).pixel_values(frames)
        close(views, split_views(fitted, size))


def test_frames_are_padded_as_in_the_released_code(preprocess: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    for case in preprocess["hd_padding"]:
        tiling = TilingOptions(max_tiles=case["hd_num"], padding=True, fix_portrait=False)
        padded = fit_to_tiles(frames_of(case, arrays), case["image_size"], tiling)
        assert list(padded.shape) == case["out_shape"], case
        assert padded.mean().item() == pytest.approx(case["mean"], rel=1e-6)
        assert padded.std().item() == pytest.approx(case["std"], rel=1e-6)
        middle = padded[0, :, padded.shape[2] // 2, padded.shape[3] // 2]
        close(padded[0, :, 0, 0], torch.tensor(case["row0_first_values"]), 255 * VISUAL)
        close(middle, torch.tensor(case["centre_values"]), 255 * VISUAL)


def test_padded_sizes_and_the_portraits_of_them(preprocess: dict[str, Any]) -> None:
    for case in preprocess["hd_padding_sizes"]:
        width, height = case["width"], case["height"]
        rows, columns = (side // 224 for side in case["out_hw"])  # recorded with the released tiles of 224 pixels
        released = TilingOptions(max_tiles=case["hd_num"], padding=True, fix_portrait=False)
        fixed = TilingOptions(max_tiles=case["hd_num"], padding=True)
        assert tile_grid(width, height, 224, released) == (columns, rows)
        assert tile_grid(width, height, 224, fixed) == ((rows, columns) if height > width else (columns, rows))


def test_a_padded_portrait_keeps_its_shape() -> None:
    frames = np.random.default_rng(0).integers(0, 200, (2, 90, 40, 3), dtype=np.uint8)
    tiling = TilingOptions(padding=True)
    portrait = fit_to_tiles(frames, 28, tiling)
    close(portrait, fit_to_tiles(frames.transpose(0, 2, 1, 3), 28, tiling).transpose(-1, -2))
    assert portrait.shape == (2, 3, 84, 56)
    assert (portrait[..., 0] == 255).all() and (portrait[..., -1] == 255).all()
    assert not (portrait[:, :, 0] == 255).all()


def test_grids_are_chosen_as_in_the_released_code(preprocess: dict[str, Any]) -> None:
    for most, case in preprocess["hd_aspect_ratio"].items():
        assert [list(grid) for grid in grid_candidates(int(most))] == case["candidates_in_order"]
        for pick in case["picks"]:
            grid = choose_grid(pick["width"], pick["height"], 224, int(most))
            assert list(grid) == pick["best"], (most, pick)


def test_all_of_the_golden_is_compared(preprocess: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    statistics = {"clip_mean", "clip_std", "imagenet_mean", "imagenet_std"}
    tiles = {"hd_no_padding", "hd_padding", "hd_padding_sizes", "hd_aspect_ratio"}
    assert set(preprocess) == statistics | tiles | {"cases", "note", "pillow"}
    named = [case.get(key) for case in preprocess["cases"] for key in ("expect_uint8", "normalised_first_frame")]
    named += [case["tensor"] for case in preprocess["hd_no_padding"]]
    assert {name for name in arrays if not name.startswith("raw.")} == {name for name in named if name}


def test_tiles_are_in_reading_order_and_the_whole_is_last() -> None:
    size, rows, columns = 4, 2, 3
    pixels = torch.arange(rows * columns).view(rows, columns).float()
    pixels = pixels.repeat_interleave(size, 0).repeat_interleave(size, 1).expand(5, 3, -1, -1)
    views = split_views(pixels, size)
    assert views.shape == (7, 5, 3, size, size)
    assert views[:6, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (views[:6] == views[:6, :1, :1, :1, :1]).all()
    assert views[6, 0, 0, 0, 0] < views[6, 0, 0, -1, -1]
    assert torch.equal(split_views(pixels, size, global_view=False), views[:6])
    with pytest.raises(UnsupportedContentError, match="multiples of 5"):
        split_views(pixels, 5)


def test_options_of_tiles() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 40, 80, 3), dtype=np.uint8)
    for tiling, views in (
        (TilingOptions(), 3),  # the closest grid of at most 6: two side by side
        (TilingOptions(global_view=False), 2),
        (TilingOptions(grid=(3, 2)), 7),
        (TilingOptions(max_tiles=1), 2),
    ):
        hd = processor("mistral_hd", image_size=28, tiling=tiling)
        assert hd.num_views(40, 80) == len(hd.pixel_values(frames)) == views
    assert processor("mistral", image_size=28).num_views(40, 80) == 1
    clips = np.stack([frames, frames[:, ::-1]])
    hd = processor("mistral_hd", image_size=28)
    close(hd.pixel_values(clips), torch.cat([hd.pixel_values(clip) for clip in clips]))
    for wrong in ({"max_tiles": 0}, {"grid": (0, 2)}, {"grid": (1, 2), "padding": True}):
        with pytest.raises(ValueError, match="tiles are counted from 1|either padding or grid"):
            TilingOptions(**wrong)
    with pytest.raises(UnsupportedContentError, match="uint8"):
        hd.pixel_values(frames.astype(np.float32))
    with pytest.raises(ValueError, match="videochat, vicuna, mistral, mistral_hd, phi3"):
        ProcessorOptions.released("llava")


# Position tables


def test_position_tables(goldens: Callable[[str], Path]) -> None:
    tables = load_file(goldens("pos_embed.safetensors"))
    entries = json.loads(goldens("pos_embed.json").read_text())
    assert {entry["key"] for entry in entries} == set(tables)
    (patch,) = {entry["patch"] for entry in entries if "patch" in entry}  # those of images leave it out
    for entry in entries:
        image = entry.get("image", False)
        side, frames = entry["img_size"] // patch, 1 if image else entry["num_frames"]
        base = {} if image else {"base_frames": entry["ckpt_num_frame"]}
        table = sincos_position_table(entry["d"], (side, side), frames, image=image, **base)
        if "full_shape" in entry:
            assert [1, *table.shape] == entry["full_shape"]
        if entry["stored"] != "full":
            assert entry["stored"] == "frames 0, T//2, T-1"
            table = table.view(frames, side * side, -1)[[0, frames // 2, frames - 1]]
        golden = tables[entry["key"]]
        close(table, golden.reshape(table.shape))
