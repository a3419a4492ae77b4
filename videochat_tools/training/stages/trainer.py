"""A run of one stage: from the models before it to the finished one, in any number of processes."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, is_dataclass, replace
from dataclasses import fields as fields_of
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videochat_tools.errors import ConfigurationError
from videochat_tools.models.loading import Lora, inject_lora
from videochat_tools.training.data import ClipSampling, Corpus, Mixture, SampleBatch

from .accelerating import checkpoint_activations, make_accelerator, require_packages
from .checkpoints import Progress, latest_checkpoint, read_trained, restore, save_checkpoint
from .configs import show_options
from .encoding import ChatEncoder, Encoded, make_encoder
from .finishing import write_model
from .losses import ChatLoss, RetrievalLoss, StageModule
from .options import StageOptions
from .parameters import decay_groups, freeze, set_modes, silence_key_biases
from .records import Records
from .schedule import rate_factor
from .starting import Start, pixel_statistics, start_network, tiling

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = [
    "StageResult",
    "StepReport",
    "add_lora_and_freeze",
    "make_mixture",
    "prepare_network",
    "steps_of_epoch",
    "train_stage",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepReport:
    """How far a run is.

    Attributes:
        step: Steps that are done.
        steps: Steps of all epochs, or those after which the run stops.
        epoch: The running one, from 0.
        loss: Of the last step, over all processes.
    """

    step: int
    steps: int
    epoch: int
    loss: float


@dataclass(frozen=True, slots=True)
class StageResult:
    """The outcome of a run.

    Attributes:
        model: Folder of the finished model.
        steps: Steps that are done.
        failures: Media that could not be read, and samples of which nothing was learned, in words; may be empty.
    """

    model: Path
    steps: int
    failures: str


def make_mixture(options: StageOptions, rank: int = 0, world_size: int = 1) -> Mixture:
    """The data of a run.

    Raises:
        ConfigurationError: No corpora are set.
        TrainingDataError: One of them cannot be used.
    """
    if not options.corpora:
        raise ConfigurationError("there is nothing to train on; set corpora: tables of annotation, root and medium")
    return Mixture(
        [Corpus.from_config(entry) for entry in options.corpora],
        clip_sampling(options),
        batch_size=options.batch_size,
        seed=options.seed,
        rank=rank,
        world_size=world_size,
        workers=options.workers,
    )


def steps_of_epoch(options: StageOptions, mixture: Mixture) -> int:
    """Steps of the optimiser in one epoch; the last may have fewer batches."""
    return math.ceil(len(mixture) / options.gradient_accumulation)


def add_lora_and_freeze(model: Any, options: StageOptions, lora: Lora | None = None) -> None:
    """Give the network its LoRA, and let only what the stage trains have gradients.

    Raises:
        ModelLoadError: ``lora``, that of the stage before, is for other modules.
    """
    if options.lora_rank:
        inject_lora(
            model,
            rank=options.lora_rank,
            alpha=options.lora_alpha,
            targets=options.lora_targets,
            dropout=options.lora_dropout,
            lora=lora,
        )
    freeze(model, options)


def prepare_network(start: Start, options: StageOptions) -> StageModule:
    """The network with LoRA, what is frozen, and its loss, ready to be trained."""
    model: Any = start.model
    add_lora_and_freeze(model, options, start.lora)
    silence_key_biases(model)
    checkpoint_activations(model, options)
    set_modes(model, options)
    if options.family == "retrieval":
        return RetrievalLoss(model, all_negatives=options.negatives == "all")
    return ChatLoss(model, constant_bos=options.constant_bos)


def train_stage(
    options: StageOptions, output: str | Path, progress: Callable[[StepReport], None] = lambda _: None
) -> StageResult:
    """Run a stage, or go on with it where ``output`` holds a checkpoint, and write the finished model.

    Args:
        options: What to do.
        output: Folder of the run: ``model`` is the result, ``checkpoints`` what it goes on from after a stop.
        progress: Is told of every step, in the first process.

    Raises:
        ConfigurationError: Something is not set, or cannot be done here; or the loss is no number any more.
        ModelLoadError: A model or a checkpoint cannot be used.
        TrainingDataError: The data cannot be used.
        MissingDependencyError: A package of the extra "train" is not installed.
    """
    require_packages(options)
    try:
        return _Run(options, Path(output), make_accelerator(options), progress).run()
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            "the memory of the GPU is full; set gradient_checkpointing and tower_checkpointing or shard with fsdp, and "
            "go on, or begin anew with a lower batch_size and more gradient_accumulation"
        ) from error


class _Run:
    def __init__(
        self, options: StageOptions, output: Path, accelerator: Accelerator, progress: Callable[[StepReport], None]
    ) -> None:
        self.options, self.output, self.accelerator, self.tell = options, output, accelerator, progress
        self.main = accelerator.is_main_process
        self.checkpoints = output / "checkpoints"

    def run(self) -> StageResult:
        options, accelerator = self.options, self.accelerator
        mixture = make_mixture(options, accelerator.process_index, accelerator.num_processes)
        with mixture:
            start = start_network(options)
            self.encode = make_encoder(options, start.processor)
            module = prepare_network(start, options)
            optimizer = torch.optim.AdamW(
                decay_groups(module, options.weight_decay),
                lr=options.learning_rate,
                betas=(options.beta1, options.beta2),
            )
            module, optimizer = accelerator.prepare(module, optimizer)
            at = self._resume(module, optimizer)
            self._describe()
            with Records(self.output, options, enabled=self.main, step=at.step) as records:
                at = self._train(mixture, module, optimizer, at, records)
            failures = self._failures(mixture)
        last = self.checkpoints / f"step-{at.step:08d}"
        if self.main:
            write_model(self.output / "model", read_trained(last), options)
        accelerator.wait_for_everyone()
        return StageResult(self.output / "model", at.step, failures)

    def _resume(self, module: nn.Module, optimizer: Any) -> Progress:
        found = latest_checkpoint(self.checkpoints)
        if found is None:
            return Progress(processes=self.accelerator.num_processes)
        at = restore(found, module, optimizer.optimizer, self.options)
        if at.processes != self.accelerator.num_processes:
            raise ConfigurationError(
                f"{found} is of a run in {at.processes} processes, this one has {self.accelerator.num_processes}, so "
                f"that the data would come in another order; start {at.processes}, or give a new --output"
            )
        if at.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(at.scaler)
        log.info("going on from %s", found)
        return at

    def _train(self, mixture: Mixture, module: nn.Module, optimizer: Any, at: Progress, records: Records) -> Progress:
        options = self.options
        steps = steps_of_epoch(options, mixture)
        total, warm_up = steps * options.epochs, options.warmup_epochs * steps
        end = min(total, options.max_steps or total)
        saved = at.step
        while at.step < end:
            batches = mixture.epoch(at.epoch, start=at.batch)
            for group in _groups(batches, options.gradient_accumulation):
                factor = rate_factor(at.step, total=total, warm_up=warm_up, floor=options.min_factor)
                for parameters in optimizer.param_groups:
                    parameters["lr"] = options.learning_rate * factor
                began = time.monotonic()
                losses = self._step(module, optimizer, group, at)
                at = replace(at, step=at.step + 1, batch=at.batch + len(group))
                records.add(at.step, losses, rate=options.learning_rate * factor, seconds=time.monotonic() - began)
                if self.main:
                    self.tell(StepReport(at.step, end, at.epoch, losses["loss"]))
                if at.batch >= len(mixture):
                    at = replace(at, epoch=at.epoch + 1, batch=0)
                if at.step % options.checkpoint_steps == 0 or at.step == end:
                    self._save(module, optimizer, at)
                    saved = at.step
                if at.step == end:
                    break
        if saved != at.step or latest_checkpoint(self.checkpoints) is None:
            self._save(module, optimizer, at)
        return at

    def _step(self, module: nn.Module, optimizer: Any, group: list[SampleBatch], at: Progress) -> dict[str, float]:
        """One step of the optimiser; its losses over all processes."""
        options, accelerator = self.options, self.accelerator
        place = f"{options.seed}:{at.epoch}:{at.batch}"
        # All that is dropped at random in a step follows from its place: nothing of it has to be saved.
        torch.manual_seed(_seed(f"{place}:{accelerator.process_index}"))
        encoded = [self.encode(batch, f"{place}:{number}") for number, batch in enumerate(group)]
        learned = torch.tensor(float(sum(each.learned for each in encoded)), device=accelerator.device)
        total = float(accelerator.reduce(learned, reduction="sum"))
        sums: dict[str, Tensor] = {}
        optimizer.zero_grad(set_to_none=True)
        for number, each in enumerate(encoded):
            last = number == len(encoded) - 1
            with nullcontext() if last else accelerator.no_sync(module):
                losses = self._losses(module, each, total, 1 / len(encoded))
                accelerator.backward(losses["loss"])
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach().float()
        means = {name: float(accelerator.reduce(value, reduction="mean")) for name, value in sums.items()}
        if not math.isfinite(means["loss"]):
            raise ConfigurationError(
                f"the loss of step {at.step + 1} is {means['loss']}; lower learning_rate or set mixed_precision to "
                f"bf16, and go on from the last checkpoint in {self.checkpoints}"
            )
        if options.clip_norm:
            accelerator.clip_grad_norm_(module.parameters(), options.clip_norm)
        optimizer.step()
        accelerator.unwrap_model(module).after_step()
        return means

    def _losses(self, module: nn.Module, encoded: Encoded, total: float, share: float) -> dict[str, Tensor]:
        inputs = {name: _moved(value, self.accelerator.device) for name, value in encoded.inputs.items()}
        with self.accelerator.autocast():
            losses: dict[str, Tensor] = module(**inputs, total=total, share=share)
        return losses

    def _save(self, module: nn.Module, optimizer: Any, at: Progress) -> None:
        scaler = self.accelerator.scaler
        at = replace(at, scaler=None if scaler is None else scaler.state_dict())
        save_checkpoint(self.checkpoints, module, optimizer.optimizer, at, self.options, writes=self.main)
        self.accelerator.wait_for_everyone()

    def _describe(self) -> None:
        if self.main:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / "options.toml").write_text(show_options(self.options), encoding="utf-8")

    def _failures(self, mixture: Mixture) -> str:
        lines = [mixture.failures.report()]
        if isinstance(self.encode, ChatEncoder) and self.encode.unlearned:
            lines.append(
                f"nothing was learned of {self.encode.unlearned} samples that are too long or cannot be labelled"
            )
        if self.main and mixture.failures.total:
            (self.output / "failures.json").write_text(
                json.dumps(mixture.failures.to_dict(), indent=2), encoding="utf-8"
            )
        return "\n".join(line for line in lines if line)


def clip_sampling(options: StageOptions) -> ClipSampling:
    """How clips become pixels."""
    mean, std = pixel_statistics(options)
    try:
        return ClipSampling(
            num_frames=options.num_frames,
            sample=options.frame_sampling,
            size=options.image_size,
            mean=mean,
            std=std,
            augment=options.augment,
            tiling=tiling(options),
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _groups(batches: Iterator[SampleBatch], size: int) -> Iterator[list[SampleBatch]]:
    while group := list(islice(batches, size)):
        yield group


def _seed(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:7], "big")


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _moved(getattr(value, each.name), device) for each in fields_of(value)})
    return value
