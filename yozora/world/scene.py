"""A scene of the simulated world: what is there, what it does, where it happens and how it is filmed.

`Scene` is a small, frozen, JSON-able description. `simulate(scene, times)` turns it into a `Trajectory`, `render` draws
a trajectory, `describe` says it in words; all three are pure functions.

World axes: x to the right of the first camera view, y away from it, z up; the ground is z = 0. All in metres, seconds
and radians.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yozora.errors import SceneError

SHAPES = ("sphere", "box", "cylinder", "cone", "capsule", "torus")
COLOURS: dict[str, tuple[float, float, float]] = {  # linear-light reflectance
    "red": (0.72, 0.035, 0.03),
    "orange": (0.86, 0.26, 0.015),
    "yellow": (0.85, 0.66, 0.03),
    "green": (0.04, 0.42, 0.06),
    "cyan": (0.03, 0.55, 0.60),
    "blue": (0.03, 0.09, 0.66),
    "purple": (0.24, 0.04, 0.46),
    "pink": (0.86, 0.25, 0.42),
    "brown": (0.13, 0.052, 0.022),
    "white": (0.82, 0.82, 0.82),
}
SIZES: dict[str, float] = {"tiny": 0.28, "small": 0.42, "large": 0.62, "huge": 0.88}  # radius in metres
MATERIALS = ("matte", "rubber", "metal", "checkered", "striped", "glowing")
GROUNDS = ("studio", "grass", "sand", "snow", "water", "city", "space")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "fog", "rain", "snow")
STYLES = ("realistic", "cartoon", "sketch", "pixel art", "film noir")
MOTIONS = (
    *("still", "fall", "bounce", "roll", "slide", "collide", "stack", "hide"),  # physics
    *("left", "right", "towards", "away", "circle", "spin", "grow", "shrink", "recolour"),  # scripted
)
DIRECTIONS: dict[str, tuple[float, float]] = {  # unit vectors (x, y) on the ground, seen by the first camera
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "towards": (0.0, -1.0),
    "away": (0.0, 1.0),
}
CAMERAS = ("still", "pan", "tilt", "dolly", "orbit", "zoom", "handheld")
CAMERA_DIRECTIONS: dict[str, tuple[str, ...]] = {
    "still": ("",),
    "pan": ("left", "right"),
    "tilt": ("up", "down"),
    "dolly": ("in", "out"),
    "orbit": ("left", "right"),
    "zoom": ("in", "out"),
    "handheld": ("",),
}


@dataclass(frozen=True)
class Motion:
    """What a body does. `direction` is for roll, slide, collide, hide (left/right/towards/away; "" otherwise);
    `speed` is m/s for travel, rad/s for spin and circle, doublings/s for grow and shrink; `height` (m) is where a
    fall, bounce or stack starts; `colour_to` names the colour that `recolour` ends in; `start` s is when it begins."""

    kind: str = "still"
    direction: str = ""
    speed: float = 0.0
    height: float = 0.0
    colour_to: str = ""
    start: float = 0.0


@dataclass(frozen=True)
class Body:
    """One object: its look, where on the ground it starts (x, y in metres), its turn about z, and its motion."""

    shape: str
    colour: str
    material: str
    size: str
    position: tuple[float, float]
    yaw: float = 0.0
    motion: Motion = field(default_factory=Motion)

    @property
    def radius(self) -> float:
        """Nominal radius in metres."""
        return SIZES[self.size]


@dataclass(frozen=True)
class Wall:
    """A free-standing screen that things hide behind: centre (x, y) and half extents (x, y, z), metres."""

    position: tuple[float, float]
    half: tuple[float, float, float]
    colour: str = "brown"


@dataclass(frozen=True)
class Camera:
    """How it is filmed. `distance` and `height` in metres from and above the origin, `fov` vertical in radians;
    `amount`: radians for pan, tilt and orbit, metres for dolly, a factor for zoom, radians of shake for handheld."""

    kind: str = "still"
    direction: str = ""
    amount: float = 0.0
    distance: float = 6.0
    height: float = 1.8
    fov: float = 0.70


@dataclass(frozen=True)
class Place:
    """Where and when: ground, time of day, weather, and the sun's azimuth (radians, 0 = from the right)."""

    ground: str = "studio"
    time: str = "day"
    weather: str = "clear"
    sun: float = 0.8


