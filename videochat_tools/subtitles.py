"""Subtitles that a video already has: a ``.vtt`` or ``.srt`` file beside it, else a text stream inside it.

The files are parsed by pysubs2; what it would pass over in silence (a timing line it cannot read) is an error here,
and what it would take for text (WebVTT notes and cue names) is removed before.
"""

from __future__ import annotations

import codecs
import html
import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from videochat_tools.errors import MediaError, NoVideoStreamError, UnreadableMediaError
from videochat_tools.types import TimeSpan, Transcript, Utterance

if TYPE_CHECKING:
    import av
    from av.subtitles.stream import SubtitleStream

__all__ = ["find_sidecar", "parse_subtitles", "read_embedded_subtitles", "read_sidecar", "read_subtitles"]

logger = logging.getLogger(__name__)

SIDECAR_SUFFIXES = (".vtt", ".srt")  # in this order: where both exist, WebVTT says its encoding and SubRip does not
TEXT_CODECS = frozenset({"ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt"})  # FFmpeg's names; not bitmaps
_NO_SUBTITLES = Transcript((), "none")

# en, pt-BR, zh_Hans, en-orig, optionally followed by what players add: talk.en.sdh.srt
_LANGUAGE_TAG = re.compile(r"([a-z]{2,3}(?:[-_][a-z0-9]{2,8})*)(?:\.(?:sdh|cc|hi|auto|default))?", re.IGNORECASE)
_ROLLING_GAP = 0.1  # seconds between two cues that still are one moving caption
_SECONDS_WITHOUT_DURATION = 5.0  # longest a cue without a duration of its own is taken to stay on the screen


def read_subtitles(path: str | Path, *, language: str | None = None) -> Transcript | None:
    """What is said, from a file beside the video, else from a text stream inside it; ``None`` without either.

    Args:
        path: the video.
        language: code such as ``"en"``, preferred where there are several; default: the file of the video's own name,
            then English, then the first.

    Raises:
        MediaError: there is a subtitle file, but it cannot be read.
    """
    path = Path(path)
    sidecar = find_sidecar(path, language=language)
    if sidecar is not None:
        transcript = read_sidecar(sidecar, language=_sidecar_language(path, sidecar))
        if transcript.utterances:
            return transcript
        logger.warning("%s holds no words; looking inside %s instead", sidecar, path.name)
    return read_embedded_subtitles(path, language=language)


# ------------------------------------------------------------------------------------------------ beside the video


def find_sidecar(path: str | Path, *, language: str | None = None) -> Path | None:
    """The subtitle file of a video: ``talk.vtt``, ``talk.srt`` or, with a language, ``talk.en.vtt``."""
    path = Path(path)
    if not path.parent.is_dir():
        return None
    found: list[tuple[int, str, int, Path]] = []
    for file in path.parent.iterdir():
        if file.suffix.lower() not in SIDECAR_SUFFIXES or not file.is_file():
            continue
        if file.stem != path.stem and _sidecar_language(path, file) is None:
            continue
        tag = (_sidecar_language(path, file) or "").lower()
        rank = _language_rank(tag, language)
        found.append((rank, tag, SIDECAR_SUFFIXES.index(file.suffix.lower()), file))
    return min(found)[-1] if found else None


def _sidecar_language(path: Path, sidecar: Path) -> str | None:
    if not sidecar.stem.startswith(path.stem + "."):
        return None
    match = _LANGUAGE_TAG.fullmatch(sidecar.stem[len(path.stem) + 1 :])
    return match[1] if match else None


def _language_rank(tag: str, wanted: str | None) -> int:
    """0 is best. ``tag`` is empty where a file or stream names no language."""
    if wanted is not None and tag.split("-")[0] == wanted.lower().split("-")[0]:
        return 0
    return 1 if not tag else 2 if tag.startswith("en") else 3


def read_sidecar(sidecar: str | Path, *, language: str | None = None) -> Transcript:
    """Read a ``.vtt`` or ``.srt`` file.

    Raises:
        MediaError: it is no subtitle file, or one of its timing lines is damaged.
    """
    sidecar = Path(sidecar)
    try:
        text = _decode(sidecar.read_bytes(), sidecar)
        return Transcript(parse_subtitles(text), "subtitles", language)
    except OSError as error:
        raise MediaError(f"cannot read the subtitles {sidecar}: {error.strerror or error}") from error
    except ValueError as error:
        raise MediaError(
            f"cannot read the subtitles {sidecar}: {error}; mend the file, or move it away to go on without it"
        ) from error


