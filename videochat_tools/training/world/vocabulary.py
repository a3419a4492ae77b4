"""What there is in the procedural world: how things look and what they do."""

from __future__ import annotations

__all__ = [
    "ACTIONS",
    "COLOURS",
    "DIRECTIONS",
    "HELD_OUT",
    "INTERACTIONS",
    "SHAPES",
    "SIZES",
    "SPINNABLE",
    "STILL",
    "TEXTURES",
    "rgb",
]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 38),
    "orange": (244, 134, 28),
    "yellow": (244, 226, 52),
    "green": (44, 176, 60),
    "cyan": (60, 214, 224),
    "blue": (44, 80, 230),
    "purple": (166, 58, 204),
    "white": (242, 242, 242),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
SIZES = {"small": 0.115, "large": 0.2}  # radius as a share of the picture's shorter side
TEXTURES = ("plain", "striped", "dotted")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
ACTIONS = (*DIRECTIONS, "spin", "grow", "shrink", "blink", "bounce", "appear", "disappear")
INTERACTIONS = ("bump", "behind", "front")
STILL = "still"

# Pairs that training clips never show, though training texts name them, and rows of clips that are told with other
# looks: they tell composition from memory.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {("red", "ring"), ("green", "star"), ("blue", "triangle"), ("yellow", "cross")}
)

# Shapes that look the same after a small turn cannot be seen to spin.
SPINNABLE = ("square", "triangle", "cross", "star")


def rgb(colour: str) -> tuple[int, int, int]:
    """The channels of a named colour, or of one that has no name and is written ``#a05c10``."""
    return COLOURS.get(colour) or (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
