"""Scenes by the million: `sample_scene(seed, mix)` casts a scene (what is in it) and stages it (where, how fast).

The same seed and mix give an equal scene everywhere. What a scene shows depends on the mix alone; staging only moves,
slows and, where it must, shrinks things until they have room and stay in view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from yozora.errors import ConfigError
from yozora.world.heldout import is_held_out
from yozora.world.mix import MIXES, PAIR_MOTIONS, SceneMix
from yozora.world.scene import CAMERA_DIRECTIONS, SHAPES, Body, Camera, Motion, Place, Scene
from yozora.world.shapes import FLAT_TOPS, ROLLERS
from yozora.world.staging import stage

__all__ = ["MIXES", "SceneMix", "is_held_out", "sample_scene"]

_MOST_DRAWS = 2000  # of casts, until one is (or is not) held out
_BLENDS: dict[tuple[str, str], float] = {  # (ground, colour): seldom, because it is hard to see
    ("snow", "white"): 0.03,
    ("studio", "white"): 0.4,
    ("grass", "green"): 0.5,
    ("sand", "yellow"): 0.6,
    ("sand", "brown"): 0.6,
    ("water", "blue"): 0.5,
    ("water", "cyan"): 0.6,
}


def sample_scene(seed: int, mix: SceneMix = MIXES["full"]) -> Scene:
    """A scene drawn from `mix`; `seed` is any whole number from 0 up.

    Raises ConfigError when the mix leaves nothing to draw: no held-out combination where only those are asked for, or
    two bodies that could not differ.
    """
    if seed < 0:
        raise ConfigError(f"a scene's seed is 0 or more, not {seed}")
    for draw in range(_MOST_DRAWS):
        rng = np.random.default_rng([seed, draw])
        scene = _cast(rng, seed, mix)
        if mix.held_out == "any" or is_held_out(scene) == (mix.held_out == "only"):
            return stage(rng, scene)
    raise ConfigError(
        f"this scene mix has no scene for held_out={mix.held_out!r}; widen its colours, shapes or motions"
    )


def _cast(rng: np.random.Generator, seed: int, mix: SceneMix) -> Scene:
    """What the scene shows; positions, speeds and the camera's numbers are still to be staged."""
    lonely = 0.0 if set(mix.motions) <= set(PAIR_MOTIONS) else 1.0
    count = int(_draw(rng, mix.count, {"1": lonely}))
    place = _draw_place(rng, mix)
    kinds = _draw_motions(rng, mix, count)
    bodies: list[Body] = []
    for n in range(count):
        below = n == 1 and kinds[0] == "stack"
        bodies.append(_draw_body(rng, mix, kinds[n], below, place, bodies, count))
    kind = _draw(rng, mix.cameras)
    camera = Camera(kind, str(rng.choice(CAMERA_DIRECTIONS[kind])))
    return Scene(seed, tuple(bodies), place, camera, _draw(rng, mix.styles), duration=mix.duration)


def _draw_place(rng: np.random.Generator, mix: SceneMix) -> Place:
    ground = _draw(rng, mix.grounds)
    indoors = ground in ("studio", "space")  # no weather there, and no sunset
    weather = _draw(rng, mix.weathers, _dislike(mix.weathers, ("fog", "rain", "snow"), 0.0) if indoors else {}, "keep")
    time = _draw(rng, mix.times, _dislike(mix.times, ("sunset", "night"), 0.0) if indoors else {}, "keep")
    # three of four suns stand behind the camera, where they light what is seen
    sun = rng.uniform(-2.8, -0.35) if rng.random() < 0.75 else rng.uniform(0.3, 2.8)
    return Place(ground, time, weather, float(sun))


