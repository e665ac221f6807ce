"""What each shape is like as a thing: its measures, how it stands on the ground, how heavy it is, how wide where."""

from __future__ import annotations

import numpy as np

from yozora.world.scene import DIRECTIONS, Body

ROLLERS = ("sphere", "cylinder", "capsule", "torus")  # a box or a cone that is told to roll slides instead
HALF: dict[str, tuple[float, float, float]] = {  # Trajectory.half over the nominal radius
    "sphere": (1.0, 1.0, 1.0),
    "box": (0.85, 0.85, 0.85),
    "cylinder": (0.75, 0.75, 0.9),
    "cone": (0.9, 0.9, 1.0),
    "capsule": (0.52, 0.52, 0.6),
    "torus": (0.69, 0.69, 0.31),
}
FLAT_TOPS = ("box", "cylinder")  # other things can rest on these
_TRAVELS = ("roll", "collide", "hide", "still", *DIRECTIONS)  # a sphere rolls in these whenever it moves


def half_measures(body: Body) -> tuple[float, float, float]:
    """`Trajectory.half` of a body, in metres."""
    x, y, z = HALF[body.shape]
    return x * body.radius, y * body.radius, z * body.radius


def rolls(body: Body) -> bool:
    """Whether the body turns as it travels."""
    if body.shape == "sphere":
        return body.motion.kind in _TRAVELS
    return body.shape in ROLLERS and body.motion.kind == "roll"


def on_its_side(body: Body) -> bool:
    """Whether the body's own z axis lies level: a rolling cylinder, capsule or torus; a torus or capsule that spins."""
    if body.motion.kind == "spin":
        return body.shape in ("torus", "capsule")
    return body.shape != "sphere" and rolls(body)


def rest_height(body: Body) -> float:
    """Height of the centre above what the body rests on, in metres at scale 1; its top is as far above the centre."""
    r, _, z = half_measures(body)
    if body.shape == "sphere":
        return r
    if body.shape == "capsule":
        return r if on_its_side(body) else r + z
    if body.shape == "torus":
        return r + z if on_its_side(body) else z
    return r if on_its_side(body) else z  # box (never on its side), cylinder, cone


def rolling_radius(body: Body) -> float:
    """Metres of travel for each radian that the body turns when it rolls."""
    r, _, z = half_measures(body)
    return r + z if body.shape == "torus" else r


def reach(body: Body) -> float:
    """Radius of the upright cylinder around the body's centre that encloses it, in metres at scale 1."""
    r, _, z = half_measures(body)
    if body.shape == "box":
        return r * np.sqrt(2.0)
    if body.shape == "torus":
        return r + z
    if on_its_side(body):
        return r + z if body.shape == "capsule" else float(np.hypot(r, z))
    return r


def mass(body: Body) -> float:
    """Mass in kilograms at a density of 1 kg/m³, 2.5 for metal."""
    r, _, z = half_measures(body)
    volume = {
        "sphere": 4 / 3 * np.pi * r**3,
        "box": 8 * r**3,
        "cylinder": 2 * np.pi * r**2 * z,
        "cone": 2 / 3 * np.pi * r**2 * z,
        "capsule": 4 / 3 * np.pi * r**3 + 2 * np.pi * r**2 * z,
        "torus": 2 * np.pi**2 * r * z**2,
    }[body.shape]
    return float(volume) * (2.5 if body.material == "metal" else 1.0)


def heading(body: Body) -> float:
    """Angle about z of the body's footprint: its travel when it lies on its side to roll, its yaw otherwise."""
    if on_its_side(body) and body.motion.direction:
        x, y = DIRECTIONS[body.motion.direction]
        return float(np.arctan2(y, x))
    return body.yaw


def footprint(body: Body) -> tuple[float, float] | None:
    """Half extents (along, across) of a footprint with corners, about `heading`; None for one that is a disc."""
    r, _, z = half_measures(body)
    if body.shape == "box":
        return r, r
    if on_its_side(body):
        return {"cylinder": (r, z), "capsule": (r, r + z), "torus": (r + z, z)}[body.shape]
    return None


def profile(body: Body, height: np.ndarray) -> np.ndarray:
    """How much of its reach the body has at each height above the ground, in [0, 1]; heights up to its top."""
    r, _, z = half_measures(body)
    centre = rest_height(body)
    above = height - centre
    if body.shape == "cone":
        return np.clip(1 - height / (2 * z), 0, 1)
    if body.shape == "sphere" or on_its_side(body):
        return np.sqrt(np.clip(1 - (above / centre) ** 2, 0, 1))
    if body.shape == "capsule":
        return np.sqrt(np.clip(1 - (np.clip(np.abs(above) - z, 0, None) / r) ** 2, 0, 1))
    if body.shape == "torus":
        return (r + np.sqrt(np.clip(z * z - above * above, 0, None))) / (r + z)
    return np.ones_like(height)
