"""How often the sampler draws what: a weight for every value of every factor of a scene."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yozora.errors import ConfigError
from yozora.world.scene import CAMERAS, COLOURS, GROUNDS, MATERIALS, MOTIONS, SHAPES, SIZES, STYLES, TIMES, WEATHERS

PAIR_MOTIONS = ("collide", "stack")  # these need a second body
_KNOWN: dict[str, tuple[str, ...]] = {
    "count": ("1", "2", "3", "4", "5"),
    "shapes": SHAPES,
    "colours": tuple(COLOURS),
    "sizes": tuple(SIZES),
    "materials": MATERIALS,
    "motions": MOTIONS,
    "cameras": CAMERAS,
    "grounds": GROUNDS,
    "times": TIMES,
    "weathers": WEATHERS,
    "styles": STYLES,
}


def _evenly(factor: str) -> dict[str, float]:
    return dict.fromkeys(_KNOWN[factor], 1.0)


@dataclass(frozen=True)
class SceneMix:
    """Weights (any scale, 0 for never) of each factor's values, and what to do with held-out combinations.

    A value that is not listed is never drawn; a factor that is not given is drawn evenly. `duration` is in seconds.
    `held_out` is "exclude" (training), "only" (tests of new combinations) or "any". Raises ConfigError for anything
    that could not be drawn from.
    """

    count: dict[str, float] = field(default_factory=lambda: _evenly("count"))
    shapes: dict[str, float] = field(default_factory=lambda: _evenly("shapes"))
    colours: dict[str, float] = field(default_factory=lambda: _evenly("colours"))
    sizes: dict[str, float] = field(default_factory=lambda: _evenly("sizes"))
    materials: dict[str, float] = field(default_factory=lambda: _evenly("materials"))
    motions: dict[str, float] = field(default_factory=lambda: _evenly("motions"))
    cameras: dict[str, float] = field(default_factory=lambda: _evenly("cameras"))
    grounds: dict[str, float] = field(default_factory=lambda: _evenly("grounds"))
    times: dict[str, float] = field(default_factory=lambda: _evenly("times"))
    weathers: dict[str, float] = field(default_factory=lambda: _evenly("weathers"))
    styles: dict[str, float] = field(default_factory=lambda: _evenly("styles"))
    duration: float = 2.0
    held_out: str = "exclude"

    def __post_init__(self) -> None:
        for factor, known in _KNOWN.items():
            object.__setattr__(self, factor, _checked(factor, getattr(self, factor), known))
        if not _is_number(self.duration) or not 0.1 <= self.duration <= 3600:
            raise ConfigError(f"a mix's duration is 0.1 to 3600 seconds, not {self.duration!r}")
        if set(self.motions) <= set(PAIR_MOTIONS) and set(self.count) == {"1"}:
            raise ConfigError(f"{' and '.join(self.motions)} need two bodies; give a count of 2 or more a weight")
        if self.held_out not in ("exclude", "only", "any"):
            raise ConfigError(f"held_out is 'exclude', 'only' or 'any', not {self.held_out!r}")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SceneMix:
        """A mix from TOML's or JSON's form: any of the fields above. Raises ConfigError for an unknown one."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in raw:
            if name not in names:
                raise ConfigError(f"unknown key {name!r} in a scene mix; known: {', '.join(names)}")
        return cls(**raw)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads back equal."""
        return dataclasses.asdict(self)


def _checked(factor: str, weights: Any, known: tuple[str, ...]) -> dict[str, float]:
    """The weights in the order of the known values, so that equal mixes draw equal scenes."""
    if not isinstance(weights, Mapping):
        raise ConfigError(f"{factor} of a scene mix is a table of weights, not {weights!r}")
    named = {str(name): weight for name, weight in weights.items()}
    for name, weight in named.items():
        if name not in known:
            raise ConfigError(f"unknown value {name!r} for {factor} in a scene mix; known: {', '.join(known)}")
        if not _is_number(weight) or not np.isfinite(weight) or weight < 0:
            raise ConfigError(f"the weight of {name!r} in {factor} is a number of at least 0, not {weight!r}")
    if not any(named.values()):
        raise ConfigError(f"every weight in {factor} of a scene mix is 0; give at least one value a weight above 0")
    return {name: float(named[name]) for name in known if named.get(name)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_COMMON_MOTIONS = dict.fromkeys(MOTIONS, 1.0) | {"still": 0.6, "bounce": 1.5, "left": 1.5, "right": 1.5, "roll": 1.3}

MIXES: dict[str, SceneMix] = {
    # everything the world can show, common things a little more often
    "full": SceneMix(
        count={"1": 0.36, "2": 0.28, "3": 0.18, "4": 0.11, "5": 0.07},
        sizes={"tiny": 0.7, "small": 1.0, "large": 1.2, "huge": 0.6},
        materials={"matte": 1.6, "rubber": 1, "metal": 1, "checkered": 1, "striped": 1, "glowing": 0.7},
        motions=_COMMON_MOTIONS,
        cameras=dict.fromkeys(CAMERAS, 1.0) | {"still": 3.0},
        times={"day": 0.55, "sunset": 0.25, "night": 0.20},
        weathers={"clear": 0.6, "fog": 0.14, "rain": 0.13, "snow": 0.13},
        styles={"realistic": 0.6} | dict.fromkeys(STYLES[1:], 0.1),
    ),
    # what a small model learns from on a CPU: mostly one clear thing that does one clear thing
    "simple": SceneMix(
        count={"1": 0.75, "2": 0.22, "3": 0.03},
        sizes={"tiny": 0.3, "small": 0.9, "large": 1.6, "huge": 0.7},
        materials={"matte": 0.45, "rubber": 0.13, "metal": 0.13, "checkered": 0.12, "striped": 0.12, "glowing": 0.05},
        motions=_COMMON_MOTIONS | {"bounce": 2.0, "left": 2.5, "right": 2.5, "collide": 1.5, "stack": 1.5, "fall": 1.5},
        cameras=dict.fromkeys(CAMERAS, 0.075) | {"still": 0.55},
        grounds=dict.fromkeys(GROUNDS, 1.0) | {"studio": 1.6, "grass": 1.4, "sand": 1.2, "snow": 1.2},
        times={"day": 0.8, "sunset": 0.12, "night": 0.08},
        weathers={"clear": 0.91, "fog": 0.03, "rain": 0.03, "snow": 0.03},
        styles={"realistic": 0.9} | dict.fromkeys(STYLES[1:], 0.025),
    ),
}
