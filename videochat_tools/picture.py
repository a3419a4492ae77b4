"""An answer with its evidence as one picture: the question, the answer, frames of every span, and where they lie."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

from videochat_tools.media import open_video, uniform_times
from videochat_tools.types import Answer, Evidence, Frame, VideoInfo, format_timecode, uri_to_path

__all__ = ["render_answer"]

# All lengths are pixels of the finished picture. It is drawn DRAW times as large and scaled down, because Pillow
# draws the edges of shapes without smoothing.
DRAW = 2
WIDTH = 1200
MARGIN = 48
GAP = 14
FRAMES_PER_SPAN = 3
FRAME_WIDTH = (WIDTH - 2 * MARGIN - (FRAMES_PER_SPAN - 1) * GAP) // FRAMES_PER_SPAN
MAX_FRAME_HEIGHT = 300
BAR_HEIGHT = 22

PAPER = "#ffffff"
INK = "#1d2330"
SOFT = "#6b7385"
LINE = "#e3e6ec"
ACCENT = "#2563eb"  # spans the answer cites
OTHER = "#a9c1f5"  # spans that were retrieved beside them
MISSING = "#b45309"  # the answer was not found
FRAME_PAPER = "#10141d"

DASHES = str.maketrans({"–": "-", "—": "-", "−": "-"})
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf")


def render_answer(answer: Answer, out: str | Path, *, max_spans: int = 3) -> Path:
    """Draw ``answer`` as a PNG and return its path.

    Each span of evidence, the cited ones first, is shown as three frames with their own timecodes; a bar as long as
    the whole video shows where the spans lie. The frames are read from the files that the evidence names.

    Args:
        answer: What :meth:`VideoLibrary.ask` gave.
        out: Where to write the picture; folders on the way are created.
        max_spans: How many spans are shown at most; the bar marks all of them.

    Raises:
        MediaError: A video of the evidence has been moved or cannot be read any more.
    """
    ranked = sorted(answer.evidence, key=lambda evidence: not evidence.cited)  # stable: best first within each kind
    parts: list[_Part] = [_Heading(answer)]
    seen: set[str] = set()
    for evidence in ranked[:max_spans]:
        path = _source(evidence)
        with open_video(path) as reader:
            info = reader.info
            frames = tuple(reader.frames_at(uniform_times(evidence.span, FRAMES_PER_SPAN)))
        if evidence.hit.video_id not in seen:
            seen.add(evidence.hit.video_id)
            parts.append(_Timeline(info, [each for each in ranked if each.hit.video_id == evidence.hit.video_id]))
        parts.append(_Strip(evidence, frames))

    height = sum(part.height() for part in parts) + 2 * MARGIN
    image = Image.new("RGB", (WIDTH * DRAW, height * DRAW), PAPER)
    pen = _Pen(image)
    top = MARGIN
    for part in parts:
        part.draw(pen, top)
        top += part.height()
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    image.resize((WIDTH, height), Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out


def _source(evidence: Evidence) -> Path:
    return uri_to_path(evidence.hit.uri.split("#", 1)[0])


class _Pen:
    """Draws in finished pixels on the enlarged canvas."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)

    def text(self, left: float, top: float, text: str, size: int, color: str, anchor: str = "la") -> None:
        shown, font = _typeset(text, size * DRAW)
        self._draw.text((left * DRAW, top * DRAW), shown, fill=color, font=font, anchor=anchor)

    def box(self, left: float, top: float, right: float, bottom: float, color: str, radius: float = 0) -> None:
        corners = (left * DRAW, top * DRAW, right * DRAW - 1, bottom * DRAW - 1)
        self._draw.rounded_rectangle(corners, radius=radius * DRAW, fill=color)

    def picture(self, left: float, top: float, frame: Frame, width: int, height: int) -> None:
        """Place a frame in a cell of ``width`` x ``height``, whole, on a dark ground, with rounded corners."""
        cell = Image.new("RGB", (width * DRAW, height * DRAW), FRAME_PAPER)
        rows, columns = frame.image.shape[:2]
        scale = min(cell.width / columns, cell.height / rows)
        fitted = Image.fromarray(frame.image).resize(
            (max(1, round(columns * scale)), max(1, round(rows * scale))), Image.Resampling.BICUBIC
        )
        cell.paste(fitted, ((cell.width - fitted.width) // 2, (cell.height - fitted.height) // 2))
        mask = Image.new("L", cell.size, 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, cell.width - 1, cell.height - 1), radius=8 * DRAW, fill=255)
        self.image.paste(cell, (round(left * DRAW), round(top * DRAW)), mask)


class _Part(Protocol):
    """A horizontal stripe of the picture."""

    def height(self) -> int: ...

    def draw(self, pen: _Pen, top: int) -> None: ...


@dataclass(frozen=True)
class _Heading:
    """The question, and under it the answer."""

    answer: Answer

    QUESTION_SIZE, ANSWER_SIZE = 24, 38

    def height(self) -> int:
        question, answer = self._lines()
        return 33 * len(question) + 10 + 48 * len(answer) + 18

    def draw(self, pen: _Pen, top: int) -> None:
        question, answer = self._lines()
        for line in question:
            pen.text(MARGIN, top, line, self.QUESTION_SIZE, SOFT)
            top += 33
        top += 10
        for line in answer:
            pen.text(MARGIN, top, line, self.ANSWER_SIZE, INK if self.answer.found else MISSING)
            top += 48

    def _lines(self) -> tuple[list[str], list[str]]:
        width = WIDTH - 2 * MARGIN
        return (
            _wrap(self.answer.question, self.QUESTION_SIZE, width),
            _wrap(self.answer.text, self.ANSWER_SIZE, width),
        )


@dataclass(frozen=True)
class _Timeline:
    """The whole of one video as a bar, with every retrieved span marked."""

    info: VideoInfo
    evidence: Sequence[Evidence]

    def height(self) -> int:
        return 112

    def draw(self, pen: _Pen, top: int) -> None:
        left, right = MARGIN, WIDTH - MARGIN
        pen.box(left, top, right, top + 1, LINE)
        top += 20
        pen.text(left, top, _cut(self.evidence[0].video, 17, 860), 17, INK)
        pen.text(right, top, format_timecode(self.info.duration), 17, SOFT, anchor="ra")
        top += 30
        pen.box(left, top, right, top + BAR_HEIGHT, LINE, radius=5)
        seconds = max(self.info.duration, 1e-6)
        for evidence in sorted(self.evidence, key=lambda each: each.cited):  # cited spans are drawn on top
            begin = left + (right - left) * min(evidence.span.start / seconds, 1)
            end = left + (right - left) * min(evidence.span.end / seconds, 1)
            begin = min(begin, right - 4)
            pen.box(begin, top, max(end, begin + 4), top + BAR_HEIGHT, ACCENT if evidence.cited else OTHER, radius=2)
        top += BAR_HEIGHT + 6
        step = _tick_seconds(self.info.duration)
        for number in range(int(self.info.duration / step) + 1):
            position = left + (right - left) * number * step / seconds
            if number and right - position < 24:  # it would run over the edge
                continue
            pen.text(position, top, format_timecode(number * step), 13, SOFT, anchor="ma" if number else "la")


@dataclass(frozen=True)
class _Strip:
    """Frames of one span, and what is said during it."""

    evidence: Evidence
    frames: Sequence[Frame]

    def height(self) -> int:
        return 30 + self._frame_height() + 10 + 24 * len(self._speech()) + 18

    def draw(self, pen: _Pen, top: int) -> None:
        cited = self.evidence.cited
        pen.box(MARGIN, top + 3, MARGIN + 12, top + 15, ACCENT if cited else OTHER, radius=3)
        role = "cited" if cited else "also retrieved"
        pen.text(MARGIN + 22, top, f"{self.evidence.span}   {role}, match {self.evidence.hit.score:.2f}", 16, INK)
        top += 30
        height = self._frame_height()
        for number, frame in enumerate(self.frames):
            left = MARGIN + number * (FRAME_WIDTH + GAP)
            pen.picture(left, top, frame, FRAME_WIDTH, height)
            pen.box(left + 8, top + height - 32, left + 66, top + height - 8, FRAME_PAPER, radius=5)
            pen.text(left + 37, top + height - 20, format_timecode(frame.time), 15, PAPER, anchor="mm")
        top += height + 10
        for line in self._speech():
            pen.text(MARGIN, top, line, 16, SOFT)
            top += 24

    def _frame_height(self) -> int:
        tallest = max((frame.image.shape[0] / frame.image.shape[1] for frame in self.frames), default=9 / 16)
        return min(round(FRAME_WIDTH * tallest), MAX_FRAME_HEIGHT)

    def _speech(self) -> list[str]:
        text = " ".join(self.evidence.hit.text.split())
        if not text:
            return []
        lines = _wrap(f"“{text}”", 16, WIDTH - 2 * MARGIN)
        return lines if len(lines) <= 2 else [lines[0], _cut(f"{lines[1]} …”", 16, WIDTH - 2 * MARGIN)]


@lru_cache(maxsize=64)
def _own_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that no font file has to be found or fetched."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install Pillow from its wheel")
    return font


