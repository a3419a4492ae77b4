"""The sample video: a plan as an H.264 file, its narration as subtitles beside it, and the truth in a third file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from videochat_tools.errors import MediaError
from videochat_tools.training.world.long_video import PlacedScene, TimedQuestion, VideoPlan, plan_video
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import Thing

__all__ = ["render_plan", "render_sample"]

Progress = Callable[[float, float], None]  # seconds of video written, seconds in all

_CHUNK = 16  # frames rendered at once; bounds memory, whatever the length of the video
_NOISE = 2.0  # of the camera, in 0..255
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
    progress: Progress | None = None,
) -> Path:
    """Write a video of the little world with known answers.

    Three files are written: the video without sound; ``OUT.vtt``, what is said; ``OUT.timeline.json``, the truth:
    scenes, events, captions, and questions with their answers and spans, in seconds. Nothing but an evaluation may
    read the last one.

    Args:
        path: The video, ``OUT.mp4``.
        minutes: Length.
        seed: The same seed and length give the same video.
        width: Pixels, even.
        height: Pixels, even.
        fps: Frames a second.
        progress: Called with the seconds written so far and those of the whole video.

    Returns:
        The path of the video.

    Raises:
        MediaError: where no video can be written to the path.
    """
    return render_plan(path, plan_video(minutes, seed, fps=fps), width=width, height=height, progress=progress)


def render_plan(
    path: str | Path, plan: VideoPlan, *, width: int = 320, height: int = 240, progress: Progress | None = None
) -> Path:
    """Write a planned video and its two companions; see :func:`render_sample`."""
    path = Path(path)
    if path.suffix.lower() not in _CONTAINERS:
        raise MediaError(f"cannot write {str(path)!r}: the name of a sample video ends in {', '.join(_CONTAINERS)}")
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_video(unfinished, plan, width, height, progress)
            _write_subtitles(path.with_suffix(".vtt"), plan)
            truth = json.dumps(_timeline(path.name, plan), indent=1)
            path.with_suffix(".timeline.json").write_text(truth + "\n", encoding="utf-8")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:  # PyAV's errors of writing are OSErrors too
        reason = error.strerror or error
        raise MediaError(f"cannot write {str(path)!r}: {reason}; choose another place for it") from error
    return path


def _write_video(path: Path, plan: VideoPlan, width: int, height: int, progress: Progress | None) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=plan.fps, options=_ENCODER)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, plan.fps)
        for place in plan.scenes:
            first, last = round(place.start * plan.fps), round(place.end * plan.fps)
            for begin in range(first, last, _CHUNK):
                numbers = range(begin, min(begin + _CHUNK, last))
                times = [(number - first) / plan.fps for number in numbers]
                pictures = render_clip(place.scene, times, width, height, noise=_NOISE)
                for number, picture in zip(numbers, pictures, strict=True):
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, plan.fps)
                    container.mux(stream.encode(frame))
            if progress is not None:
                progress(place.end, plan.duration)
        container.mux(stream.encode(None))


def _write_subtitles(path: Path, plan: VideoPlan) -> None:
    import pysubs2

    subtitles = pysubs2.SSAFile()
    subtitles.events = [
        pysubs2.SSAEvent(round(spoken.start * 1000), round(spoken.end * 1000), text=spoken.text)
        for spoken in (place.spoken for place in plan.scenes)
        if spoken is not None
    ]
    subtitles.save(str(path), format_="vtt")


def _timeline(name: str, plan: VideoPlan) -> dict[str, Any]:
    return {
        "video": name,
        "duration": plan.duration,
        "seed": plan.seed,
        "scenes": [_scene_entry(place) for place in plan.scenes],
        "questions": [_question_entry(question) for question in plan.questions],
        "absent_questions": [_question_entry(question) for question in plan.absent_questions],
    }


def _scene_entry(place: PlacedScene) -> dict[str, Any]:
    spoken = place.spoken
    return {
        "start": place.start,
        "end": place.end,
        "things": [_thing_entry(thing) for thing in place.scene.things],
        "events": [
            {
                "kind": event.kind,
                "subject": event.subject,
                "target": event.target,
                "start": round(place.start + event.start, 3),
                "end": round(place.start + event.end, 3),
            }
            for event in place.scene.events
        ],
        "caption": place.caption,
        "utterance": None if spoken is None else {"start": spoken.start, "end": spoken.end, "text": spoken.text},
    }


def _thing_entry(thing: Thing) -> dict[str, str]:
    return {"colour": thing.colour, "shape": thing.shape, "size": thing.size, "texture": thing.texture}


def _question_entry(question: TimedQuestion) -> dict[str, Any]:
    start, end = question.span or (None, None)
    return {
        "type": question.kind,
        "question": question.question,
        "answer": question.answer,
        "start": start,
        "end": end,
    }
