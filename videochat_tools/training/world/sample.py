"""The sample video: a plan as an H.264 file, its narration as subtitles or aloud, and the truth in a file beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from videochat_tools.errors import MediaError
from videochat_tools.training.world.config import STANDARD, WorldConfig
from videochat_tools.training.world.long_video import PlacedScene, VideoPlan, plan_video
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.timeline import SUFFIX, timeline
from videochat_tools.training.world.tracks import PictureTrack, SoundTrack
from videochat_tools.training.world.voice import SAMPLE_RATE, find_voice, speak

__all__ = ["render_plan", "render_sample"]

Progress = Callable[[float, float], None]  # seconds of video written, seconds in all

_CHUNK = 16  # frames rendered at once; bounds memory, whatever the length of the video
# x264's lookahead and its threads do not give the same bytes every time; this preset has none of the former.
_ENCODER = {"crf": "26", "preset": "superfast", "x264-params": "threads=1"}
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
        picture = PictureTrack(container, width, height, plan.fps, _ENCODER)
        sound = SoundTrack(container, SAMPLE_RATE) if speech else None
        for place in plan.scenes:
            count = round(place.end * plan.fps) - round(place.start * plan.fps)
            for begin in range(0, count, _CHUNK):
                times = [number / plan.fps for number in range(begin, min(begin + _CHUNK, count))]
                noise = plan.world.video_noise
                picture.write(render_clip(place.scene, times, width, height, noise=noise, world=plan.world))
            heard.append(place if sound is None else _say(place, sound))
            if progress is not None:
                progress(place.end, plan.duration)
        picture.close()
        if sound is not None:
            sound.close()
    return replace(plan, scenes=tuple(heard))


def _say(place: PlacedScene, sound: SoundTrack) -> PlacedScene:
    """Add the sound of the next scene, silence but for its sentence; returns the scene with the span of the voice."""
    first, last = round(place.start * SAMPLE_RATE), round(place.end * SAMPLE_RATE)
    samples = np.zeros(last - first, np.int16)
    spoken = place.spoken
    if spoken is not None:
        begin = round(spoken.start * SAMPLE_RATE) - first
        voice = speak(spoken.text, (len(samples) - begin) / SAMPLE_RATE)
        samples[begin : begin + len(voice)] = voice
        spoken = replace(spoken, end=round(spoken.start + len(voice) / SAMPLE_RATE, 3))
    sound.write(samples)
    return replace(place, spoken=spoken)


def _write_subtitles(path: Path, plan: VideoPlan) -> None:
    import pysubs2

    subtitles = pysubs2.SSAFile()
    subtitles.events = [
        pysubs2.SSAEvent(round(spoken.start * 1000), round(spoken.end * 1000), text=spoken.text)
        for spoken in (place.spoken for place in plan.scenes)
        if spoken is not None
    ]
    subtitles.save(str(path), format_="vtt")
