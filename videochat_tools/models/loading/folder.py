"""Original files in, one Hugging Face folder out: configuration, safetensors, tokenizers and processor."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoTokenizer, BertTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from videochat_tools.errors import ModelLoadError
from videochat_tools.models.videochat import conversion as videochat
from videochat_tools.models.videochat.configuration_videochat import VideoChatConfig
from videochat_tools.models.videochat.processing_videochat import VideoChatProcessor
from videochat_tools.models.videochat2 import conversion as videochat2
from videochat_tools.models.videochat2.configuration_videochat2 import VideoChat2Config, VideoChat2RetrievalConfig
from videochat_tools.models.videochat2.processing_options import ProcessorOptions
from videochat_tools.models.videochat2.processing_videochat2 import VideoChat2Processor

from .checkpoints import read_checkpoint
from .kinds import FileKind, chat_family, file_kind, looks_like_hd
from .language_model import language_model_config
from .lora import Lora, merge_lora, save_adapter
from .report import LoadReport
from .staging import check_output, new_folder

__all__ = [
    "BERT",
    "FAMILIES",
    "RETRIEVAL_OPTIONS",
    "ConvertedFolder",
    "bert_tokenizer",
    "convert_checkpoint",
    "language_tokenizer",
]

FAMILIES = ("videochat", "retrieval", "vicuna", "mistral", "mistral_hd", "phi3")
"""VideoChat v1; stage 1 of VideoChat2; the chat models of stages 2 and 3; stage 4."""

BERT = "google-bert/bert-base-uncased"
"""Where the released Q-Formers have their vocabulary from."""

_V1_KINDS = {
    FileKind.EVA: "eva_vit_g.pth",
    FileKind.BLIP2: "blip2_pretrained_flant5xxl.pth",
    FileKind.VIDEOCHAT: "videochat_7b.pth or videochat_13b.pth",
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_ORDER = list(FileKind)  # stages in their order: later ones win
RETRIEVAL_OPTIONS: dict[str, Any] = {
    "max_text_length": 32,  # stage 1 was trained on captions of 32 word pieces
    "truncation_side": "right",
    "video_instruction": None,
    "image_instruction": None,
}
"""What a processor of stage 1 has other than one of a chat model."""

Says = Callable[[str], None]
_Parts = tuple[PreTrainedModel, VideoChat2Processor, Lora | None]


@dataclass(frozen=True)
class ConvertedFolder:
    """What was written.

    Attributes:
        folder: It.
        family: One of ``FAMILIES``.
        report: The count of its tensors.
        adapter: Whether LoRA was kept apart, so that loading needs peft.
    """

    folder: Path
    family: str
    report: LoadReport
    adapter: bool


@dataclass(frozen=True)
class _Request:
    """The sources, sorted, and what was asked for."""

    paths: tuple[Path, ...]
    kinds: tuple[FileKind, ...]
    family: str
    language_model: Path | None
    bert: str
    config: dict[str, Any] | None
    lora_alpha: float | None

    @property
    def language_folder(self) -> Path:
        if self.language_model is None:
            raise ModelLoadError(
                f"language model missing: a {self.family} model needs the folder of the one that it was trained on; "
                "give it with --llm DIR"
            )
        return self.language_model

    def fields(self) -> dict[str, Any] | None:
        """Of the configuration, with the language model's own."""
        if self.config is None or self.family == "retrieval":
            return self.config
        return {**self.config, "text_config": language_model_config(self.language_folder)}


