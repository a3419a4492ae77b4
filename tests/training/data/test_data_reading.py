"""Clips as training is shown them: the frames that were drawn, at their true times, as the pixels of the recipes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rendering import barcode, render, render_numbered, tone, truncate
from torch import Tensor
from torch.nn import functional as F

from videochat_tools.errors import (
    MediaError,
    MediaNotFoundError,
    UnreadableMediaError,
    UnsupportedContentError,
    VideoChatError,
)
from videochat_tools.media.frame_times import frame_times
from videochat_tools.models.frame_sampling import clip_frames
from videochat_tools.models.videochat2.image_processing import IMAGENET_MEAN, IMAGENET_STD, normalise, standardise
from videochat_tools.models.videochat2.tiling import TilingOptions, fit_to_tiles
from videochat_tools.training.data import ClipSampling
from videochat_tools.training.data.reading import ClipRequest, clip_seconds, read_clip
from videochat_tools.training.data.sampling import choose_frames, crop_box, to_pixels

Numbers = Callable[[Tensor], list[int]]

SIDE = 48


def middle(sampling: ClipSampling, count: int) -> ClipSampling:
    return ClipSampling(num_frames=count, sample="middle", size=sampling.size, augment=False)


# Which frames


def test_the_formulas_are_those_of_the_released_recipes(repository: Path) -> None:
    recorded = json.loads((repository / "tests" / "goldens" / "frame_indices.json").read_text())
    used = 0
    for case in recorded["train_get_frame_indices"]:
        most = case.get("max_num_frames", -1)
        if case.get("fix_start") is not None or (case["sample"].startswith("fps") and most <= 0) or not case["indices"]:
            continue
        fps = case.get("input_fps", 1.0)
        frames = most if case["sample"].startswith("fps") else case["num_frames"]
        seconds = [number / fps for number in range(case["vlen"])]
        chosen = choose_frames(seconds, fps, ClipSampling(frames, case["sample"]), random.Random(0))
        assert chosen == case["indices"], case
        used += 1
    assert used


def test_a_part_begins_and_ends_as_in_the_released_recipes() -> None:
    fps = 29.97
    seconds = [number / fps for number in range(300)]
    first, count = clip_frames(2.5, 7.2, fps)
    chosen = choose_frames(seconds, fps, ClipSampling(4, "middle"), random.Random(0), (2.5, 7.2))
    plain = choose_frames(seconds[:count], fps, ClipSampling(4, "middle"), random.Random(0))
    assert chosen == [first + index for index in plain]


def test_frames_that_are_not_evenly_spaced_are_found_by_their_times() -> None:
    seconds = [0.0, 0.1, 0.2, 0.3, 5.0, 5.1, 5.2, 5.3]
    every = ClipSampling(4, "middle")
    assert choose_frames(seconds, 1.5, every, random.Random(0), (5.0, 6.0)) == [4, 5, 6, 7]
    assert choose_frames(seconds, 1.5, every, random.Random(0), (0.0, 0.25)) == [0, 1, 2, 2]


def test_a_part_is_cut_at_the_end_of_the_video() -> None:
    seconds = [number / 10 for number in range(20)]
    sampling = ClipSampling(2, "middle")
    assert choose_frames(seconds, 10, sampling, random.Random(0), (1.0, 99.0)) == [12, 17]
    assert choose_frames(seconds, 10, sampling, random.Random(0), (1.95, 2.3)) == [19, 19]
    assert choose_frames(seconds, 10, sampling, random.Random(0), (0.52, 0.55)) == [5, 5]  # shorter than a frame
    with pytest.raises(UnsupportedContentError, match=r"from 2\.5 s to 3 s begins after the last frame at 1\.90 s"):
        choose_frames(seconds, 10, sampling, random.Random(0), (2.5, 3.0))


def test_frames_a_second_are_as_many_as_fit() -> None:
    seconds = [number / 10 for number in range(40)]
    assert choose_frames(seconds, 10, ClipSampling(8, "fps1"), random.Random(0)) == [5, 15, 25, 35]
    assert choose_frames(seconds, 10, ClipSampling(3, "fps1"), random.Random(0)) == [5, 15, 25]
    assert choose_frames(seconds[:3], 10, ClipSampling(3, "fps1"), random.Random(0)) == [1]  # shorter than half a step


@pytest.mark.parametrize(
    "wrong", [{"sample": "fps"}, {"sample": "fps0"}, {"sample": "all"}, {"num_frames": 0}, {"crop_scale": (0, 1)}]
)
def test_a_sampling_that_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        ClipSampling(**wrong)


# What is read


def test_a_video_gives_the_chosen_frames_and_their_times(media: Path, sampling: ClipSampling, numbers: Numbers) -> None:
    clip = read_clip(ClipRequest(media / "videos" / "0.mp4", "video"), middle(sampling, 4))
    assert clip.pixels.shape == (4, 3, SIDE, SIDE)
    assert numbers(clip.pixels) == [2, 7, 12, 17]
    assert clip.times == pytest.approx((0.2, 0.7, 1.2, 1.7))


def test_a_part_keeps_the_clock_of_the_whole_video(media: Path, sampling: ClipSampling, numbers: Numbers) -> None:
    clip = read_clip(ClipRequest(media / "videos" / "0.mp4", "video", (1.0, 1.8)), middle(sampling, 4))
    assert numbers(clip.pixels) == [10, 12, 14, 16]
    assert clip.times == pytest.approx((1.0, 1.2, 1.4, 1.6))


def test_what_is_drawn_follows_from_the_draws_alone(media: Path, sampling: ClipSampling, numbers: Numbers) -> None:
    requests = [ClipRequest(media / "videos" / "7.mp4", "video", draws=draws) for draws in ("a", "b", "a")]
    first, other, again = (read_clip(request, sampling) for request in requests)
    assert torch.equal(first.pixels, again.pixels) and first.times == again.times
    assert numbers(first.pixels) != numbers(other.pixels)
    assert [round(10 * time) for time in first.times] == numbers(first.pixels)


def test_a_short_video_repeats_its_last_frame(tmp_path: Path, sampling: ClipSampling, numbers: Numbers) -> None:
    path = render_numbered(tmp_path / "short.mp4", 3, (SIDE, SIDE))
    clip = read_clip(ClipRequest(path, "video"), middle(sampling, 6))
    assert numbers(clip.pixels) == [0, 1, 2, 2, 2, 2]


def test_a_gif_has_its_own_times_and_repeats_frames(tmp_path: Path, sampling: ClipSampling, numbers: Numbers) -> None:
    pictures = [Image.fromarray(barcode(number, (SIDE, SIDE))) for number in range(5)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=200)  # milliseconds
    clip = read_clip(ClipRequest(tmp_path / "a.gif", "video"), middle(sampling, 7))
    assert numbers(clip.pixels) == [0, 1, 2, 3, 4, 4, 4]
    assert clip.times == pytest.approx((0.0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8))
    part = read_clip(ClipRequest(tmp_path / "a.gif", "video", (0.4, 0.8)), middle(sampling, 2))
    assert numbers(part.pixels) == [2, 3]


@pytest.mark.parametrize("pattern", ["{:05d}.png", "{}.png", "frame2_{:03d}.PNG"])
def test_a_folder_of_pictures_is_read_by_number(
    frame_folder: Callable[..., Path], sampling: ClipSampling, numbers: Numbers, pattern: str
) -> None:
    folder = frame_folder(range(1, 13), pattern)
    clip = read_clip(ClipRequest(folder, "video", folder_fps=3.0), middle(sampling, 4))
    assert numbers(clip.pixels) == [2, 5, 8, 11]
    assert clip.times == pytest.approx((1 / 3, 4 / 3, 7 / 3, 10 / 3))  # the first picture is at 0 s
    part = read_clip(ClipRequest(folder, "video", (1.0, 2.0), 3.0), middle(sampling, 3))
    assert numbers(part.pixels) == [4, 5, 6]


def test_a_gap_in_a_folder_is_time_that_passes(
    frame_folder: Callable[..., Path], sampling: ClipSampling, numbers: Numbers
) -> None:
    folder = frame_folder([0, 1, 2, 10, 11])
    (folder / "readme.txt").write_text("12")
    clip = read_clip(ClipRequest(folder, "video", (5.0, 6.0), 2.0), middle(sampling, 2))
    assert numbers(clip.pixels) == [10, 11]
    assert clip.times == (5.0, 5.5)
    assert clip_seconds(ClipRequest(folder, "video", folder_fps=2.0)) == 6.0


def test_an_image_is_turned_the_right_way_up(tmp_path: Path, sampling: ClipSampling, numbers: Numbers) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    picture = Image.fromarray(barcode(9, (SIDE, SIDE))).rotate(90)
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    clip = read_clip(ClipRequest(tmp_path / "a.jpg", "image"), sampling)
    assert (clip.pixels.shape, clip.times) == ((1, 3, SIDE, SIDE), ())
    assert numbers(clip.pixels) == [9]


def test_real_footage(shared: Path) -> None:
    for path in sorted((shared / "videos").glob("*.mp4"))[:2]:
        clip = read_clip(ClipRequest(path, "video", draws="1"), ClipSampling(num_frames=8, size=64))
        assert clip.pixels.shape == (8, 3, 64, 64) and bool(clip.pixels.isfinite().all())
        known = set(frame_times(path).seconds)
        assert list(clip.times) == sorted(clip.times) and set(clip.times) <= known


# What cannot be read


def noisy(path: Path, codec: str = "libx264") -> Path:
    """60 frames, six seconds, whose pictures fill the file."""
    noise = np.random.default_rng(0).integers(0, 255, (60, SIDE, SIDE, 3)).astype(np.uint8)
    return render(path, noise, gop=10, codec=codec)


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_a_video_that_is_cut_off_is_refused(tmp_path: Path, sampling: ClipSampling, suffix: str, codec: str) -> None:
    whole = noisy(tmp_path / f"whole.{suffix}", codec)
    assert len(read_clip(ClipRequest(whole, "video"), sampling).times) == 4
    half = truncate(whole, tmp_path / f"half.{suffix}", 0.5)
    with pytest.raises(UnreadableMediaError, match=rf"half\.{suffix} is cut off after [23]\.\d s"):
        read_clip(ClipRequest(half, "video"), sampling)


def test_sound_that_goes_on_is_no_promise(tmp_path: Path, sampling: ClipSampling) -> None:
    for suffix in ("mkv", "mp4"):
        pictures = (barcode(number, (SIDE, SIDE)) for number in range(20))
        path = render(tmp_path / f"long.{suffix}", pictures, audio=tone(6.0))
        assert len(read_clip(ClipRequest(path, "video"), sampling).times) == 4


def test_a_video_with_a_hole_is_refused(tmp_path: Path, sampling: ClipSampling) -> None:
    content = bytearray(noisy(tmp_path / "whole.mp4").read_bytes())
    start, end = int(0.3 * len(content)), int(0.8 * len(content))
    content[start:end] = bytes(end - start)
    (tmp_path / "hole.mp4").write_bytes(content)
    with pytest.raises(UnreadableMediaError, match=r"hole\.mp4 is damaged: no frame from"):
        read_clip(ClipRequest(tmp_path / "hole.mp4", "video"), middle(sampling, 8))


def test_what_is_no_clip(tmp_path: Path, sampling: ClipSampling, frame_folder: Callable[..., Path]) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder").mkdir()
    folder = frame_folder([1, 2])
    Image.new("RGB", (10, 20)).save(folder / "00003.png")
    cases: list[tuple[Path, Any, type[MediaError], str]] = [
        (tmp_path / "none.mp4", "video", MediaNotFoundError, "no such file"),
        (tmp_path / "none.jpg", "image", MediaNotFoundError, "no such file"),
        (tmp_path / "empty.mp4", "video", UnreadableMediaError, "is empty"),
        (tmp_path / "text.jpg", "image", UnreadableMediaError, "no readable picture"),
        (tmp_path / "folder", "image", UnreadableMediaError, "no readable picture"),
        (tmp_path / "folder", "video", UnreadableMediaError, "holds no pictures"),
        (folder, "video", UnreadableMediaError, "different sizes"),
    ]
    for path, kind, error, told in cases:
        with pytest.raises(error, match=told):
            read_clip(ClipRequest(path, kind), middle(sampling, 4))
    (folder / "00003.png").unlink()
    (folder / "x_2.png").write_bytes((folder / "00002.png").read_bytes())
    with pytest.raises(UnreadableMediaError, match="two pictures numbered 2"):
        read_clip(ClipRequest(folder, "video"), sampling)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "a.jpg", "a.webp"])
def test_damaged_bytes_give_a_clip_or_one_of_our_errors(tmp_path: Path, sampling: ClipSampling, name: str) -> None:
    pictures = [Image.fromarray(barcode(number, (SIDE, SIDE))) for number in range(4)]
    path = tmp_path / name
    if name == "a.mp4":
        render_numbered(path, 4, (SIDE, SIDE))
    elif name == "a.gif":
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    else:
        pictures[0].save(path)
    content, rng, told = path.read_bytes(), random.Random(0), []
    for _ in range(40):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 5, 50])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        try:
            clip = read_clip(ClipRequest(path, "video" if name in ("a.mp4", "a.gif") else "image"), sampling)
        except VideoChatError as error:
            told.append(str(error))
        else:
            assert bool(clip.pixels.isfinite().all())
    assert told and all(name in each for each in told)


# As what pixels


def gradient(height: int, width: int, count: int = 3) -> Any:
    """Frames whose red grows to the right and whose green grows downwards."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 255, width)[None, None]
    frames[..., 1] = np.linspace(0, 255, height)[None, :, None]
    return frames