def _draw_motions(rng: np.random.Generator, mix: SceneMix, count: int) -> list[str]:
    """A motion for every body: one or two move, the others stand."""
    first = _draw(rng, mix.motions, _dislike(mix.motions, PAIR_MOTIONS, 0.0) if count == 1 else {})
    kinds = [first] + ["still"] * (count - 1)
    partners = 1 if first in PAIR_MOTIONS else 0
    if count > 1 + partners and rng.random() < (0.35 if partners == 0 else 0.25):
        kinds[1 + partners] = _draw(rng, mix.motions, _dislike(mix.motions, (*PAIR_MOTIONS, "hide"), 0.0), "keep")
        if kinds[1 + partners] in (*PAIR_MOTIONS, "hide"):
            kinds[1 + partners] = "still"
    return kinds


def _draw_body(
    rng: np.random.Generator, mix: SceneMix, kind: str, below: bool, place: Place, others: Sequence[Body], count: int
) -> Body:
    """A body that suits its motion and differs from the others in shape or colour."""
    shape = _draw(rng, mix.shapes, _shapes_for(kind, below), "keep")
    if kind == "roll" and shape not in ROLLERS:
        kind = "slide"
    taken = {body.colour for body in others if body.shape == shape}
    liking = {colour: _BLENDS.get((place.ground, colour), 1.0) for colour in mix.colours}
    liking |= _dislike(mix.colours, [body.colour for body in others], 0.3) | dict.fromkeys(taken, 0.0)
    colour = _draw(rng, mix.colours, liking)
    plain_round = kind == "spin" and shape in ("sphere", "cylinder", "cone")
    material = _draw(rng, mix.materials, _materials_for(kind, plain_round), "keep")
    crowded = ("huge",) if count > 3 else ()
    sizes = {"grow": ("large", "huge"), "shrink": ("tiny", "small"), "hide": ("huge",), "collide": ("huge",)}.get(
        kind, crowded
    )
    size = _draw(rng, mix.sizes, _dislike(mix.sizes, sizes, 0.0), "keep")
    colour_to = _draw(rng, mix.colours, liking | {colour: 0.0}) if kind == "recolour" else ""
    return Body(
        shape, colour, material, size, (0.0, 0.0), float(rng.uniform(-0.7, 0.7)), Motion(kind, colour_to=colour_to)
    )


def _shapes_for(kind: str, below: bool) -> dict[str, float]:
    if below:
        return {shape: 0.0 for shape in SHAPES if shape not in FLAT_TOPS}
    if kind == "roll":
        return {"box": 0.0, "cone": 0.0}
    if kind == "slide":
        return {"sphere": 0.0, "capsule": 0.5, "torus": 0.5}
    if kind == "spin":  # the others only show a spin by their checks
        return {"sphere": 0.4, "cylinder": 0.4, "cone": 0.4}
    return {}


def _materials_for(kind: str, plain_round: bool) -> dict[str, float]:
    if plain_round:
        return dict.fromkeys(("matte", "rubber", "metal", "striped", "glowing"), 0.0)
    if kind == "roll":  # a pattern shows that it turns
        return {"checkered": 2.0, "striped": 2.0}
    return {"metal": 0.3} if kind == "recolour" else {}


def _dislike(weights: Mapping[str, float], values: Iterable[str], liking: float) -> dict[str, float]:
    return {value: liking for value in values if value in weights}


def _draw(
    rng: np.random.Generator, weights: Mapping[str, float], liking: Mapping[str, float] | None = None, empty: str = ""
) -> str:
    """One name, by its weight times how much it is liked here (1 unless said); where nothing is liked, "keep" for
    `empty` draws by the weights alone, and otherwise ConfigError is raised."""
    liking = liking or {}
    values = np.array([weight * liking.get(name, 1.0) for name, weight in weights.items()])
    if not values.any():
        if empty != "keep":
            raise ConfigError(
                f"this scene mix leaves nothing to choose between {', '.join(weights)}; give more values a weight"
            )
        values = np.array(list(weights.values()))
    edges = np.cumsum(values)
    return list(weights)[min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(values) - 1)]
