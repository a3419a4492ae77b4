"""The timeline file: all that is true of a sample video, as JSON. docs/world.md describes every key."""

from __future__ import annotations

from typing import Any

from videochat_tools.training.world.long_video import PlacedScene, TimedQuestion, VideoPlan
from videochat_tools.training.world.scene import Thing

__all__ = ["SUFFIX", "timeline"]

SUFFIX = ".timeline.json"
_DIGITS = 3  # milliseconds, and thousandths of the picture


def timeline(name: str, plan: VideoPlan) -> dict[str, Any]:
    """The truth about a video.

    All times are seconds of the video. ``seed``, ``duration``, ``fps`` and ``world`` make the same plan again.

    Args:
        name: Of the video file.
        plan: What it shows; with what is really heard, if it has sound.
    """
    return {
        "video": name,
        "duration": plan.duration,
        "fps": plan.fps,
        "seed": plan.seed,
        "world": plan.world.to_dict(),
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
                "start": round(place.start + event.start, _DIGITS),
                "end": round(place.start + event.end, _DIGITS),
            }
            for event in place.scene.events
        ],
        "caption": place.caption,
        "utterance": None
        if spoken is None
        else {"start": spoken.start, "end": spoken.end, "text": spoken.text, "topic": spoken.topic},
    }


def _thing_entry(thing: Thing) -> dict[str, Any]:
    return {
        "colour": thing.colour,
        "shape": thing.shape,
        "size": thing.size,
        "texture": thing.texture,
        "x": round(thing.x, _DIGITS),
        "y": round(thing.y, _DIGITS),
    }


def _question_entry(question: TimedQuestion) -> dict[str, Any]:
    start, end = question.span or (None, None)
    return {
        "type": question.kind,
        "question": question.question,
        "answer": question.answer,
        "start": start,
        "end": end,
    }
