"""What is no good video gets one clear line; what is damaged keeps its good part."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rendering import (
    barcode,
    cut_without_reencoding,
    read_barcode,
    render,
    render_audio,
    render_numbered,
    tone,
    truncate,
)

from videochat_tools.errors import (
    MediaError,
    MediaNotFoundError,
    MissingDependencyError,
    NoVideoStreamError,
    UnreadableMediaError,
)
from videochat_tools.media import open_video, probe, read_audio


def _write(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _headless(folder: Path) -> Path:
    """The second half of a film: no header, no index."""
    data = render_numbered(folder / "whole.mp4", 20).read_bytes()
    return _write("half.mp4", data[len(data) // 2 :])(folder)


def _grainy(path: Path) -> Path:
    """60 numbered frames with so much noise that the pictures, not the headers, fill the file."""
    noise = np.random.default_rng(0).integers(-25, 25, (60, 96, 128, 3))
    return render(path, [(barcode(number) + noise[number]).astype(np.uint8) for number in range(60)])


TEXT = b"not a film, only words\n" * 40
SUBTITLES = b"1\n00:00:01,000 --> 00:00:02,000\nHello.\n"

BAD: list[tuple[str, Callable[[Path], Path], type[MediaError], str]] = [
    ("missing", lambda folder: folder / "none.mp4", MediaNotFoundError, "no such file"),
    ("folder", lambda folder: folder, UnreadableMediaError, "is a folder"),
    ("empty", _write("empty.mp4", b""), UnreadableMediaError, "is empty"),
    ("text named mp4", _write("text.mp4", TEXT), UnreadableMediaError, "no readable media file"),
    ("text", _write("text.txt", TEXT), UnreadableMediaError, "no video file"),
    ("subtitles", _write("text.srt", SUBTITLES), UnreadableMediaError, "no video file"),
    ("headless", _headless, UnreadableMediaError, "no readable media file"),
    ("sound only", lambda folder: render_audio(folder / "sound.m4a", tone(1.0)), NoVideoStreamError, "no picture"),
]


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize(("make", "error", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_files_raise_one_clear_line(
    make: Callable[[Path], Path], error: type[MediaError], words: str, backend: str, tmp_path: Path
) -> None:
    if backend == "decord":
        pytest.importorskip("decord", reason="the extra [decord] is not installed")
    path = make(tmp_path)
    for look in (probe, lambda path: open_video(path, backend=backend)):
        with pytest.raises(error, match=words) as caught:
            look(path)
        assert type(caught.value) is error
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_truncated_film_keeps_its_frames_and_says_so(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _grainy(tmp_path / f"whole-{name}")
    path = truncate(whole, tmp_path / name, 0.6)
    with caplog.at_level(logging.WARNING), open_video(path) as video:
        frames = list(video.frames())
        numbers = [read_barcode(frame.image) for frame in frames]
        last = frames[-1].time
        assert numbers[:20] == list(range(20))
        assert last - 0.3 <= video.info.duration <= last + 0.5 < 5.0
        assert [read_barcode(frame.image) for frame in video.frames_at([1.0, 99.0])] == [10, numbers[-1]]
    messages = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert len(messages) == 1
    assert str(path) in messages[0]


def test_damage_inside_a_film_does_not_end_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = render_numbered(tmp_path / "film.mkv", 60, gop=10, b_frames=0)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\x00" * 400
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING), open_video(path) as video:
        times = [frame.time for frame in video.frames()]
    assert times == sorted(set(times))
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(5.9)


def test_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pyav, decord"):
        open_video(tmp_path / "film.mp4", backend="opencv")


def test_closed_readers_yield_nothing_more(tmp_path: Path) -> None:
    path = render_numbered(tmp_path / "film.mp4", 3)
    with open_video(path) as video:
        pass
    with pytest.raises(ValueError, match="closed"):
        next(video.frames())


def test_decord_is_kept_away_from_what_it_gets_wrong(tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the extra [decord] is not installed")
    whole = _grainy(tmp_path / "whole.mp4")
    for path, words in [
        (render_numbered(tmp_path / "film.ts", 20), "mpegts"),
        (render_numbered(tmp_path / "av1.mp4", 20, codec="libsvtav1"), "AV1"),
        (render_numbered(tmp_path / "hevc.mp4", 40, codec="libx265", gop=10), "open groups"),
        (cut_without_reencoding(whole, tmp_path / "cut.mp4", 1.7), "edit list"),
        (truncate(whole, tmp_path / "short.mp4", 0.6), "decord cannot read"),
    ]:
        with pytest.raises(MediaError, match=words) as caught:
            open_video(path, backend="decord")
        assert "backend='pyav'" in str(caught.value)


def test_decord2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decord = pytest.importorskip("decord", reason="the extra [decord] is not installed")
    monkeypatch.setattr(decord, "__version__", "3.4.0")
    with pytest.raises(MediaError, match="pip uninstall decord2"):
        open_video(render_numbered(tmp_path / "film.mp4", 3), backend="decord")


def test_without_decord_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    with pytest.raises(MissingDependencyError, match=r"videochat-tools\[decord\]"):
        open_video(render_numbered(tmp_path / "film.mp4", 3), backend="decord")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda folder: folder / "none.mp4", MediaNotFoundError, "no such file"),
        (_write("text.mp4", TEXT), UnreadableMediaError, "no readable media file"),
        (lambda folder: render_numbered(folder / "silent.mp4", 3), MediaError, "has no sound"),
    ],
    ids=["missing", "text", "silent"],
)
def test_sound_that_is_not_there(
    make: Callable[[Path], Path], error: type[MediaError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        read_audio(make(tmp_path))
