"""The frames that a benchmark shows: by the reference's numbers, of videos and of folders of pictures."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError
from videochat_tools.evaluation.benchmarks.footage import Footage, read_frames


def grey(number: int) -> np.ndarray:
    return np.full((48, 64, 3), 6 * number, np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames these are, by their grey."""
    return [round(float(frame.mean()) / 6) for frame in frames]


@pytest.fixture
def counting(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """40 frames at 10 a second; the n-th is grey 6 n."""
    return write_video(tmp_path / "counting.mp4", (grey(number) for number in range(40)), fps=10)


def test_frames_of_a_whole_video_and_of_a_part(counting: Path) -> None:
    whole = read_frames(Footage(counting), 4, None)
    # (39 - 0) / 4 = 9.75: int(4.875 + round(9.75 i))
    assert numbers(whole.frames) == [4, 14, 24, 33]
    assert whole.seconds == pytest.approx((0.4, 1.4, 2.4, 3.3))
    part = read_frames(Footage(counting, (1.0, 2.0)), 4, 32)
    # frames 10 to 20: int(10 + 1.25 + round(2.5 i)), halves to even
    assert numbers(part.frames) == [11, 13, 16, 19]
    assert part.frames.shape == (4, 32, 32, 3)


def test_a_bound_may_reach_beyond_the_end(counting: Path) -> None:
    assert numbers(read_frames(Footage(counting, (3.0, 99.0)), 2, None).frames) == [32, 36]
    assert numbers(read_frames(Footage(counting, (50.0, 99.0)), 2, None).frames) == [39, 39]


def test_frames_are_taken_by_number_where_they_are_not_evenly_spaced(tmp_path: Path) -> None:
    import av

    path = tmp_path / "uneven.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 10)
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24")
            frame.pts = number if number < 10 else number + 40  # a pause of four seconds in the middle
            frame.time_base = Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = read_frames(Footage(path), 4, None)
    assert numbers(shown.frames) == [2, 7, 12, 16]
    assert shown.seconds == pytest.approx((0.2, 0.7, 5.2, 5.6), abs=0.01)


def test_pictures_of_a_folder_are_counted_from_one(tmp_path: Path) -> None:
    for number in range(1, 13):
        Image.fromarray(grey(number)).save(tmp_path / f"{number:05d}.jpg", quality=95)
    shown = read_frames(Footage(tmp_path, (0.0, 2.0), 3.0), 2, None)
    # pictures 1 to 6: int(1 + 1.25 + round(2.5 i))
    assert numbers(shown.frames) == [2, 4]
    assert shown.seconds == pytest.approx((1 / 3, 1.0))
    (tmp_path / "00002.jpg").unlink()
    with pytest.raises(MediaNotFoundError, match="gaps"):
        read_frames(Footage(tmp_path, (0.0, 2.0), 3.0), 2, None)


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError):
        read_frames(Footage(tmp_path / "none.mp4"), 2, None)
    with pytest.raises(UnreadableMediaError, match="no pictures"):
        read_frames(Footage(tmp_path), 2, None)
    (tmp_path / "00001.jpg").write_bytes(b"no picture")
    with pytest.raises(UnreadableMediaError, match=r"00001\.jpg"):
        read_frames(Footage(tmp_path), 2, None)