def _decode(data: bytes, sidecar: Path) -> str:
    """Byte order mark, else UTF-8, else Windows-1252, the usual 8-bit encoding of old .srt files (holds latin-1)."""
    if data.startswith(codecs.BOM_UTF8):
        return data.decode("utf-8-sig")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if b"\0" in data:
        raise ValueError("it is no text file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        logger.warning("%s is not UTF-8: read as Windows-1252; save it as UTF-8 if letters come out wrong", sidecar)
        return data.decode("cp1252", errors="replace")


def parse_subtitles(text: str) -> tuple[Utterance, ...]:
    """Parse WebVTT (where the text begins with ``WEBVTT``) or SubRip.

    Raises:
        ValueError: no cue at all, or a timing line that cannot be read; the message names the line.
    """
    import pysubs2
    from pysubs2.formats.webvtt import WebVTTFormat
    from pysubs2.time import TIMESTAMP

    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    is_webvtt = lines[0].lstrip().startswith("WEBVTT")
    timestamp = WebVTTFormat.TIMESTAMP if is_webvtt else TIMESTAMP
    timings = 0
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    for number, line in enumerate(lines, 1):
        if "-->" in line and len(timestamp.findall(line)) == 2:
            timings += 1
        elif "-->" in line or (number == last and _is_cut_off(lines[:number])):
            raise ValueError(f"line {number} is no timing line: {line.strip()[:60]!r} (a right one: {_EXAMPLE})")
    if not timings and not is_webvtt:  # a WebVTT file without a cue is a file in which nothing is said
        raise ValueError(f"it holds no cue (a cue begins with a line such as {_EXAMPLE})")
    lines = [_TIME_TAG.sub("", line) for line in (_webvtt_cues(lines) if is_webvtt else lines)]
    # pysubs2 takes a last line of digits for the number of the next cue: give it one, so that no words are lost.
    parsed = pysubs2.SSAFile.from_string("\n".join([*lines, "", "0"]), format_="vtt" if is_webvtt else "srt")
    cues = [(event.start / 1000, event.end / 1000, event.plaintext) for event in parsed]
    return tidy_cues(cues)


_TIME_TAG = re.compile(r"<[\d:.]+>")  # of a word in automatic captions; pysubs2 takes two of them for a timing line
_EXAMPLE = "00:00:01.000 --> 00:00:02.500"
_CUT_OFF_TIMING = re.compile(r"\s*\d{1,4}:\d{2}[:.,\d]*\s*-{0,2}\s*")  # what a truncated file may end with


def _is_cut_off(lines: Sequence[str]) -> bool:
    """Whether the last line is the first half of a timing line (and not a time of day that somebody says)."""
    before = lines[-2].strip() if len(lines) > 1 else ""
    return bool(_CUT_OFF_TIMING.fullmatch(lines[-1])) and (not before or before.isdigit())


def _webvtt_cues(lines: Sequence[str]) -> list[str]:
    """Only timing lines, numbered, and their text: a cue ends at the first empty line; names, notes, styles go."""
    kept: list[str] = []
    inside = False
    for line in lines:
        if "-->" in line:
            inside = True
            kept += ["", "0"]
        elif not line:  # a line of blanks is text: automatic captions keep their upper line open with one
            inside = False
        if inside:
            kept.append(line)
    return kept


# ------------------------------------------------------------------------------------------------ inside the video


def read_embedded_subtitles(path: str | Path, *, language: str | None = None) -> Transcript | None:
    """The best text subtitle stream of a video, on the video's clock; ``None`` where it has none that holds words.

    Raises:
        MediaError: the file is missing or no media file.
    """
    import av

    from videochat_tools.media import probe

    path = Path(path)
    try:
        info = probe(path)
        if not TEXT_CODECS.intersection(info.subtitle_codecs):
            return None
        start = info.start
    except NoVideoStreamError:
        start = 0.0
    with av.open(str(path)) as container:
        stream = _best_stream(container, language)
        if stream is None:
            return None
        try:
            cues = _stream_cues(container, stream)
        except av.FFmpegError as error:
            raise UnreadableMediaError(f"the subtitles inside {path} cannot be read: {error}") from error
        code = stream.metadata.get("language", "und")
    utterances = tidy_cues([(begin - start, end - start, text) for begin, end, text in cues if end > start])
    return Transcript(utterances, "subtitles", None if code == "und" else code) if utterances else None


def _best_stream(container: av.container.InputContainer, language: str | None) -> SubtitleStream | None:
    """By language, then the stream marked as default, then the first; never one with the foreign lines only."""
    from av.stream import Disposition

    candidates = [
        (
            _language_rank(stream.metadata.get("language", "und").replace("und", ""), language),
            not stream.disposition & Disposition.default,
            stream.index,
        )
        for stream in container.streams.subtitles
        if stream.codec_context.name in TEXT_CODECS and not stream.disposition & Disposition.forced
    ]
    return container.streams[min(candidates)[-1]] if candidates else None  # type: ignore[return-value]


def _stream_cues(container: av.container.InputContainer, stream: SubtitleStream) -> list[tuple[float, float, str]]:
    """All cues of a stream in the file's own clock: start, end (seconds), text."""
    import pysubs2

    found: list[tuple[float, float | None, str]] = []
    for packet in container.demux(stream):
        if packet.pts is None or not packet.size:
            continue
        begin = float(packet.pts * packet.time_base)
        end = begin + float(packet.duration * packet.time_base) if packet.duration else None
        # FFmpeg turns every text format into lines of ASS, whose override tags pysubs2 knows how to remove.
        texts = [rect.dialogue.decode("utf-8", "replace") for rect in stream.decode(packet) if rect.type == b"ass"]
        found.append((begin, end, "\n".join(pysubs2.SSAEvent(text=text).plaintext for text in texts)))
    cues = []
    for position, (begin, end, text) in enumerate(found):
        if end is None:
            following = found[position + 1][0] if position + 1 < len(found) else begin + _SECONDS_WITHOUT_DURATION
            end = min(max(following, begin), begin + _SECONDS_WITHOUT_DURATION)
        cues.append((begin, end, text))
    return cues


# ------------------------------------------------------------------------------------------------ cues → utterances


def tidy_cues(cues: Iterable[tuple[float, float, str]]) -> tuple[Utterance, ...]:
    """Clean text, drop cues without a word, and undo the rolling of automatic captions.

    Automatic captions show each line twice (as the new lower line, then as the old upper one) and, between the two,
    for some milliseconds alone. Others grow word by word. Either way each line is kept once, from the time it appears.

    Raises:
        ValueError: a cue ends before it begins.
    """
    utterances: list[Utterance] = []
    shown: list[str] = []  # the lines of the cue before, as they stood on the screen
    shown_until = float("-inf")
    for begin, end, text in sorted(cues, key=lambda cue: cue[0]):
        if end < begin:
            raise ValueError(f"the cue at {begin:.3f} s ends before it begins, at {end:.3f} s")
        lines = _clean_lines(text)
        if not lines:
            continue
        span = TimeSpan(max(begin, 0.0), max(end, 0.0))
        words = " ".join(lines).split(" ")
        known = _words_shown_before(shown, words) if begin <= shown_until + _ROLLING_GAP else 0
        new = " ".join(words[known:])
        if known and (not new or known not in _line_ends(lines)):  # the same caption stays, or its last line grows
            utterances[-1] = Utterance(utterances[-1].span.union(span), f"{utterances[-1].text} {new}".rstrip())
        else:
            utterances.append(Utterance(span, new))
        shown, shown_until = lines, end
    return tuple(utterances)


def _clean_lines(text: str) -> list[str]:
    """Lines that hold a letter or digit, without tags, entities and double spaces."""
    lines = (" ".join(html.unescape(line).split()) for line in text.splitlines())
    return [line for line in lines if any(character.isalnum() for character in line)]


def _words_shown_before(shown: Sequence[str], words: Sequence[str]) -> int:
    """How many of the first ``words`` are the last whole lines of ``shown``, rolled up or still in their place."""
    for first in range(len(shown)):
        before = " ".join(shown[first:]).split(" ")
        if before == list(words[: len(before)]):
            return len(before)
    return 0


def _line_ends(lines: Sequence[str]) -> set[int]:
    """The number of words up to the end of each line."""
    return set(itertools.accumulate(len(line.split(" ")) for line in lines))
