"""Stage 1, align: the tower and the Q-Former learn what texts mean (contrast and matching with hard negatives).

Five things are added to the released recipe, all needed by a small network that starts from nothing. It begins with
still pictures, where a step shows eight times as many different objects, and goes on with busy clips, where all
objects move at once (without them motion is hardly learned: most objects of a scene rest). Captions that are false
in one point join the contrast (without them shape and roles are ignored). Clips in colours that have no name teach
what a shape is whatever its colour, also in those pairs of both that are never shown. And while training, linear heads
ask the tower's tokens what stands on them: colour, shape, size, texture, action, place and change; the words of a text
are asked which of them are false (:mod:`videochat_tools.training.matching`).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from videochat_tools.models.videochat2.modeling_videochat2 import VideoChat2ForRetrieval
from videochat_tools.training.clips import (
    ATTRIBUTES,
    MOTION_VALUES,
    UNNAMED,
    Clip,
    ClipFormat,
    attribute_labels,
    draw_clip,
    to_pixels,
)
from videochat_tools.training.loop import Loop, LoopOptions, existing_path, half_precision, read_state
from videochat_tools.training.matching import matching_loss
from videochat_tools.training.recipe import NANO, SIZES, SLOT_QUERIES, Size, clip_format, retrieval_config
from videochat_tools.training.slots import PlotHeads, SlotHeads, TextHeads, tells_plot
from videochat_tools.training.texts import BatchTexts, draw_batch_texts
from videochat_tools.training.tokenizers import build_qformer_tokenizer
from videochat_tools.training.warm_start import grow, read_folder, read_vocabulary
from videochat_tools.training.world.language import LOOKALIKES
from videochat_tools.training.world.looks import with_stray_colours
from videochat_tools.training.world.scene import Scene, sample_busy_scene, sample_scene

__all__ = ["AlignModel", "train_align"]

log = logging.getLogger(__name__)

# How often a resting object counts in the action loss; most objects rest, and "still" would be a good guess.
_STILL_WEIGHT = 0.3
_SLOT_WEIGHT = 0.25  # of the slot losses, sums of about ten cross-entropies
_LONG = 9  # words; a longer text tells of a whole scene
_WRONG = 4  # false texts of each clip
_STRAY = 0.5  # of the pictures and busy clips are in stray colours
_STRAYS = 4  # one more clip in stray colours to so many clips with texts
_ALIKE = 0.5  # of the clips with texts are to show a dotted or striped circle or square
_DRAWS = 12  # of another scene, until it has one


@dataclass(frozen=True, slots=True)
class Phases:
    """Shares of the time: first still pictures, then busy clips, then texts (with some busy clips among them).

    ``settle``: at the very start only the training-only heads learn, where the network comes from elsewhere.
    """

    pictures: float = 0.12
    busy: float = 0.15
    settle: float = 0.0
    busy_every: int = 5  # one step in so many of the last phase


class AlignModel(nn.Module):
    """The stage-1 network with its training-only attribute heads."""

    def __init__(self, network: VideoChat2ForRetrieval) -> None:
        super().__init__()
        self.network = network
        width = network.config.vision_config.hidden_size
        self.probes = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in ATTRIBUTES.items()})
        self.motion = nn.Linear(width, MOTION_VALUES)
        qformer = network.config.qformer_config
        self.slots = SlotHeads(qformer.hidden_size, SLOT_QUERIES)
        self.words = TextHeads(network.config.projection_dim)
        self.plot = PlotHeads(network.config.projection_dim)
        self.fault = nn.Linear(qformer.hidden_size, 1)


def contrast(scores: Tensor, matches: Tensor) -> tuple[Tensor, Tensor]:
    """Contrastive loss where several texts may be true of a clip, and texts may be true of none.

    Args:
        scores: [B, N] similarity over temperature of clips and texts.
        matches: bool [N, B].

    Returns:
        The loss, and the share of clips whose best text is true.
    """
    right = matches.t().float()
    by_video = F.cross_entropy(scores, right / right.sum(1, keepdim=True))
    told = matches.any(dim=1)
    target = matches[told].float()
    by_text = F.cross_entropy(scores.t()[told], target / target.sum(1, keepdim=True))
    hit = right.gather(1, scores.argmax(1, keepdim=True)).mean()
    return (by_video + by_text) / 2, hit


def picture_losses(
    model: AlignModel, form: ClipFormat, rng: Random, batch: int
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Loss of the attribute heads on still pictures."""
    still = replace(form, num_frames=1)
    clips = [draw_clip(rng, still, splice=0.0, scene=_some_stray(rng, sample_scene(rng))) for _ in range(batch)]
    with half_precision():
        loss, values = _probe_losses(model, clips, still, model.network.encode_frames(to_pixels(clips, still)))
    return loss, values


