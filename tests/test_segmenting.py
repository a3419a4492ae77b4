"""Shots are found where the picture was really cut, on scenes rendered here with objects that do everything else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rendering import render

from videochat_tools.media import open_video
from videochat_tools.segmenting import FixedSegmenter, Segmenter, ShotSegmenter, SlidingSegmenter, make_segmenter
from videochat_tools.types import TimeSpan

Image = npt.NDArray[np.uint8]

_WIDTH, _HEIGHT, _FPS = 320, 240, 10
_NOISE = np.random.default_rng(0).normal(0, 2, (_HEIGHT, _WIDTH, 3)).astype(np.float32)
_YS, _XS = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float32)


def _background(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A muted gradient, stripes or a checkerboard."""
    base = rng.uniform(25, 105, 3) * 0.4 + 35
    other = base + rng.choice([-1, 1]) * rng.uniform(12, 30)
    kind = rng.integers(3)
    if kind == 0:
        mix = _XS / _WIDTH
    elif kind == 1:
        mix = (np.sin((_XS + _YS) / rng.uniform(6, 20)) > 0).astype(np.float32)
    else:
        cell = int(rng.integers(30, 80))
        mix = ((_XS // cell + _YS // cell) % 2).astype(np.float32)
    return (base + mix[..., None] * (other - base)).astype(np.float32)


def _scene(rng: np.random.Generator, frames: int) -> Iterator[Image]:
    """Two bright discs or squares; each moves, blinks, grows, or comes and goes."""
    background = _background(rng)
    things = [
        (rng.uniform(0.2, 0.8, 2), rng.uniform(20, 60), rng.uniform(60, 255, 3), rng.integers(2), rng.integers(4))
        for _ in range(2)
    ]
    for number in range(frames):
        picture = background.copy()
        done = number / frames
        for (x, y), radius, color, square, action in things:
            if action == 0:
                x = 0.1 + 0.8 * done
            elif action == 1 and number // 4 % 2:
                continue
            elif action == 2:
                radius = radius * (0.5 + done)
            elif action == 3 and done < 0.5:
                continue
            across, down = np.abs(_XS - x * _WIDTH), np.abs(_YS - y * _HEIGHT)
            inside = (np.maximum(across, down) if square else np.hypot(across, down)) < radius
            picture[inside] = color
        yield np.clip(picture + np.roll(_NOISE, number * 997), 0, 255).astype(np.uint8)


def _film(path: Path, lengths: list[int], seed: int, **options: object) -> Path:
    rng = np.random.default_rng(seed)
    pictures = itertools.chain.from_iterable(_scene(rng, length) for length in lengths)
    return render(path, pictures, fps=_FPS, gop=60, crf=26, **options)  # type: ignore[arg-type]


def _segment(path: Path, segmenter: Segmenter, backend: str = "pyav") -> list[TimeSpan]:
    with open_video(path, backend=backend) as video:
        spans = segmenter.segment(video)
        assert spans[0].start == 0.0
        assert spans[-1].end == video.info.duration
        assert spans == sorted(spans)
    if segmenter.name != "sliding":
        assert all(one.end == other.start for one, other in itertools.pairwise(spans))
    return spans


def test_cuts_are_found_and_moving_objects_are_none(tmp_path: Path) -> None:
    found = true = right = 0
    for seed in range(3):
        lengths = np.random.default_rng(100 + seed).integers(12, 36, 11).tolist()
        spans = _segment(_film(tmp_path / f"{seed}.mp4", lengths, seed), ShotSegmenter())
        cuts = set(np.cumsum(lengths)[:-1].tolist())
        got = {round(span.start * _FPS) for span in spans[1:]}
        found, true, right = found + len(got), true + len(cuts), right + len(cuts & got)
    assert right / true >= 0.95
    assert right / found >= 0.95


def test_cuts_in_real_footage_are_found_and_a_shaken_camera_is_none(shared: Path, tmp_path: Path) -> None:
    pictures: list[Image] = []
    cuts = []
    for name, start in [("yoga", 0.5), ("hitting_baseball", 0.0), ("playing_guitar", 4.0), ("making_cake", 7.2),
                        ("jesse_dance", 3.0), ("hitting_baseball", 6.0), ("making_cake", 4.0)]:  # fmt: skip
        cuts.append(len(pictures) / 25)
        with open_video(shared / "videos" / f"{name}.mp4", size=(320, 180)) as video:
            pictures += [frame.image for frame in video.frames(TimeSpan(start, start + 2.4), fps=25)]
    spans = _segment(render(tmp_path / "film.mp4", pictures, fps=25, gop=250, crf=26), ShotSegmenter())
    assert [span.start for span in spans] == pytest.approx(cuts, abs=0.001)


def test_real_footage_gives_sane_shots(shared: Path) -> None:
    for path in sorted((shared / "videos").glob("*.mp4")):
        spans = _segment(path, ShotSegmenter())
        assert len(spans) <= 3, path  # single takes; one of them whips the camera round
        assert min(span.duration for span in spans) >= 1.0


def test_a_dissolve_is_cut_in_its_middle(tmp_path: Path) -> None:
    one, other = np.full((_HEIGHT, _WIDTH, 3), 40.0), np.full((_HEIGHT, _WIDTH, 3), (200.0, 170.0, 120.0))
    shares = [0.0] * 30 + [number / 10 for number in range(1, 10)] + [1.0] * 30
    path = render(tmp_path / "film.mp4", [(one + share * (other - one)).astype(np.uint8) for share in shares])
    spans = _segment(path, ShotSegmenter())
    assert [span.start for span in spans] == pytest.approx([0.0, 3.4], abs=0.3)
    assert len(_segment(path, ShotSegmenter(soft_level=float("inf")))) == 1


def test_a_flash_is_no_cut(tmp_path: Path) -> None:
    pictures = list(_scene(np.random.default_rng(5), 60))
    pictures[30] = np.full_like(pictures[30], 250)
    assert len(_segment(render(tmp_path / "film.mp4", pictures), ShotSegmenter())) == 1


def test_bars_beside_the_picture_hide_no_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    pictures = [*_scene(rng, 30), *_scene(rng, 30)]
    for picture in pictures:
        picture[:, :110] = picture[:, 210:] = 0
    spans = _segment(render(tmp_path / "film.mp4", pictures), ShotSegmenter())
    assert [span.start for span in spans] == pytest.approx([0.0, 3.0])


def test_a_long_take_is_split_evenly(tmp_path: Path) -> None:
    path = _film(tmp_path / "film.mp4", [100], 1)
    assert [span.duration for span in _segment(path, ShotSegmenter(max_seconds=4.0))] == pytest.approx([10 / 3] * 3)
    assert len(_segment(path, ShotSegmenter())) == 1


def test_short_shots_join_a_neighbour(tmp_path: Path) -> None:
    path = _film(tmp_path / "film.mp4", [30, 6, 30, 7], 3)
    assert len(_segment(path, ShotSegmenter(min_seconds=0.0))) == 4
    spans = _segment(path, ShotSegmenter(min_seconds=1.0))
    assert len(spans) == 2
    assert spans[1].start in (pytest.approx(3.0), pytest.approx(3.6))


def test_a_single_frame_is_one_shot(tmp_path: Path) -> None:
    path = render(tmp_path / "film.mp4", [np.full((48, 64, 3), 90, np.uint8)])
    assert len(_segment(path, ShotSegmenter())) == 1
    assert len(_segment(path, FixedSegmenter())) == 1
    assert len(_segment(path, SlidingSegmenter())) == 1


def test_cuts_of_uneven_frames_lie_on_their_presentation_time(tmp_path: Path) -> None:
    lengths = [25, 30, 20]
    times = np.cumsum(np.random.default_rng(9).uniform(0.02, 0.25, sum(lengths))).round(3)
    times -= times[0]
    path = _film(tmp_path / "film.mp4", lengths, 9, times=times.tolist())
    starts = [span.start for span in _segment(path, ShotSegmenter())]
    assert starts == pytest.approx([0.0, times[25], times[55]], abs=1e-3)


def test_shots_are_found_in_one_pass(tmp_path: Path) -> None:
    from videochat_tools.media import frames_decoded_total

    path = _film(tmp_path / "film.mp4", [30, 30], 4)
    with open_video(path) as video:
        before = frames_decoded_total()
        ShotSegmenter().segment(video)
        assert frames_decoded_total() - before == 60


def test_fixed_and_sliding_windows(tmp_path: Path) -> None:
    path = render(tmp_path / "film.mp4", [np.full((48, 64, 3), 90, np.uint8)] * 50, fps=5)  # 10 s
    assert _segment(path, FixedSegmenter(4.0)) == [TimeSpan(0, 4), TimeSpan(4, 8), TimeSpan(8, 10)]
    assert _segment(path, FixedSegmenter(4.5)) == [TimeSpan(0, 4.5), TimeSpan(4.5, 10)]
    assert _segment(path, FixedSegmenter(60.0)) == [TimeSpan(0, 10)]
    assert _segment(path, SlidingSegmenter(4.0, 3.0)) == [TimeSpan(0, 4), TimeSpan(3, 7), TimeSpan(6, 10)]
    assert _segment(path, SlidingSegmenter(4.0, 4.0)) == [TimeSpan(0, 4), TimeSpan(4, 8), TimeSpan(6, 10)]
    assert _segment(path, SlidingSegmenter(60.0, 30.0)) == [TimeSpan(0, 10)]


def test_decord_finds_the_same_shots(tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the extra [decord] is not installed")
    path = _film(tmp_path / "film.mp4", [25, 30], 11)
    spans = _segment(path, ShotSegmenter(), backend="decord")
    assert [(span.start, span.end) for span in spans] == [(0.0, 2.5), (2.5, 5.5)]


def test_segmenters_by_name() -> None:
    assert make_segmenter("shots", max_seconds=8.0) == ShotSegmenter(max_seconds=8.0)
    assert make_segmenter("fixed", seconds=3.0) == FixedSegmenter(3.0)
    assert make_segmenter("sliding") == SlidingSegmenter(8.0, 4.0)
    assert repr(FixedSegmenter(3.0)) == "FixedSegmenter(seconds=3.0)"
    with pytest.raises(ValueError, match="shots, fixed, sliding"):
        make_segmenter("scenes")
    with pytest.raises(ValueError, match="has no option 'stride'; it has seconds"):
        make_segmenter("fixed", stride=2.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shots", {"min_seconds": 5.0, "max_seconds": 6.0}),
        ("shots", {"level": 0.0}),
        ("fixed", {"seconds": 0.0}),
        ("sliding", {"seconds": 4.0, "stride": 5.0}),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"need|must be"):
        make_segmenter(name, **options)
