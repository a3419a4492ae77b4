"""Accelerate as the options ask for it: devices, precision, sharding."""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from videochat_tools.errors import ConfigurationError, MissingDependencyError

from .options import StageOptions

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["checkpoint_activations", "fsdp_plugin", "make_accelerator", "require_packages"]

# How long processes wait for each other: the first one alone writes the finished model.
_PATIENCE = timedelta(hours=2)


def require_packages(options: StageOptions) -> None:
    """Raise when a package that the options need is not installed.

    Raises:
        MissingDependencyError: Which one, and how to install it.
    """
    needed = [("accelerate", "training", True), ("peft", "LoRA", options.lora_rank > 0)]
    needed += [("tensorboard", "the log for TensorBoard", options.tensorboard)]
    for package, purpose, used in needed:
        if used and find_spec(package) is None:
            raise MissingDependencyError(package, "train", purpose)


def make_accelerator(options: StageOptions) -> Accelerator:
    """The accelerator of this process; under ``torchrun`` or ``accelerate launch`` one of several.

    What ``accelerate launch`` sets by itself (a sharding of its own configuration file, for one) holds where the
    options say nothing.

    Raises:
        ConfigurationError: The machine cannot do what the options ask for, or a plugin does not know an argument.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    on_gpu = options.device == "auto" and torch.cuda.is_available()
    if options.mixed_precision == "fp16" and not on_gpu:
        raise ConfigurationError("mixed_precision fp16 needs a GPU; set mixed_precision to bf16 or no")
    if _launched_with("DEEPSPEED"):
        raise ConfigurationError(
            "accelerate launch is configured for DeepSpeed, which these stages do not use; shard with fsdp, whose "
            "reshard_after_forward = false does what ZeRO stage 2 does, and true what stage 3 does"
        )
    sharded = bool(options.fsdp) or _launched_with("FSDP")
    version = options.fsdp.get("fsdp_version", os.environ.get("FSDP_VERSION", 2 if options.fsdp else 1))
    if sharded and str(version) != "2":
        raise ConfigurationError(
            f"fsdp_version {version} cannot shard frozen and trained weights side by side; set fsdp_version to 2, here "
            "or in the configuration of accelerate launch"
        )
    if sharded and not on_gpu:
        raise ConfigurationError("fsdp shards over GPUs, and there is none; leave fsdp out")
    if sharded and options.family == "retrieval":
        raise ConfigurationError(
            "fsdp cannot shard the scalar temperature of stage 1, which fits a GPU whole; leave it out"
        )
    plugins: dict[str, Any] = {}
    if options.fsdp:
        plugins["fsdp_plugin"] = fsdp_plugin(options)
    # Text alone passes tower and Q-Former by; a loss without weight its head.
    partly_used = any(corpus.get("medium") == "text" for corpus in options.corpora) or not (
        options.contrastive_weight and options.matching_weight and options.caption_weight
    )
    AcceleratorState._reset_state()  # what an earlier run in this process has left, its precision for one
    return Accelerator(
        cpu=not on_gpu,
        mixed_precision=options.mixed_precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=partly_used),
            InitProcessGroupKwargs(timeout=_PATIENCE),
        ],
        **plugins,
    )


def fsdp_plugin(options: StageOptions) -> Any:
    """Accelerate's plugin with the options' arguments; by default FSDP2, with the layers of all networks as units.

    Raises:
        ConfigurationError: It does not know an argument.
    """
    from accelerate import FullyShardedDataParallelPlugin

    arguments = {"fsdp_version": 2, "auto_wrap_policy": "transformer_based_wrap", **options.fsdp}
    try:
        return FullyShardedDataParallelPlugin(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"fsdp: {_first_line(error)}; see Accelerate's FullyShardedDataParallelPlugin"
        ) from error


def checkpoint_activations(model: Any, options: StageOptions) -> None:
    """Let layers be computed anew in the backward pass in place of keeping what they computed."""
    if options.tower_checkpointing and hasattr(model, "vision_encoder"):
        _enable(model.vision_encoder)
        for layer in model.vision_encoder.layers[options.tower_checkpointing :]:
            layer.gradient_checkpointing = False
    if options.gradient_checkpointing:
        for name in ("qformer", "language_model"):
            if hasattr(model, name):
                _enable(getattr(model, name))


def _enable(model: Any) -> None:
    arguments = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # the new name, from transformers 5.24 on
        model.activation_checkpointing_enable(arguments)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=arguments)


def _launched_with(what: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{what}", "false").lower() == "true"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
