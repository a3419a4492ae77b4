"""Original checkpoints and language models, read without silence, for both families of VideoChat.

Every tensor of a network is filled from a file or the loading fails; what a file holds beyond that is named, and the
known mistakes are told apart.
"""

from .checkpoints import read_checkpoint
from .filling import fill_model, join_parts
from .kinds import FAMILY_PREFIXES, FileKind, chat_family, expect_kind, file_kind
from .language_model import language_model_config, language_model_report, load_language_model
from .lora import (
    Lora,
    attach_lora,
    inject_lora,
    load_adapter,
    lora_pairs,
    lora_report,
    merge_lora,
    read_lora,
    save_adapter,
    without_adapter,
)
from .report import Component, ComponentCount, Layout, LoadReport, attach_report

__all__ = [
    "FAMILY_PREFIXES",
    "Component",
    "ComponentCount",
    "FileKind",
    "Layout",
    "LoadReport",
    "Lora",
    "attach_lora",
    "attach_report",
    "chat_family",
    "expect_kind",
    "file_kind",
    "fill_model",
    "inject_lora",
    "join_parts",
    "language_model_config",
    "language_model_report",
    "load_adapter",
    "load_language_model",
    "lora_pairs",
    "lora_report",
    "merge_lora",
    "read_checkpoint",
    "read_lora",
    "save_adapter",
    "without_adapter",
]
