"""Subtitles beside a video and inside it, as a user would find them again in a search."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.subtitles.subtitle import SubtitleSet

from videochat_tools.errors import MediaError, MediaNotFoundError
from videochat_tools.subtitles import find_sidecar, parse_subtitles, read_sidecar, read_subtitles
from videochat_tools.types import Transcript

Cue = tuple[float, float, str]

VTT = """WEBVTT - made by hand
Kind: captions

STYLE
::cue { color: white }

NOTE the first words of the talk
written on two lines

opening
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Welcome to the <i>harbour</i>.

NOTE later

second-cue
01:00:03.000 --> 01:00:04.250
Bread &amp; butter,
and 42
"""

SRT = """1
00:00:01,000 --> 00:00:02,500
<b>Welcome</b> to the {\\an8}harbour.

2
00:00:02,600 --> 00:00:02,900
 ♪ ♪

3
01:00:03,000 --> 01:00:04,250
Bread & butter,
and
42
"""

# As a large video site writes automatic captions: every line comes twice, words are timed, ten milliseconds between.
ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:01.000 --> 00:00:03.000 align:start position:0%
\x20
the<00:00:01.500><c> ferry</c><00:00:02.000><c> leaves</c>

00:00:03.000 --> 00:00:03.010 align:start position:0%
the ferry leaves
\x20

00:00:03.010 --> 00:00:05.000 align:start position:0%
the ferry leaves
at<00:00:03.500><c> noon</c><00:00:04.000><c> today</c>

00:00:05.000 --> 00:00:05.010 align:start position:0%
at noon today
\x20

00:00:20.000 --> 00:00:22.000 align:start position:0%
at noon today
"""


def as_cues(transcript: Transcript | None) -> list[Cue]:
    assert transcript is not None
    assert transcript.source == "subtitles"
    return [(item.span.start, item.span.end, item.text) for item in transcript.utterances]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video_with_subtitles(tmp_path / "talk.mp4", None, [])


@pytest.mark.parametrize("text", [VTT, SRT, VTT.replace("\n", "\r\n"), SRT.replace("\n", "\r\n")])
def test_a_file_beside_the_video_is_read(video: Path, text: str) -> None:
    video.with_suffix(".vtt" if text.startswith("WEBVTT") else ".srt").write_bytes(text.encode())

    assert [(a, b, words.replace(" & ", " and ")) for a, b, words in as_cues(read_subtitles(video))] == [
        (1.0, 2.5, "Welcome to the harbour."),
        (3603.0, 3604.25, "Bread and butter, and 42"),
    ]


def test_rolling_captions_are_said_once(video: Path) -> None:
    video.with_suffix(".vtt").write_text(ROLLING, encoding="utf-8")

    # The last line is said again after a pause, and so it is kept.
    assert as_cues(read_subtitles(video)) == [
        (1.0, 3.01, "the ferry leaves"),
        (3.01, 5.01, "at noon today"),
        (20.0, 22.0, "at noon today"),
    ]


def test_captions_that_grow_word_by_word_become_one_sentence() -> None:
    cues = [(0, 1, "the"), (1, 2, "the ferry"), (2, 3, "the ferry\nleaves"), (3, 4, "the ferry\nleaves at noon")]

    heard = parse_subtitles(_srt(cues))

    assert [(item.span.start, item.span.end, item.text) for item in heard] == [
        (0.0, 2.0, "the ferry"),
        (2.0, 4.0, "leaves at noon"),
    ]


def test_a_word_that_two_sentences_share_does_not_join_them() -> None:
    heard = parse_subtitles(_srt([(0, 1, "I saw the cat"), (1, 2, "cat and dog were asleep"), (2, 3, "asleep?")]))

    assert [item.text for item in heard] == ["I saw the cat", "cat and dog were asleep", "asleep?"]


def test_cues_come_in_order_of_time() -> None:
    heard = parse_subtitles(_srt([(5, 6, "later"), (1, 2, "sooner"), (1.5, 3, "between")]))

    assert [item.text for item in heard] == ["sooner", "between", "later"]


def test_a_time_of_day_in_the_text_is_text() -> None:
    assert [item.text for item in parse_subtitles(_srt([(0, 1, "we meet at\n12:30")]))] == ["we meet at 12:30"]


