"""Ask long videos, and whole libraries of them, and get answers with the moments that prove them.

>>> from videochat_tools import VideoLibrary
>>> library = VideoLibrary("./lib")                             # doctest: +SKIP
>>> library.add("talks/*.mp4")                                  # doctest: +SKIP
>>> answer = library.ask("What colour is the ring that spins?")  # doctest: +SKIP
>>> print(answer.text, answer.evidence)                         # doctest: +SKIP

Every name below is imported when it is first used, so that ``import videochat_tools`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from videochat_tools._version import __version__

if TYPE_CHECKING:
    from videochat_tools.chat_model import ChatVideoChat
    from videochat_tools.embeddings import VideoEncoder, load_encoder
    from videochat_tools.errors import VideoChatError
    from videochat_tools.library import LibraryStore
    from videochat_tools.media import open_video, probe
    from videochat_tools.picture import render_answer
    from videochat_tools.retrievers import FaissVideoStore
    from videochat_tools.segmenting import make_segmenter
    from videochat_tools.speech import transcribe
    from videochat_tools.tools import VideoToolkit
    from videochat_tools.types import Answer, Evidence, SearchHit, TimeSpan, Transcript, Utterance, VideoRecord
    from videochat_tools.video_embeddings import VideoEmbeddings
    from videochat_tools.video_library import VideoLibrary
    from videochat_tools.video_loader import VideoLoader

__all__ = [
    "Answer",
    "ChatVideoChat",
    "Evidence",
    "FaissVideoStore",
    "LibraryStore",
    "SearchHit",
    "TimeSpan",
    "Transcript",
    "Utterance",
    "VideoChatError",
    "VideoEmbeddings",
    "VideoEncoder",
    "VideoLibrary",
    "VideoLoader",
    "VideoRecord",
    "VideoToolkit",
    "__version__",
    "load_encoder",
    "make_segmenter",
    "open_video",
    "probe",
    "render_answer",
    "transcribe",
]

_HOMES = {
    "chat_model": ("ChatVideoChat",),
    "embeddings": ("VideoEncoder", "load_encoder"),
    "errors": ("VideoChatError",),
    "library": ("LibraryStore",),
    "media": ("open_video", "probe"),
    "picture": ("render_answer",),
    "retrievers": ("FaissVideoStore",),
    "segmenting": ("make_segmenter",),
    "speech": ("transcribe",),
    "tools": ("VideoToolkit",),
    "types": ("Answer", "Evidence", "SearchHit", "TimeSpan", "Transcript", "Utterance", "VideoRecord"),
    "video_embeddings": ("VideoEmbeddings",),
    "video_library": ("VideoLibrary",),
    "video_loader": ("VideoLoader",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return __all__