def convert_checkpoint(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    language_model: str | Path | None = None,
    family: str | None = None,
    bert: str | Path = BERT,
    dtype: torch.dtype | None = None,
    lora: Literal["merge", "adapter"] = "merge",
    lora_alpha: float | None = None,
    config: str | Path | None = None,
    says: Says = lambda _: None,
) -> ConvertedFolder:
    """Write the model of some released files as a folder that ``from_pretrained`` opens.

    Which files they are is told by their tensors, and their order does not matter.

    Args:
        sources: One file of VideoChat2 (or several stages of it), or the three files of VideoChat v1.
        output: Folder to write; must not exist or be empty.
        language_model: Folder of the language model; not for stage 1.
        family: One of ``FAMILIES``, where it shall not be told from the files. Stage 4 differs from stage 3 in nothing
            but the name of its file: "hd" or "stage4" in it means "mistral_hd".
        bert: Folder or hub id of the vocabulary of the Q-Former; not for VideoChat v1 and stage 2.
        dtype: Precision of all tensors; by default the language model's own, and float32 for the rest.
        lora: "merge", or "adapter" to write LoRA as a PEFT adapter into the same folder.
        lora_alpha: LoRA alpha of the training run; by default twice the rank, as in the released models.
        config: JSON file with the configuration of a network that has not the released sizes.
        says: Is told what is going on.

    Raises:
        ModelLoadError: A source is missing, wrong or incomplete, or ``output`` is not empty.
    """
    check_output(output)
    request = _request(sources, family, language_model, bert, config, lora_alpha, says)
    says(f"these are the files of a {request.family} model; reading them")
    make = {"videochat": _videochat, "retrieval": _retrieval}.get(request.family, _chat)
    model, processor, found = make(request)
    adapter = found is not None and lora == "adapter"
    if found is not None and not adapter:
        says("merging LoRA into the language model")
        merge_lora(model.language_model, found)
    report: LoadReport = model.load_report
    if dtype is not None:
        model.to(dtype)
    says(f"writing {output}")
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        if found is not None and adapter:
            save_adapter(folder, found)
    return ConvertedFolder(Path(output), request.family, report, adapter)


def _request(
    sources: Sequence[str | Path],
    family: str | None,
    language_model: str | Path | None,
    bert: str | Path,
    config: str | Path | None,
    lora_alpha: float | None,
    says: Says,
) -> _Request:
    found: list[tuple[FileKind, Path, str | None]] = []
    for path in map(Path, sources):
        says(f"looking at {path}")
        names = videochat2.released_names(read_checkpoint(path))
        kind = file_kind(names)
        if kind in (FileKind.UNKNOWN, FileKind.LANGUAGE_MODEL):
            error = ModelLoadError(
                f"{path} is {kind.value} ({len(names)} tensors, first {min(names)}); give the released files, "
                "and the language model as a folder with --llm"
            )
            error.add_note("\n".join(sorted(names)))
            raise error
        found.append((kind, path, chat_family(names)))
    found.sort(key=lambda entry: _ORDER.index(entry[0]))
    told = _family([kind for kind, _, _ in found], found[-1][1], found[-1][2])
    if family is not None and family != told and {family, told} != {"mistral", "mistral_hd"}:
        raise ModelLoadError(
            f"wrong family: {', '.join(map(str, sources))} are files of a {told} model, {family} is asked for; leave "
            "--family out, or give the files of that model"
        )
    return _Request(
        paths=tuple(path for _, path, _ in found),
        kinds=tuple(kind for kind, _, _ in found),
        family=family or told,
        language_model=None if language_model is None else Path(language_model),
        bert=str(bert),
        config=None if config is None else _read_config(config),
        lora_alpha=lora_alpha,
    )


def _family(kinds: Sequence[FileKind], last: Path, chat: str | None) -> str:
    if set(kinds) & set(_V1_KINDS):
        lacking = [file for kind, file in _V1_KINDS.items() if kind not in kinds]
        if lacking or not set(kinds) <= set(_V1_KINDS) or len(kinds) != len(set(kinds)):
            others = [kind.value for kind in kinds if kind not in _V1_KINDS]
            raise ModelLoadError(
                f"VideoChat v1 is made of three files, each once: missing {' and '.join(lacking) or 'none'}, not of it "
                f"{' and '.join(others) or 'none'}; run: {videochat.LAYOUT.command}"
            )
        return "videochat"
    if kinds[-1] is FileKind.STAGE_1:
        return "retrieval"
    if chat is None:
        raise ModelLoadError(
            f"projection missing in {last}, so that its family is unknown; give the released file of stage 2, 3 or 4"
        )
    return "mistral_hd" if chat == "mistral" and looks_like_hd(last) else chat


