"""What a file holds."""

from __future__ import annotations

from pathlib import Path

from videochat_tools.media.reader import count_decoded
from videochat_tools.types import VideoInfo

__all__ = ["probe"]


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file. Decodes one frame: only that tells the true start, size and rotation.

    Raises:
        MediaNotFoundError: no such file.
        UnreadableMediaError: empty, damaged before its first frame, or no media file.
        NoVideoStreamError: sound only.
    """
    from videochat_tools.media.source import VideoSource

    with VideoSource(path, on_decoded=count_decoded) as source:
        return source.info
