"""Single pictures of a stretch of video, as JPEG: what a model that sees pictures, but no video, is shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videochat_tools.media import open_video, uniform_times
from videochat_tools.types import TimeSpan, VideoInfo

__all__ = ["Still", "take_stills"]

LONGEST_SIDE = 448  # pixels; about what vision models look at in one tile
QUALITY = 85  # of the JPEG


@dataclass(frozen=True, slots=True)
class Still:
    """One picture of a video. ``time`` is the presentation time of the frame in seconds."""

    time: float
    width: int
    height: int
    jpeg: bytes = field(repr=False)

    def image_block(self) -> dict[str, Any]:
        """The picture as a content block of LangChain, which messages of people and of tools both take."""
        return {"type": "image", "base64": base64.b64encode(self.jpeg).decode("ascii"), "mime_type": "image/jpeg"}


def take_stills(path: Path, span: TimeSpan, count: int) -> list[Still]:
    """``count`` pictures spread evenly over a span, fewer where it has not as many frames.

    Raises:
        MediaError: the file is gone or cannot be read.
    """
    from PIL import Image

    stills: dict[float, Still] = {}
    with open_video(path) as whole, whole.resized(_reduced(whole.info)) as reader:
        for frame in reader.frames_at(uniform_times(span, count)):
            if frame.time in stills:
                continue
            file = io.BytesIO()
            Image.fromarray(frame.image).save(file, "JPEG", quality=QUALITY)
            height, width = frame.image.shape[:2]
            stills[frame.time] = Still(frame.time, width, height, file.getvalue())
    return list(stills.values())


def _reduced(info: VideoInfo) -> tuple[int, int] | None:
    """Width and height with the longer side at most ``LONGEST_SIDE``; ``None`` for the video's own."""
    scale = LONGEST_SIDE / max(info.width, info.height)
    return None if scale >= 1 else (max(1, round(info.width * scale)), max(1, round(info.height * scale)))
