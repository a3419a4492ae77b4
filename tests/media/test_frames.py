"""Which frame comes back for which time: every frame of these videos carries its number."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rendering import BARCODE_SIZE, barcode, cut_without_reencoding, read_barcode, render, render_numbered, tone

from videochat_tools.media import fps_times, frames_decoded_total, open_video, probe, uniform_times
from videochat_tools.types import TimeSpan

BACKENDS = ["pyav", "decord"]
UNEVEN = [round(0.037 * number + 0.013 * number**1.6, 3) for number in range(40)]  # seconds


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "decord":
        pytest.importorskip("decord", reason="the extra [decord] is not installed")
    return str(request.param)


def _plain(path: Path) -> Path:
    return render_numbered(path / "plain.mp4", 40)


def _uneven(path: Path) -> Path:
    return render_numbered(path / "uneven.mp4", 40, times=UNEVEN)


def _late(path: Path) -> Path:
    return render_numbered(path / "late.mp4", 40, start=2.0, audio=tone(4.0))


def _upright(path: Path) -> Path:
    return render_numbered(path / "turned.mp4", 40, rotation=90)


def _matroska(path: Path) -> Path:
    return render_numbered(path / "film.mkv", 40)


def _webm(path: Path) -> Path:
    return render_numbered(path / "film.webm", 40, codec="libvpx-vp9")


def _transport(path: Path) -> Path:
    return render_numbered(path / "film.ts", 40, start=2.0, audio=tone(4.0))


def _open_groups(path: Path) -> Path:
    return render_numbered(path / "hevc.mp4", 40, codec="libx265", gop=10)


def _edit_list(path: Path) -> Path:
    return cut_without_reencoding(render_numbered(path / "whole.mp4", 57), path / "cut.mp4", 1.7)


def _fragmented(path: Path) -> Path:
    return render_numbered(path / "pieces.mp4", 40, movflags="+frag_keyframe+empty_moov")


FOR_BOTH: list[Callable[[Path], Path]] = [_plain, _uneven, _late, _upright, _matroska, _webm]
FOR_PYAV: list[Callable[[Path], Path]] = [_transport, _open_groups, _edit_list, _fragmented]
CASES = [(make, backend) for make in FOR_BOTH for backend in BACKENDS] + [(make, "pyav") for make in FOR_PYAV]


@pytest.mark.parametrize(("make", "backend"), CASES, ids=[f"{make.__name__[1:]}-{backend}" for make, backend in CASES])
def test_every_time_gets_the_frame_on_screen_then(make: Callable[[Path], Path], backend: str, tmp_path: Path) -> None:
    if backend == "decord":
        pytest.importorskip("decord", reason="the extra [decord] is not installed")
    path = make(tmp_path)
    first = 17 if make is _edit_list else 0
    times = UNEVEN if make is _uneven else [number / 10 for number in range(40)]
    with open_video(path, backend=backend) as video:
        frames = list(video.frames())
        assert [read_barcode(frame.image) for frame in frames] == list(range(first, first + 40))
        assert [frame.time for frame in frames] == pytest.approx(times, abs=2e-3)
        assert frames[0].time == 0.0
        for seed, count in enumerate((3, 8, 30)):  # few: seeks; many: one after the other
            wanted = sorted(np.random.default_rng(seed).uniform(0, times[-1] + 0.3, count).tolist())
            shown = [bisect.bisect_right([frame.time for frame in frames], time) - 1 for time in wanted]
            got = list(video.frames_at(wanted))
            assert [read_barcode(frame.image) - first for frame in got] == shown
            assert [frame.time for frame in got] == [frames[number].time for number in shown]


def test_a_span_holds_the_frames_on_screen_within_it(backend: str, tmp_path: Path) -> None:
    with open_video(_plain(tmp_path), backend=backend) as video:
        assert [read_barcode(frame.image) for frame in video.frames(TimeSpan(1.0, 1.3))] == [10, 11, 12]
        assert [read_barcode(frame.image) for frame in video.frames(TimeSpan(1.05, 1.25))] == [10, 11, 12]
        assert [read_barcode(frame.image) for frame in video.frames(TimeSpan(3.85, 9.0))] == [38, 39]
        assert [read_barcode(frame.image) for frame in video.frames(TimeSpan(1.0, 2.0), fps=4)] == [10, 12, 15, 17]
        assert [read_barcode(frame.image) for frame in video.frames(fps=1)] == [0, 10, 20, 30]


def test_times_beyond_the_ends_give_the_first_and_last_frame(backend: str, tmp_path: Path) -> None:
    with open_video(_plain(tmp_path), backend=backend) as video:
        assert [read_barcode(frame.image) for frame in video.frames_at([-1.0, 0.0, 3.95, 99.0])] == [0, 0, 39, 39]
        assert list(video.frames_at([])) == []


@pytest.mark.parametrize("times", [[2.0, 1.0], [float("nan")]])
def test_times_must_ascend(times: list[float], backend: str, tmp_path: Path) -> None:
    with open_video(_plain(tmp_path), backend=backend) as video, pytest.raises(ValueError, match="times must"):
        list(video.frames_at(times))


def test_two_passes_at_once_do_not_disturb_each_other(backend: str, tmp_path: Path) -> None:
    with open_video(_plain(tmp_path), backend=backend) as video:
        pairs = zip(video.frames(), video.frames(TimeSpan(1.0, 3.0)), strict=False)
        numbers = [(read_barcode(one.image), read_barcode(other.image)) for one, other in pairs]
    assert numbers == [(number, number + 10) for number in range(20)]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_pictures_are_upright_and_scaled_to_the_size_asked_for(
    rotation: int, backend: str, tmp_path: Path
) -> None:
    path = render_numbered(tmp_path / "turned.mp4", 5, rotation=rotation)
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (*BARCODE_SIZE, rotation)
    with open_video(path, backend=backend, size=(64, 36)) as video:
        frames = list(video.frames())
        assert {frame.image.shape for frame in frames} == {(36, 64, 3)}
        assert {str(frame.image.dtype) for frame in frames} == {"uint8"}
        assert [read_barcode(frame.image) for frame in frames] == list(range(5))
        with video.resized(None) as full:
            assert next(full.frames()).image.shape == (BARCODE_SIZE[1], BARCODE_SIZE[0], 3)


def test_colours_stay_what_they_are(backend: str, tmp_path: Path) -> None:
    color = np.array([200, 60, 30], np.uint8)
    path = render(tmp_path / "plain.mp4", [np.full((48, 64, 3), color)] * 3, crf=10)
    with open_video(path, backend=backend) as video:
        assert np.abs(next(video.frames()).image.mean(axis=(0, 1)) - color).max() < 4


def test_counters_tell_how_much_was_really_decoded(backend: str, tmp_path: Path) -> None:
    path = render_numbered(tmp_path / "long.mp4", 300, gop=10)
    with open_video(path, backend=backend) as video:
        before, total = video.frames_decoded, frames_decoded_total()
        list(video.frames_at([1.0, 15.0, 29.0]))
        decoded = video.frames_decoded - before
        assert frames_decoded_total() - total == decoded
        assert 3 <= decoded < 100  # seeks to keyframes instead of decoding all 300
        list(video.frames_at([number / 10 for number in range(300)]))
        assert video.frames_decoded - before - decoded in range(300, 320)  # each frame once, whatever lies between


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts"])
def test_a_seek_lands_on_the_nearest_keyframe(name: str, tmp_path: Path) -> None:
    path = render_numbered(tmp_path / name, 400, gop=50)
    with open_video(path) as video:
        before = video.frames_decoded
        assert [read_barcode(frame.image) for frame in video.frames_at([10.5, 25.5, 39.0])] == [105, 255, 390]
        # From 100, 250 and 350 on, and a few frames of read-ahead each time.
        assert video.frames_decoded - before < 6 + 6 + 41 + 3 * 8


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.mp4", {}, {"duration": 4.0, "fps": 10.0, "video_codec": "h264", "audio_codec": None}),
        ("b.mp4", {"start": 2.0, "audio": tone(4.0)}, {"duration": 4.0, "start": 2.0, "audio_codec": "aac"}),
        ("c.ts", {"start": 2.0, "audio": tone(4.0)}, {"duration": 4.0, "start": 2.0, "container": "mpegts"}),
        ("d.mkv", {"audio": tone(4.5)}, {"duration": 4.0, "start": 0.0}),
        ("e.mp4", {"audio": tone(9.0)}, {"duration": 9.0}),  # the sound goes on for long after the last picture
        ("f.webm", {"codec": "libvpx-vp9"}, {"duration": 4.0, "video_codec": "vp9"}),
        ("g.mp4", {"codec": "libsvtav1"}, {"duration": 4.0, "video_codec": "av1"}),
        ("h.mpg", {"codec": "mpeg2video", "fps": 25.0}, {"duration": 1.6, "video_codec": "mpeg2video"}),
        ("i.mp4", {"times": UNEVEN}, {"duration": UNEVEN[-1]}),
        ("j.mp4", {"movflags": "+frag_keyframe+empty_moov"}, {"duration": 4.0}),
    ],
)
def test_probe(name: str, options: dict[str, Any], expected: dict[str, object], tmp_path: Path) -> None:
    info = probe(render_numbered(tmp_path / name, 40, **options))
    tolerance = 0.3 if "times" in options else 0.05  # how long the last frame stays, nothing says
    for field, value in expected.items():
        found = getattr(info, field)
        assert found == (pytest.approx(value, abs=tolerance) if isinstance(value, float) else value), field
    assert info.has_audio == ("audio" in options)


def test_names_with_spaces_and_colons_are_files(tmp_path: Path) -> None:
    path = render_numbered(tmp_path / "http: my film #1 ü.mp4", 3)
    with open_video(str(path)) as video:
        assert len(list(video.frames())) == 3


def test_a_single_frame_is_a_video(backend: str, tmp_path: Path) -> None:
    path = render(tmp_path / "one.mp4", [barcode(7)])
    with open_video(path, backend=backend) as video:
        assert [read_barcode(frame.image) for frame in video.frames()] == [7]
        assert [read_barcode(frame.image) for frame in video.frames_at([0.0, 5.0])] == [7, 7]
        assert 0 < video.info.duration < 0.5


def test_real_footage_is_read_the_same_by_both_backends(shared: Path) -> None:
    pytest.importorskip("decord", reason="the extra [decord] is not installed")
    times = uniform_times(TimeSpan(0.0, 9.0), 5)
    for path in sorted((shared / "videos").glob("*.mp4")):
        with open_video(path, size=(64, 48)) as one, open_video(path, backend="decord", size=(64, 48)) as other:
            for a, b in zip(one.frames_at(times), other.frames_at(times), strict=True):
                assert a.time == pytest.approx(b.time, abs=1e-3)
                assert np.abs(a.image.astype(int) - b.image).mean() < 8


def test_sampling_times() -> None:
    span = TimeSpan(10.0, 14.0)
    assert uniform_times(span, 4) == [10.5, 11.5, 12.5, 13.5]
    assert fps_times(span, 0.5) == [10.0, 12.0]
    assert fps_times(TimeSpan(0.0, 0.3), 10) == pytest.approx([0.0, 0.1, 0.2])
    assert fps_times(TimeSpan(3.0, 3.0), 1) == [3.0]
    with pytest.raises(ValueError, match="at least 1"):
        uniform_times(span, 0)
    with pytest.raises(ValueError, match="positive"):
        fps_times(span, 0)
