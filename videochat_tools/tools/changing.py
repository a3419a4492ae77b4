"""Tools that change the library. An agent has them only where its owner allows it."""

from __future__ import annotations

from pathlib import Path

from langchain_core.tools import ArgsSchema
from pydantic import Field

from videochat_tools.errors import LibraryError
from videochat_tools.library.sources import find_videos
from videochat_tools.tools.base import Arguments, Artifact, Content, Name, VideoName, VideoTool, bounded_lines
from videochat_tools.types import format_timecode, uri_to_path


class AddArguments(Arguments):
    """Arguments of add_video."""

    path: Name = Field(description="Path of a video file, of a folder with videos, or a pattern such as talks/*.mp4.")


class AddVideo(VideoTool):
    """Take videos into the library."""

    name: str = "add_video"
    description: str = (
        "Add video files of this machine to the library, so that they can be searched and asked about. "
        "Takes about as long as watching part of the video; what was added before is left as it is."
    )
    args_schema: ArgsSchema | None = AddArguments
    folder: Path | None = None
    """Only files below this folder may be added, and relative paths start there; ``None``: any file."""

    def use(self, path: str) -> tuple[Content, Artifact]:
        """Add them, and say what became of each file."""
        results = self.library.add(self._allowed(path))
        artifact = {"results": [result.to_dict() for result in results]}
        lines = []
        for result in results:
            if result.record is None:
                lines.append(f"- {result.source.name}: failed: {result.error}")
                continue
            record, length = result.record, format_timecode(result.record.info.duration)
            lines.append(f"- {record.name}: {result.status}, {length} long, {record.segments} segments")
        shown = bounded_lines(lines)
        if len(shown) < len(lines):
            shown.append(f"… and {len(lines) - len(shown)} more: call list_videos.")
        if all(result.record is None for result in results):
            raise LibraryError("\n".join(["nothing was added", *shown]))
        return "\n".join(shown), artifact

    def _allowed(self, path: str) -> list[Path]:
        """The files that are meant; LibraryError where one of them lies outside the folder, behind a link too."""
        named = uri_to_path(path).expanduser()
        if self.folder is None:
            return [named]
        files = [each if isinstance(each, Path) else each[0] for each in find_videos(self.folder / named)]
        for file in files:
            if not file.resolve().is_relative_to(self.folder.resolve()):
                raise LibraryError(f"{path} lies outside {self.folder}; only videos in that folder may be added")
        return files


class RemoveArguments(Arguments):
    """Arguments of remove_video."""

    video: VideoName


class RemoveVideo(VideoTool):
    """Take a video out of the library."""

    name: str = "remove_video"
    description: str = (
        "Remove a video from the library, with all that was derived from it. The video file itself stays. "
        "Only when the user has asked for it."
    )
    args_schema: ArgsSchema | None = RemoveArguments

    def use(self, video: str) -> tuple[Content, Artifact]:
        """Remove it."""
        record = self.library.remove(video)
        return f"Removed {record.name} from the library; its file {record.path} is still there.", record.to_dict()
