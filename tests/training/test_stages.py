"""The training code at work: what a step learns from, and that a run survives being stopped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import mean

import pytest
import torch
from torch import nn

from videochat_tools.models.videochat2 import VideoChat2ForConditionalGeneration, VideoChat2ForRetrieval
from videochat_tools.training.align import AlignModel, busy_losses, picture_losses, step_losses
from videochat_tools.training.bank import ClipRows, TokenBank, tell_clips
from videochat_tools.training.batches import encode_conversations
from videochat_tools.training.clips import attribute_labels, draw_clip, draw_texts, match_matrix, to_pixels
from videochat_tools.training.conversations import Conversation, converse
from videochat_tools.training.copying import start_with_copying
from videochat_tools.training.drills import binding_drill, copy_drill
from videochat_tools.training.instruct import (
    InstructModel,
    instruct_loss,
    language_conversations,
    language_loss,
    start_chat_model,
)
from videochat_tools.training.loop import Loop, LoopOptions, read_state
from videochat_tools.training.muon import Muon, orthogonalize
from videochat_tools.training.recipe import SIZES, chat_config, clip_format, retrieval_config, vision_config
from videochat_tools.training.slots import PlotHeads, SlotHeads, tells_plot
from videochat_tools.training.tokenizers import build_llm_tokenizer, build_qformer_tokenizer
from videochat_tools.training.world.language import caption, contradict, statement
from videochat_tools.training.world.scene import COLOURS, HELD_OUT, Scene, sample_busy_scene, sample_scene

FORM = clip_format(vision_config())


@pytest.fixture(scope="module")
def words():
    return build_llm_tokenizer()


@pytest.fixture(scope="module")
def pieces():
    return build_qformer_tokenizer()


def answers(conversation: Conversation) -> list[str]:
    return [piece.text for piece in conversation.pieces if piece.is_answer]


# ------------------------------------------------------------------------------------------------------------- data


def test_training_clips_never_show_what_is_held_out_but_its_words_are_spoken() -> None:
    seen = {(t.colour, t.shape) for seed in range(400) for t in sample_scene(Random(seed)).things}
    told = {(t.colour, t.shape) for seed in range(400) for t in sample_scene(Random(seed), held_out=None).things}
    assert not seen & HELD_OUT
    assert told >= HELD_OUT


def test_texts_of_a_clip_are_true_of_it_and_its_wrong_texts_are_not() -> None:
    for seed in range(100):
        rng = Random(seed)
        scene = sample_scene(rng)
        right, wrong = draw_texts(rng, scene, 3)
        matches = match_matrix([*right, *wrong], [scene])[:, 0].tolist()
        assert matches == [True] * len(right) + [False] * len(wrong)


def test_labels_stand_where_the_pixels_have_the_colour() -> None:
    names, agreed, total = list(COLOURS), 0, 0
    for seed in range(30):
        clip = draw_clip(Random(seed), FORM, splice=0.0)
        places, labels, motion = attribute_labels([clip], FORM)
        assert len(places) == len(labels["colour"]) == len(motion)
        for (_, token), colour, texture in zip(
            places.tolist(), labels["colour"].tolist(), labels["texture"].tolist(), strict=True
        ):
            if texture:  # stripes and dots are darker than their colour
                continue
            frame, cell = divmod(token, 16)
            patch = clip.frames[frame, cell // 4 * 16 : cell // 4 * 16 + 16, cell % 4 * 16 : cell % 4 * 16 + 16]
            distance = abs(patch.reshape(-1, 3).astype(int) - COLOURS[names[colour]]).sum(axis=1)
            agreed, total = agreed + bool((distance < 120).sum() > 5), total + 1
    assert agreed / total > 0.9  # the rest are rings, and objects behind others


def test_in_busy_clips_everything_acts() -> None:
    scenes = [sample_busy_scene(Random(seed)) for seed in range(50)]
    acting = [len({event.subject for event in scene.events}) / len(scene.things) for scene in scenes]
    assert sum(acting) / len(acting) > 0.95


def test_a_citation_in_training_is_always_a_timecode_of_the_context() -> None:
    cited = 0
    for seed in range(150):
        rng = Random(seed)
        conversation = converse(rng, [sample_scene(rng) for _ in range(rng.randint(1, 3))], None)
        context = "".join(piece.text for piece in conversation.pieces if not piece.is_answer)
        for answer in answers(conversation):
            for citation in re.findall(r"\[[\d:–]+\]", answer):
                cited += 1
                assert citation in context
    assert cited > 100


def test_a_question_about_several_clips_fits_only_the_one_that_is_cited() -> None:
    for seed in range(100):
        rng = Random(seed)
        scenes = [sample_scene(rng) for _ in range(3)]
        conversation = converse(rng, scenes, [0, 1, 2], kinds=("which", "direction"))
        assert len({piece.clip for piece in conversation.pieces if piece.clip is not None}) == 3
        assert all("[" in answer or answer.strip().startswith("Not found") for answer in answers(conversation))


def test_only_answers_and_the_mark_that_ends_them_are_predicted(words) -> None:
    rows = [copy_drill(Random(3)), binding_drill(Random(4)), converse(Random(5), [sample_scene(Random(5))], [0])]
    batch = encode_conversations(words, rows, 24)
    assert int(batch.visual_mask.sum()) == 24
    assert batch.clips == (0,)
    for number in range(len(batch.kinds)):
        text = words.decode(batch.targets[batch.answers == number])
        assert text.endswith("###")
    given = [answer.strip() for row in rows for answer in answers(row)]
    predicted = [
        words.decode(batch.targets[batch.answers == number]).removesuffix("###").strip()
        for number in range(len(batch.kinds))
    ]
    assert predicted == given


# ------------------------------------------------------------------------------------------------------------ stages


@pytest.mark.parametrize("size", ["nano", "half"])
def test_the_first_layers_start_out_copying(words, size: str) -> None:
    torch.manual_seed(0)
    model = VideoChat2ForConditionalGeneration(chat_config(1, len(words), SIZES[size])).language_model.eval()
    model.model.layers = model.model.layers[:2]  # what the others write at first is in the way, until they are trained
    plain = copied(model, range(300, len(words)))
    start_with_copying(model)
    assert plain < 0.05
    assert copied(model, range(300, len(words))) > 0.9
    # Five different tokens in twenty: the token before tells little, the last few tell most places.
    assert copied(model, range(300, 305)) > 0.6


def copied(model: nn.Module, vocabulary: range) -> float:
    """Share of tokens of a random sequence that are predicted right when it comes again."""
    generator = torch.Generator().manual_seed(1)
    once = torch.randint(vocabulary.start, vocabulary.stop, (8, 20), generator=generator)
    with torch.no_grad():
        logits = model(torch.cat([once, once], dim=1)).logits
    return float((logits[:, 23:-1].argmax(-1) == once[:, 4:]).float().mean())


def test_every_kind_of_step_trains_its_part(words, pieces) -> None:
    torch.manual_seed(0)
    align = AlignModel(VideoChat2ForRetrieval(retrieval_config(len(pieces))))
    for loss, values in (
        picture_losses(align, FORM, Random(0), 4),
        busy_losses(align, FORM, Random(1), 2),
        step_losses(align, pieces, FORM, Random(2), 10, match=True),
    ):
        assert torch.isfinite(loss) and values
        loss.backward()
    without = [name for name, parameter in align.named_parameters() if parameter.grad is None]
    # The captioning head is left out of the nano's stage 1; everything else learns.
    assert all("caption_head" in name for name in without), without

    chat = start_chat_model(align.state_dict(), None)
    clips = [draw_clip(Random(seed), FORM) for seed in range(3)]
    tokens = tell_clips(chat, pieces, chat.encode_frames(to_pixels(clips, FORM)), choice=False)
    seen = ClipRows(tokens, [clip.scene for clip in clips])
    loss, _ = instruct_loss(InstructModel(chat, words), words, Random(3), seen, rows=3, text_rows=1)
    loss.backward()
    for part in (
        chat.vision_encoder.layers[0].fc1,
        chat.projection,
        chat.qformer.layers[0].cross_attention.key,
        chat.language_model.model.layers[0].mlp.up_proj,
    ):
        assert float(part.weight.grad.abs().sum()) > 0


def test_clips_that_are_watched_once_are_told_of_in_both_ways(pieces) -> None:
    torch.manual_seed(0)
    chat = start_chat_model(None, None)
    bank = TokenBank(chat, pieces, FORM, 32, seed="0")
    (plain, choice), scenes = bank.tokens, bank.scenes
    assert plain.shape == choice.shape == (len(scenes), 24, 160) == (32, 24, 160)
    assert not torch.equal(plain, choice)  # the Q-Former is told something else where MVBench asks
    assert not plain.requires_grad
    again = TokenBank(chat, pieces, FORM, 32, seed="0").tokens
    assert torch.equal(again[0], plain)

    slots = SlotHeads(160, 16)
    bank.ask(slots)
    choice = torch.randn(choice.shape).bfloat16()  # a Q-Former without training says nearly the same of all clips
    bank.tokens = plain, choice
    drawn = bank.draw(Random(1), 5, choice=True)
    objects = slots.heads["object"].weight.detach()
    assert any(drawn.retold) and not all(drawn.retold)
    for told, scene, rows, retold in zip(drawn.tokens, drawn.scenes, drawn.held, drawn.retold, strict=True):
        place = next(place for place, seen in enumerate(scenes) if seen.seed == scene.seed)
        assert (scene == scenes[place]) is not retold
        if retold:
            continue
        kept = choice[place]
        assert 0.05 < _change(told[16:], kept[16:]) < 0.3  # free rows are the same, a little blurred
        assert len(rows) == len(scene.things) + len(scene.events)
        said, meant = (clip[:8].float() @ objects.T for clip in (told, kept))
        assert _change(said, meant) < 0.3 < _change(told[:8], kept[:8])  # what no head asks for is mixed with another's

    def shares(scenes: Sequence[Scene]) -> list[float]:
        return [mean(len(scene.events) > 1 for scene in scenes), mean(map(_has_meeting, scenes))]

    drawn = [scene for number in range(40) for scene in bank.draw(Random(number), 5, choice=False).scenes]
    for often, as_they_are in zip(shares(drawn), shares(scenes), strict=True):
        assert often > as_they_are + 0.1  # which of two events is asked about, and to whom, has to be found


def _has_meeting(scene: Scene) -> bool:
    return any(event.target is not None for event in scene.events)


def _change(told: torch.Tensor, kept: torch.Tensor) -> float:
    return float((told - kept).std() / kept.std())


def test_a_few_steps_lower_the_loss(words, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VideoChat2ForConditionalGeneration(chat_config(1, len(words))).language_model
    start_with_copying(model)
    rows = language_conversations(Random(0), 6)
    loop = Loop(model, tmp_path, LoopOptions(minutes=10.0, warm_up=0.0).scaled(0.3))
    losses = []
    for _ in range(8):
        loss, values = language_loss(model, words, rows)
        loop.update(loss, values)
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]


def test_weights_that_are_named_move_slower(tmp_path: Path) -> None:
    model = nn.ModuleDict({"old": nn.Linear(2, 2), "new": nn.Linear(2, 2)})
    before = {name: model[name].bias.detach().clone() for name in model}
    loop = Loop(model, tmp_path, LoopOptions(minutes=10.0, warm_up=0.0), {"old.": 0.25})
    loop.update(sum(part.bias.sum() + 0.0 * part.weight.sum() for part in model.values()), {})
    moved = {name: (model[name].bias.detach() - before[name]).abs() for name in model}
    torch.testing.assert_close(moved["old"], 0.25 * moved["new"])
    assert bool((moved["new"] > 0.0).all())


def test_a_stopped_run_is_taken_up_where_it_was(tmp_path: Path) -> None:
    def run(folder: Path, steps: int) -> tuple[Loop, nn.Module]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1))
        loop = Loop(model, folder, LoopOptions(minutes=10.0, warm_up=0.0, hold=1.0))
        for step in range(loop.step, steps):
            inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            loop.update(((model(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean(), {})
            loop.step += 1
        loop.save()
        return loop, model

    _, whole = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 5)
    _, parts = run(tmp_path / "parts", 12)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_step_with_an_infinite_gradient_changes_nothing(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    before = model.weight.detach().clone()
    loop = Loop(model, tmp_path, LoopOptions(minutes=1.0))
    loop.update((model(torch.ones(1, 3)) * float("inf")).sum(), {})
    assert torch.equal(model.weight, before)


PROCESSES = """
import os
import sys
from pathlib import Path
import torch
from torch import nn
from videochat_tools.training.loop import Loop, LoopOptions, join_processes

