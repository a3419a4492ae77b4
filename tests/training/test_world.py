"""What is said of a scene must be seen in its pixels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import numpy.typing as npt
import pytest

from videochat_tools.training.world.dialogues import dialogue
from videochat_tools.training.world.language import ASPECTS, caption, contradict, name, statement
from videochat_tools.training.world.narration import narrate
from videochat_tools.training.world.questions import DENIED, KINDS, NOT_FOUND, ask
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import (
    ACTIONS,
    COLOURS,
    DIRECTIONS,
    HELD_OUT,
    INTERACTIONS,
    SHAPES,
    SIZES,
    Event,
    Scene,
    Thing,
    sample_scene,
)

SIDE = 96
Mask = npt.NDArray[np.bool_]


def scene_of(kind: str | None, thing: Thing, target: Thing | None = None, **changes: float) -> Scene:
    things = (thing,) if target is None else (thing, target)
    events = () if kind is None else (Event(kind, 0, 0.5, 4.5, None if target is None else 1, **changes),)
    return Scene(things, events, 5.0, seed=3)


def thing(colour: str = "red", shape: str = "square", size: str = "large", x: float = 0.5, y: float = 0.5) -> Thing:
    return Thing(colour, shape, size, "plain", x, y)


def mask(scene: Scene, time: float, index: int = 0) -> Mask:
    """Where the pixels have the colour of an object, bool [SIDE, SIDE]."""
    picture = render_clip(scene, [time], SIDE, SIDE, noise=0.0)[0].astype(int)
    return np.abs(picture - COLOURS[scene.things[index].colour]).max(axis=2) < 40


def centre(seen: Mask) -> tuple[float, float]:
    ys, xs = np.nonzero(seen)
    return float(xs.mean()) / SIDE, float(ys.mean()) / SIDE


@pytest.mark.parametrize("colour", COLOURS)
def test_a_thing_has_its_colour_where_the_state_says(colour: str) -> None:
    scene = scene_of(None, thing(colour, x=0.3, y=0.6))
    x, y = centre(mask(scene, 2.0))
    assert (x, y) == pytest.approx((0.3, 0.6), abs=0.02)
    others = [other for other in COLOURS if other != colour]
    picture = render_clip(scene, [2.0], SIDE, SIDE, noise=0.0)[0, round(0.6 * SIDE), round(0.3 * SIDE)].astype(int)
    own = np.abs(picture - COLOURS[colour]).sum()
    assert all(np.abs(picture - COLOURS[other]).sum() > own for other in others)


@pytest.mark.parametrize("way", DIRECTIONS)
def test_a_movement_goes_where_its_name_says(way: str) -> None:
    scene = scene_of(way, thing(size="small"), amount=0.3)
    before, after = centre(mask(scene, 0.1)), centre(mask(scene, 4.9))
    moved = (after[0] - before[0], after[1] - before[1])
    assert moved == pytest.approx(tuple(0.3 * step for step in DIRECTIONS[way]), abs=0.02)


def test_sizes_and_their_changes_are_seen() -> None:
    small, large = (mask(scene_of(None, thing(size=size)), 1.0).sum() for size in SIZES)
    assert large > 2 * small
    for kind in ("grow", "shrink"):
        early, late = (mask(scene_of(kind, thing()), time).sum() for time in (0.1, 4.9))
        smaller, larger = (early, late) if kind == "grow" else (late, early)
        assert larger > 2 * smaller


def test_appearing_disappearing_and_blinking_are_seen() -> None:
    counts = {
        kind: [int(mask(scene_of(kind, thing()), time).sum()) for time in np.arange(0.1, 5, 0.2)]
        for kind in ("appear", "disappear", "blink")
    }
    assert counts["appear"][0] == 0 < counts["appear"][-1]
    assert counts["disappear"][-1] == 0 < counts["disappear"][0]
    seen = [count > 0 for count in counts["blink"]]
    assert sum(one != other for one, other in pairwise(seen)) >= 4


def test_spinning_and_bouncing_leave_the_place() -> None:
    spin = scene_of("spin", thing(shape="triangle"), amount=0.4)
    early, late = mask(spin, 0.1), mask(spin, 3.0)
    assert (early ^ late).sum() > 0.2 * early.sum()
    assert centre(early) == pytest.approx(centre(late), abs=0.06)
    bounce = scene_of("bounce", thing(size="small", y=0.6))
    heights = [centre(mask(bounce, time))[1] for time in np.arange(0.1, 5, 0.2)]
    turns = np.diff(np.sign(np.diff(heights)))
    assert max(heights) - min(heights) > 0.15
    assert (turns != 0).sum() >= 3


def test_who_passes_behind_is_hidden_and_who_passes_in_front_hides() -> None:
    one, other = thing("red", x=0.2, size="small"), thing("blue", x=0.5, size="large")
    shares = {}
    for kind in ("behind", "front"):
        scene = scene_of(kind, one, other)
        meeting = 2.5  # the middle of the way, where both stand at the same place
        shares[kind] = mask(scene, meeting).sum() / mask(scene, 0.1).sum()
        assert centre(mask(scene, 4.9))[0] == pytest.approx(0.8, abs=0.03)
    assert shares["behind"] < 0.1
    assert shares["front"] > 0.9


def test_a_bump_touches_and_pushes() -> None:
    scene = scene_of("bump", thing("red", x=0.2, size="small"), thing("blue", x=0.6, size="small"))
    times = np.arange(0.1, 5, 0.1)
    gaps = [centre(mask(scene, time, 1))[0] - centre(mask(scene, time, 0))[0] for time in times]
    assert min(gaps) == pytest.approx(2 * 0.9 * SIZES["small"], abs=0.03)
    assert centre(mask(scene, 4.9, 1))[0] > centre(mask(scene, 0.1, 1))[0] + 0.1


def test_the_middle_square_is_what_a_wide_picture_shows() -> None:
    scene = scene_of(None, thing(x=0.25))
    wide = render_clip(scene, [1.0], 2 * SIDE, SIDE, noise=0.0)[0].astype(int)
    seen = np.abs(wide - COLOURS["red"]).max(axis=2) < 40
    assert np.nonzero(seen)[1].mean() / SIDE == pytest.approx(0.5 + 0.25, abs=0.02)


@pytest.mark.parametrize("held_out", [False, True, None])
def test_sampled_scenes_stay_in_the_picture_and_in_time(held_out: bool | None) -> None:
    rng, kinds = Random(f"scenes {held_out}"), set()
    for _ in range(1500):
        scene = sample_scene(rng, held_out=held_out)
        assert 4 <= scene.duration <= 8
        assert 1 <= len(scene.things) <= 3
        assert len({(each.colour, each.shape) for each in scene.things}) == len(scene.things)
        for event in scene.events:
            kinds.add(event.kind)
            assert 0 <= event.start < event.end <= scene.duration
            for time in np.linspace(event.start, event.end, 5):
                state = scene.state(event.subject, float(time))
                assert -0.05 < state.x < 1.05
                assert -0.05 < state.y < 1.05
        pairs = {(each.colour, each.shape) for each in scene.things}
        assert held_out is None or bool(pairs & HELD_OUT) is held_out
    assert kinds == {*ACTIONS, *INTERACTIONS}


def test_the_same_seed_gives_the_same_scene_and_pixels() -> None:
    scenes = [sample_scene(Random(5)) for _ in range(2)]
    assert scenes[0] == scenes[1] != sample_scene(Random(6))
    clips = [render_clip(scene, [0.0, 1.0], 64, 64) for scene in scenes]
    assert np.array_equal(*clips)


def test_captions_are_true_and_contradictions_are_not() -> None:
    rng, made = Random(1), dict.fromkeys(ASPECTS, 0)
    for _ in range(400):
        scene = sample_scene(rng, held_out=None)
        assert caption(rng, scene).facts <= scene.facts
        assert statement(rng, scene).facts <= scene.facts
        for aspect in ASPECTS:
            false = contradict(rng, scene, aspect)
            if false is not None:
                made[aspect] += 1
                assert not false.facts <= scene.facts
                assert false.text != caption(Random(0), scene, full=True).text
    assert min(made.values()) > 20, made


def test_a_lookalike_takes_a_circle_for_a_square_or_a_square_for_a_circle() -> None:
    seen = 0
    for scene in map(sample_scene, map(Random, range(200))):
        false = contradict(Random(0), scene, "lookalike")
        if false is None:
            continue
        said, shown = set(false.text.replace(",", "").split()), {thing.shape for thing in scene.things}
        assert {"circle", "square"} & said and {"circle", "square"} & shown
        assert (said & set(SHAPES)) ^ shown <= {"circle", "square"}
        seen += 1
    assert seen > 50


def test_questions_are_about_their_scene() -> None:
    rng = Random(2)
    answers: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for _ in range(500):
        scene = sample_scene(rng, held_out=None)
        for kind in KINDS:
            question = ask(rng, scene, kind)
            if question is None:
                continue
            answers[kind].add(question.answer)
            assert question.kind == kind
            assert question.question.endswith("?")
            assert question.facts <= scene.facts
            if kind == "count":
                assert question.answer == ("one", "two", "three")[len(scene.things) - 1]
            if kind == "which":
                assert question.answer in {f"the {name((t.colour, t.shape, None, None))}" for t in scene.things}
            if kind in ("colour", "shape", "size", "texture"):
                assert question.answer in {getattr(each, kind) for each in scene.things}
    assert answers["yesno"] == {"yes", "no"}
    assert answers["direction"] == set(DIRECTIONS)
    assert all(answers[kind] == {NOT_FOUND} for kind in DENIED)
    assert all(len(found) > 1 for kind, found in answers.items() if kind not in DENIED)


def test_an_answer_changes_with_what_is_seen() -> None:
    scene = Scene((thing("red", "star", x=0.3), thing("blue", "ring", x=0.7)), (Event("left", 0, 0.5, 4.5),), 5.0, 0)
    mirrored = replace(scene, events=(Event("right", 0, 0.5, 4.5),))
    for each, way in ((scene, "left"), (mirrored, "right")):
        question = ask(Random(1), each, "direction")
        assert question is not None
        assert question.answer == way


def test_a_dialogue_asks_different_things() -> None:
    rng = Random(3)
    for _ in range(50):
        turns = dialogue(rng, sample_scene(rng), 4)
        assert len({turn.question for turn in turns}) == len(turns) <= 4


def test_narration_keeps_topics_apart() -> None:
    rng, topics = Random(4), set[str]()
    sentences = [narrate(rng, topics) for _ in range(30)]
    assert len({sentence.topic for sentence in sentences}) == 30
    assert all(sentence.topic in sentence.text.split() for sentence in sentences)
