"""What a processor knows besides its tokenizers; saved as ``processor_config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .configuration_videochat2 import FAMILIES
from .image_processing import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from .tiling import TilingOptions

__all__ = ["ProcessorOptions"]


@dataclass(frozen=True)
class ProcessorOptions:
    """What a processor needs to know besides its tokenizers. Defaults are those of the released Vicuna model.

    Attributes:
        family: Prompt family: "vicuna", "mistral" or "phi3".
        image_size: Side of the square frames, or tiles, in pixels.
        image_mean: Subtracted from red, green and blue in 0..1 (CLIP's).
        image_std: Divided by (CLIP's).
        still_mean: The same for still images; None means ``image_mean``. Only Phi-3's demo tells them apart.
        still_std: The same for still images; None means ``image_std``.
        squash_images: Still images are resized to the square without keeping their shape, as in the released demos.
        tiling: Frames are cut into tiles (the HD model); None shows their centre only. Replaces ``squash_images``.
        num_visual_tokens: Places that a clip, or each view of it where there are tiles, takes in the prompt.
        max_text_length: WordPieces of the longest text for the Q-Former; longer ones lose their start (chat, 512)
            or, by ``truncation_side``, their end (stage 1, 32).
        truncation_side: Side that a text which is too long loses.
        timestamps: Tell the language model when the frames of a video were taken (VideoChat's and Phi-3's demos do).
        video_instruction: What the Q-Former is told when a clip is watched; None tells it nothing.
        image_instruction: The same for still images.
        first_letter_instruction: Tell the Q-Former only the first letter of an instruction given as one text. The HD
            notebooks do, by mistake, so that published scores may depend on it.
    """

    family: str = "vicuna"
    image_size: int = 224
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD
    still_mean: tuple[float, float, float] | None = None
    still_std: tuple[float, float, float] | None = None
    squash_images: bool = True
    tiling: TilingOptions | None = None
    num_visual_tokens: int = 96
    max_text_length: int = 512
    truncation_side: Literal["left", "right"] = "left"
    timestamps: bool = False
    video_instruction: str | None = "Watch the video and answer the question."
    image_instruction: str | None = "Observe the image and answer the question."
    first_letter_instruction: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        for name in ("image_mean", "image_std", "still_mean", "still_std"):  # JSON gives lists
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ProcessorOptions:
        """The options that ``dataclasses.asdict`` wrote; those that are left out have their defaults."""
        tiling = content.get("tiling")
        return cls(**{**content, "tiling": None if tiling is None else TilingOptions(**tiling)})

    @classmethod
    def released(cls, model: str, **changes: Any) -> ProcessorOptions:
        """The options of a released chat model, as its demo shows it videos and images.

        Args:
            model: "videochat" (7B and 13B), "vicuna", "mistral", "mistral_hd" (stage 4) or "phi3".
            **changes: Other fields, such as ``image_size`` of a network that is not the released one.

        Raises:
            ValueError: Another name.
        """
        if model not in _RELEASED:
            raise ValueError(f"model must be one of {', '.join(_RELEASED)}, got {model!r}")
        return cls(**{**_RELEASED[model], **changes})


_IMAGENET: dict[str, Any] = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
_RELEASED: dict[str, dict[str, Any]] = {
    "videochat": {"family": "vicuna", "timestamps": True},
    "vicuna": {"family": "vicuna"},
    "mistral": {"family": "mistral"},
    "mistral_hd": {"family": "mistral", **_IMAGENET, "tiling": TilingOptions()},
    "phi3": {"family": "phi3", **_IMAGENET, "still_mean": CLIP_MEAN, "still_std": CLIP_STD, "timestamps": True},
}
