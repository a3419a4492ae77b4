"""Which world is drawn: what is in its scenes, how hard they are to see, and what training never shows."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from videochat_tools.errors import ConfigurationError
from videochat_tools.training.world.vocabulary import (
    ACTIONS,
    COLOURS,
    HELD_OUT,
    INTERACTIONS,
    SHAPES,
    SIZES,
    SPINNABLE,
    TEXTURES,
)

__all__ = ["BRIGHTEST_BACKGROUND", "DIFFICULTIES", "STANDARD", "WorldConfig", "load_world"]

MOST_OBJECTS = 5
MOST_LARGE_OBJECTS = 3  # more of them find no places that do not touch
BRIGHTEST_BACKGROUND = 135  # of 255; the darkest object is seen before it

_Check = Callable[[str, Any], Any]  # name and value of a setting -> the value as it is kept


def _refuse(name: str, value: Any, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"the world's {name} cannot be {value!r}; allowed: {allowed}")


def _is_one_of(value: Any, names: Collection[str]) -> bool:
    return isinstance(value, str) and value in names


def _some_of(values: Collection[str], *, or_none: bool = False) -> _Check:
    allowed = f"a list of {'any' if or_none else 'one or more'} of {', '.join(values)}, none of them twice"

    def check(name: str, value: Any) -> tuple[str, ...]:
        good = isinstance(value, list | tuple) and (bool(value) or or_none)
        if not good or not all(_is_one_of(each, values) for each in value) or len(set(value)) < len(value):
            raise _refuse(name, value, allowed)
        return tuple(value)

    return check


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _within(low: float, high: float) -> _Check:
    def check(name: str, value: Any) -> float:
        if not _number(value) or not low <= value <= high:
            raise _refuse(name, value, f"a number from {low:g} to {high:g}")
        return value

    return check


def _range_within(low: float, high: float, unit: str) -> _Check:
    def check(name: str, value: Any) -> tuple[float, float]:
        good = isinstance(value, list | tuple) and len(value) == 2 and all(map(_number, value))
        if not good or not low <= value[0] <= value[1] <= high:
            raise _refuse(name, value, f"two numbers [least, most] from {low:g} to {high:g} {unit}")
        return value[0], value[1]

    return check


def _weights(least: int, most: int, meaning: str) -> _Check:
    def check(name: str, value: Any) -> tuple[float, ...]:
        good = isinstance(value, list | tuple) and least <= len(value) <= most
        if not good or not all(_number(each) and each >= 0 for each in value) or not sum(value) > 0:
            numbers = f"{least} to {most}" if least < most else f"{most}"
            raise _refuse(name, value, f"{numbers} numbers of at least 0, not all of them 0: {meaning}")
        return tuple(value)

    return check


def _pairs_of(firsts: Collection[str], seconds: Collection[str]) -> _Check:
    def check(name: str, value: Any) -> frozenset[tuple[str, str]]:
        good = isinstance(value, list | tuple | frozenset | set)
        good = good and all(isinstance(each, list | tuple) and len(each) == 2 for each in value)
        if not good or not all(_is_one_of(one, firsts) and _is_one_of(other, seconds) for one, other in value):
            allowed = f"pairs of one of {', '.join(firsts)} and one of {', '.join(seconds)}"
            raise _refuse(name, sorted(value, key=str) if isinstance(value, frozenset) else value, allowed)
        return frozenset((one, other) for one, other in value)

    return check


def _setting(default: Any, check: _Check) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class WorldConfig:
    """Settings of the world; the defaults are the world that the bundled nano was trained on.

    Raises:
        ConfigurationError: where a value is not possible, or values do not go together; it says what is allowed.
    """

    # What there is.
    colours: tuple[str, ...] = _setting(tuple(COLOURS), _some_of(COLOURS))
    shapes: tuple[str, ...] = _setting(SHAPES, _some_of(SHAPES))
    sizes: tuple[str, ...] = _setting(tuple(SIZES), _some_of(SIZES))
    textures: tuple[str, ...] = _setting(TEXTURES, _some_of(TEXTURES))
    plain_share: float = _setting(0.5, _within(0, 1))  # of the objects, if there are other textures beside
    object_weights: tuple[float, ...] = _setting((0.2, 0.45, 0.35), _weights(1, MOST_OBJECTS, "of 1, 2, … objects"))
    lookalike_share: float = _setting(0.3, _within(0, 1))  # objects drawn with the colour or shape of another one

    # What happens.
    actions: tuple[str, ...] = _setting(ACTIONS, _some_of(ACTIONS))
    interactions: tuple[str, ...] = _setting(INTERACTIONS, _some_of(INTERACTIONS, or_none=True))
    interaction_share: float = _setting(0.3, _within(0, 1))  # of first events, where there are two objects
    event_weights: tuple[float, ...] = _setting((0.05, 0.57, 0.38), _weights(3, 3, "of 0, 1 and 2 events"))
    travel: tuple[float, float] = _setting((0.32, 0.5), _range_within(0.1, 0.6, "sides of the picture"))
    duration: tuple[float, float] = _setting((4.0, 8.0), _range_within(1, 60, "seconds"))

    # What training never shows, and what its text names all the same.
    held_out: frozenset[tuple[str, str]] = _setting(HELD_OUT, _pairs_of(COLOURS, SHAPES))  # (colour, shape)
    held_out_actions: frozenset[tuple[str, str]] = _setting(  # (colour or shape, what it does)
        frozenset(), _pairs_of((*COLOURS, *SHAPES), (*ACTIONS, *INTERACTIONS))
    )

    # How hard it is to see.
    background_levels: tuple[float, float] = _setting((25, 105), _range_within(0, BRIGHTEST_BACKGROUND, "of 255"))
    background_contrast: tuple[float, float] = _setting(  # between the two tones of its pattern
        (12, 32), _range_within(0, BRIGHTEST_BACKGROUND, "of 255")
    )
    clip_noise: float = _setting(4.0, _within(0, 64))  # standard deviation of a camera's noise, of 255
    video_noise: float = _setting(2.0, _within(0, 64))  # the same in long videos, where the codec takes a part of it

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, each.metadata["check"](each.name, getattr(self, each.name)))
        most = self.most_objects
        if most > MOST_LARGE_OBJECTS and "small" not in self.sizes:
            raise _refuse("object_weights", self.object_weights, f"{MOST_LARGE_OBJECTS} objects where all are large")
        free = len(self.colours) * len(self.shapes) - len(self.possible_pairs)
        if free < 2 * most:
            raise ConfigurationError(
                f"the world has {free} pairs of colour and shape that are not held out, but scenes of {most} objects "
                f"that follow one another need {2 * most} different ones; give more colours or shapes, or fewer objects"
            )
        if self.actions == ("spin",) and not set(self.shapes) & set(SPINNABLE):
            raise _refuse("actions", self.actions, f"spinning, if one of the shapes is {', '.join(SPINNABLE)}")
        for doer, action in self.held_out_actions:
            if action == "spin" and doer in SHAPES and doer not in SPINNABLE:
                raise _refuse("held_out_actions", [doer, action], f"spinning of {', '.join(SPINNABLE)}")
        if self.duration[1] < 2 * self.duration[0]:
            raise _refuse("duration", self.duration, "a longest scene of at least twice the shortest: so videos end")

    @cached_property
    def most_objects(self) -> int:
        """The largest number of objects that a scene can have."""
        return max(number for number, weight in enumerate(self.object_weights, 1) if weight > 0)

    @cached_property
    def possible_pairs(self) -> tuple[tuple[str, str], ...]:
        """Those held-out pairs of colour and shape that the world can show, sorted."""
        return tuple(pair for pair in sorted(self.held_out) if pair[0] in self.colours and pair[1] in self.shapes)

    @cached_property
    def possible_actions(self) -> tuple[tuple[str, str], ...]:
        """Those held-out pairs of doer and action that the world can show, sorted."""
        meetings = self.interactions if self.most_objects > 1 and self.interaction_share > 0 else ()
        done = (*self.actions, *meetings) if sum(self.event_weights[1:]) > 0 else ()
        doers = (*self.colours, *self.shapes)
        return tuple(pair for pair in sorted(self.held_out_actions) if pair[0] in doers and pair[1] in done)

    @cached_property
    def texture_weights(self) -> tuple[float, ...]:
        """Share of each of the textures."""
        others = len(self.textures) - ("plain" in self.textures)
        if others in (0, len(self.textures)):
            return (1.0,) * len(self.textures)
        return tuple(
            self.plain_share if each == "plain" else (1.0 - self.plain_share) / others for each in self.textures
        )

    @cached_property
    def with_all_actions(self) -> WorldConfig:
        """The same world without held-out actions."""
        return replace(self, held_out_actions=frozenset()) if self.held_out_actions else self

    def withholds(self, colour: str, shape: str, action: str) -> bool:
        """Whether training never shows that such an object does this."""
        return bool(self.held_out_actions) and not self.held_out_actions.isdisjoint(((colour, action), (shape, action)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; :meth:`from_dict` takes them back."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> WorldConfig:
        """A world from plain values. ``base`` names the difficulty whose settings stay where no other is given."""
        base = settings.get("base", "standard")
        if not _is_one_of(base, DIFFICULTIES):
            raise _refuse("base", base, ", ".join(DIFFICULTIES))
        known = [each.name for each in fields(cls)]
        for name in settings:
            if name != "base" and name not in known:
                raise ConfigurationError(f"the world has no setting {name!r}; there are: base, {', '.join(known)}")
        given = {name: value for name, value in settings.items() if name != "base"}
        return cls(**{**{name: getattr(DIFFICULTIES[base], name) for name in known}, **given})


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(map(list, value))
    return list(value) if isinstance(value, tuple) else value


STANDARD = WorldConfig()

DIFFICULTIES: dict[str, WorldConfig] = {
    "easy": WorldConfig(
        colours=("red", "yellow", "green", "blue"),
        shapes=("circle", "square", "triangle", "star"),
        textures=("plain",),
        object_weights=(0.5, 0.5),
        lookalike_share=0.0,
        interactions=(),
        event_weights=(0.0, 1.0, 0.0),
        travel=(0.4, 0.5),
        background_contrast=(0, 12),
        clip_noise=1.0,
        video_noise=1.0,
    ),
    "standard": STANDARD,
    "hard": WorldConfig(
        plain_share=0.34,
        object_weights=(0.0, 0.25, 0.5, 0.25),
        lookalike_share=0.7,
        interaction_share=0.45,
        event_weights=(0.05, 0.25, 0.7),
        travel=(0.22, 0.4),
        background_levels=(25, 130),
        background_contrast=(24, 48),
        clip_noise=10.0,
        video_noise=6.0,
    ),
}


def load_world(path: str | Path) -> WorldConfig:
    """Read settings from a TOML file: the fields of :class:`WorldConfig` by name, and ``base``.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or names what is not possible.
    """
    path = Path(path)
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror or error}; name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{str(path)!r} is no TOML file: {error}; write lines like: base = 'hard'") from error
    try:
        return WorldConfig.from_dict(settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
