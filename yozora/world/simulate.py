"""A scene set in motion: physics, scripted motion and the camera, as plain numpy.

`simulate` is a pure function of the scene and the time: the state at a time is the same whatever other times are asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yozora.errors import SceneError
from yozora.world.cameras import film
from yozora.world.scene import COLOURS, DIRECTIONS, MATERIALS, SHAPES, Body, Scene, Trajectory
from yozora.world.shapes import half_measures, on_its_side, reach, rest_height, rolling_radius, rolls
from yozora.world.travel import GRAVITY, Leg, locate, plan_legs

RESTITUTION = {"fall": 0.35, "bounce": 0.8, "stack": 0.15}  # of the ground, for bodies that drop
CIRCLE_RADIUS = 1.0  # metres, of a body that starts at the origin; others circle round the origin
SCALE_RANGE = (0.2, 4.0)  # how far shrink and grow go


def simulate(scene: Scene, times: np.ndarray) -> Trajectory:
    """The scene at `times` [F], seconds from its start. Raises SceneError for times that are not finite or below 0."""
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or not np.isfinite(times).all() or (times < 0).any():
        raise SceneError("times must be a list of seconds, each 0 or later")
    bodies, walls = scene.bodies, scene.walls
    frames, count = len(times), len(bodies) + len(walls)
    position, colour = np.zeros((frames, count, 3)), np.zeros((frames, count, 3))
    rotation, scale = np.tile(np.eye(3), (frames, count, 1, 1)), np.ones((frames, count))
    floors = _floors(bodies)
    legs = plan_legs(bodies, float(times.max(initial=0.0)))
    for n, body in enumerate(bodies):
        turn = _turn(body, times)
        scale[:, n] = _scale(body, times)
        position[:, n, :2] = _circle(body, turn) if body.motion.kind == "circle" else locate(legs[n], times)
        position[:, n, 2] = floors[n] + _lift(body, times) + scale[:, n] * rest_height(body)
        rotation[:, n] = _rotation(body, turn, legs[n], times)
        colour[:, n] = _colour(body, times, scene.duration)
    for n, wall in enumerate(walls, start=len(bodies)):
        position[:, n] = (*wall.position, wall.half[2])
        colour[:, n] = COLOURS[wall.colour]
    eye, look, fov = film(scene, times)
    return Trajectory(
        times=times,
        shape=np.array([SHAPES.index(b.shape) for b in bodies] + [SHAPES.index("box")] * len(walls), dtype=np.int64),
        material=np.array(
            [MATERIALS.index(b.material) for b in bodies] + [MATERIALS.index("matte")] * len(walls), dtype=np.int64
        ),
        half=np.array([half_measures(b) for b in bodies] + [w.half for w in walls], dtype=np.float64).reshape(-1, 3),
        position=position,
        rotation=rotation,
        scale=scale,
        colour=colour,
        eye=eye,
        look=look,
        fov=fov,
    )


def _floors(bodies: Sequence[Body]) -> list[float]:
    """Height of what each body lands on: the top of a body that stands below it, or the ground."""
    floors: list[float] = []
    for n, body in enumerate(bodies):
        floor = 0.0
        for m, other in enumerate(bodies):
            drops = other.motion.kind in RESTITUTION
            if body.motion.kind not in RESTITUTION or m == n or (drops and m > n):
                continue
            apart = np.hypot(body.position[0] - other.position[0], body.position[1] - other.position[1])
            if apart < reach(other):
                floor = max(floor, 2 * rest_height(other) + (floors[m] if m < n else 0.0))
        floors.append(floor)
    return floors


def _lift(body: Body, times: np.ndarray) -> np.ndarray:
    """[F] metres of a dropping body above where it will rest: a drop, then bounces, each a parabola, until it lies."""
    motion = body.motion
    if motion.kind not in RESTITUTION or motion.height <= 0:
        return np.zeros_like(times)
    speed = float(np.sqrt(2 * GRAVITY * motion.height))
    starts, speeds = [motion.start + speed / GRAVITY], [speed * RESTITUTION[motion.kind]]
    while speeds[-1] > 0.2:
        starts.append(starts[-1] + 2 * speeds[-1] / GRAVITY)
        speeds.append(speeds[-1] * RESTITUTION[motion.kind])
    speeds[-1] = 0.0
    bounce = np.searchsorted(starts, times, side="right") - 1
    since = times - np.array(starts)[bounce]
    hop = np.array(speeds)[bounce] * since - 0.5 * GRAVITY * since**2
    drop = motion.height - 0.5 * GRAVITY * np.maximum(times - motion.start, 0.0) ** 2
    return np.maximum(np.where(bounce < 0, drop, hop), 0.0)


def _turn(body: Body, times: np.ndarray) -> np.ndarray:
    """[F] radians about z of a body that spins or goes in a circle since its start."""
    if body.motion.kind not in ("spin", "circle"):
        return np.zeros_like(times)
    return body.motion.speed * np.maximum(times - body.motion.start, 0.0)


def _circle(body: Body, turn: np.ndarray) -> np.ndarray:
    """[F, 2] metres: round the origin, or on a circle of its own for a body that starts there."""
    x, y = body.position
    centre = np.zeros(2) if np.hypot(x, y) > 0.1 else np.array([x, y + CIRCLE_RADIUS])
    from_centre = np.array([x, y]) - centre
    c, s = np.cos(turn), np.sin(turn)
    return centre + np.stack([c * from_centre[0] - s * from_centre[1], s * from_centre[0] + c * from_centre[1]], axis=1)


def _scale(body: Body, times: np.ndarray) -> np.ndarray:
    """[F] factor on the body's size."""
    if body.motion.kind not in ("grow", "shrink"):
        return np.ones_like(times)
    doublings = body.motion.speed * np.maximum(times - body.motion.start, 0.0)
    return np.clip(2.0 ** (doublings if body.motion.kind == "grow" else -doublings), *SCALE_RANGE)