def busy_losses(
    model: AlignModel, form: ClipFormat, rng: Random, batch: int
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Loss of the attribute heads on clips in which everything moves."""
    clips = [draw_clip(rng, form, splice=0.0, scene=_some_stray(rng, sample_busy_scene(rng))) for _ in range(batch)]
    with half_precision():
        loss, values = _probe_losses(model, clips, form, model.network.encode_frames(to_pixels(clips, form)))
    return loss, {f"busy_{name[2:]}": value for name, value in values.items()}


def _some_stray(rng: Random, scene: Scene) -> Scene:
    return with_stray_colours(rng, scene) if rng.random() < _STRAY else scene


def _some_alike(rng: Random) -> Scene:
    """A scene, often with what is told apart last: circle and square, with dots or stripes on them."""
    scene = sample_scene(rng)
    if rng.random() < _ALIKE:
        for _ in range(_DRAWS):
            if any(thing.shape in LOOKALIKES and thing.texture != "plain" for thing in scene.things):
                break
            scene = sample_scene(rng)
    return scene


def _probe_losses(
    model: AlignModel, clips: Sequence[Clip], form: ClipFormat, vision: Tensor
) -> tuple[Tensor, dict[str, float | Tensor]]:
    places, labels, motion = attribute_labels(clips, form)
    tokens = vision[places[:, 0], places[:, 1]]
    named = {name: label != UNNAMED for name, label in labels.items()}
    names = [name for name in ATTRIBUTES if bool(named[name].any()) and (form.num_frames > 1 or name != "action")]
    labels = {name: labels[name][named[name]] for name in names}
    logits = {name: model.probes[name](tokens[named[name]]).float() for name in names}
    rare = torch.ones(len(ATTRIBUTES["action"]))
    rare[0] = _STILL_WEIGHT
    losses = [F.cross_entropy(logits[name], labels[name], rare if name == "action" else None) for name in names]
    if form.num_frames > 1:
        losses.append(2.0 * F.smooth_l1_loss(model.motion(tokens).float(), motion, beta=0.2))
    right = {name: logits[name].argmax(-1) == labels[name] for name in names}
    values: dict[str, float | Tensor] = {f"p_{name}": right[name].float().mean() for name in names}
    if "action" in right and bool((labels["action"] > 0).any()):
        values["p_moving"] = right["action"][labels["action"] > 0].float().mean()
    return torch.stack(losses).sum(), values


def text_losses(
    model: AlignModel, rng: Random, vision: Tensor, scenes: Sequence[Scene], texts: BatchTexts, *, match: bool
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Contrastive, matching and slot loss of clips, given as vision embeddings [B, S, D], with texts."""
    network = model.network
    queries = network.query_outputs(vision)
    video_embeds = network.project_video(queries)
    text_embeds = network.text_embeds(texts.ids, texts.mask)
    scores = network.similarity(video_embeds.float(), text_embeds.float()) / network.temperature
    loss, hit = contrast(scores, texts.matches)
    values: dict[str, float | Tensor] = {"itc": loss, "itc_hit": hit, "temp": network.temperature}
    # The rows without a slot answer for whole scenes. Among all rows they would never win, and so never learn.
    long = torch.tensor([len(text.text.split()) > _LONG for text in texts.texts])
    told = texts.matches[long].any(dim=0)
    if bool(told.any()):
        free = network.similarity(video_embeds[told, SLOT_QUERIES:].float(), text_embeds[long].float())
        whole, whole_hit = contrast(free / network.temperature, texts.matches[long][:, told])
        loss = loss + 0.7 * whole
        values |= {"whole": whole, "whole_hit": whole_hit}
    slots, held = model.slots(queries, scenes)
    words, spoken = model.words(text_embeds, texts.texts)
    plots, followed = _plot_loss(model, video_embeds, text_embeds, texts)
    loss = loss + _SLOT_WEIGHT * (slots + words + plots)
    values |= {"slots": slots, **held, "words": words, **spoken, **followed}
    if match:
        matching, matched = matching_loss(network, model.fault, rng, vision, texts, scores.detach())
        loss = loss + 2.0 * matching
        values |= matched
    return loss, values


def _plot_loss(
    model: AlignModel, video_embeds: Tensor, text_embeds: Tensor, texts: BatchTexts
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Which event comes first: asked of every text that tells of two, and of the free row of its clip nearest to it."""
    told = [number for number, text in enumerate(texts.texts) if tells_plot(text)]
    if not told:
        return text_embeds.sum() * 0.0, {}
    words, said = model.plot(text_embeds[told], [texts.texts[number] for number in told])
    pairs = [(number, int(clip)) for number in told for clip in texts.matches[number].nonzero()[:1, 0]]
    if not pairs:
        return words, {"t_plot": said}
    numbers, clips = map(list, zip(*pairs, strict=True))
    rows = video_embeds[clips, SLOT_QUERIES:]
    nearest = (rows @ text_embeds[numbers].unsqueeze(-1)).squeeze(-1).argmax(dim=1)
    clip, seen = model.plot(rows[torch.arange(len(pairs)), nearest], [texts.texts[number] for number in numbers])
    return words + clip, {"t_plot": said, "v_plot": seen}


def step_losses(
    model: AlignModel, tokenizer: PreTrainedTokenizerBase, form: ClipFormat, rng: Random, batch: int, *, match: bool
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Loss of one freshly drawn batch of clips, and of a few in stray colours, of which no text tells."""
    clips = [draw_clip(rng, form, scene=_some_alike(rng)) for _ in range(batch)]
    scenes = [clip.scene for clip in clips]
    texts = draw_batch_texts(rng, tokenizer, scenes, _WRONG)
    strays = [draw_clip(rng, form, scene=with_stray_colours(rng, sample_scene(rng))) for _ in range(batch // _STRAYS)]
    clips += strays
    with half_precision():
        vision = model.network.encode_frames(to_pixels(clips, form))
        loss, values = text_losses(model, rng, vision[:batch], scenes, texts, match=match)
        if strays:
            rows = model.network.query_outputs(vision[batch:])
            told, held = model.slots(rows, [clip.scene for clip in strays])
            loss = loss + _SLOT_WEIGHT * told / _STRAYS
            values |= {"stray_shape": held["s_shape"]}
        probe, seen = _probe_losses(model, clips, form, vision)
    return loss + 0.35 * probe, {**values, **seen}


def settling_losses(
    model: AlignModel, tokenizer: PreTrainedTokenizerBase, form: ClipFormat, rng: Random, batch: int
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Loss of the training-only heads alone, on a network that was trained elsewhere and is left as it is."""
    clips = [draw_clip(rng, form) for _ in range(batch)]
    scenes = [clip.scene for clip in clips]
    texts = draw_batch_texts(rng, tokenizer, scenes, 1)
    with half_precision():
        with torch.no_grad():
            vision = model.network.encode_frames(to_pixels(clips, form))
            queries = model.network.query_outputs(vision)
            text_embeds = model.network.text_embeds(texts.ids, texts.mask)
        slots, held = model.slots(queries, scenes)
        words, told = model.words(text_embeds, texts.texts)
        probe, seen = _probe_losses(model, clips, form, vision)
    return slots + words + probe, {**held, **told, **seen}


def train_align(
    folder: Path,
    options: LoopOptions,
    *,
    batch: int = 32,
    seed: int = 0,
    phases: Phases | None = None,
    start: Path | None = None,
    size: Size = NANO,
) -> VideoChat2ForRetrieval:
    """Train stage 1 and leave the network in ``folder / 'retrieval'``.

    ``start``: weights of another run (``state.pt``), or a folder with a trained network to grow from.
    """
    phases = phases or Phases()
    torch.manual_seed(seed)
    tokenizer = build_qformer_tokenizer()
    network = VideoChat2ForRetrieval(retrieval_config(len(tokenizer), size))
    network.set_attn_implementation("eager")
    model = AlignModel(network)
    if start is not None and start.is_dir():
        grow(network, read_folder(start), [(read_vocabulary(start / "qformer_tokenizer"), tokenizer)])
    elif start is not None:
        model.load_state_dict(read_state(start))
    loop, form = Loop(model, folder, options), clip_format(network.config.vision_config)
    model.train()
    for step in loop:
        rng = Random(f"align {seed} {step}")
        texts_from = phases.pictures + phases.busy
        if loop.progress < phases.settle:
            loss, values = settling_losses(model, tokenizer, form, rng, batch)
        elif loop.progress < phases.pictures:
            loss, values = picture_losses(model, form, rng, 2 * batch)
        elif loop.progress < texts_from or step % phases.busy_every == 0:
            loss, values = busy_losses(model, form, rng, batch // 2)
        else:
            loss, values = step_losses(model, tokenizer, form, rng, batch, match=step % 2 == 0)
        loop.update(loss, values)
    network.save_pretrained(folder / "retrieval")
    tokenizer.save_pretrained(folder / "retrieval")
    return network


def main() -> None:
    """Command line: ``python -m videochat_tools.training.align --folder DIR --minutes M``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda, …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--pictures", type=float, default=0.12, help="share of the time")
    parser.add_argument("--busy", type=float, default=0.15, help="share of the time")
    parser.add_argument(
        "--begin", type=existing_path, help="state.pt of another run, or folder of a network, to begin with"
    )
    parser.add_argument("--settle", type=float, default=0.0, help="share of the time for the training-only heads alone")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.set_default_device(arguments.device)
    train_align(
        arguments.folder,
        LoopOptions(arguments.minutes).scaled(arguments.rate),
        batch=arguments.batch,
        seed=arguments.seed,
        phases=Phases(arguments.pictures, arguments.busy, arguments.settle),
        start=arguments.begin,
        size=SIZES[arguments.size],
    )


if __name__ == "__main__":
    main()
