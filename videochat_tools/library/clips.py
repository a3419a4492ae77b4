"""Clips for several models from one pass over a video: every frame is decoded once, memory stays flat."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import UnreadableMediaError
from videochat_tools.media import VideoReader, open_video, uniform_times
from videochat_tools.types import TimeSpan, VideoInfo

__all__ = ["ClipBatch", "ClipShape", "HasClipShape", "clip_batches", "decode_size", "fit_frame"]

logger = logging.getLogger(__name__)


class HasClipShape(Protocol):
    """What encoders and watchers have in common."""

    @property
    def num_frames(self) -> int:
        """Frames a clip."""
        ...

    @property
    def frame_size(self) -> int:
        """Height and width of a frame in pixels."""
        ...


@dataclass(frozen=True, slots=True)
class ClipShape:
    """The frames that a model looks at."""

    num_frames: int
    frame_size: int  # pixels, height and width

    @classmethod
    def of(cls, model: HasClipShape) -> ClipShape:
        """The shape that an encoder or watcher wants."""
        return cls(model.num_frames, model.frame_size)


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """Clips of some segments. ``clips``: for each shape uint8 RGB [n, num_frames, frame_size, frame_size, 3]."""

    rows: tuple[int, ...]  # numbers of the segments
    clips: dict[ClipShape, npt.NDArray[np.uint8]]
    seconds: float  # of the video, up to which it has been read


def decode_size(info: VideoInfo, frame_size: int) -> tuple[int, int] | None:
    """Width and height to scale to while decoding, or ``None`` for the video's own.

    Twice what the model sees: the decoder's scaler does the coarse part cheaply and keeps few bytes, the last step
    stays with the filter that the models were trained with.
    """
    shorter = min(info.width, info.height)
    if shorter <= 2 * frame_size:
        return None
    scale = 2 * frame_size / shorter
    return max(1, round(info.width * scale)), max(1, round(info.height * scale))


def fit_frame(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Shorter side to ``size`` (bicubic), then the centre: [H, W, 3] to [size, size, 3], as VideoChat2 is shown it."""
    from PIL import Image

    height, width = image.shape[:2]
    shorter = min(height, width)
    shown = (int(size * width / shorter), int(size * height / shorter))
    if shown != (width, height):
        image = np.asarray(Image.fromarray(image).resize(shown, Image.Resampling.BICUBIC))
    left, top = round((shown[0] - size) / 2), round((shown[1] - size) / 2)
    return image[top : top + size, left : left + size]


def clip_batches(
    info: VideoInfo,
    spans: Sequence[TimeSpan],
    shapes: Sequence[ClipShape],
    *,
    batch_size: int,
    backend: str = "pyav",
) -> Iterator[ClipBatch]:
    """Decode a video once and yield the clips of all segments, a batch at a time.

    Args:
        info: the video.
        spans: its segments; they may overlap.
        shapes: what the models want of each segment; equal ones are made once.
        batch_size: segments in a batch.
        backend: as :func:`~videochat_tools.media.open_video` takes it.

    Raises:
        MediaError: the file cannot be read (any more).
    """
    wanted = list(dict.fromkeys(shapes))
    if not wanted:
        return
    # Every place of every clip by the time it shows. Overlapping segments are open at the same time.
    places = sorted(
        (time, row, shape_number, slot)
        for row, span in enumerate(spans)
        for shape_number, shape in enumerate(wanted)
        for slot, time in enumerate(uniform_times(span, shape.num_frames))
    )
    left = [sum(shape.num_frames for shape in wanted)] * len(spans)
    opened: dict[int, list[npt.NDArray[np.uint8]]] = {}
    done: list[int] = []
    size = decode_size(info, max(shape.frame_size for shape in wanted))
    with open_video(info.path, backend=backend, size=size) as reader:
        for (time, row, shape_number, slot), image in _images(reader, places, wanted):
            if row not in opened:
                opened[row] = [np.empty((s.num_frames, s.frame_size, s.frame_size, 3), np.uint8) for s in wanted]
            opened[row][shape_number][slot] = image
            left[row] -= 1
            if left[row]:
                continue
            done.append(row)
            if len(done) == batch_size:
                yield _batch(done, opened, wanted, time)
                done = []
    if done:
        yield _batch(done, opened, wanted, info.duration)


Place = tuple[float, int, int, int]  # time, segment, number of the shape, frame within the clip


def _images(
    reader: VideoReader, places: Sequence[Place], shapes: Sequence[ClipShape]
) -> Iterator[tuple[Place, npt.NDArray[np.uint8]]]:
    """The picture for every place; the last one again for places behind a damaged end."""
    times = list(dict.fromkeys(place[0] for place in places))
    frames = reader.frames_at(times)
    position, shown = 0, None
    fitted: dict[int, npt.NDArray[np.uint8]] = {}
    for time in times:
        frame = next(frames, None)
        if frame is not None and (shown is None or frame.image is not shown):
            shown, fitted = frame.image, {}
        if shown is None:
            raise UnreadableMediaError(f"{reader.info.path} has no picture that can be decoded; copy it again")
        if frame is None:
            logger.warning("%s ends before %.1f s: its last picture is used from there on", reader.info.path, time)
        while position < len(places) and places[position][0] == time:
            size = shapes[places[position][2]].frame_size
            if size not in fitted:
                fitted[size] = fit_frame(shown, size)
            yield places[position], fitted[size]
            position += 1


def _batch(
    rows: Sequence[int], opened: dict[int, list[npt.NDArray[np.uint8]]], shapes: Sequence[ClipShape], seconds: float
) -> ClipBatch:
    parts = [opened.pop(row) for row in rows]
    clips = {shape: np.stack([part[number] for part in parts]) for number, shape in enumerate(shapes)}
    return ClipBatch(tuple(rows), clips, seconds)