def test_an_augmented_clip_shows_one_part_of_all_its_frames_resized_as_a_tensor() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 90, 3)).astype(np.uint8)
    sampling = ClipSampling(size=32, flip=0.0)
    pixels = to_pixels(frames, sampling, random.Random(5))
    top, left, height, width = crop_box(60, 90, (0.5, 1.0), random.Random(5))
    part = torch.tensor(frames[:, top : top + height, left : left + width]).permute(0, 3, 1, 2).float()
    resized = F.interpolate(part, (32, 32), mode="bicubic", align_corners=False).clamp(0, 255).round()
    assert torch.allclose(pixels, standardise(resized, IMAGENET_MEAN, IMAGENET_STD))
    mirrored = to_pixels(frames, ClipSampling(size=32, flip=1.0), random.Random(5))
    assert torch.equal(mirrored, pixels.flip(-1))


def test_parts_are_drawn_within_their_bounds() -> None:
    rng = random.Random(0)
    boxes = [crop_box(100, 160, (0.5, 1.0), rng) for _ in range(2000)]
    shares = [height * width / 16000 for _, _, height, width in boxes]
    ratios = [width / height for _, _, height, width in boxes]
    assert all(0 <= top <= 100 - height and 0 <= left <= 160 - width for top, left, height, width in boxes)
    assert 0.48 < min(shares) < 0.53 and 0.8 < max(shares) <= 4 / 3 / 1.6  # no wider than 4:3, no higher than 100
    assert 0.75 <= round(min(ratios), 2) < 0.85 and 1.25 < max(ratios) < 1.35
    assert len({(top, left) for top, left, _, _ in boxes}) > 500
    # No part of such a shape is large enough: the centre, as wide as allowed.
    assert crop_box(10, 1000, (0.9, 1.0), rng) == (0, 493, 10, 13)


