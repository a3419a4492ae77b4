"""An opened video stream: decodes forward, knows its keyframes, and seeks where that saves work."""

from __future__ import annotations

import bisect
import logging
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from videochat_tools.errors import UnreadableMediaError
from videochat_tools.media.opening import check_file, open_container, picture_stream, tick
from videochat_tools.media.sampling import TIME_TOLERANCE
from videochat_tools.types import VideoInfo

__all__ = ["Timeline", "VideoSource"]

_log = logging.getLogger(__name__)

_SEEK_GAIN = 0.3  # seconds of video that a seek must save: about what it costs to restart the decoder
_TOLERATED = 1.0  # seconds by which sound and picture, or a promise and the file, may differ without a meaning


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where decoding can start. All in seconds from the first frame, and in the stream's ticks for seeking."""

    key_times: list[float]
    key_ticks: list[int]
    picture_end: float  # when the last frame that is really in the file leaves the screen; 0.0 where unknown
    sound_end: float  # when the sound that is really in the file ends; 0.0 where unknown or without sound


class VideoSource:
    """The video stream of one file, with the frame on screen (``shown``) and the next one behind it.

    Args:
        path: the file.
        on_decoded: called with a number of frames whenever the decoder has produced some.
        like: an earlier source of the same file, closed or not; saves finding out again what it has found out.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        on_decoded: Callable[[int], None],
        like: VideoSource | None = None,
    ) -> None:
        self.path = check_file(path)
        self._on_decoded = on_decoded
        self._timeline: Timeline | None = like._timeline if like is not None else None
        self._info: VideoInfo | None = like._info if like is not None else None
        self._warned: bool = like._warned if like is not None else False
        self._open()

    # --- opening -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._container = open_container(self.path)
        try:
            self._stream = picture_stream(self._container, self.path)
            self._stream.thread_type = "AUTO"
            self._tick = tick(self._stream)
            self._sound = self._container.streams.audio[0] if self._container.streams.audio else None
            self._reorder_ticks = 0  # presentation minus decoding time of a keyframe
            self._frames = self._decode(after_seek=False)
            first = next(self._frames, None)
            if first is None:
                raise UnreadableMediaError(f"{self.path} holds no frame that can be decoded; the file is damaged")
        except BaseException:
            self._container.close()
            raise
        self._first_ticks = _ticks(first)
        self._first_seconds = float(self._first_ticks * self._tick)
        self._show(first)

    def close(self) -> None:
        """Close the file."""
        self._frames.close()
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- decoding ----------------------------------------------------------------------------------------------

    def _decode(self, after_seek: bool) -> Generator[av.VideoFrame, None, None]:
        """Frames with ascending presentation times; after a seek from the first keyframe on."""
        anchor: int | None = None  # presentation time of the keyframe that decoding starts with
        last: int | None = None
        first_packet = True
        for packet in self._packets():
            if first_packet and packet.size:
                if after_seek and not packet.is_keyframe:
                    continue
                if after_seek:
                    anchor = packet.pts
                elif packet.pts is not None and packet.dts is not None:
                    self._reorder_ticks = max(0, packet.pts - packet.dts)
                first_packet = False
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._damaged(str(error))
                continue
            self._on_decoded(len(frames))
            for frame in frames:
                if frame.pts is None:  # a raw stream without times: count on from the last one
                    frame.pts = 0 if last is None else last + self._ticks_per_frame()
                if anchor is not None and frame.pts < anchor:
                    continue  # refers to pictures before the keyframe, which were not decoded
                if last is not None and frame.pts <= last:
                    self._damaged("presentation times run backwards")
                    continue
                last = frame.pts
                yield frame

    def _packets(self) -> Iterator[av.Packet[av.VideoStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                self._damaged(str(error))
                last: av.Packet[av.VideoStream] = av.Packet(0)  # type: ignore[assignment]  # becomes one of the stream
                last.stream = self._stream
                yield last  # empty: makes the decoder hand out what it still holds
                return

    def _damaged(self, reason: str) -> None:
        """Say once that the file is damaged; the frames that could be decoded are kept."""
        if not self._warned:
            self._warned = True
            _log.warning("%s is damaged (%s); the frames that can be decoded are kept", self.path, reason)

    # --- the position ------------------------------------------------------------------------------------------

    def _show(self, frame: av.VideoFrame) -> None:
        self.shown = frame
        self.shown_time = self._seconds(_ticks(frame))
        self._ahead: av.VideoFrame | None = None
        self._ahead_known = False

    @property
    def ahead_time(self) -> float:
        """When the next frame appears, in seconds; infinite when there is none."""
        if not self._ahead_known:
            self._ahead = next(self._frames, None)
            self._ahead_known = True
        return math.inf if self._ahead is None else self._seconds(_ticks(self._ahead))

    def step(self) -> bool:
        """Go on by one frame; false at the end."""
        if self.ahead_time == math.inf:
            return False
        assert self._ahead is not None
        self._show(self._ahead)
        return True

    def move_to(self, time: float) -> None:
        """Make ``shown`` the frame that is on screen at ``time`` seconds (the first or last one outside the film)."""
        time = max(time, 0.0) + TIME_TOLERANCE
        if time < self.shown_time:
            self._seek(time)
        elif time > self.ahead_time + _SEEK_GAIN:
            timeline = self.timeline
            number = bisect.bisect_right(timeline.key_times, time) - 1
            if number >= 0 and timeline.key_times[number] > self.ahead_time + _SEEK_GAIN:
                self._seek(time)
        while self.ahead_time <= time:
            self.step()

    def _seek(self, time: float) -> None:
        """Restart decoding at the last keyframe before ``time``; further back where the container lands late."""
        timeline = self.timeline
        number = bisect.bisect_right(timeline.key_times, time) - 1
        while number > 0:
            self._frames.close()
            try:
                self._container.seek(timeline.key_ticks[number], stream=self._stream, backward=True)
            except av.FFmpegError:
                break
            self._frames = self._decode(after_seek=True)
            frame = next(self._frames, None)
            if frame is not None and self._seconds(_ticks(frame)) <= time:
                self._show(frame)
                return
            number -= 1
        self.close()
        self._open()

    # --- times -------------------------------------------------------------------------------------------------

    def _seconds(self, ticks: int) -> float:
        """Seconds since the first frame."""
        return (ticks - self._first_ticks) * self._tick.numerator / self._tick.denominator

    def _ticks_per_frame(self) -> int:
        rate = self._stream.average_rate or self._stream.guessed_rate or 25
        return max(1, round(1 / (rate * self._tick)))

    @property
    def timeline(self) -> Timeline:
        """The keyframes; from the container's index where it is complete, else from a pass over all packets."""
        if self._timeline is None:
            self._timeline = self._indexed_timeline() or self._scanned_timeline()
        return self._timeline

    def _indexed_timeline(self) -> Timeline | None:
        entries = list(self._stream.index_entries)
        # Matroska and MPEG-TS show few or none; a fragmented MP4 only what it has read so far.
        if not 0 < self._stream.frames <= len(entries):
            return None
        # The index holds decoding times, but FFmpeg's MP4 reader is asked for presentation times.
        keys = [entry.timestamp + self._reorder_ticks for entry in entries if entry.is_keyframe]
        sound = self._sound
        picture_end = sound_end = 0.0
        if self._stream.duration:
            began = self._first_ticks if self._stream.start_time is None else self._stream.start_time
            picture_end = self._seconds(began + self._stream.duration)
        if sound is not None and sound.duration:
            sound_end = float((sound.start_time or 0) + sound.duration) * float(tick(sound)) - self._first_seconds
        size = self.path.stat().st_size
        missing = next((entry for entry in entries if entry.pos + entry.size > size), None)
        if missing is not None:
            picture_end = max(0.0, self._seconds(missing.timestamp + self._reorder_ticks))
            sound_end = min(sound_end, picture_end)
            self._damaged(f"the file ends {picture_end:.1f} s into the film")
        return Timeline([self._seconds(key) for key in keys], keys, picture_end, sound_end)

    def _scanned_timeline(self) -> Timeline:
        times: list[float] = []
        ticks: list[int] = []
        picture_end = sound_end = 0.0
        by_presentation = "matroska" in self._container.format.name  # its cues name presentation times
        with open_container(self.path) as container:
            streams = [container.streams[s.index] for s in (self._stream, self._sound) if s is not None]
            try:
                for packet in container.demux(streams):
                    shown = packet.dts if packet.pts is None else packet.pts
                    if shown is None:
                        continue
                    if packet.stream.index != self._stream.index:
                        ended = float((shown + (packet.duration or 0)) * packet.time_base) - self._first_seconds
                        sound_end = max(sound_end, ended)
                        continue
                    ended = self._seconds(shown + (packet.duration or self._ticks_per_frame()))
                    picture_end = max(picture_end, ended)
                    if packet.is_keyframe and (not times or self._seconds(shown) > times[-1]):
                        times.append(self._seconds(shown))
                        ticks.append(shown if by_presentation or packet.dts is None else packet.dts)
            except av.FFmpegError as error:
                self._damaged(str(error))
        declared = self._declared_seconds()
        if by_presentation and max(picture_end, sound_end) < declared - _TOLERATED:
            self._damaged(f"{declared:.1f} s announced, {max(picture_end, sound_end):.1f} s present")
        return Timeline(times, ticks, picture_end, sound_end)

    # --- what the file holds -----------------------------------------------------------------------------------

    @property
    def start(self) -> float:
        """Presentation time of the first frame in the file's own clock, in seconds."""
        return self._first_seconds

    @property
    def info(self) -> VideoInfo:
        """What the file holds; may need a pass over its packets."""
        if self._info is None:
            self._info = self._describe()
        return self._info

    def _describe(self) -> VideoInfo:
        container, stream = self._container, self._stream
        quarter_turns = round(self.shown.rotation / 90) % 4  # counter-clockwise
        width, height = self.shown.width, self.shown.height
        if quarter_turns % 2:
            width, height = height, width
        sound = self._sound
        return VideoInfo(
            path=self.path,
            container=container.format.name,
            duration=self._find_duration(),
            start=self._first_seconds,
            width=width,
            height=height,
            fps=float(stream.average_rate or 0),
            rotation=-90 * quarter_turns % 360,
            video_codec=_codec_name(stream),
            audio_codec=_codec_name(sound) if sound is not None else None,
            subtitle_codecs=tuple(_codec_name(subtitle) for subtitle in container.streams.subtitles),
        )

    def _find_duration(self) -> float:
        """Seconds from the first frame to the end of the last, or of the sound where that goes on for long."""
        timeline = self.timeline
        picture = timeline.picture_end or self._declared_seconds()
        picture = max(picture, self.shown_time + float(self._ticks_per_frame() * self._tick))
        return timeline.sound_end if timeline.sound_end > picture + _TOLERATED else picture

    def _declared_seconds(self) -> float:
        """What the container says about its length, counted from the first frame; 0.0 where it says nothing."""
        if not self._container.duration:
            return 0.0
        end = (self._container.duration + (self._container.start_time or 0)) / av.time_base
        return max(0.0, end - self._first_seconds)


def _ticks(frame: av.VideoFrame) -> int:
    assert frame.pts is not None  # VideoSource._decode gives every frame a time
    return frame.pts


def _codec_name(stream: av.stream.Stream) -> str:
    """The codec as FFmpeg calls the format, not the decoder ("av1", not "libdav1d")."""
    context = stream.codec_context
    return "unknown" if context is None else context.codec.canonical_name
