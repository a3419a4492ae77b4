"""Other worlds than the standard one: what is allowed, what is drawn, and that texts stay true in all of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest

from videochat_tools.errors import ConfigurationError
from videochat_tools.training.world.config import DIFFICULTIES, STANDARD, WorldConfig, load_world
from videochat_tools.training.world.contact_sheet import draw_sheet
from videochat_tools.training.world.dialogues import dialogue
from videochat_tools.training.world.language import caption, contradict, matches, statement
from videochat_tools.training.world.long_video import plan_video
from videochat_tools.training.world.questions import KINDS, ask
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    STILL,
    TEXTURES,
    Fact,
    Look,
    Scene,
    sample_busy_scene,
    sample_scene,
)

ROOT = Path(__file__).resolve().parents[2]
WORLDS = {
    **DIFFICULTIES,
    "few": WorldConfig(
        colours=("red", "cyan"),
        shapes=("ring", "star"),
        sizes=("large",),
        textures=("dotted",),
        object_weights=(0.5, 0.5),
        actions=("blink", "left"),
        interactions=("front",),
        event_weights=(0.3, 0.3, 0.4),
        duration=(2.0, 5.0),
        held_out=frozenset(),
    ),
    "crowded": WorldConfig(object_weights=(0, 0, 0, 0.5, 0.5), lookalike_share=1.0),
    "withheld": WorldConfig(held_out_actions=frozenset({("circle", "bounce"), ("green", "left"), ("star", "bump")})),
}
in_every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def true_of(fact: Fact, scene: Scene) -> bool:
    """Whether a fact holds, worked out from objects and events alone."""
    kind = fact[0]
    if kind == "count":
        return fact[1] == len(scene.things)
    if kind == "is":
        return any(matches(thing, fact[1]) for thing in scene.things)
    if kind == "then":
        _, first, one, second, other = fact
        return any(
            (before.kind, after.kind) == (first, second)
            and matches(scene.things[before.subject], one)
            and matches(scene.things[after.subject], other)
            for before, after in pairwise(scene.events)
        )
    if kind == "meets":
        return any(
            event.kind == fact[1]
            and event.target is not None
            and matches(scene.things[event.subject], fact[2])
            and matches(scene.things[event.target], fact[3])
            for event in scene.events
        )
    return any(matches(scene.things[index], fact[2]) for index in doers(scene, fact[1]))


def doers(scene: Scene, action: str) -> set[int]:
    if action == STILL:
        moved = {index for event in scene.events for index in (event.subject, event.target)}
        return set(range(len(scene.things))) - moved
    kinds = tuple(DIRECTIONS) if action == "move" else (action,)
    return {event.subject for event in scene.events if event.kind in kinds}


def said_of(rng: Random, scene: Scene) -> Iterator[frozenset[Fact]]:
    """The facts of one text of every form."""
    yield caption(rng, scene).facts
    yield statement(rng, scene).facts
    for kind in KINDS:
        question = ask(rng, scene, kind)
        if question is not None:
            yield question.facts


@in_every_world
def test_texts_are_true_of_their_scene_and_of_those_alone_that_have_their_facts(world: WorldConfig) -> None:
    rng = Random(7)
    scenes = [sample_scene(rng, held_out=None, world=world) for _ in range(40)]
    found = 0
    for scene in scenes:
        for facts in said_of(rng, scene):
            for other in scenes:
                judged = all(true_of(fact, other) for fact in facts)
                assert judged is (facts <= other.facts)
                assert judged or other is not scene
                found += judged
        false = contradict(rng, scene)
        assert false is None or not all(true_of(fact, scene) for fact in false.facts)
        assert len(dialogue(rng, scene, 3)) <= 3
    assert found > len(scenes)


@in_every_world
def test_scenes_have_what_their_world_has(world: WorldConfig) -> None:
    rng, looks, kinds, numbers = Random(8), set[Look](), set[str](), set[int]()
    for _ in range(300):
        scene = sample_scene(rng, world=world)
        looks |= {thing.look for thing in scene.things}
        kinds |= {event.kind for event in scene.events}
        numbers.add(len(scene.things))
        assert world.duration[0] <= scene.duration <= world.duration[1]
        for event in scene.events:
            doer = scene.things[event.subject]
            assert not {(doer.colour, event.kind), (doer.shape, event.kind)} & world.held_out_actions
            assert 0 <= event.start < event.end <= scene.duration
    for place, values in enumerate((world.colours, world.shapes, world.sizes, world.textures)):
        assert {look[place] for look in looks} == set(values)
    assert kinds == {*world.actions, *(world.interactions if max(numbers) > 1 else ())}
    assert numbers == {number for number, weight in enumerate(world.object_weights, 1) if weight}
    assert not {look[:2] for look in looks} & world.held_out
    assert len(sample_busy_scene(rng, world).things) == max(numbers)


@in_every_world
def test_long_videos_of_every_world_cut_where_they_say_and_ask_what_is_true_once(world: WorldConfig) -> None:
    plan = plan_video(2.0, 3, world=world)
    assert plan.duration == 120.0
    for one, other in pairwise(plan.scenes):
        assert one.end == other.start
        assert not {(t.colour, t.shape) for t in one.scene.things} & {(t.colour, t.shape) for t in other.scene.things}
    lengths = [place.end - place.start for place in plan.scenes]
    assert min(lengths) > world.duration[0] - 0.06
    assert max(lengths) < world.duration[1] + 0.06
    assert plan.questions
    assert plan == plan_video(2.0, 3, world=world)


def test_what_is_held_out_is_shown_when_asked_for_alone() -> None:
    world, rng = WORLDS["withheld"], Random(9)
    looks = actions = 0
    for _ in range(100):
        scene = sample_scene(rng, held_out=True, world=world)
        look = any((thing.colour, thing.shape) in world.held_out for thing in scene.things)
        action = any(
            world.withholds(scene.things[event.subject].colour, scene.things[event.subject].shape, event.kind)
            for event in scene.events
        )
        assert look or action
        looks, actions = looks + look, actions + action
    assert looks > 30
    assert actions > 30
    for action in ("bump", "grow"):  # neither is done in this world
        world = WorldConfig.from_dict({**WORLDS["few"].to_dict(), "held_out_actions": [["ring", action]]})
        with pytest.raises(ConfigurationError, match="held_out_actions"):
            sample_scene(rng, held_out=True, world=world)


def test_the_standard_world_is_the_one_that_the_weights_know() -> None:
    """Scenes and pixels of the default are those of the training runs: another draw would make every figure stale."""
    scenes = [sample_scene(Random(seed), held_out=(False, True, None)[seed % 3]) for seed in range(200)]
    assert sample_scene(Random(1), held_out=True) == sample_scene(Random(1), held_out=True, world=STANDARD)
    assert hashlib.sha256(repr(scenes).encode()).hexdigest().startswith("02e83f2670afd576")
    means = [render_clip(scene, [scene.duration / 2], 64, 64)[0].mean() for scene in scenes[:10]]
    assert means == pytest.approx([82.3, 78.5, 43.3, 85.3, 69.5, 89.9, 91.1, 75.9, 99.4, 52.6], abs=0.5)


def test_noise_and_backgrounds_are_those_of_the_world() -> None:
    noise = {}
    for name, world in DIFFICULTIES.items():
        scenes = [sample_scene(Random(seed), world=world) for seed in range(20)]
        clean, seen = (
            np.stack([render_clip(scene, [0.0], 64, 64, noise=level, world=world) for scene in scenes]).astype(float)
            for level in (0.0, None)
        )
        noise[name] = np.abs(seen - clean).mean()
    assert noise["easy"] < noise["standard"] < noise["hard"]
    empty = Scene((), (), 5.0, seed=1)
    for contrast in (0, 40):
        world = WorldConfig(background_levels=(80, 100), background_contrast=(contrast, contrast))
        background = render_clip(empty, [0.0], 64, 64, noise=0.0, world=world)[0].reshape(-1, 3).astype(int)
        assert np.ptp(background, axis=0) == pytest.approx([contrast] * 3, abs=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"colours": ["red", "pink"]}, ("colours", "pink", "purple")),
        ({"colours": []}, ("colours", "one or more")),
        ({"colours": "red"}, ("colours", "list")),
        ({"shapes": ["star", "star"]}, ("shapes", "twice")),
        ({"shapes": [["star"]]}, ("shapes", "circle")),
        ({"colours": ["red"], "shapes": ["star", "ring"]}, ("6 different", "more colours")),
        ({"sizes": ["large"], "object_weights": [0, 0, 0, 1]}, ("object_weights", "3 objects")),
        ({"object_weights": [1, 1, 1, 1, 1, 1]}, ("object_weights", "1 to 5 numbers")),
        ({"object_weights": [0, 0]}, ("object_weights", "not all of them 0")),
        ({"event_weights": [0.5, 0.5]}, ("event_weights", "0, 1 and 2 events")),
        ({"plain_share": 1.5}, ("plain_share", "from 0 to 1")),
        ({"plain_share": True}, ("plain_share", "from 0 to 1")),
        ({"duration": [8, 4]}, ("duration", "[least, most]", "seconds")),
        ({"duration": [5, 6]}, ("duration", "twice")),
        ({"travel": 0.3}, ("travel", "two numbers")),
        ({"clip_noise": float("nan")}, ("clip_noise", "from 0 to 64")),
        ({"held_out": [["ring", "red"]]}, ("held_out", "pairs", "one of red")),
        ({"held_out": [["red"]]}, ("held_out", "pairs")),
        ({"held_out_actions": [["circle", "spin"]]}, ("held_out_actions", "spinning", "square")),
        ({"actions": ["spin"], "shapes": ["circle", "ring"]}, ("actions", "spinning", "star")),
        ({"base": "medium"}, ("base", "easy, standard, hard")),
        ({"base": ["easy"]}, ("base", "easy, standard, hard")),
        ({"coulors": ["red"]}, ("no setting 'coulors'", "colours")),
    ],
)
def test_what_is_not_possible_is_refused_with_what_is(settings: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WorldConfig.from_dict(settings)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@in_every_world
def test_a_world_survives_being_written_down(world: WorldConfig) -> None:
    assert WorldConfig.from_dict(world.to_dict()) == world


def test_a_world_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    (example,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs" / "world.md").read_text("utf-8"), re.M | re.S)
    path.write_text(example, encoding="utf-8")
    world = load_world(path)
    assert world.colours == ("red", "green", "blue", "white")
    assert world.shapes == SHAPES
    assert world.clip_noise == DIFFICULTIES["hard"].clip_noise
    assert ("red", "ring") in world.held_out
    for text, words in (("colours = 3", "own.toml: the world's colours"), ("colours", "is no TOML file")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=words):
            load_world(path)
    with pytest.raises(ConfigurationError, match="name a TOML file"):
        load_world(tmp_path / "nowhere.toml")


def test_the_contact_sheet_shows_every_world() -> None:
    sheet = np.asarray(draw_sheet(DIFFICULTIES, 1, 0)).reshape(-1, 3).astype(int)
    seen = [name for name, colour in COLOURS.items() if (np.abs(sheet - colour).max(axis=1) < 16).sum() > 100]
    assert len(seen) >= 3
    assert set(TEXTURES) >= set(DIFFICULTIES["easy"].textures)