process, folder = join_processes(), Path(sys.argv[1])
torch.manual_seed(0)
model = nn.ModuleDict({"used": nn.Linear(6, 6), "seldom": nn.Linear(6, 6, bias=False)})
loop = Loop(model, folder, LoopOptions(minutes=10.0, warm_up=0.0, hold=1.0))
steps = iter(loop)
for step in range(4):
    assert next(steps) == step
    losses = []
    for share in (process,) if process is not None else (0, 1):
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(10 * step + share))
        used = model["used"](inputs)
        used = model["seldom"](used) if share else used  # one process has no gradient of it
        losses.append(((used - inputs.sum(1, keepdim=True)) ** 2).mean())
    loop.update(torch.stack(losses).mean(), {})
loop.save()
os._exit(0)  # at a usual exit threads of the process group abort it now and then, when all is done
"""


def test_two_processes_take_the_steps_of_one_that_has_both_their_shares(tmp_path: Path) -> None:
    def run(name: str, *launcher: str, script: str) -> dict[str, torch.Tensor]:
        (tmp_path / f"{name}.py").write_text(script, encoding="utf-8")
        command = [sys.executable, *launcher, str(tmp_path / f"{name}.py"), str(tmp_path / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return read_state(tmp_path / name / "state.pt")

    one = run("one", script=PROCESSES.replace("join_processes(), Path", "None, Path"))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    two = run("two", *launcher, script=PROCESSES)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-5)


# -------------------------------------------------------------------------------------------------------------- muon


def test_muon_turns_gradients_into_nearly_orthogonal_updates_of_a_known_size() -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(2, 16, 40)).float())
    assert float(values.min()) > 0.5 and float(values.max()) < 1.5
    kernel = nn.Parameter(torch.zeros(16, 4, 3, 3))  # a convolution counts as a matrix
    kernel.grad = torch.randn_like(kernel)
    Muon([kernel], lr=0.01).step()
    assert 0.1 * 0.01 < float(kernel.pow(2).mean().sqrt()) < 0.4 * 0.01


def test_slots_ask_for_objects_and_events_in_any_order() -> None:
    torch.manual_seed(0)
    scenes = [sample_scene(Random(seed)) for seed in range(6)]
    heads = SlotHeads(width=12, queries=16)
    states = torch.randn(6, 16, 12)
    loss, _ = heads(states, scenes)
    turned = torch.cat([states[:, :8].flip(1), states[:, 8:].flip(1)], dim=1)
    assert float(heads(turned, scenes)[0]) == pytest.approx(float(loss), rel=1e-4)  # which query holds it is left free
    swapped = torch.cat([states[:, 8:], states[:, :8]], dim=1)
    assert float(heads(swapped, scenes)[0]) != pytest.approx(float(loss), rel=1e-4)  # objects first, then events

    free = nn.Parameter(torch.randn(6, 16, 12))
    optimizer = torch.optim.AdamW([free, *heads.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss, held = heads(free, scenes)
        loss.backward()
        optimizer.step()
    names = ("s_colour", "s_size", "s_texture", "s_kind", "s_who_colour", "s_whom_shape", "s_place", "s_begin", "s_end")
    assert {name: float(held[name]) for name in names} == dict.fromkeys(names, 1.0)
    for row, scene, found in zip(free, scenes, heads.find(free, scenes), strict=True):
        assert len(found) == len(scene.things) + len(scene.events) == len({*found.values()})
        for (name, number), query in found.items():
            logits = heads.heads[name](row[query])
            assert float(logits[0]) > 0 and (query >= 8) == (name == "event")
            if name == "object":
                assert [*COLOURS][int(logits[1 : 1 + len(COLOURS)].argmax())] == scene.things[number].colour


def test_plots_are_told_from_those_with_their_events_exchanged() -> None:
    torch.manual_seed(0)
    rng = Random(0)
    told = [(scene, contradict(rng, scene, "order")) for scene in map(sample_scene, map(Random, range(120)))]
    pairs = [(caption(rng, scene), turned) for scene, turned in told if turned is not None and tells_plot(turned)]
    texts, exchanged = map(list, zip(*pairs, strict=True))
    assert len(texts) > 5 and not tells_plot(statement(rng, told[0][0]))
    heads = PlotHeads(width=32)
    free = nn.Parameter(nn.functional.normalize(torch.randn(len(texts), 32), dim=1))
    optimizer = torch.optim.AdamW([free, *heads.parameters()], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss, right = heads(free, texts)
        loss.backward()
        optimizer.step()
    assert float(right) == 1.0
    assert float(heads(free, exchanged)[1]) < 0.2
