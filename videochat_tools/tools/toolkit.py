"""All tools of a library at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import ConfigDict, Field

from videochat_tools.answerers import can_see
from videochat_tools.tools.changing import AddVideo, RemoveVideo
from videochat_tools.tools.finding import AskVideo, ListVideos, SearchVideo
from videochat_tools.tools.looking import GetFrames, ReadTranscript, WatchClip
from videochat_tools.video_library import VideoLibrary


class VideoToolkit(BaseToolkit):
    """The tools of one library, for any agent.

    >>> tools = VideoToolkit(library).get_tools()              # doctest: +SKIP
    >>> agent = create_agent(model, tools)                     # doctest: +SKIP

    Errors are messages that an agent can recover from, results are bounded in length, artifacts are plain JSON.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    library: VideoLibrary = Field(exclude=True, repr=False)
    allow_changes: bool = False
    """Whether videos may be added and removed too."""
    add_from: Path | None = None
    """The only folder from which videos may be added; ``None``: any."""
    model: BaseChatModel | None = Field(default=None, exclude=True, repr=False)
    """The chat model that answers within the tools; default is the library's own, which also watches where this one
    cannot see."""
    frames: bool = True
    """Whether get_frames is among them: its image blocks are of no use to a model that cannot see."""

    def __init__(self, library: VideoLibrary, **options: Any) -> None:
        super().__init__(**{"library": library, **options})

    def get_tools(self) -> list[BaseTool]:
        """Those that find and look; get_frames, add_video and remove_video only where they are wanted."""
        library, model = self.library, self.model
        watching = model if model is not None and can_see(model) else None
        tools: list[BaseTool] = [
            ListVideos(library=library),
            SearchVideo(library=library),
            AskVideo(library=library, model=model),
            WatchClip(library=library, model=watching),
            ReadTranscript(library=library),
        ]
        if self.frames:
            tools.append(GetFrames(library=library))
        if self.allow_changes:
            tools += [AddVideo(library=library, folder=self.add_from), RemoveVideo(library=library)]
        return tools
