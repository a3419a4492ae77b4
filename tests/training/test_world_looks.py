"""Scenes with other looks: those that are told, and those that teach the tower what a shape is."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import torch

from videochat_tools.training.clips import UNNAMED, attribute_labels, draw_clip
from videochat_tools.training.recipe import clip_format, vision_config
from videochat_tools.training.slots import SlotHeads
from videochat_tools.training.world.looks import with_other_looks, with_stray_colours
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import COLOURS, HELD_OUT, sample_scene
from videochat_tools.training.world.vocabulary import SPINNABLE, rgb

FORM = clip_format(vision_config())


def test_other_looks_keep_all_but_colours_and_shapes() -> None:
    rng, withheld = Random(2), 0
    scenes = [sample_scene(rng) for _ in range(500)]
    for scene in scenes:
        told = with_other_looks(rng, scene)
        assert told.events == scene.events and len(told.things) == len(scene.things)
        for event in told.events:
            assert event.kind != "spin" or told.things[event.subject].shape in SPINNABLE
        for one, was in zip(told.things, scene.things, strict=True):
            assert (one.size, one.texture, one.x, one.y) == (was.size, was.texture, was.x, was.y)
            for other, other_was in zip(told.things, scene.things, strict=True):
                assert (one.colour == other.colour) == (was.colour == other_was.colour)
                assert (one.shape == other.shape) == (was.shape == other_was.shape)
        withheld += any((thing.colour, thing.shape) in HELD_OUT for thing in told.things)
    assert 0.45 < withheld / len(scenes) < 0.75


def test_stray_colours_are_never_nearest_to_one_in_which_the_shape_is_held_out() -> None:
    rng, strays = Random(0), set()
    for _ in range(300):
        scene = sample_scene(rng)
        stray = with_stray_colours(rng, scene)
        for thing, was in zip(stray.things, scene.things, strict=True):
            assert replace(thing, colour=was.colour) == was
            apart = {
                name: sum((a - b) ** 2 for a, b in zip(rgb(thing.colour), rgb(name), strict=True)) for name in COLOURS
            }
            assert (min(apart, key=apart.get), thing.shape) not in HELD_OUT
            strays.add(thing.colour)
    assert len(strays) > 500


def test_a_colour_without_a_name_is_drawn_and_not_asked_for() -> None:
    scene = with_stray_colours(Random(1), sample_scene(Random(1)))
    clip = draw_clip(Random(1), FORM, splice=0.0, scene=scene)
    _, labels, _ = attribute_labels([clip], FORM)
    assert set(labels["colour"].tolist()) == {UNNAMED} and UNNAMED not in labels["shape"].tolist()
    plain = replace(scene.things[0], colour="#c07020", texture="plain", size="large")
    alone = replace(scene, things=(plain,), events=())
    picture = render_clip(alone, [0.0], 64, 64, noise=0.0)[0].astype(int)
    x, y = int(64 * plain.x), int(64 * plain.y)
    nearest = abs(picture[y - 12 : y + 12, x - 12 : x + 12] - rgb("#c07020")).max(axis=-1).min()
    assert nearest <= 15  # colours vary by 14 a channel

    slots = SlotHeads(160, 16)
    loss, right = slots(torch.randn(2, 24, 160), [scene, scene])
    assert torch.isfinite(loss) and "s_shape" in right and "s_colour" not in right
