"""From what a person names to files: paths, file URIs, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from videochat_tools.errors import MediaNotFoundError, VideoChatError
from videochat_tools.types import uri_to_path

__all__ = ["VIDEO_SUFFIXES", "find_videos"]

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)


def find_videos(sources: str | Path | Iterable[str | Path]) -> list[Path | tuple[Path, VideoChatError]]:
    """The files that are meant, each once, in the order named (folders and patterns by name).

    A file named directly is taken whatever its suffix; of a folder, every file below it with the suffix of a video.
    What leads to no file comes back with the error that says so.
    """
    named = [sources] if isinstance(sources, str | Path) else list(sources)
    found: dict[Path, Path | tuple[Path, VideoChatError]] = {}
    for source in named:
        path = uri_to_path(source) if isinstance(source, str) else source
        try:
            files = _files(path.expanduser())
        except VideoChatError as error:
            found.setdefault(path, (path, error))
            continue
        for file in files:
            found.setdefault(file.absolute(), file.absolute())
    return list(found.values())


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        if not files:
            known = ", ".join(sorted(VIDEO_SUFFIXES))
            raise MediaNotFoundError(f"no video in the folder {path}; give files, or a folder with any of {known}")
        return files
    if path.exists() or not glob.has_magic(str(path)):
        return [path]  # a missing file gets its error from probing
    files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise MediaNotFoundError(f"no file matches the pattern {path}; check it, and quote it for the shell")
    return files