@pytest.mark.parametrize(
    ("encoding", "warned"), [("utf-8", False), ("utf-8-sig", False), ("utf-16", False), ("latin-1", True)]
)
def test_encodings(tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, warned: bool) -> None:
    file = tmp_path / "zug.srt"
    file.write_bytes(_srt([(1, 2, "Der Zug fährt")]).encode(encoding))

    assert [item.text for item in read_sidecar(file).utterances] == ["Der Zug fährt"]
    assert ("not UTF-8" in caplog.text) is warned


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("talk.srt", b"", "no cue"),
        ("talk.srt", b"<html>404 not found</html>", "no cue"),
        ("talk.srt", b"\x00\x01\x02\x03", "no text file"),
        ("talk.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n2\n00:00:xx,000 --> 00:00:04,000\nyou\n", "line 6"),
        ("talk.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n2\n00:00:0", "line 6"),
        ("talk.vtt", b"WEBVTT\n\n00:01,000 --> 00:02,000\nhello\n", "line 3"),
        ("talk.vtt", b"WEBVTT\n\n00:05.000 --> 00:02.000\nhello\n", "ends before it begins"),
    ],
)
def test_a_damaged_file_is_named(video: Path, name: str, content: bytes, reason: str) -> None:
    (video.parent / name).write_bytes(content)

    with pytest.raises(MediaError, match=reason) as caught:
        read_subtitles(video)

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_captions_without_a_word_are_no_subtitles(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    video.with_suffix(".vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\n \n", encoding="utf-8")

    with caplog.at_level(logging.WARNING):
        assert read_subtitles(video) is None

    assert "talk.vtt holds no words" in caplog.text


@pytest.mark.parametrize(
    ("files", "language", "chosen"),
    [
        ((), None, None),
        (("other.vtt", "talks.vtt", "talk.part2.vtt", "talk.txt", "talk.en.forced.srt"), None, None),
        (("talk.srt",), None, "talk.srt"),
        (("talk.srt", "talk.vtt"), None, "talk.vtt"),
        (("talk.VTT",), None, "talk.VTT"),
        (("talk.de.vtt", "talk.en.vtt", "talk.fr.vtt"), None, "talk.en.vtt"),
        (("talk.de.vtt", "talk.en.vtt", "talk.fr.vtt"), "fr", "talk.fr.vtt"),
        (("talk.vtt", "talk.pt-BR.vtt"), None, "talk.vtt"),
        (("talk.vtt", "talk.pt-BR.vtt"), "pt", "talk.pt-BR.vtt"),
        (("talk.en.sdh.srt",), None, "talk.en.sdh.srt"),
    ],
)
def test_which_file_belongs_to_the_video(
    tmp_path: Path, files: Sequence[str], language: str | None, chosen: str | None
) -> None:
    for name in files:
        (tmp_path / name).write_text(SRT, encoding="utf-8")

    found = find_sidecar(tmp_path / "talk.mp4", language=language)

    assert (found.name if found else None) == chosen


def test_the_language_of_the_file_is_known(video: Path) -> None:
    video.with_name("talk.pt-BR.srt").write_text(SRT, encoding="utf-8")

    transcript = read_subtitles(video)

    assert transcript is not None
    assert transcript.language == "pt-BR"


@pytest.mark.parametrize("start", [0.0, 2.0])
@pytest.mark.parametrize(
    ("codec", "suffix"), [("mov_text", ".mp4"), ("subrip", ".mkv"), ("webvtt", ".mkv"), ("ass", ".mkv")]
)
def test_a_stream_inside_the_video_is_read_on_the_clock_of_its_picture(
    tmp_path: Path, codec: str, suffix: str, start: float
) -> None:
    cues = [(0.5, 1.5, r"Welcome to the {\i1}harbour{\i0}."), (3.0, 4.25, r"Bread and butter,\Nand 42")]
    video = write_video_with_subtitles(tmp_path / f"talk{suffix}", codec, cues, start=start)

    # Matroska keeps whole milliseconds, MP4 the ticks of the frame rate.
    assert [(round(a, 2), round(b, 2), text) for a, b, text in as_cues(read_subtitles(video))] == [
        (0.5, 1.5, "Welcome to the harbour."),
        (3.0, 4.25, "Bread and butter, and 42"),
    ]


def test_the_file_beside_comes_before_the_stream_inside(tmp_path: Path) -> None:
    video = write_video_with_subtitles(tmp_path / "talk.mkv", "subrip", [(0.5, 1.5, "inside")])
    assert [text for _, _, text in as_cues(read_subtitles(video))] == ["inside"]

    video.with_suffix(".srt").write_text(_srt([(0.5, 1.5, "beside")]), encoding="utf-8")

    assert [text for _, _, text in as_cues(read_subtitles(video))] == ["beside"]


def test_a_video_without_subtitles_has_none(video: Path) -> None:
    assert read_subtitles(video) is None


def test_a_missing_video_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"gone\.mp4"):
        read_subtitles(tmp_path / "gone.mp4")


# --------------------------------------------------------------------------------------------------- test material


def _srt(cues: Sequence[Cue]) -> str:
    def stamp(seconds: float) -> str:
        return f"00:00:{int(seconds):02d},{round(seconds % 1 * 1000):03d}"

    return "".join(f"{n}\n{stamp(a)} --> {stamp(b)}\n{text}\n\n" for n, (a, b, text) in enumerate(cues, 1))


_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def write_video_with_subtitles(path: Path, codec: str | None, cues: Sequence[Cue], *, start: float = 0.0) -> Path:
    """Five grey seconds whose time stamps begin at ``start``, with a subtitle stream of that codec."""
    milliseconds = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        words = container.add_stream(codec) if codec else None
        if words is not None:
            words.codec_context.subtitle_header = _ASS_HEADER
            words.time_base = words.codec_context.time_base = milliseconds
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + round(start * 10), Fraction(1, 10)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        for number, (begin, end, text) in enumerate(cues):
            line = f"{number},0,Default,,0,0,0,,{text}".encode()
            packet = words.codec_context.encode_subtitle(
                SubtitleSet.create(line, 0, round((end - begin) * 1000), round(begin * 1e6))
            )
            packet.stream, packet.time_base = words, milliseconds
            packet.pts = packet.dts = round((begin + start) * 1000)
            packet.duration = round((end - begin) * 1000)
            container.mux(packet)
    return path
