"""A library of videos as tools that any agent can use."""

from __future__ import annotations

from videochat_tools.tools.changing import AddVideo, RemoveVideo
from videochat_tools.tools.finding import AskVideo, ListVideos, SearchVideo
from videochat_tools.tools.looking import GetFrames, ReadTranscript, WatchClip
from videochat_tools.tools.toolkit import VideoToolkit

__all__ = [
    "AddVideo",
    "AskVideo",
    "GetFrames",
    "ListVideos",
    "ReadTranscript",
    "RemoveVideo",
    "SearchVideo",
    "VideoToolkit",
    "WatchClip",
]
