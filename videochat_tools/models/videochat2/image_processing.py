"""Frames to pixel values, as the released models were shown them. Needs PIL only, no torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from videochat_tools.errors import UnsupportedContentError

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Frames",
    "check_frames",
    "normalise",
    "resize_frames",
    "standardise",
]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue that most released demos subtract (training used ImageNet's)."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation that most released demos divide by."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean in training, in the HD model's demo, and for the videos of the Phi-3 demo."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation that belongs to ``IMAGENET_MEAN``."""

Frames = npt.NDArray[np.uint8]


def check_frames(frames: Frames) -> None:
    """Refuse what is no array of 8-bit RGB frames [..., H, W, 3].

    Raises:
        UnsupportedContentError: Another type or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim < 3 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise UnsupportedContentError(
            f"frames must be uint8 [..., height, width, 3], got {frames.dtype} {list(frames.shape)}; "
            "convert them to RGB"
        )


def resize_frames(frames: Frames, size: int, *, squash: bool = False) -> Frames:
    """Frames [..., H, W, 3] to squares [..., size, size, 3].

    The shorter side is resized to ``size`` (bicubic, antialiased by PIL) and the centre cut out; with ``squash`` both
    sides are resized and nothing is cut off. Frames of the right size are returned as they are.

    Raises:
        UnsupportedContentError: Not an array of 8-bit RGB frames.
    """
    check_frames(frames)
    height, width = frames.shape[-3:-1]
    if height == width == size:
        return frames
    if squash:
        new_width = new_height = size
    else:
        short = min(height, width)
        new_width, new_height = int(size * width / short), int(size * height / short)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    flat = frames.reshape(-1, height, width, 3)
    result = np.empty((len(flat), size, size, 3), np.uint8)
    for index, frame in enumerate(flat):
        picture = Image.fromarray(np.ascontiguousarray(frame))
        # Width, then height, each rounded to 8 bits: Pillow's own order until it began to choose the cheaper one.
        picture = picture.resize((new_width, height), Image.Resampling.BICUBIC)
        picture = picture.resize((new_width, new_height), Image.Resampling.BICUBIC)
        result[index] = np.asarray(picture.crop((left, top, left + size, top + size)))
    return result.reshape(*frames.shape[:-3], size, size, 3)


def normalise(frames: Frames, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> Tensor:
    """uint8 [..., H, W, 3] -> float32 [..., 3, H, W]: scaled to 0..1, minus mean, over standard deviation."""
    channels_first = torch.tensor(frames).movedim(-1, -3)  # a copy: frames may be read-only
    return standardise(channels_first.to(torch.float32, memory_format=torch.contiguous_format), mean, std)


def standardise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Float pixels [..., 3, H, W] of 0..255, changed in place: scaled to 0..1, minus mean, over standard deviation."""
    scale = torch.tensor([1.0 / (255.0 * s) for s in std])[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])[:, None, None]
    return pixels.mul_(scale).add_(shift)
