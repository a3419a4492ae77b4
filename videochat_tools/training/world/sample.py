"""The sample video: a plan as an H.264 file, its narration as subtitles or aloud, and the truth in a file beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videochat_tools.errors import MediaError
from videochat_tools.training.world.config import STANDARD, WorldConfig
from videochat_tools.training.world.long_video import PlacedScene, VideoPlan, plan_video
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.timeline import SUFFIX, timeline
from videochat_tools.training.world.voice import SAMPLE_RATE, Samples, find_voice, speak

__all__ = ["render_plan", "render_sample"]

Progress = Callable[[float, float], None]  # seconds of video written, seconds in all

_CHUNK = 16  # frames rendered at once; bounds memory, whatever the length of the video
# x264's lookahead and its threads do not give the same bytes every time; this preset has none of the former.
_ENCODER = {"crf": "26", "preset": "superfast", "x264-params": "threads=1"}
_AAC_FRAME = 1024  # samples; the encoder takes no other number but in its last frame
_CONTAINERS = (".mp4", ".mov", ".mkv")


def render_sample(
    path: str | Path,
    minutes: float = 10.0,
    seed: int = 0,
    *,
    width: int = 320,
    height: int = 240,
    fps: int = 10,
    world: WorldConfig = STANDARD,
    speech: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a video of the little world with known answers.

    Three files are written: the video; ``OUT.vtt``, what is said; ``OUT.timeline.json``, the truth: scenes, events,
    captions, and questions with their answers and spans, in seconds (:mod:`videochat_tools.training.world.timeline`).
    Nothing but an evaluation may read the last one.

    Args:
        path: The video, ``OUT.mp4``.
        minutes: Length.
        seed: The same seed and length give the same video.
        width: Pixels, even.
        height: Pixels, even.
        fps: Frames a second.
        world: What there is, what happens, and how hard it is to see.
        speech: Say the narration aloud, with eSpeak NG; without it the video has no sound.
        progress: Called with the seconds written so far and those of the whole video.

    Returns:
        The path of the video.

    Raises:
        MediaError: where no video can be written to the path.
        MissingProgramError: with ``speech``, where eSpeak NG is not on the PATH.
        ConfigurationError: with ``speech``, where the world's scenes are too short for a sentence.
    """
    plan = plan_video(minutes, seed, fps=fps, world=world)
    return render_plan(path, plan, width=width, height=height, speech=speech, progress=progress)


def render_plan(
    path: str | Path,
    plan: VideoPlan,
    *,
    width: int = 320,
    height: int = 240,
    speech: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a planned video and its two companions; see :func:`render_sample`."""
    path = Path(path)
    if path.suffix.lower() not in _CONTAINERS:
        raise MediaError(f"cannot write {str(path)!r}: the name of a sample video ends in {', '.join(_CONTAINERS)}")
    if speech:
        find_voice()  # before anything is written
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            plan = _write_video(unfinished, plan, width, height, speech, progress)
            _write_subtitles(path.with_suffix(".vtt"), plan)
            truth = json.dumps(timeline(path.name, plan), indent=1)
            path.with_suffix(SUFFIX).write_text(truth + "\n", encoding="utf-8")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:  # PyAV's errors of writing are OSErrors too
        reason = error.strerror or error
        raise MediaError(f"cannot write {str(path)!r}: {reason}; choose another place for it") from error
    return path


def _write_video(
    path: Path, plan: VideoPlan, width: int, height: int, speech: bool, progress: Progress | None
) -> VideoPlan:
    """Write picture and sound; returns the plan with the times at which sentences are really heard."""
    heard: list[PlacedScene] = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=plan.fps, options=_ENCODER)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, plan.fps)
        sound = _Sound(container) if speech else None
        for place in plan.scenes:
            first, last = round(place.start * plan.fps), round(place.end * plan.fps)
            for begin in range(first, last, _CHUNK):
                numbers = range(begin, min(begin + _CHUNK, last))
                times = [(number - first) / plan.fps for number in numbers]
                noise = plan.world.video_noise
                pictures = render_clip(place.scene, times, width, height, noise=noise, world=plan.world)
                for number, picture in zip(numbers, pictures, strict=True):
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, plan.fps)
                    container.mux(stream.encode(frame))
            heard.append(place if sound is None else sound.say(place))
            if progress is not None:
                progress(place.end, plan.duration)
        container.mux(stream.encode(None))
        if sound is not None:
            sound.close()
    return replace(plan, scenes=tuple(heard))


class _Sound:
    """The sound track: silence, and every sentence from the time on that the plan gives it."""

    def __init__(self, container: av.container.OutputContainer) -> None:
        self._container = container
        self._stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=48_000)
        self._waiting: Samples = np.zeros(0, np.int16)  # not a whole frame yet
        self._written = 0  # samples

    def say(self, place: PlacedScene) -> PlacedScene:
        """Add the sound of the next scene; returns the scene with the span of the voice."""
        first, last = round(place.start * SAMPLE_RATE), round(place.end * SAMPLE_RATE)
        track = np.zeros(last - first, np.int16)
        spoken = place.spoken
        if spoken is not None:
            begin = round(spoken.start * SAMPLE_RATE) - first
            voice = speak(spoken.text, (len(track) - begin) / SAMPLE_RATE)
            track[begin : begin + len(voice)] = voice
            spoken = replace(spoken, end=round(spoken.start + len(voice) / SAMPLE_RATE, 3))
        self._waiting = np.concatenate([self._waiting, track])
        whole = len(self._waiting) // _AAC_FRAME * _AAC_FRAME
        for position in range(0, whole, _AAC_FRAME):
            self._encode(self._waiting[position : position + _AAC_FRAME])
        self._waiting = self._waiting[whole:]
        return replace(place, spoken=spoken)

    def close(self) -> None:
        """Write what is left."""
        if len(self._waiting):
            self._encode(self._waiting)
        self._container.mux(self._stream.encode(None))

    def _encode(self, samples: Samples) -> None:
        planes = np.ascontiguousarray(samples[None] / np.float32(32_768), np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), self._written
        self._written += len(samples)
        self._container.mux(self._stream.encode(frame))


def _write_subtitles(path: Path, plan: VideoPlan) -> None:
    import pysubs2

    subtitles = pysubs2.SSAFile()
    subtitles.events = [
        pysubs2.SSAEvent(round(spoken.start * 1000), round(spoken.end * 1000), text=spoken.text)
        for spoken in (place.spoken for place in plan.scenes)
        if spoken is not None
    ]
    subtitles.save(str(path), format_="vtt")