def test_half_of_the_clips_are_mirrored() -> None:
    rng = random.Random(1)
    clips = [to_pixels(gradient(40, 40, 1), ClipSampling(size=16), rng) for _ in range(200)]
    mirrored = sum(bool(clip[0, 0, :, 0].mean() > clip[0, 0, :, -1].mean()) for clip in clips)
    assert 70 <= mirrored <= 130
    assert all(clip[0, 1, 0].mean() < clip[0, 1, -1].mean() for clip in clips)  # never upside down


def test_without_augmentation_videos_are_cut_and_images_squeezed() -> None:
    frames = gradient(32, 64)
    sampling = ClipSampling(size=32, augment=False)
    assert torch.equal(
        to_pixels(frames, sampling, random.Random(0)),
        normalise(np.ascontiguousarray(frames[:, :, 16:48]), IMAGENET_MEAN, IMAGENET_STD),
    )
    squeezed = to_pixels(frames[:1], sampling, random.Random(0), image=True)
    assert squeezed.shape == (1, 3, 32, 32)
    assert float(squeezed[0, 0].max() - squeezed[0, 0].min()) == pytest.approx(1 / IMAGENET_STD[0], rel=0.05)


def test_tiles_come_whole_and_without_augmentation() -> None:
    frames = gradient(48, 96)
    tiling = TilingOptions(max_tiles=6)
    pixels = to_pixels(frames, ClipSampling(size=32, tiling=tiling), random.Random(0))
    assert torch.equal(pixels, standardise(fit_to_tiles(frames, 32, tiling), IMAGENET_MEAN, IMAGENET_STD))
    assert pixels.shape[-1] == 2 * pixels.shape[-2]
