"""Stages 2 and 3, and the schooling before them: the language model learns to answer about clips.

The released models start from a language model that can read and quote. The nano has none, so its first stage
("language") practises on text alone, with rows told in words in the place of clips: copying, binding, quoting, citing,
answering. Then ("instruct") the clips take the place of the words. Connecting (stage 2) and instructing (stage 3) are
one run here: captions are one kind of question among the others.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from videochat_tools.errors import ConfigurationError
from videochat_tools.models.videochat2.modeling_videochat2 import VideoChat2ForConditionalGeneration
from videochat_tools.training.angles import SlidingAngles
from videochat_tools.training.bank import ClipRows, TokenBank, see_clips, tell_clips
from videochat_tools.training.batches import (
    CAUSAL_MATMUL,
    LossSum,
    answer_loss,
    by_length,
    encode_conversations,
)
from videochat_tools.training.clips import draw_clip
from videochat_tools.training.conversations import Conversation, converse
from videochat_tools.training.copying import SLOWER, start_with_copying
from videochat_tools.training.drills import binding_drill, copy_drill, option_drill, tool_drill, transcript_drill
from videochat_tools.training.lines import LineHeads
from videochat_tools.training.loop import Loop, LoopOptions, existing_path, half_precision, join_processes, read_state
from videochat_tools.training.recipe import (
    NANO,
    ROPE_THETA,
    SCENE_QUERIES,
    SIZES,
    SLOT_QUERIES,
    Size,
    chat_config,
    clip_format,
)
from videochat_tools.training.slots import SlotHeads
from videochat_tools.training.syllabus import ALL, BEGINNING, Syllabus
from videochat_tools.training.telling import Telling, blurred, hold
from videochat_tools.training.tokenizers import build_llm_tokenizer, build_qformer_tokenizer
from videochat_tools.training.warm_start import grow, read_folder, read_rope_theta, read_vocabulary
from videochat_tools.training.world.scene import Scene, sample_scene

__all__ = ["start_chat_model", "train_instruct", "train_language"]

log = logging.getLogger(__name__)

_SLOT_WEIGHT = 0.06  # of the slot loss, a sum of ten cross-entropies; the loss of answers is about 0.1
_TEXT_WEIGHT = 0.5  # of the rows of text alone
_CHOICE_SHARE = 0.1  # how often the Q-Former reads what MVBench tells it
_HEADS_ALONE = 0.04  # share of the time before new heads (:mod:`~videochat_tools.training.lines`) teach the model
_FIRST_ALONE = 0.15  # the same for a model that still has to learn to copy, which early teaching washes out
_SLIDING = 0.25  # share of the time in which weights of another recipe slide to the angles of this one
_TOLD_SHARE = 0.35  # of the rows of a step of the language stage that are about scenes told in words
_EXTRA_CLIPS = (0.94, 0.05, 0.01)  # how often a conversation is about one, two or three clips


def language_conversations(rng: Random, count: int, syllabus: Syllabus = ALL) -> list[Conversation]:
    """Rows of text, each kind in its share."""
    drills = {
        "copy": copy_drill,
        "binding": binding_drill,
        "options": option_drill,
        "call": tool_drill,
        "transcript": transcript_drill,
        "scene": lambda rng: _scene_in_words(rng, syllabus),
    }
    rows = [drills[kind](rng) for kind in rng.choices([*syllabus.drills], [*syllabus.drills.values()], k=count)]
    return [row for row in rows if row.kinds]


def _scene_in_words(rng: Random, syllabus: Syllabus) -> Conversation:
    """Any pair of colour and shape: what is held out is held out from sight, not from speech."""
    count = rng.choices((1, 2, 3), (0.85, 0.12, 0.03))[0]
    return converse(rng, [_told_scene(rng) for _ in range(count)], None, syllabus=syllabus)


def _told_scene(rng: Random) -> Scene:
    """A scene for words alone; of those that one after another could be asked about, more than there are."""
    scene = sample_scene(rng, held_out=None)
    return scene if len(scene.events) > 1 or rng.random() < 0.6 else sample_scene(rng, held_out=None)


def tell_scenes(rng: Random, telling: Telling, table: Tensor, count: int) -> ClipRows:
    """Scenes of any pairs of colour and shape as rows told in words, from a table of embeddings [V, H]."""
    scenes = [_told_scene(rng) for _ in range(count)]
    held = hold(rng, scenes, telling.queries)
    return ClipRows(blurred(rng, telling(table, scenes, held), held), scenes, held, [True] * count)


def train_language(
    folder: Path,
    options: LoopOptions,
    *,
    batch: int = 16,
    seed: int = 0,
    process: int = 0,
    start: Path | None = None,
    size: Size = NANO,
) -> None:
    """Text alone. Leaves its checkpoint in ``folder`` for :func:`train_instruct`.

    ``start``: folder of a trained chat model whose language model, as large or with fewer layers, is gone on with.
    ``process``: number of this one among those of :func:`~videochat_tools.training.loop.join_processes`; each draws its
    own ``batch``.
    """
    torch.manual_seed(seed)
    tokenizer = build_llm_tokenizer()
    config = chat_config(1, len(tokenizer), size)
    config.text_config._attn_implementation = CAUSAL_MATMUL
    network = VideoChat2ForConditionalGeneration(config)
    model = network.language_model
    angles = None
    if start is None:
        start_with_copying(model)
    else:
        old = {name: value for name, value in read_folder(start).items() if name.startswith("language_model.")}
        layers = 1 + max(int(name.split(".")[3]) for name in old if ".layers." in name)
        step = (size.language_layers - 1) / max(layers - 1, 1)
        places = [round(number * step) for number in range(layers)] if layers < size.language_layers else []
        grow(network, old, [(read_vocabulary(start), tokenizer)], layers=places)
        angles = _angles(model, start)
    lines = LineHeads(model.config.hidden_size, tokenizer, model.config.num_hidden_layers)
    telling = Telling(tokenizer, model.config.hidden_size, SLOT_QUERIES, SCENE_QUERIES)
    trained = nn.ModuleDict({"language_model": model, "lines": lines})
    loop = Loop(trained, folder, options, SLOWER if start is None else None)
    trained.train()
    for step in loop:
        rng = Random(f"language {seed} {process} {step}")
        lines.teaches = loop.progress > (_HEADS_ALONE if start else _FIRST_ALONE)
        if angles is not None:
            angles.slide(loop.progress / _SLIDING)
        syllabus = BEGINNING if start is None else ALL
        told = tell_scenes(rng, telling, model.get_input_embeddings().weight, round(_TOLD_SHARE * batch))
        conversations = language_conversations(rng, batch - len(told.scenes), syllabus)
        conversations += instruct_conversations(rng, told, len(told.scenes), syllabus)
        loss, right = language_loss(model, tokenizer, conversations, lines, told)
        loop.update(loss, right)


def _angles(language_model: PreTrainedModel, folder: Path) -> SlidingAngles | None:
    """What slides a model with the weights of a folder to this recipe's angles, if they are not its own."""
    theta = read_rope_theta(folder)
    return None if theta == ROPE_THETA else SlidingAngles(language_model, theta)


