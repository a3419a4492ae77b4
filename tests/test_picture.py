"""The picture of an answer: made from the real frames, at the right places, whatever the answer is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from videochat_tools.errors import MediaNotFoundError
from videochat_tools.picture import render_answer
from videochat_tools.types import Answer, Evidence, SearchHit, TimeSpan

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (40, 60, 220)
ACCENT = (0x25, 0x63, 0xEB)


def evidence(video: Path, start: float, end: float, *, cited: bool = True, text: str = "") -> Evidence:
    hit = SearchHit("abc", video.name, video.as_uri(), TimeSpan(start, end), 0.9, text=text)
    return Evidence(hit, cited=cited)


def answered(*found: Evidence, text: str = "red [00:00–00:02]") -> Answer:
    return Answer("what colour is it?", text, True, found)


def pixels(path: Path) -> npt.NDArray[np.int16]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def share(image: npt.NDArray[np.int16], color: tuple[int, int, int], tolerance: int = 30) -> float:
    """The share of pixels within ``tolerance`` of a colour."""
    return float((np.abs(image - np.array(color, np.int16)).max(axis=2) <= tolerance).mean())


def test_it_shows_the_frames_of_the_cited_span(color_video: Path, tmp_path: Path) -> None:
    image = pixels(render_answer(answered(evidence(color_video, 2, 4)), tmp_path / "answer.png"))
    assert share(image, GREEN) > 0.2
    assert max(share(image, RED), share(image, BLUE)) < 0.001


def test_cited_spans_come_first_and_the_bar_shows_where_they_lie(color_video: Path, tmp_path: Path) -> None:
    answer = answered(evidence(color_video, 0, 2, cited=False), evidence(color_video, 4, 6))
    image = pixels(render_answer(answer, tmp_path / "answer.png"))
    first_row = {
        name: int(np.argmax((np.abs(image - np.array(color)).max(axis=2) <= 30).sum(axis=1) > 400))
        for name, color in (("red", RED), ("blue", BLUE))
    }
    assert 0 < first_row["blue"] < first_row["red"]

    marked = (np.abs(image - np.array(ACCENT)).max(axis=2) <= 8).sum(axis=1)
    columns = np.flatnonzero(np.abs(image[int(marked.argmax())] - np.array(ACCENT)).max(axis=1) <= 8)
    left, right = 48, image.shape[1] - 48  # the bar, from the first second to the last
    assert columns.min() == pytest.approx(left + (right - left) * 4 / 6, abs=4)
    assert columns.max() == pytest.approx(right, abs=4)


def test_only_so_many_spans_are_shown(color_video: Path, tmp_path: Path) -> None:
    spans = [evidence(color_video, start, start + 1) for start in (0, 2, 4)]
    image = pixels(render_answer(answered(*spans), tmp_path / "answer.png", max_spans=2))
    assert share(image, RED) > 0.05
    assert share(image, GREEN) > 0.05
    assert share(image, BLUE) < 0.001


def test_an_answer_that_was_not_found_is_a_picture_too(tmp_path: Path) -> None:
    out = render_answer(Answer("is there an elephant?", "Not found in the video.", False), tmp_path / "deep" / "no.png")
    assert share(pixels(out), (255, 255, 255), 0) > 0.8


def test_long_words_stay_inside(color_video: Path, tmp_path: Path) -> None:
    answer = Answer("why " * 100, "x" * 500, True, (evidence(color_video, 0, 2, text="and so on " * 200),))
    image = pixels(render_answer(answer, tmp_path / "answer.png"))
    assert image[:, -40:].min() == 255  # the right margin is empty
    assert image.shape[0] < 1500


def test_a_video_that_has_been_moved_is_named(color_video: Path, tmp_path: Path) -> None:
    answer = answered(evidence(color_video, 0, 2))
    color_video.rename(tmp_path / "elsewhere.mp4")
    with pytest.raises(MediaNotFoundError, match=r"colours\.mp4"):
        render_answer(answer, tmp_path / "answer.png")


def test_letters_beyond_ascii_are_drawn_somehow(tmp_path: Path) -> None:
    answer = Answer("où est le café? 何が見えますか", "Nicht gefunden – schade…", False)
    assert share(pixels(render_answer(answer, tmp_path / "answer.png")), (255, 255, 255), 0) < 1