@dataclass(frozen=True)
class Scene:
    """A whole scene. The motions are planned for `duration` seconds; `seed` drives textures and shake."""

    seed: int
    bodies: tuple[Body, ...]
    place: Place = field(default_factory=Place)
    camera: Camera = field(default_factory=Camera)
    style: str = "realistic"
    walls: tuple[Wall, ...] = ()
    duration: float = 2.0

    def __post_init__(self) -> None:
        _check(self)

    def to_json(self) -> str:
        """The scene as one line of JSON; `Scene.from_json` reads it back equal."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """Reads `to_json`'s form; raises SceneError for anything else."""
        try:
            raw: dict[str, Any] = json.loads(text)
            bodies = tuple(
                Body(**{**b, "position": tuple(b["position"]), "motion": Motion(**b["motion"])}) for b in raw["bodies"]
            )
            walls = tuple(
                Wall(tuple(w["position"]), tuple(w["half"]), w["colour"])
                for w in raw["walls"]  # type: ignore[arg-type]
            )
            place, camera = Place(**raw["place"]), Camera(**raw["camera"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SceneError(f"not a scene: {error}") from None
        return cls(raw["seed"], bodies, place, camera, raw["style"], walls, raw["duration"])


@dataclass(frozen=True)
class Trajectory:
    """A scene in motion, sampled at F times: everything the renderer needs, and the ground truth of motion.

    N counts bodies, then walls. Shape parameters `half` are metres at scale 1: sphere (r, r, r); box half extents;
    cylinder, cone (r, r, half height); capsule (r, r, half length of the straight part); torus (ring radius,
    ring radius, tube radius). The axis of every shape is its own z; `rotation` maps body axes to world axes.
    """

    times: np.ndarray  # [F] seconds
    shape: np.ndarray  # [N] int, index into SHAPES (walls are boxes)
    material: np.ndarray  # [N] int, index into MATERIALS
    half: np.ndarray  # [N, 3]
    position: np.ndarray  # [F, N, 3] centre, metres
    rotation: np.ndarray  # [F, N, 3, 3]
    scale: np.ndarray  # [F, N] factor on `half`
    colour: np.ndarray  # [F, N, 3] linear light
    eye: np.ndarray  # [F, 3] camera centre, metres
    look: np.ndarray  # [F, 3, 3] rows: the camera's right, up and forward unit vectors in world axes
    fov: np.ndarray  # [F] vertical field of view, radians


def _check(scene: Scene) -> None:
    def one_of(value: str, known: Any, what: str) -> None:
        if value not in known:
            raise SceneError(f"unknown {what} {value!r}; known: {', '.join(known)}")

    for body in scene.bodies:
        one_of(body.shape, SHAPES, "shape")
        one_of(body.colour, COLOURS, "colour")
        one_of(body.material, MATERIALS, "material")
        one_of(body.size, SIZES, "size")
        one_of(body.motion.kind, MOTIONS, "motion")
        one_of(body.motion.direction, ("", *DIRECTIONS), "direction")
        one_of(body.motion.colour_to, ("", *COLOURS), "colour")
    one_of(scene.place.ground, GROUNDS, "ground")
    one_of(scene.place.time, TIMES, "time of day")
    one_of(scene.place.weather, WEATHERS, "weather")
    one_of(scene.style, STYLES, "style")
    one_of(scene.camera.kind, CAMERAS, "camera")
    one_of(scene.camera.direction, CAMERA_DIRECTIONS[scene.camera.kind], f"{scene.camera.kind} direction")
    if not 0 < scene.duration <= 3600:
        raise SceneError(f"a scene lasts between 0 and 3600 s, not {scene.duration}")