def _colour(body: Body, times: np.ndarray, duration: float) -> np.ndarray:
    """[F, 3] linear light; `recolour` changes it over the middle half of the time it has."""
    colour = np.array(COLOURS[body.colour])
    if body.motion.kind != "recolour" or not body.motion.colour_to:
        return np.tile(colour, (len(times), 1))
    done = np.clip(2 * (times - body.motion.start) / max(duration - body.motion.start, 1e-3) - 0.5, 0.0, 1.0)
    done = (done * done * (3 - 2 * done))[:, None]
    return (1 - done) * colour + done * np.array(COLOURS[body.motion.colour_to])


def _rotation(body: Body, turn: np.ndarray, legs: Sequence[Leg], times: np.ndarray) -> np.ndarray:
    """[F, 3, 3] from body axes to world axes."""
    rest = _pose(body)
    if not rolls(body):
        return _about_z(turn) @ rest
    radius = rolling_radius(body)
    if body.shape != "sphere":  # only along its own wheel direction
        ahead = np.array(DIRECTIONS.get(body.motion.direction, (1.0, 0.0)))
        gone = (locate(legs, times) - np.array(body.position)) @ ahead
        return _rolled(ahead, gone / radius) @ rest
    rotation = np.empty((len(times), 3, 3))
    for n, leg in enumerate(legs):
        here = slice(None) if n == 0 else times >= leg.start
        rotation[here] = _rolled(leg.direction, leg.distance(times[here]) / radius) @ rest
        if n + 1 < len(legs):
            rest = _rolled(leg.direction, leg.distance(np.array([legs[n + 1].start])) / radius)[0] @ rest
    return rotation


def _pose(body: Body) -> np.ndarray:
    """[3, 3] how the body stands at the start: upright and turned by its yaw, or on its side, its axle level."""
    if on_its_side(body):
        x, y = DIRECTIONS.get(body.motion.direction, (float(np.cos(body.yaw)), float(np.sin(body.yaw))))
        return np.array([[x, 0.0, -y], [y, 0.0, x], [0.0, -1.0, 0.0]])  # columns: ahead, down, axle
    return _about_z(np.array([body.yaw]))[0]


def _about_z(angle: np.ndarray) -> np.ndarray:
    """[F, 3, 3] turns by `angle` [F] about z."""
    c, s, o = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack([c, -s, o, s, c, o, o, o, o + 1], axis=-1).reshape(*angle.shape, 3, 3)


def _rolled(ahead: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """[F, 3, 3] turns by `angle` [F] that roll a body towards `ahead` [2] (Rodrigues, about the level axle)."""
    cross = np.array([[0.0, 0.0, ahead[0]], [0.0, 0.0, ahead[1]], [-ahead[0], -ahead[1], 0.0]])
    return np.eye(3) + np.sin(angle)[:, None, None] * cross + (1 - np.cos(angle))[:, None, None] * (cross @ cross)
