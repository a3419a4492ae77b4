"""The worlds as a picture, a scene a row: ``python -m videochat_tools.training.world.contact_sheet docs/world.png``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videochat_tools.media import uniform_times
from videochat_tools.training.world.config import DIFFICULTIES, WorldConfig, load_world
from videochat_tools.training.world.language import caption
from videochat_tools.training.world.render import render_clip
from videochat_tools.training.world.scene import sample_scene
from videochat_tools.types import TimeSpan

__all__ = ["draw_sheet", "main"]

_FRAMES, _SIDE, _GAP = 8, 84, 3  # pictures of a row, their side and the gap between them in pixels
_LINE, _FONT_SIZE = 17, 12  # height of a line of text and of its letters in pixels


def draw_sheet(worlds: dict[str, WorldConfig], scenes: int, seed: int) -> Image.Image:
    """Every world with ``scenes`` scenes, each with its caption over a row of moments; without noise."""
    width = _FRAMES * (_SIDE + _GAP) + _GAP
    row = _LINE + _SIDE + _GAP
    sheet = Image.new("RGB", (width, len(worlds) * (_LINE + scenes * row) + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT_SIZE)
    top = 0
    for name, world in worlds.items():
        rng = Random(seed)
        pen.text((_GAP, top + 2), name, "black", font, stroke_width=0.4, stroke_fill="black")
        top += _LINE
        for _ in range(scenes):
            scene = sample_scene(rng, world=world)
            times = uniform_times(TimeSpan(0.0, scene.duration), _FRAMES)
            pictures = render_clip(scene, times, _SIDE, _SIDE, noise=0.0, world=world)
            pen.text((_GAP, top), caption(rng, scene, full=True).text, "black", font)
            framed = np.pad(pictures, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
            sheet.paste(Image.fromarray(np.concatenate(list(framed), axis=1)), (_GAP, top + _LINE))
            top += row
    return sheet


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw scenes of every difficulty, or of one world from a file."""
    parser = argparse.ArgumentParser(
        prog="python -m videochat_tools.training.world.contact_sheet", description=main.__doc__
    )
    parser.add_argument("out", type=Path, help="the picture, a PNG")
    parser.add_argument("--world", type=Path, help="a TOML file, in place of the difficulties")
    parser.add_argument("--scenes", type=int, default=3, help="rows for each world (default: 3)")
    parser.add_argument("--seed", type=int, default=4, help="another seed draws other scenes (default: 4)")
    options = parser.parse_args(arguments)
    worlds = DIFFICULTIES if options.world is None else {options.world.stem: load_world(options.world)}
    sheet = draw_sheet(worlds, options.scenes, options.seed)
    # 128 colours: a third of the size, and hardly to be seen.
    sheet.quantize(128, dither=Image.Dither.NONE).save(options.out, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