@lru_cache(maxsize=64)
def _system_fonts(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    fonts = []
    for name in SYSTEM_FONTS:
        with contextlib.suppress(OSError):  # not on this machine
            fonts.append(ImageFont.truetype(name, size))
    return tuple(fonts)


def _shows(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether the typeface has every letter of ``text``, by comparing each with the box it draws for none."""
    box = bytes(font.getmask("\uffff"))
    return all(letter.isspace() or bytes(font.getmask(letter)) != box for letter in set(text))


@lru_cache(maxsize=1024)
def _typeset(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """``text`` as it can be drawn, and the typeface for it.

    Pillow's own typeface knows little more than ASCII. What it lacks is drawn in a typeface of the system; where
    that fails too, letters lose their accents and what is still unknown becomes a question mark.
    """
    text = text.translate(DASHES)
    for font in (_own_font(size), *(() if text.isascii() else _system_fonts(size))):
        if _shows(font, text):
            return text, font
    own = _own_font(size)
    plain = unicodedata.normalize("NFKD", text)
    kept = (letter for letter in plain if not unicodedata.combining(letter))
    return "".join(letter if _shows(own, letter) else "?" for letter in kept), own


def _text_width(text: str, size: int) -> float:
    """Width in finished pixels, measured as it is drawn: letters do not scale exactly with their size."""
    shown, font = _typeset(text, size * DRAW)
    return font.getlength(shown) / DRAW


def _wrap(text: str, size: int, width: float) -> list[str]:
    """Break ``text`` between words so that each line fits; a single longer word is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and _text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, size, width))
    return lines or [""]


def _cut(text: str, size: int, width: float) -> str:
    """The beginning of ``text`` that fits, with an ellipsis where something was left out."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def _tick_seconds(duration: float) -> int:
    """A round step that puts at most ten timecodes under a bar of ``duration`` seconds."""
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600):
        if duration / step <= 10:
            return step
    return 3600 * max(1, round(duration / 36000))
