"""Everything that a training stage is told: one dataclass holds the names, defaults, help and checks."""

# ruff: noqa: RUF009  # `_option` is `field` with help and bounds

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from videochat_tools.errors import ConfigurationError

__all__ = ["FAMILIES_AND_STAGES", "StageOptions", "option_help", "parse_options"]

StageFamily = Literal["videochat", "retrieval", "vicuna", "mistral", "phi3"]
FAMILIES_AND_STAGES: Mapping[str, tuple[int, ...]] = {
    "videochat": (1, 2),
    "retrieval": (1,),
    "vicuna": (2, 3),
    "mistral": (2, 3, 4),
    "phi3": (2, 3),
}
"""The stages that there are. "videochat" is the first VideoChat; "retrieval" is stage 1 of every VideoChat2."""


def _option(default: Any, help: str, *, least: float | None = None, below: float | None = None) -> Any:
    """A field with its help; ``least`` is allowed, ``below`` is not."""
    kind: dict[str, Any] = {"default_factory": dict} if isinstance(default, dict) else {"default": default}
    return field(metadata={"help": help, "least": least, "below": below}, **kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """One run of one stage. ``videochat train --stage NAME --show`` prints all of it with the help of every key."""

    family: StageFamily = _option(MISSING, "Which model: the first VideoChat, stage 1 of VideoChat2, or a chat model.")
    stage: int = _option(MISSING, "Number of the stage.", least=1)

    model: str | None = _option(None, "Folder of the model that the stage goes on from: the output of the one before.")
    language_model: str | None = _option(None, "Folder of the language model, where the stage brings it in.")
    retrieval_model: str | None = _option(None, "Folder of stage 1, whose Q-Former gives stage 3 its text branch.")
    tower: str | None = _option(None, "First stages: file of the vision tower (eva_vit_g.pth; UMT's l16_25m.pth).")
    blip2: str | None = _option(None, "First stage of VideoChat: blip2_pretrained_flant5xxl.pth.")
    bert: str | None = _option(None, "Stage 1 of VideoChat2: folder of bert-base-uncased.")
    network: str | None = _option(None, "config.json of a network that has not the released sizes (first stages).")
    text_config: dict[str, Any] = _option({}, "Sizes of the language model for a dry run without its folder.")

    corpora: tuple[dict[str, Any], ...] = _option((), "Annotation files: tables of annotation, root and medium.")
    num_frames: int = _option(8, "Frames of a video.", least=1)
    frame_sampling: str = _option("rand", "Which frames: rand (one of each interval), middle, or fpsX.")
    image_size: int = _option(224, "Side of frames, or tiles, in pixels.", least=1)
    augment: bool = _option(True, "Random crops of 0.5 to 1 of the picture, and mirroring. Not with tiles.")
    max_tiles: int = _option(
        0, "HD: most tiles of a frame, beside the whole of it; 0 shows frames without tiles.", least=0
    )
    statistics: Literal["imagenet", "clip"] = _option("imagenet", "Mean and deviation that pixels are normalised with.")
    batch_size: int | dict[str, int] = _option(1, "Samples a process and step, or a table by medium.", least=1)
    max_text_length: int = _option(512, "Tokens of the longest text.", least=1)
    workers: int = _option(
        4, "Processes that decode, beside each that trains; 0 decodes in the training process.", least=0
    )

    epochs: int = _option(1, "How often all data is gone through.", least=1)
    learning_rate: float = _option(1e-4, "Highest rate of AdamW.", least=0.0)
    warmup_epochs: float = _option(0.2, "Epochs of the linear warm-up.", least=0.0)
    min_factor: float = _option(0.01, "Part of the rate that is never gone below.", least=0.0, below=1.0)
    weight_decay: float = _option(0.02, "Of matrices; vectors and biases have none.", least=0.0)
    beta1: float = _option(0.9, "Of AdamW.", least=0.0, below=1.0)
    beta2: float = _option(0.999, "Of AdamW.", least=0.0, below=1.0)
    clip_norm: float = _option(0.0, "Longest gradient; 0 leaves gradients as they are.", least=0.0)
    gradient_accumulation: int = _option(1, "Batches a step. Equals a batch that many times as large.", least=1)
    seed: int = _option(42, "Decides the order of the data, the frames, the augmentation and what is dropped.", least=0)

    qformer_dropout: float = _option(0.1, "Dropout of the Q-Former.", least=0.0, below=1.0)
    qformer_drop_path: float = _option(0.2, "Stochastic depth of its last layer, linear from 0.", least=0.0, below=1.0)
    lora_rank: int = _option(0, "Rank of LoRA in the language model; 0 trains none.", least=0)
    lora_alpha: float = _option(32.0, "Alpha of LoRA; its scale is alpha / rank.", least=0.0)
    lora_dropout: float = _option(0.1, "Dropout before LoRA.", least=0.0, below=1.0)
    lora_targets: tuple[str, ...] = _option((), "Last names of the modules of the language model that LoRA changes.")
    contrastive_weight: float = _option(1.0, "Stage 1: weight of the contrastive loss.", least=0.0)
    matching_weight: float = _option(1.0, "Stage 1: weight of the matching loss.", least=0.0)
    caption_weight: float = _option(1.0, "Stage 1: weight of the captioning loss.", least=0.0)
    negatives: Literal["all", "process"] = _option(
        "all", "Stage 1: hard negatives come from the batches of all processes, or of the own one."
    )
    constant_bos: bool = _option(False, "Repeat a mistake of the released conversation stages: BOS is embedded as 1.0.")

    mixed_precision: Literal["no", "fp16", "bf16"] = _option("fp16", "Autocast; fp16 needs a GPU and scales the loss.")
    language_model_dtype: Literal["float32", "float16", "bfloat16"] = _option(
        "float16", "Precision of the frozen language model."
    )
    gradient_checkpointing: bool = _option(False, "Compute layers of Q-Former and language model twice, for memory.")
    tower_checkpointing: int = _option(0, "Blocks of the tower, from the first, that are computed twice too.", least=0)
    fsdp: dict[str, Any] = _option(
        {}, "Arguments of Accelerate's FullyShardedDataParallelPlugin; empty shards nothing."
    )
    device: Literal["auto", "cpu"] = _option("auto", "The GPUs of this machine, or its processor.")

    max_steps: int | None = _option(None, "Stop after so many steps; the schedule stays that of all epochs.", least=1)
    checkpoint_steps: int = _option(1000, "Steps from checkpoint to checkpoint.", least=1)
    keep_checkpoints: int = _option(2, "Checkpoints that are kept.", least=1)
    log_steps: int = _option(10, "Steps from entry to entry of the log.", least=1)
    tensorboard: bool = _option(True, "Write the log for TensorBoard too.")
    lora_output: Literal["adapter", "merge"] = _option(
        "adapter", "Keep LoRA apart in the finished model (a next stage goes on with it), or merge it."
    )

    def __post_init__(self) -> None:
        if self.stage not in FAMILIES_AND_STAGES[self.family]:
            raise ConfigurationError(
                f"{self.family} has no stage {self.stage}; there are "
                + "; ".join(f"{family} {', '.join(map(str, each))}" for family, each in FAMILIES_AND_STAGES.items())
            )
        if self.lora_rank and not self.lora_targets:
            raise ConfigurationError("lora_rank is set, but no lora_targets; name modules such as q_proj and v_proj")
        if self.family == "retrieval" and not (self.contrastive_weight + self.matching_weight + self.caption_weight):
            raise ConfigurationError("all three losses of stage 1 have the weight 0; give one of them a weight")

    @property
    def captions(self) -> bool:
        """Whether captions are learned; else conversations."""
        return self.family == "retrieval" or self.stage < (2 if self.family == "videochat" else 3)


_TYPES = get_type_hints(StageOptions)


def option_help() -> dict[str, str]:
    """One line of help for every key, in their order."""
    return {each.name: str(each.metadata["help"]) for each in fields(StageOptions)}


def parse_options(values: Mapping[str, Any], source: str) -> StageOptions:
    """Options from plain values, as TOML has them.

    Args:
        values: By key; what is left out has its default.
        source: Where they are from, for errors.

    Raises:
        ConfigurationError: There is no such key or stage, or a value is of another type or out of bounds.
    """
    known = {each.name: each for each in fields(StageOptions)}
    for name in values:
        if name not in known:
            raise ConfigurationError(f"unknown key {name!r} in {source}; the keys are {', '.join(known)}")
    lacking = [name for name in ("family", "stage") if name not in values]
    if lacking:
        raise ConfigurationError(
            f"{source} does not say its {' and '.join(lacking)}; choose a released one with --stage"
        )
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        try:
            parsed[name] = _coerce(value, _TYPES[name])
        except ValueError as error:
            raise ConfigurationError(f"{source}: {name} must be {error}, got {value!r}") from None
        _check_bounds(name, parsed[name], known[name].metadata, source)
    return StageOptions(**parsed)


def _coerce(value: Any, kind: Any) -> Any:
    """A value as ``kind``; a ValueError says what it must be."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if types.NoneType in arguments and value in (None, ""):  # TOML has no null
            return None
        wanted = []
        for argument in arguments:
            if argument is not types.NoneType:
                try:
                    return _coerce(value, argument)
                except ValueError as error:
                    wanted.append(str(error))
        raise ValueError(" or ".join(wanted))
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError("a list")
        return tuple(_coerce(each, arguments[0]) for each in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError("a table" if arguments[1] is Any else "a table of whole numbers")
        return {key: each if arguments[1] is Any else _coerce(each, arguments[1]) for key, each in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ValueError(names[kind])
    return value


def _check_bounds(name: str, value: Any, metadata: Mapping[str, Any], source: str) -> None:
    least, below = metadata["least"], metadata["below"]
    for number in value.values() if isinstance(value, dict) else [value]:
        if isinstance(number, int | float) and (
            (least is not None and not number >= least) or (below is not None and not number < below)
        ):
            bounds = (("at least", least), ("below", below))
            limits = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
            raise ConfigurationError(f"{source}: {name} must be {' and '.join(limits)}, got {number}")
