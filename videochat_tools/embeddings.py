"""Video encoders: texts and clips as vectors of one space, and a head that judges whether a pair matches.

The seam is :class:`VideoEncoder`; :class:`VideoChat2Encoder` is VideoChat2's stage-1 network behind it. A clip
watcher is the other seam through which a library looks at frames: it makes the tokens that the chat model reads.
torch is loaded with the first model, not with this module.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import ModelLoadError

__all__ = [
    "NANO_ENCODER",
    "Calibration",
    "ClipEmbeddings",
    "ClipWatcher",
    "VideoChat2Encoder",
    "VideoEncoder",
    "fingerprint_folder",
    "load_encoder",
    "text_similarity",
]

logger = logging.getLogger(__name__)

NANO_ENCODER = Path(__file__).parent / "models" / "nano" / "retrieval"  # bundled with the package
CALIBRATION_FILE = "calibration.json"
MAX_FEATURE_BYTES = 256 * 1024  # kept for a segment: 128 x 160 of the nano fit, 784 x 1024 of UMT-L do not

Aggregation = Literal["mean", "max"]
Vectors = npt.NDArray[np.float32]
Features = npt.NDArray[np.float16]
Clips = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the numbers of one encoder are read. Fitted on held-out data; ``calibration.json`` in its folder.

    The defaults are neutral: they keep the order of the results and put the middle of the scale at a similarity of
    0.3, but a probability made with them means nothing in itself.
    """

    match_threshold: float = 0.5  # visual probability from which on a stretch counts as found
    look_threshold: float | None = None  # the same, to be shown to a model that judges itself; None: match_threshold
    speech_threshold: float = 0.5  # the same for what is said, where it is about the share of the query's words
    similarity_scale: float = 14.0  # logit of a match = scale * similarity + offset; 14 = 1 / 0.07, CLIP's first scale
    similarity_offset: float = -4.2
    similarity_weight: float = 0.0  # 0..1: share of that logit in the final one; the rest is the matching head's
    known_words: frozenset[str] = frozenset()  # words whose look the encoder has learned; none: no list was made

    def has_not_learned(self, words: Sequence[str]) -> list[str]:
        """Those of the words that the encoder never saw a picture of, if they are half of them or more.

        A small encoder gives a similarity to any text, also to one whose words mean nothing to it.
        """
        unknown = [word for word in words if word not in self.known_words] if self.known_words else []
        return unknown if 2 * len(unknown) >= max(len(words), 1) else []

    def in_known_words(self, text: str) -> str:
        """A description in the words of an encoder that learned of objects alone, which does not know all wordings.

        It gets "an object" for "a person", as "who?" is searched, and "bumps into" for "bumps".
        """
        if "object" not in self.known_words or "person" in self.known_words:
            return text
        text = re.sub(r"\ba person\b", "an object", text)
        return re.sub(r"\b(bumps?)(?= (?:the|an?|it)\b)", r"\1 into", text)

    def accepts(self, visual: float | None, speech: float | None) -> bool:
        """Whether either channel is sure enough that a stretch counts as found; ``None`` where it found nothing."""
        return (visual is not None and visual >= self.match_threshold) or (
            speech is not None and speech >= self.speech_threshold
        )

    def is_worth_a_look(self, visual: float | None, speech: float | None) -> bool:
        """Whether a chat model should see the stretch, though the search may not be sure: it can still refuse."""
        threshold = self.match_threshold if self.look_threshold is None else self.look_threshold
        return self.accepts(visual, speech) or (visual is not None and visual >= threshold)

    def similarity_logit(self, similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Log-odds of a match, from the similarity alone."""
        return self.similarity_scale * similarity.astype(np.float64) + self.similarity_offset

    def judged_logit(
        self, similarity: npt.NDArray[np.float32], matched: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Log-odds of a match, from the similarity and the probability of the matching head."""
        sure = np.clip(matched.astype(np.float64), 1e-6, 1 - 1e-6)
        weight = self.similarity_weight
        return (1 - weight) * np.log(sure / (1 - sure)) + weight * self.similarity_logit(similarity)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file of these names and numbers; further entries (how they were fitted) are left alone."""
        try:
            entries = dict(json.loads(path.read_text(encoding="utf-8")))
            words = frozenset(map(str, entries.pop("known_words", ())))
            known = {field.name: float(entries[field.name]) for field in fields(cls) if field.name in entries}
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelLoadError(f"{path} must be a JSON object of names and numbers: {error}") from error
        if not all(math.isfinite(value) for value in known.values()):
            raise ModelLoadError(f"{path} holds a number that is not finite: {known}")
        return cls(**known, known_words=words)


@dataclass(frozen=True, slots=True)
class ClipEmbeddings:
    """What an encoder keeps of n clips.

    ``vectors``: float32 [n, rows, dimension]; :func:`text_similarity` compares them with texts.
    ``features``: float16 [n, tokens, width], what :meth:`VideoEncoder.match` reads, or None when too large to keep.
    """

    vectors: Vectors
    features: Features | None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 3:
            raise ValueError(f"vectors of clips have the shape [n, rows, dimension], got {list(self.vectors.shape)}")


def text_similarity(texts: Vectors, clips: Vectors) -> Vectors:
    """Similarity of every text with every clip: the inner product with the clip's best row.

    Args:
        texts: [t, dimension].
        clips: [n, rows, dimension], as :class:`ClipEmbeddings` holds them.

    Returns:
        float32 [t, n].
    """
    count, rows, dimension = clips.shape
    products = texts @ clips.reshape(count * rows, dimension).T
    return np.asarray(products.reshape(len(texts), count, rows).max(axis=2))


@runtime_checkable
class VideoEncoder(Protocol):
    """Texts and clips in one space. ``fingerprint`` names the space: equal ones have comparable vectors.

    A text is one vector, a clip is one or more: its similarity with a text is that of the row that fits best.
    """

    @property
    def fingerprint(self) -> str:
        """Name of the space."""
        ...

    @property
    def rows(self) -> int:
        """Vectors of a clip, the same number for all."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def num_frames(self) -> int:
        """Frames that a clip is made of."""
        ...

    @property
    def frame_size(self) -> int:
        """Height and width of its frames, in pixels."""
        ...

    @property
    def keeps_features(self) -> bool:
        """Whether clips come with features, so that :meth:`match` can judge them."""
        ...

    @property
    def calibration(self) -> Calibration:
        """How to read its numbers."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [n, dimension]."""
        ...

    def embed_clips(self, clips: Clips) -> ClipEmbeddings:
        """Embed clips, uint8 RGB [n, num_frames, frame_size, frame_size, 3]."""
        ...

    def match(self, text: str | Sequence[str], features: Features) -> Vectors:
        """Probability that the text describes each clip, float32 [n], from the features [n, tokens, width].

        ``text`` is one for all clips, or one a clip.
        """
        ...


@runtime_checkable
class ClipWatcher(Protocol):
    """Makes the tokens of clips that a chat model reads later. ``fingerprint`` names model and instruction."""

    @property
    def fingerprint(self) -> str:
        """Name of what the tokens mean."""
        ...

    @property
    def num_frames(self) -> int:
        """Frames that a clip is made of."""
        ...

    @property
    def frame_size(self) -> int:
        """Height and width of its frames, in pixels."""
        ...

    def watch(self, clips: Clips) -> Features:
        """Clips uint8 [n, num_frames, frame_size, frame_size, 3] as tokens float16 [n, queries, width]."""
        ...


# Tokenizer and preprocessing change the vectors as much as the weights do; the calibration does not.
_IDENTITY_FILES = ("*.safetensors", "config.json", "processor_config.json", "qformer_tokenizer/*")


def fingerprint_folder(folder: Path, patterns: Sequence[str] = _IDENTITY_FILES) -> str:
    """16 hex digits that name weights, configuration and vocabulary in a model folder: the files of the patterns."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_encoder(
    model: str | Path | None = None, *, device: str | None = None, aggregation: Aggregation | None = None
) -> VideoEncoder:
    """The video encoder in a folder; without one, the nano that comes with the package.

    The folder holds a VideoChat2 stage-1 model, or a dual encoder of transformers (CLIP, SigLIP, SigLIP 2, X-CLIP).

    Args:
        model: the folder.
        device: as torch names it; default is a GPU when there is one.
        aggregation: of a stage-1 model, as :class:`VideoChat2Encoder` takes it.

    Raises:
        ValueError: an aggregation for a dual encoder, which has one vector a clip.
        ModelLoadError: no folder, or no complete model of these kinds in it.
    """
    folder = NANO_ENCODER if model is None else Path(model)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, TypeError, KeyError):
        kind = None  # whatever is wrong, loading says so
    if kind is None or str(kind).startswith("videochat"):
        return VideoChat2Encoder(folder, device=device, aggregation=aggregation)
    if aggregation is not None:
        raise ValueError(f"aggregation={aggregation!r} is for VideoChat2 stage-1 models; {folder} holds a {kind} model")
    from videochat_tools.dual_encoders import DualEncoder

    return DualEncoder(folder, device=device)


class VideoChat2Encoder:
    """VideoChat2's stage-1 network: tower, Q-Former and the heads for similarity (ITC) and matching (ITM).

    The reference's similarity is the mean over the queries of their inner products with the text. That is the
    inner product with the mean of the queries' unit vectors, so one vector a clip is exact. With
    ``aggregation="max"`` (as BLIP-2) the best query counts: there every query is a row.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        batch_size: int = 16,
        aggregation: Aggregation | None = None,
    ) -> None:
        """Load a folder that ``save_pretrained`` wrote.

        Args:
            model: the folder, with the processor beside the weights.
            device: as torch names it; default is a GPU when there is one.
            batch_size: clips that the Q-Former judges at a time.
            aggregation: ``"mean"`` or ``"max"`` over the queries; default is what the model's configuration says.

        Raises:
            ValueError: another aggregation.
            ModelLoadError: no such folder, not a stage-1 checkpoint, or weights missing in it.
        """
        if aggregation not in (None, "mean", "max"):
            raise ValueError(f"aggregation must be 'mean' or 'max', got {aggregation!r}")
        folder = Path(model)
        if not (folder / "config.json").is_file():
            raise ModelLoadError(
                f"no video encoder in {folder}; give a folder with config.json and model.safetensors of a "
                "VideoChat2 stage-1 (retrieval) model"
            )
        import torch

        from videochat_tools.models.videochat2 import VideoChat2ForRetrieval, VideoChat2Processor

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            network, loaded = VideoChat2ForRetrieval.from_pretrained(folder, output_loading_info=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelLoadError(f"{folder} is no VideoChat2 stage-1 model: {str(error).splitlines()[0]}") from error
        absent = sorted(loaded["missing_keys"])
        if absent:
            raise ModelLoadError(
                f"{len(absent)} tensors are missing in {folder}, first {absent[0]}; give a complete stage-1 "
                "(retrieval) checkpoint"
            )
        self._model: Any = network.eval().to(self.device)
        self._processor = VideoChat2Processor.from_pretrained(folder)
        config: Any = self._model.config
        vision = config.vision_config
        aggregation = aggregation or config.aggregation
        self.fingerprint = fingerprint_folder(folder)
        if aggregation != config.aggregation:
            self.fingerprint += f"-{aggregation}"
        self.rows = 1 if aggregation == "mean" else int(config.qformer_config.num_query_tokens)
        self.dimension = int(config.projection_dim)
        self.num_frames = int(vision.num_frames)
        self.frame_size = int(vision.image_size)
        tokens = self.num_frames * (vision.image_size // vision.patch_size) ** 2
        self.keeps_features = bool(tokens * vision.hidden_size * 2 <= MAX_FEATURE_BYTES)  # 2 bytes: float16
        calibration = folder / CALIBRATION_FILE
        self.calibration = Calibration.load(calibration) if calibration.is_file() else Calibration()
        self._batch_size = batch_size

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [n, dimension]."""
        import torch

        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        with torch.inference_mode():
            vectors = self._model.text_embeds(**self._tokens(texts))
        return np.asarray(vectors.float().cpu().numpy(), np.float32)

    def embed_clips(self, clips: Clips) -> ClipEmbeddings:
        """Embed clips, uint8 RGB [n, num_frames, frame_size, frame_size, 3]."""
        import torch

        with torch.inference_mode():
            features = self._model.encode_frames(self._pixels(clips))  # [n, tokens, width], after the layer norm
            queries = self._model.video_embeds(features)  # [n, queries, dimension], unit vectors
            rows = queries.mean(dim=1, keepdim=True) if self.rows == 1 else queries
            vectors = rows.float().cpu().numpy()
        return ClipEmbeddings(vectors, features.half().cpu().numpy() if self.keeps_features else None)

    def match(self, text: str | Sequence[str], features: Features) -> Vectors:
        """Probability of the matching head that the text describes each clip, float32 [n]; see the protocol."""
        import torch

        probabilities = [np.zeros(0, np.float32)]
        tokens = self._tokens([text] if isinstance(text, str) else text)
        with torch.inference_mode():
            for start in range(0, len(features), self._batch_size):
                part = torch.from_numpy(np.array(features[start : start + self._batch_size], np.float32))
                own = {
                    name: value.expand(len(part), -1) if isinstance(text, str) else value[start : start + len(part)]
                    for name, value in tokens.items()
                }
                logits = self._model.match_logits(part.to(self.device, self._model.dtype), **own)  # [n, 2]
                probabilities.append(logits.float().softmax(dim=-1)[:, 1].cpu().numpy())
        return np.concatenate(probabilities)

    def _tokens(self, texts: Sequence[str]) -> dict[str, Any]:
        return {name: value.to(self.device) for name, value in self._processor.encode_texts(texts).items()}

    def _pixels(self, clips: Clips) -> Any:
        return self._processor.pixel_values(clips).to(self.device, self._model.dtype)
