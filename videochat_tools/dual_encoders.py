"""Dual encoders of transformers as video encoders: CLIP, SigLIP, SigLIP 2, X-CLIP and their kind.

One that embeds pictures gives a clip the mean of the unit vectors of its frames, as unit vector: the parameter-free
pooling of CLIP4Clip (Luo et al., 2021). X-CLIP embeds the clip as a whole. torch is loaded with the first model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import CALIBRATION_FILE, Calibration, ClipEmbeddings, fingerprint_folder
from videochat_tools.errors import ModelLoadError

__all__ = ["DualEncoder"]

Vectors = npt.NDArray[np.float32]

# Preprocessing and vocabulary change the vectors as much as the weights do.
_IDENTITY_FILES = (
    "*.safetensors", "config.json", "*processor_config.json", "token*", "vocab*", "merges.txt", "special_tokens*",
)  # fmt: skip


class DualEncoder:
    """A :class:`~videochat_tools.embeddings.VideoEncoder` over a model with one tower for texts and one for pictures.

    Frames come cut to the square in the middle, as every model here is shown them; the model's own preprocessing
    does the rest (SigLIP's would squeeze the whole picture into the square). X-CLIP's texts are embedded without
    the prompts that it draws from each clip: they would be other vectors for every pair.
    """

    rows = 1
    keeps_features = False  # there is no matching head that could read them

    def __init__(
        self, model: str | Path, *, num_frames: int | None = None, device: str | None = None, batch_size: int = 32
    ) -> None:
        """Load a folder with weights, tokenizer and image processor, as transformers saves or downloads it.

        Args:
            model: the folder.
            num_frames: frames of a clip; default is what a video model was trained with, 8 for one of pictures.
            device: as torch names it; default is a GPU when there is one.
            batch_size: texts or frames that go through the model at a time.

        Raises:
            ModelLoadError: no such folder, no dual encoder, or something missing in it.
        """
        folder = Path(model)
        if not (folder / "config.json").is_file():
            raise ModelLoadError(f"no model in {folder}; give the folder of a CLIP, SigLIP, SigLIP 2 or X-CLIP model")
        import torch
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        try:
            network, loaded = AutoModel.from_pretrained(folder, output_loading_info=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._image_processor: Any = AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelLoadError(f"{folder} is no complete dual encoder of transformers: {reason}") from error
        config: Any = network.config
        self._sees_videos = hasattr(network, "get_video_features")
        if not hasattr(network, "get_text_features") or not (
            self._sees_videos or hasattr(network, "get_image_features")
        ):
            raise ModelLoadError(
                f"{folder} holds a {config.model_type} model, which does not embed texts and pictures in one space; "
                "give a CLIP, SigLIP, SigLIP 2 or X-CLIP model"
            )
        absent = sorted(loaded["missing_keys"])
        if absent:
            raise ModelLoadError(f"{len(absent)} tensors are missing in {folder}, first {absent[0]}; download it again")
        trained = getattr(config.vision_config, "num_frames", None) if self._sees_videos else None
        if num_frames is not None and (num_frames < 1 or trained not in (None, num_frames)):
            raise ModelLoadError(
                f"{folder} was trained with clips of {trained or 'at least 1'} frames, not {num_frames}"
            )
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.num_frames = int(num_frames or trained or 8)
        self.frame_size = _frame_size(config.vision_config)
        self.fingerprint = f"{fingerprint_folder(folder, _IDENTITY_FILES)}-{self.num_frames}"
        calibration = folder / CALIBRATION_FILE
        self.calibration = Calibration.load(calibration) if calibration.is_file() else _calibration(network)
        self._model: Any = network.eval().to(self.device)
        self._batch_size = batch_size
        self._text_tokens = int(config.text_config.max_position_embeddings)
        # SigLIP was trained without an attention mask, with every text filled up to the same length.
        self._padding = "max_length" if config.model_type.startswith("siglip") else "longest"
        self.dimension = 0
        self.dimension = self.embed_texts(["a"]).shape[1]

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [n, dimension]; a text that is too long is cut off."""
        import torch

        parts = [np.zeros((0, self.dimension), np.float32)] if not texts else []
        for start in range(0, len(texts), self._batch_size):
            tokens = self._tokenizer(
                list(texts[start : start + self._batch_size]), padding=self._padding, truncation=True,
                max_length=self._text_tokens, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                parts.append(_unit(self._model.get_text_features(**tokens.to(self.device))))
        return np.concatenate(parts)

    def embed_clips(self, clips: npt.NDArray[np.uint8]) -> ClipEmbeddings:
        """Embed clips, uint8 RGB [n, num_frames, frame_size, frame_size, 3], as unit vectors [n, 1, dimension]."""
        count, frames = clips.shape[:2]
        if not count:
            return ClipEmbeddings(np.zeros((0, 1, self.dimension), np.float32), None)
        step = max(1, self._batch_size // frames)
        parts = [self._embed(clips[start : start + step]) for start in range(0, count, step)]
        return ClipEmbeddings(np.concatenate(parts)[:, None], None)

    def match(self, text: str | Sequence[str], features: npt.NDArray[np.float16]) -> Vectors:
        """A dual encoder has no head for this; a library that asks :attr:`keeps_features` first never calls it."""
        raise ModelLoadError("a dual encoder judges by similarity alone; use a VideoChat2 stage-1 model to match pairs")

    def _embed(self, clips: npt.NDArray[np.uint8]) -> Vectors:
        """[n, dimension]."""
        import torch

        count, frames = clips.shape[:2]
        pictures = list(clips.reshape(count * frames, *clips.shape[2:]))
        inputs = self._image_processor(pictures, input_data_format="channels_last", return_tensors="pt").to(self.device)
        with torch.inference_mode():
            if self._sees_videos:  # the image processor of X-CLIP may take the frames for one long video
                pixels = inputs["pixel_values"]
                pixels = pixels.reshape(count, frames, *pixels.shape[-3:])
                return _unit(self._model.get_video_features(pixel_values=pixels))
            vectors = _unit(self._model.get_image_features(**inputs))
        mean = vectors.reshape(count, frames, -1).mean(axis=1)
        return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12), np.float32)


def _unit(output: Any) -> Vectors:
    """The vectors of a tower, which comes as a tensor or inside an output, with length one."""
    vectors = getattr(output, "pooler_output", output).float()
    return np.asarray((vectors / vectors.norm(dim=-1, keepdim=True)).cpu().numpy(), np.float32)


def _frame_size(vision: Any) -> int:
    """Side of the pictures in pixels; a SigLIP 2 of any aspect ratio is shown the square that its patches fill."""
    size = getattr(vision, "image_size", None)
    return int(size) if size else int(vision.patch_size * math.isqrt(vision.num_patches))


def _calibration(network: Any) -> Calibration:
    """SigLIP was trained with a sigmoid, so its own scale and bias give a probability; the others have none."""
    bias = getattr(network, "logit_bias", None)
    if bias is None:
        return Calibration()
    return Calibration(
        similarity_scale=float(network.logit_scale.detach().exp()), similarity_offset=float(bias.detach())
    )