def language_loss(
    language_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[Conversation],
    lines: LineHeads | None = None,
    told: ClipRows | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of conversations without clips, or with rows that were ``told`` in their place."""
    total = LossSum()
    rows_per_clip, held = (told.tokens.shape[1], told.held) if told is not None else (0, ())
    with half_precision():  # around all groups: weights are turned to it once
        for group in by_length(tokenizer, conversations, rows_per_clip):
            rows = encode_conversations(tokenizer, group, rows_per_clip, held)
            embeds = language_model.get_input_embeddings()(rows.input_ids)
            if told is not None and rows.clips:
                shown = told.tokens[list(rows.clips)].to(embeds.dtype)
                embeds = embeds.masked_scatter(rows.visual_mask[..., None], shown)
            total.add(*answer_loss(language_model, embeds, rows, lines))
    return total.mean(), total.right()


def start_chat_model(
    align: Mapping[str, Tensor] | None, language: Mapping[str, Tensor] | None, size: Size = NANO
) -> VideoChat2ForConditionalGeneration:
    """The chat network with the tower and Q-Former of stage 1 and the schooled language model.

    Args:
        align: Tensors of an ``AlignModel``; its per-frame embedding is dropped, as in the released stage 2.
        language: Tensors of :func:`train_language`, or of an ``InstructModel``, whose way to read clips is kept too.
        size: Of the networks.
    """
    words, pieces = build_llm_tokenizer(), build_qformer_tokenizer()
    model = VideoChat2ForConditionalGeneration(chat_config(len(pieces), len(words), size))
    if align is not None:
        for part in ("vision_encoder", "vision_layernorm", "qformer"):
            model.get_submodule(part).load_state_dict(_below(align, f"network.{part}."))
        queries = align["network.query_tokens"]
        model.query_tokens.data.copy_(queries[:, :SLOT_QUERIES])
        model.extra_query_tokens.data.copy_(queries[:, SLOT_QUERIES:])
    if language is not None and "network.projection.weight" in language:
        model.language_model.load_state_dict(_below(language, "network.language_model."))
        model.projection.load_state_dict(_below(language, "network.projection."))
    elif language is not None:
        model.language_model.load_state_dict(_below(language, "language_model."))
    return model


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


class InstructModel(nn.Module):
    """The chat network with the heads that ask its rows and its words; they are left behind when training ends."""

    def __init__(self, network: VideoChat2ForConditionalGeneration, words: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.network = network
        network.language_model.set_attn_implementation(CAUSAL_MATMUL)
        self.slots = SlotHeads(network.config.qformer_config.hidden_size, SLOT_QUERIES)
        text = network.config.text_config
        self.lines = LineHeads(text.hidden_size, words, text.num_hidden_layers)


def instruct_conversations(rng: Random, clips: ClipRows, count: int, syllabus: Syllabus = ALL) -> list[Conversation]:
    """Conversations about the clips of a batch, one to three clips each."""
    rows, scenes = [], clips.scenes
    for number in range(count):
        places = [number % len(scenes)]
        extra = rng.choices((0, 1, 2), _EXTRA_CLIPS)[0]
        places += rng.sample([place for place in range(len(scenes)) if place != places[0]], extra)
        rng.shuffle(places)
        retold = bool(clips.retold) and all(clips.retold[place] for place in places)
        rows.append(converse(rng, [scenes[place] for place in places], places, any_pair=retold, syllabus=syllabus))
    return [row for row in rows if row.kinds]


def instruct_loss(
    trained: InstructModel,
    words: PreTrainedTokenizerBase,
    rng: Random,
    clips: ClipRows,
    *,
    rows: int,
    text_rows: int,
    syllabus: Syllabus = ALL,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Loss of fresh conversations about clips, and of a few rows of text against forgetting.

    Args:
        trained: The chat network and its slot heads.
        words: Tokenizer of the language model.
        rng: Source of chance.
        clips: As the Q-Former tells of them; where nothing says which token holds what, the slot heads are asked.
        rows: Conversations about them.
        text_rows: Conversations of text alone.
        syllabus: How often what is asked.
    """
    tokens = clips.tokens
    held = clips.held or trained.slots.find(tokens, clips.scenes)
    model = trained.network
    conversations = instruct_conversations(rng, clips, rows, syllabus)
    total = LossSum()
    values: dict[str, float | Tensor] = {}
    with half_precision():
        for group in by_length(words, conversations, model.config.num_visual_tokens):
            batch = encode_conversations(words, group, model.config.num_visual_tokens, held)
            embeds = model.embed_prompt(batch.input_ids, batch.visual_mask, tokens[list(batch.clips)])
            total.add(*answer_loss(model.language_model, embeds, batch, trained.lines))
    loss = total.mean()
    values |= total.right()
    if tokens.requires_grad:
        slots, told_of = trained.slots(tokens, clips.scenes)
        values |= {"slots": slots, **told_of}
        loss = loss + _SLOT_WEIGHT * slots
    if text_rows:
        text = language_conversations(rng, text_rows, syllabus)
        kept, told = language_loss(model.language_model, words, text, trained.lines)
        values["text_loss"] = kept
        values |= {f"text_{name}": share for name, share in told.items()}
        loss = loss + _TEXT_WEIGHT * kept
    return loss, values


def train_instruct(
    folder: Path,
    align: Path | None,
    language: Path | None,
    options: LoopOptions,
    *,
    rows: int = 24,
    text_rows: int = 6,
    bank: int = 0,
    seed: int = 0,
    process: int = 0,
    start: Path | None = None,
    size: Size = NANO,
) -> VideoChat2ForConditionalGeneration:
    """Stages 2 and 3; leaves the network in ``folder / 'chat'``.

    Args:
        folder: Where checkpoints and the result go.
        align: Checkpoint of :mod:`~videochat_tools.training.align`; may be None where ``start`` is a state, or a folder
            and there is a ``bank``.
        language: Checkpoint of :func:`train_language`; with a ``bank``, the projection is set to what was told there.
        options: Time and rates.
        rows: Clips a step, and conversations about them.
        text_rows: Conversations of text alone a step.
        bank: Clips that are watched once, at the start, by a tower and a Q-Former that stay as they are; the questions
            are new at every step. 0: clips are new too, and all learns, as in the released stages 2 and 3.
        seed: Of data and new weights.
        process: Number of this one among those of :func:`~videochat_tools.training.loop.join_processes`; each draws and
            watches clips of its own, as many as are named here.
        start: State of another run of this stage to begin with, or the folder of a chat model, whose angles may be
            others.
        size: Of the networks.

    Raises:
        ConfigurationError: Nothing says what the clips' rows hold.
    """
    torch.manual_seed(seed)
    trained_model = start if start is not None and start.is_dir() else None
    if align is None and (start is None or (trained_model is not None and not bank)):
        raise ConfigurationError(
            "without a state of align, begin with a state of this stage, or with the folder of a chat model and a bank"
        )
    seen = None if align is None else read_state(align)
    schooled = None if language is None else read_state(language)
    begun = None if start is None or trained_model is not None else read_state(start)
    # Whoever was gone on with has a projection of its own.
    from_school = schooled is not None and start is None and "network.projection.weight" not in schooled
    model = start_chat_model(seen, schooled, size)
    words, pieces = build_llm_tokenizer(), build_qformer_tokenizer()
    trained = InstructModel(model, words)
    for known in (begun, seen):
        if known is not None:
            trained.slots.load_state_dict(_below(known, "slots."))
    heads_known = False
    for known in (schooled, begun):
        if known is not None and (lines := _below(known, "lines.")):
            unasked = trained.lines.load_state_dict(lines, strict=False).missing_keys  # these begin now
            heads_known = not unasked
    if begun is not None:
        model.load_state_dict(_below(begun, "network."))
    angles = None
    if trained_model is not None:
        grow(model, read_folder(trained_model), [(read_vocabulary(trained_model), words)])
        angles = _angles(model.language_model, trained_model)
    model.vision_encoder.set_attn_implementation("eager")
    model.qformer.set_attn_implementation("eager")
    form = clip_format(model.config.vision_config)
    if bank:
        trained.requires_grad_(False)
        model.language_model.requires_grad_(True)
        model.projection.requires_grad_(True)
        trained.lines.requires_grad_(True)
        watched = TokenBank(model, pieces, form, bank, f"{seed} {process}")
        if seen is None and begun is None:
            watched.fit(trained.slots)
        watched.ask(trained.slots)
        if from_school:
            width = model.config.text_config.hidden_size
            watched.tell(model, Telling(words, width, SLOT_QUERIES, SCENE_QUERIES))
    loop = Loop(trained, folder, options, SLOWER if from_school else None)
    trained.train()
    for step in loop:
        trained.lines.teaches = heads_known or loop.progress > _HEADS_ALONE
        if angles is not None:
            angles.slide(loop.progress / _SLIDING)
        rng = Random(f"instruct {seed} {process} {step}")
        if bank:
            shown = watched.draw(rng, rows, choice=rng.random() < _CHOICE_SHARE)
        else:
            drawn = [draw_clip(rng, form) for _ in range(rows)]
            tokens = tell_clips(model, pieces, see_clips(model, drawn, form), choice=rng.random() < _CHOICE_SHARE)
            shown = ClipRows(tokens, [clip.scene for clip in drawn])
        syllabus = BEGINNING.towards(ALL, loop.progress) if from_school else ALL
        loss, values = instruct_loss(trained, words, rng, shown, rows=rows, text_rows=text_rows, syllabus=syllabus)
        loop.update(loss, values)
    if not process:
        model.save_pretrained(folder / "chat")
    return model


def main() -> None:
    """Command line: ``python -m videochat_tools.training.instruct language|instruct --folder DIR …``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("stage", choices=("language", "instruct"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument(
        "--align", type=existing_path, help="instruct: state.pt of the align stage; --begin can do without"
    )
    parser.add_argument("--language", type=existing_path, help="instruct: state.pt of the language stage")
    parser.add_argument(
        "--begin", type=existing_path, help="folder of a chat model to begin with; instruct: or state.pt of another run"
    )
    parser.add_argument("--bank", type=int, default=0, help="clips that a frozen tower and Q-Former watch")
    parser.add_argument("--rows", type=int, default=24, help="instruct: clips and conversations about them in a step")
    parser.add_argument("--text-rows", type=int, default=8, help="instruct: rows of text alone in a step")
    parser.add_argument("--hold", type=float, default=0.45, help="share of the time at the full rate")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--sight-rate", type=float, default=1.0, help="further factor on those of tower and Q-Former")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda, …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=SIZES, default="nano")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.set_default_device(arguments.device)
    process = join_processes()
    options = LoopOptions(arguments.minutes, hold=arguments.hold).scaled(arguments.rate)
    options = replace(options, matrix_rate=options.matrix_rate * arguments.sight_rate)
    if arguments.stage == "language":
        train_language(
            arguments.folder,
            options,
            seed=arguments.seed,
            process=process,
            start=arguments.begin,
            size=SIZES[arguments.size],
        )
        return
    try:
        train_instruct(
            arguments.folder,
            arguments.align,
            arguments.language,
            options,
            rows=arguments.rows,
            bank=arguments.bank,
            text_rows=arguments.text_rows,
            seed=arguments.seed,
            process=process,
            start=arguments.begin,
            size=SIZES[arguments.size],
        )
    except ConfigurationError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
