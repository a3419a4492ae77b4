"""Which of the released files one has in hand, told by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import Enum
from pathlib import Path

from videochat_tools.errors import ModelLoadError

__all__ = ["FAMILY_PREFIXES", "FileKind", "chat_family", "expect_kind", "file_kind", "looks_like_hd"]

FAMILY_PREFIXES = {"vicuna": "llama", "mistral": "mistral", "phi3": "phi"}
"""Prompt family to what the original code calls its language model: ``llama_model.``, ``llama_proj.``."""


class FileKind(Enum):
    """A released file; the value says in words what it is, and its released names."""

    EVA = "EVA-CLIP-g, the tower of VideoChat (eva_vit_g.pth)"
    BLIP2 = "BLIP-2, the Q-Former of VideoChat (blip2_pretrained_flant5xxl.pth)"
    VIDEOCHAT = "a file of VideoChat v1 (videochat_7b.pth, videochat_13b.pth)"
    STAGE_1 = "a stage-1 file of VideoChat2 (umt_l16_qformer.pth)"
    STAGE_2 = "a stage-2 file of VideoChat2 (videochat2_..._stage2.pth)"
    STAGE_3 = "a stage-3 or stage-4 file of VideoChat2 (videochat2_..._stage3.pth, videochat2_hd_..._stage4.pth)"
    LANGUAGE_MODEL = "a language model, which is given as a folder of its own"
    UNKNOWN = "no file that is known here"


_SIGNS = (
    (FileKind.VIDEOCHAT, r"^visual_encoder\.gmhra"),
    (FileKind.BLIP2, r"^(Qformer\.bert\.encoder|t5_proj)\."),
    (FileKind.EVA, r"^blocks\.\d+\.attn\.q_bias$"),
    (FileKind.STAGE_1, r"^(itm_head|text_proj|vision_proj)\."),
    (FileKind.STAGE_3, r"^qformer\.bert\.embeddings\.word_embeddings\.|\.lora_[AB]\."),
    (FileKind.STAGE_2, r"^(llama|mistral|phi)_proj\."),
    (FileKind.LANGUAGE_MODEL, r"^model\.layers\.\d+\."),
)


def file_kind(names: Collection[str]) -> FileKind:
    """What a file with these tensors is."""
    for kind, sign in _SIGNS:
        if any(re.search(sign, name) for name in names):
            return kind
    return FileKind.UNKNOWN


def chat_family(names: Iterable[str]) -> str | None:
    """The prompt family of a chat file of VideoChat2: "vicuna", "mistral" or "phi3"."""
    starts = {name.split(".")[0] for name in names}
    for family, prefix in FAMILY_PREFIXES.items():
        if f"{prefix}_proj" in starts:
            return family
    return None


def looks_like_hd(path: str | Path) -> bool:
    """Whether a file is named like the released HD model; its tensors are named and shaped like those of stage 3."""
    return re.search(r"(^|[^a-z])hd([^a-z]|$)|stage4", Path(path).name.lower()) is not None


def expect_kind(names: Collection[str], wanted: Collection[FileKind], source: str, files: str) -> None:
    """Raise when a file is a known one, but not of the wanted kinds; an unknown one is left to the count of tensors.

    Args:
        names: Of its tensors.
        wanted: Kinds that can be used.
        source: Name of the file.
        files: The released files to give instead.

    Raises:
        ModelLoadError: It is of the wrong stage, or of the other family.
    """
    kind = file_kind(names)
    if kind not in wanted and kind is not FileKind.UNKNOWN:
        raise ModelLoadError(f"wrong stage: {source} is {kind.value}; give {files}")
