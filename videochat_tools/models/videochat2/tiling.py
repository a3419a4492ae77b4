"""Dynamic resolution of the HD model: frames cut into square tiles, and the whole frame beside them.

A tile, like the whole frame, is a "view": a clip of its own for tower and Q-Former. Resizing is PyTorch's bicubic
interpolation of floats, neither antialiased nor clamped, as the released model was trained and evaluated with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from videochat_tools.errors import UnsupportedContentError

from .image_processing import Frames

__all__ = ["TilingOptions", "choose_grid", "fit_to_tiles", "grid_candidates", "split_views", "tile_grid"]


@dataclass(frozen=True)
class TilingOptions:
    """How frames are cut up. Defaults are the values that the released HD model was trained and benchmarked with.

    Attributes:
        max_tiles: Most tiles of a frame, the whole frame not counted (training and benchmarks 6, demo cells 12).
        global_view: Add the whole frame, resized to one tile, as the last view.
        padding: Keep the shape of the frame and fill up with white; otherwise it is resized to the closest grid.
        grid: Columns and rows for frames of every shape, in place of the closest grid (a published evaluation fixed
            2 x 1 for videos).
        fix_portrait: With ``padding``: frames higher than wide keep their shape too. False squeezes them into a
            landscape, as the released code does.
    """

    max_tiles: int = 6
    global_view: bool = True
    padding: bool = False
    grid: tuple[int, int] | None = None
    fix_portrait: bool = True

    def __post_init__(self) -> None:
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(self.grid))  # JSON gives a list
        if self.max_tiles < 1 or (self.grid is not None and min(self.grid) < 1):
            raise ValueError(f"tiles are counted from 1, got max_tiles={self.max_tiles} and grid={self.grid}")
        if self.padding and self.grid is not None:
            raise ValueError("a fixed grid leaves nothing to pad; give either padding or grid")


def grid_candidates(max_tiles: int) -> list[tuple[int, int]]:
    """Grids (columns, rows) of at most ``max_tiles`` tiles, fewest first.

    Within one number of tiles they stand in the order of CPython's sets, as in the released code. That order never
    decides: between two grids of n tiles there is always one of fewer tiles that is closer to their midpoint.
    """
    sides = range(1, max_tiles + 1)
    grids = {(columns, rows) for columns in sides for rows in sides if columns * rows <= max_tiles}
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


def choose_grid(width: int, height: int, size: int, max_tiles: int) -> tuple[int, int]:
    """Columns and rows whose ratio is closest to that of a frame of ``width`` x ``height`` pixels.

    Of equally close grids, one of more tiles of ``size`` pixels is taken if the frame would fill over half of it.
    """
    best, least = (1, 1), math.inf
    for columns, rows in grid_candidates(max_tiles):
        difference = abs(width / height - columns / rows)
        large = width * height > 0.5 * size * size * columns * rows
        if difference < least or (difference == least and large):
            best, least = (columns, rows), difference
    return best


def tile_grid(width: int, height: int, size: int, options: TilingOptions) -> tuple[int, int]:
    """Columns and rows that a frame of ``width`` x ``height`` pixels is cut into."""
    if options.grid is not None:
        return options.grid
    if not options.padding:
        return choose_grid(width, height, size, options.max_tiles)
    columns, shown = _landscape(max(width, height), min(width, height), size, options.max_tiles)
    rows = math.ceil(shown / size)
    return (rows, columns) if width < height and options.fix_portrait else (columns, rows)


def fit_to_tiles(frames: Frames, size: int, options: TilingOptions) -> Tensor:
    """Frames of any size to frames that square tiles cover exactly.

    Args:
        frames: uint8 RGB [T, H, W, 3].
        size: Side of a tile in pixels.
        options: How to cut.

    Returns:
        float32 [T, 3, rows * size, columns * size]; 0..255, with a little overshoot.
    """
    height, width = frames.shape[1:3]
    columns, rows = tile_grid(width, height, size, options)
    # One by one: as floats, a clip of large frames takes four times its memory.
    pictures = (torch.tensor(frame).permute(2, 0, 1)[None].float() for frame in frames)
    if not options.padding:
        return torch.cat([_resize(picture, rows * size, columns * size) for picture in pictures])
    portrait = width < height
    side, shown = _landscape(max(width, height), min(width, height), size, options.max_tiles)
    spare = math.ceil(shown / size) * size - shown
    margins = (0, 0, spare // 2, spare - spare // 2)  # left, right, top, bottom
    padded = []
    for picture in pictures:
        if portrait:  # worked on as a landscape and turned back
            picture = picture.transpose(-1, -2) if options.fix_portrait else picture.flip(-2, -1)
        picture = F.pad(_resize(picture, shown, side * size), margins, value=255.0)
        if portrait:
            picture = picture.transpose(-1, -2) if options.fix_portrait else picture.flip(-2, -1)
        padded.append(picture)
    return torch.cat(padded)


def split_views(pixels: Tensor, size: int, *, global_view: bool = True) -> Tensor:
    """Frames to the views of a clip.

    Args:
        pixels: Normalised frames [T, 3, rows * size, columns * size].
        size: Side of a tile in pixels.
        global_view: Add the whole frames, resized to one tile.

    Returns:
        [rows * columns (+ 1), T, 3, size, size]: tiles in reading order, each with all its frames; the whole last.

    Raises:
        UnsupportedContentError: Tiles do not cover the frames exactly.
    """
    height, width = pixels.shape[-2:]
    if height % size or width % size:
        raise UnsupportedContentError(
            f"frames of {height}x{width} pixels given; height and width must be multiples of {size}: use fit_to_tiles"
        )
    tiles = pixels.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # [T, 3, rows, size, columns, size]
    views = tiles.permute(2, 4, 0, 1, 3, 5).flatten(0, 1)
    return torch.cat([views, _resize(pixels, size, size)[None]]) if global_view else views.contiguous()


def _resize(pixels: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(pixels, size=(height, width), mode="bicubic", align_corners=False)


def _landscape(width: int, height: int, size: int, max_tiles: int) -> tuple[int, int]:
    """Tiles side by side, and height in pixels before padding, of a frame that is not higher than wide."""
    ratio = width / height
    columns = 1
    while (columns + 1) * math.ceil((columns + 1) / ratio) <= max_tiles:
        columns += 1
    return columns, max(1, int(columns * size / ratio))  # a frame of extreme shape still shows a line
