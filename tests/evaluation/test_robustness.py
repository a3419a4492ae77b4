"""The same scenes in other files: what is written is what the condition says, and what changes is counted in pairs."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

import numpy as np
import pytest

from videochat_tools.embeddings import NANO_ENCODER
from videochat_tools.evaluation.encoded import (
    BASE,
    COLOUR_SHIFTS,
    CONDITIONS,
    ColourShift,
    Condition,
    in_whole_frames,
    places_of,
    read_clips,
    write_files,
)
from videochat_tools.evaluation.held_out import held_out_scenes
from videochat_tools.evaluation.robustness import ALL_KINDS, Outcome, clips_for, compare, evaluate_robustness, main
from videochat_tools.library.clips import ClipShape, fit_frame
from videochat_tools.media import probe, uniform_times
from videochat_tools.testing import FakeVideoEncoder
from videochat_tools.training.world.render import render_clip

with_nano = pytest.mark.skipif(not (NANO_ENCODER / "config.json").is_file(), reason="no nano weights in this tree yet")
SCENES = in_whole_frames(held_out_scenes(3, new_pairs=False))
SHAPE = ClipShape(8, 64)


def test_every_condition_differs_from_the_base_in_one_point() -> None:
    assert CONDITIONS[0] == BASE
    for each in CONDITIONS[1:]:
        differing = [name for name in ("crf", "height", "fps", "colour") if getattr(each, name) != getattr(BASE, name)]
        assert len(differing) == 1, each
    assert [(each.width, each.height) for each in CONDITIONS[-3:]] == [(640, 480), (1280, 720), (1920, 1080)]
    assert len({each.name for each in CONDITIONS}) == len(CONDITIONS)


@pytest.mark.parametrize("fps", [10, 25, 30, 60])
def test_scenes_begin_and_end_on_frames_at_every_rate(fps: int) -> None:
    scenes = in_whole_frames(held_out_scenes(40, new_pairs=False))
    spans = places_of(scenes)
    assert spans[0].start == 0
    for scene, span, after in zip(scenes, spans, spans[1:], strict=False):
        assert span.end == after.start
        assert span.duration == pytest.approx(scene.duration, abs=1e-9)
        assert span.end * fps == pytest.approx(round(span.end * fps), abs=1e-6)
    for scene, drawn in zip(scenes, held_out_scenes(40, new_pairs=False), strict=True):
        assert scene.duration == pytest.approx(drawn.duration, abs=0.11)
        assert scene.facts == drawn.facts


def test_files_are_as_their_condition_says_and_show_the_scenes(tmp_path: Path) -> None:
    conditions = [BASE, Condition("crf32", crf=32), Condition("warm", colour="warm")]
    paths = write_files(tmp_path, SCENES, conditions)
    spans = places_of(SCENES)
    clips = {}
    for path, condition in zip(paths, conditions, strict=True):
        info = probe(path)
        assert (info.width, info.height, info.fps, info.video_codec) == (320, 240, 10, "h264")
        assert info.duration == pytest.approx(spans[-1].end, abs=1e-3)
        (batch,) = read_clips(path, spans, [SHAPE])
        assert batch.rows == (0, 1, 2)
        clips[condition.name] = batch.clips[SHAPE].astype(float)
    for number, (scene, span) in enumerate(zip(SCENES, spans, strict=True)):
        # The frame that is shown at a time is the last one before it.
        times = [int((time - span.start) * 10 + 1e-6) / 10 for time in uniform_times(span, 8)]
        drawn = render_clip(scene, times, 320, 240, noise=0.0)
        truth = np.stack([fit_frame(picture, 64) for picture in drawn]).astype(float)
        assert np.abs(clips["base"][number] - truth).mean() < 3
    assert paths[1].stat().st_size < paths[0].stat().st_size
    red, green, blue = (clips["warm"] - clips["base"]).mean(axis=(0, 1, 2, 3))
    assert red > 2 > abs(green) < 2
    assert blue < -2


def test_pictures_of_other_sizes_and_rates_show_the_same(tmp_path: Path) -> None:
    seen = []
    for condition in (BASE, Condition("30fps", fps=30), Condition("480p", height=480)):
        (path,) = write_files(tmp_path, SCENES[:1], [condition])
        assert (probe(path).height, probe(path).fps) == (condition.height, condition.fps)
        (batch,) = read_clips(path, places_of(SCENES[:1]), [SHAPE])
        seen.append(batch.clips[SHAPE].astype(float))
    assert np.abs(seen[1] - seen[0]).mean() < 8
    assert np.abs(seen[2] - seen[0]).mean() < 8
    with pytest.raises(ValueError, match="one height"):
        write_files(tmp_path, SCENES, [BASE, Condition("25fps", fps=25)])


def test_colours_are_shifted_as_much_as_is_said() -> None:
    colours = np.array([[[200, 60, 60], [60, 160, 60], [120, 120, 120]]], np.uint8)
    assert COLOUR_SHIFTS["as drawn"].apply(colours) is colours
    turned = COLOUR_SHIFTS["hue+8"].apply(colours)
    assert np.abs(turned[0, 2].astype(int) - 120).max() <= 1
    for before, after in zip(colours[0, :2], turned[0, :2], strict=True):
        hues = [360 * colorsys.rgb_to_hsv(*(value / 255 for value in colour))[0] for colour in (before, after)]
        assert 6 < (hues[1] - hues[0]) % 360 < 10
    back = COLOUR_SHIFTS["hue-8"].apply(turned)
    assert np.abs(back.astype(int) - colours).max() <= 2
    assert ColourShift(gains=(1.1, 1.0, 0.5), offset=10).apply(colours)[0, 0].tolist() == [230, 70, 40]
    assert ColourShift(offset=100).apply(colours).max() == 255


def test_large_pictures_get_fewer_clips() -> None:
    counts = {name: clips_for(Condition(name, height=int(name)), 2000) for name in ("240", "480", "720", "1080")}
    assert counts == {"240": 2000, "480": 2000, "720": 500, "1080": 200}
    assert clips_for(Condition("1080", height=1080), 300) == 100
    assert clips_for(Condition("1080", height=1080), 30) == 30
    assert clips_for(BASE, 250) == 200


def outcome(name: str, right: list[bool]) -> Outcome:
    made = Outcome(Condition(name), len(right))
    made.right["colour"] = {(clip, "what colour is it?"): value for clip, value in enumerate(right)}
    return made


def test_differences_are_those_of_the_same_items() -> None:
    base = outcome("base", [True] * 900 + [False] * 100)
    (same,) = compare(outcome("same", [True] * 900 + [False] * 100), base)
    assert (same.score.value, same.difference.value, same.stable) == (0.9, 0.0, "yes")
    assert same.difference.low < 0 < same.difference.high
    (worse,) = compare(outcome("worse", [True] * 840 + [False] * 160), base)
    assert worse.difference.value == pytest.approx(-0.06)
    assert worse.stable == "no"
    (fewer,) = compare(outcome("fewer", [True] * 29 + [False]), base)  # of those 30 the base was right on all
    assert fewer.difference.value == pytest.approx(-1 / 30)
    assert fewer.difference.total == 30
    assert fewer.stable == "unlikely"
    (few,) = compare(outcome("few", [True] * 30), base)
    assert few.difference.value == 0
    assert few.stable == "likely"


def test_captions_are_searched_under_every_condition(tmp_path: Path) -> None:
    conditions = [Condition("crf32", crf=32), Condition("25fps", fps=25)]
    outcomes = list(evaluate_robustness(FakeVideoEncoder(), None, tmp_path, clips=4, conditions=conditions))
    assert [each.condition.name for each in outcomes] == ["base", "crf32", "25fps"]
    for each in outcomes:
        assert list(each.right) == ["recall@1, pool 4"]
        assert set(each.right["recall@1, pool 4"]) == set(outcomes[0].right["recall@1, pool 4"])
        assert set(each.seconds) == {"drawn and encoded", "read", "watched", "searched"}
    assert outcomes[1].megabytes < outcomes[0].megabytes
    assert not list(tmp_path.iterdir())


@with_nano
def test_the_command_measures_the_nano(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    assert main(["--clips", "4", "--questions", "1", "--only", "crf32", "--json", str(report)]) == 0
    told = capsys.readouterr().out
    assert "## recall@1, pool 4" in told
    assert f"## {ALL_KINDS}" in told
    written = json.loads(report.read_text(encoding="utf-8"))
    base, other = written["conditions"]
    assert (base["name"], other["name"], other["crf"], other["clips"]) == ("base", "crf32", 32, 4)
    assert base["measures"]["colour"]["difference"] == 0
    assert other["measures"][ALL_KINDS]["n"] == sum(
        entry["n"] for name, entry in other["measures"].items() if name not in (ALL_KINDS, "recall@1, pool 4")
    )
    assert written["colours"]["hue+8"]["hue"] == 8


def test_wrong_usage_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--clips", "1"], ["--only", "dark"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "crf32" in capsys.readouterr().err