def _videochat(request: _Request) -> _Parts:
    eva, blip2, checkpoint = request.paths
    tokenizer = language_tokenizer(request.language_folder)
    fields = request.fields()
    model = videochat.convert_videochat(
        eva, blip2, request.language_folder, checkpoint, None if fields is None else VideoChatConfig(**fields)
    )
    return model, VideoChatProcessor(tokenizer, None, _options("videochat", model.config)), None


def _retrieval(request: _Request) -> _Parts:
    bert = bert_tokenizer(request.bert)
    fields = request.fields()
    model = videochat2.convert_retrieval(
        request.paths[-1], None if fields is None else VideoChat2RetrievalConfig(**fields)
    )
    options = ProcessorOptions(image_size=model.config.vision_config.image_size, **RETRIEVAL_OPTIONS)
    processor = VideoChat2Processor(None, bert, options)
    _check_words(processor, model, request.bert)
    return model, processor, None


def _chat(request: _Request) -> _Parts:
    tokenizer = language_tokenizer(request.language_folder)
    reads_text = request.kinds[-1] is FileKind.STAGE_3
    bert = bert_tokenizer(request.bert) if reads_text else None
    fields = request.fields()
    parts = videochat2.read_chat(
        request.paths,
        request.language_folder,
        None if fields is None else VideoChat2Config(**fields),
        stage=4 if request.family == "mistral_hd" else None,
        lora_alpha=request.lora_alpha,
    )
    processor = VideoChat2Processor(tokenizer, bert, _options(request.family, parts.model.config))
    _check_words(processor, parts.model, request.bert)
    return parts.model, processor, parts.lora


def _options(family: str, config: Any) -> ProcessorOptions:
    return ProcessorOptions.released(
        family, image_size=config.vision_config.image_size, num_visual_tokens=config.num_visual_tokens
    )


def language_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder of a language model.

    Raises:
        ModelLoadError: There is none.
    """
    language_model_config(folder)
    # transformers makes an empty tokenizer where there are no files.
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelLoadError(
            f"no tokenizer in {folder}: neither {' nor '.join(_TOKENIZER_FILES)} is there; give the whole folder"
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(f"no tokenizer in {folder} ({_reason(error)}); give the whole folder") from error
    return tokenizer


def bert_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The vocabulary of the Q-Former, from a folder or a hub id.

    Raises:
        ModelLoadError: There is none.
    """
    try:
        cached_file(source, "vocab.txt")  # transformers makes an empty tokenizer where there is none
        tokenizer: PreTrainedTokenizerBase = BertTokenizer.from_pretrained(source)
    except Exception as error:  # the hub client raises a dozen kinds, for one way out
        raise ModelLoadError(
            f"no vocabulary of the Q-Former at {source} ({_reason(error)}); without a network, copy vocab.txt of "
            f"{BERT} into a folder and give it with --bert DIR"
        ) from error
    return tokenizer


def _check_words(processor: VideoChat2Processor, model: PreTrainedModel, bert: str) -> None:
    words, rows = processor.qformer_tokenizer, model.config.qformer_config.vocab_size
    if words is not None and len(words) != rows:
        raise ModelLoadError(
            f"vocabulary: {bert} has {len(words)} word pieces with [DEC], the Q-Former {rows}; give the vocabulary of "
            f"{BERT} with --bert DIR"
        )


def _read_config(path: str | Path) -> dict[str, Any]:
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} is no configuration ({_reason(error)}); give a config.json of ours") from error
    if not isinstance(fields, dict) or "vision_config" not in fields:
        raise ModelLoadError(
            f"{path} has no vision_config; give the config.json of a converted model, its sizes changed"
        )
    return fields


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
