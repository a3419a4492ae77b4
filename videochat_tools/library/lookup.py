"""Which video is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from videochat_tools.errors import UnknownVideoError
from videochat_tools.types import VideoRecord

__all__ = ["find_video"]

MIN_ID_PREFIX = 4  # characters of an id that may stand for the whole


def find_video(records: Sequence[VideoRecord], wanted: str, library: Path) -> VideoRecord:
    """The one video that is meant; an id beats a path, a path a name, a name the beginning of an id."""
    path = Path(wanted).expanduser().absolute()
    for matching in (
        [record for record in records if record.video_id == wanted],
        [record for record in records if record.path == path],
        [record for record in records if record.name == wanted],
        [record for record in records if record.path.stem == wanted],
        [record for record in records if len(wanted) >= MIN_ID_PREFIX and record.video_id.startswith(wanted)],
    ):
        if len(matching) == 1:
            return matching[0]
        if matching:
            ids = ", ".join(f"{record.video_id} ({record.path})" for record in matching)
            raise UnknownVideoError(f"{wanted!r} means more than one video of {library}: {ids}; give the id")
    held = ", ".join(f"{record.name} ({record.video_id})" for record in records[:8])
    more = f" and {len(records) - 8} more" if len(records) > 8 else ""
    raise UnknownVideoError(
        f"no video {wanted!r} in the library {library}; it holds {held}{more}"
        if records
        else f"no video {wanted!r}: the library {library} is empty; add a video first"
    )
