"""Which frames of a video or image are shown in training, and as what pixels."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models.frame_sampling import clip_frames, training_frame_indices
from videochat_tools.models.videochat2.image_processing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Frames,
    normalise,
    resize_frames,
    standardise,
)
from videochat_tools.models.videochat2.tiling import TilingOptions, fit_to_tiles

__all__ = ["ClipSampling", "choose_frames", "crop_box", "to_pixels"]

_RATIOS = (3 / 4, 4 / 3)  # width to height of a crop, as torchvision's RandomResizedCrop draws it by default
_TRIES = 10  # draws of a crop, before the centre is taken; likewise


@dataclass(frozen=True, slots=True)
class ClipSampling:
    """How a video or image becomes pixels. Defaults are those of the released recipes (stages 3 of VideoChat2).

    Attributes:
        num_frames: Frames of a video; an image has one.
        sample: "rand" draws one frame of each of ``num_frames`` equal parts, "middle" takes the one in its middle,
            "fps2" (or any number) takes two frames a second, ``num_frames`` at most.
        size: Side of the square frames, or of a tile, in pixels.
        mean: Subtracted from red, green and blue in 0..1.
        std: Divided by.
        augment: Show a part of the frames (the same of each), and mirror every other clip. False shows videos as the
            processors do: the shorter side is fitted to ``size``, the centre cut out; images are squeezed to a square.
        crop_scale: With ``augment``: least and largest share of the area that is shown.
        flip: With ``augment``: probability of mirroring; 0 where left and right matter.
        tiling: Frames of many sizes for the HD model, cut into tiles by the stage; without augmentation.
    """

    num_frames: int = 8
    sample: str = "rand"
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    augment: bool = True
    crop_scale: tuple[float, float] = (0.5, 1.0)
    flip: float = 0.5
    tiling: TilingOptions | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.size < 1:
            raise ValueError(f"num_frames and size are counted from 1, got {self.num_frames} and {self.size}")
        rate = self.sample.removeprefix("fps")
        if self.sample not in ("rand", "middle") and not (rate != self.sample and _is_positive(rate)):
            raise ValueError(f"sample must be 'rand', 'middle' or 'fps' and a number, got {self.sample!r}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1 or not 0 <= self.flip <= 1:
            raise ValueError(
                f"crop_scale are two ascending shares of the area in 0..1 and flip is a probability, got "
                f"{self.crop_scale} and {self.flip}"
            )


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def choose_frames(
    seconds: Sequence[float],
    fps: float,
    sampling: ClipSampling,
    rng: random.Random,
    span: tuple[float, float] | None = None,
) -> list[int]:
    """Indices of the frames to show, ascending; a short video repeats its last one.

    Args:
        seconds: When each frame appears.
        fps: Frames a second, on average.
        sampling: How to choose.
        rng: Source of the draws of "rand".
        span: Start and end in seconds of the part to show; an end behind the last frame is that frame.

    Raises:
        UnsupportedContentError: The part begins after the end of the video.
    """
    first, count = 0, len(seconds)
    if span is not None:
        first, count = _part(seconds, fps, *span)
    most = sampling.num_frames
    indices = training_frame_indices(count, most, sampling.sample, fps=fps, max_frames=most, rng=rng)
    return [first + index for index in indices or [(count - 1) // 2]]


def _part(seconds: Sequence[float], fps: float, start: float, end: float) -> tuple[int, int]:
    """First frame and number of frames of a part; by the released formula where the frames are evenly spaced."""
    last = len(seconds)
    if start > seconds[-1] + 1 / fps:
        raise UnsupportedContentError(
            f"the part from {start:g} s to {end:g} s begins after the last frame at {seconds[-1]:.2f} s; "
            "mend start and end of the sample"
        )
    if all(abs(time - number / fps) < 0.5 / fps for number, time in enumerate(seconds)):
        first, count = clip_frames(start, end, fps)
    else:
        first = bisect_left(seconds, start)
        count = bisect_left(seconds, end) - first
    first = min(first, last - 1)
    return first, max(1, min(count, last - first))


def crop_box(height: int, width: int, scale: tuple[float, float], rng: random.Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part, drawn as by torchvision's RandomResizedCrop."""
    shortest, longest = (math.log(ratio) for ratio in _RATIOS)
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(shortest, longest))
        cropped_width, cropped_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < cropped_width <= width and 0 < cropped_height <= height:
            top = rng.randint(0, height - cropped_height)
            left = rng.randint(0, width - cropped_width)
            return top, left, cropped_height, cropped_width
    ratio = min(max(width / height, _RATIOS[0]), _RATIOS[1])
    cropped_width, cropped_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - cropped_height) // 2, (width - cropped_width) // 2, cropped_height, cropped_width


def to_pixels(frames: Frames, sampling: ClipSampling, rng: random.Random, *, image: bool = False) -> Tensor:
    """Frames to normalised pixels.

    Args:
        frames: uint8 RGB [T, H, W, 3].
        sampling: How.
        rng: Source of the draws of the augmentation.
        image: It is a still image.

    Returns:
        float32 [T, 3, size, size]; with tiling [T, 3, rows * size, columns * size].
    """
    size = sampling.size
    if sampling.tiling is not None:
        return standardise(fit_to_tiles(frames, size, sampling.tiling), sampling.mean, sampling.std)
    if not sampling.augment:
        return normalise(resize_frames(frames, size, squash=image), sampling.mean, sampling.std)
    top, left, height, width = crop_box(frames.shape[1], frames.shape[2], sampling.crop_scale, rng)
    mirrored = rng.random() < sampling.flip
    pixels = torch.empty(len(frames), 3, size, size)
    for number, frame in enumerate(
        frames[:, top : top + height, left : left + width]
    ):  # one by one: as floats, a clip of large frames takes four times its memory
        picture = torch.tensor(frame).permute(2, 0, 1)[None].float()
        # Not antialiased, and rounded to whole 8-bit values, as the released recipes resized tensors.
        resized = F.interpolate(picture, (size, size), mode="bicubic", align_corners=False)
        pixels[number] = resized[0].clamp_(0, 255).round_()
    return standardise(pixels.flip(-1) if mirrored else pixels, sampling.mean, sampling.std)
