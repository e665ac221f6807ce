"""Where the things of a scene stand, how fast they move and how far the camera goes, so that all of it can be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yozora.errors import SceneError
from yozora.world.cameras import frame_half_height, project
from yozora.world.scene import DIRECTIONS, SIZES, Body, Camera, Scene, Wall
from yozora.world.shapes import mass, reach, rest_height
from yozora.world.simulate import simulate
from yozora.world.travel import slowing

_ATTEMPTS = 200  # of a whole staging; each gives more room than the one before
_DARTS = 12  # places tried for a body within an attempt
_MARGIN = 0.06  # metres between two bodies that are not meant to touch
_MOST_HIDDEN = 0.35  # of the time that one body may stand before another
_STRIKE_SPEED = 1.1  # m/s that a body at least has left when it strikes another
_AMOUNTS = {  # radians, metres (dolly), a factor (zoom)
    "still": (0.0, 0.0),
    "pan": (0.28, 0.42),
    "tilt": (0.22, 0.34),
    "dolly": (1.6, 2.6),
    "orbit": (0.6, 1.1),
    "zoom": (1.5, 1.9),
    "handheld": (0.012, 0.028),
}
_SIZES = tuple(SIZES)


def stage(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene with all its numbers drawn: bodies apart at the start and in view throughout, where its motions let
    them. When that fails it tries again from farther away, and now and then with smaller bodies."""
    for attempt in range(_ATTEMPTS):
        smaller = attempt // 8
        bodies = [replace(b, size=_SIZES[max(0, _SIZES.index(b.size) - smaller)]) for b in scene.bodies]
        camera = _draw_camera(rng, scene.camera, bodies, attempt)
        staged = _place_all(rng, replace(scene, bodies=(), camera=camera), bodies)
        if staged is not None:
            return _rounded(staged)
    raise SceneError(f"no room for the {len(scene.bodies)} bodies of scene {scene.seed}")


def _draw_camera(rng: np.random.Generator, cast: Camera, bodies: Sequence[Body], attempt: int) -> Camera:
    near, far = ((5.0, 5.8), (5.7, 6.7), (6.4, 7.4))[min(len(bodies), 3) - 1]
    back = 1.1 if any(body.motion.kind in ("hide", "circle", "collide") for body in bodies) else 1.0  # they need width
    low, high = _AMOUNTS[cast.kind]
    least = 1.0 if cast.kind == "zoom" else 0.0
    amount = least + (rng.uniform(low, high) - least) * max(0.5, 1 - 0.02 * attempt)
    return replace(
        cast,
        amount=amount,
        distance=rng.uniform(near, far) * back * (1 + 0.01 * attempt),
        height=rng.uniform(1.7, 2.7),
        fov=rng.uniform(0.66, 0.72),
    )


def _place_all(rng: np.random.Generator, stage_: Scene, bodies: Sequence[Body]) -> Scene | None:
    """The bodies placed one after the other (those that meet, together), or None if one finds no room."""
    done = stage_
    room = _Room(frame_half_height(stage_.camera), stage_.duration, len(bodies))
    while len(done.bodies) < len(bodies):
        n = len(done.bodies)
        together = 2 if bodies[n].motion.kind in ("collide", "stack") and n + 1 < len(bodies) else 1
        group = bodies[n : n + together]
        for _ in range(_DARTS):
            placed, walls = _place(rng, group, room, stage_.camera)
            tried = replace(done, bodies=(*done.bodies, *placed), walls=(*done.walls, *walls))
            if _fits(tried, first_new=n):
                done = tried
                break
        else:
            return None
    return done


@dataclass(frozen=True)
class _Room:
    """What there is to play in: half the view's size at the origin (m), how long (s), and how many bodies."""

    half: float
    duration: float
    count: int


def _place(
    rng: np.random.Generator, group: Sequence[Body], room: _Room, camera: Camera
) -> tuple[list[Body], list[Wall]]:
    """One draw of a body's (or of a meeting pair's) place and motion, and the wall it needs."""
    body = group[0]
    start = rng.uniform(0.08, 0.22) * room.duration if rng.random() < 0.2 else 0.0
    body = replace(body, motion=replace(body.motion, start=start))
    kind, left = body.motion.kind, room.duration - start
    if kind == "collide" and len(group) == 2:
        return _place_collision(rng, body, group[1], room), []
    if kind == "stack" and len(group) == 2:
        return _place_stack(rng, body, group[1], room), []
    if kind == "hide":
        return _place_hiding(rng, body, room, camera)
    if kind in DIRECTIONS or kind in ("roll", "slide", "collide"):
        return [_place_travel(rng, body, room)], []
    alone = room.count == 1
    depth = rng.uniform(-0.5, 0.7) if alone else rng.uniform(-0.9, 1.6)
    body = _at(body, np.array([_around(rng, (0.3 if alone else 0.75) * room.half), depth]))
    sign = rng.choice((-1.0, 1.0))
    if kind in ("fall", "bounce", "stack"):
        return [_with(body, height=rng.uniform(0.85, 1.45))], []
    if kind == "circle":
        angle, radius = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 0.62) * room.half
        body = replace(body, position=(radius * np.cos(angle), radius * np.sin(angle)))
        return [_with(body, speed=sign * 2 * np.pi * rng.uniform(0.6, 1.0) / left)], []
    if kind == "spin":
        return [_with(body, speed=sign * 2 * np.pi * rng.uniform(0.5, 1.0) / left)], []
    if kind in ("grow", "shrink"):
        return [_with(body, speed=rng.uniform(0.8, 1.2) / left)], []
    return [body], []


def _place_travel(rng: np.random.Generator, body: Body, room: _Room) -> Body:
    """A body that crosses the middle of the view, over about half of the view's width or most of its depth."""
    kind = body.motion.kind
    direction = kind if kind in DIRECTIONS else str(rng.choice(tuple(DIRECTIONS), p=(0.4, 0.4, 0.1, 0.1)))
    ahead = np.array(DIRECTIONS[direction])
    crowd = 1.0 if room.count == 1 else 1.8
    if ahead[0]:
        length = rng.uniform(0.9, 1.2) * room.half
        middle = np.array([_around(rng, 0.1 * room.half), 0.1 + _around(rng, 0.6 * crowd)])
    else:
        length = rng.uniform(1.4, 1.8) * room.half
        middle = np.array([_around(rng, 0.25 * crowd * room.half), 0.2 + _around(rng, 0.2)])
    body = _with(_at(body, middle - 0.5 * length * ahead), direction="" if kind in DIRECTIONS else direction)
    left = room.duration - body.motion.start
    return _with(body, speed=_launch_speed(length, left, slowing(body) if kind not in DIRECTIONS else 0.0))


def _place_collision(rng: np.random.Generator, body: Body, struck: Body, room: _Room) -> list[Body]:
    """A body that crosses a good part of the view and strikes another, lighter one, before half-time."""
    body, struck = _larger_first(body, struck)
    if mass(struck) > mass(body):  # else what is struck would hardly move
        body, struck = replace(struck, motion=body.motion), replace(body, motion=struck.motion)
    direction = str(rng.choice(tuple(DIRECTIONS), p=(0.42, 0.42, 0.08, 0.08)))
    ahead = np.array(DIRECTIONS[direction])
    across = np.array([-ahead[1], ahead[0]])
    way, touching = rng.uniform(0.45, 0.65) * room.half, 0.95 * (reach(body) + reach(struck))
    meet = np.array([0.0, rng.uniform(-0.3, 0.6)]) + _around(rng, 0.1) * room.half * ahead
    offset = _around(rng, 0.2) * struck.radius * across
    body = _with(_at(body, meet - (way + touching) * ahead), direction=direction)
    left = room.duration - body.motion.start
    speed = _launch_speed(way, rng.uniform(0.3, 0.4) * left, slowing(body))
    lively = float(np.hypot(_STRIKE_SPEED, np.sqrt(2 * slowing(body) * way)))  # in a long scene it must still arrive
    body = _with(body, speed=max(speed, lively))
    return [body, _at(struck, meet + offset)]


def _place_stack(rng: np.random.Generator, body: Body, below: Body, room: _Room) -> list[Body]:
    """One body above another that is not smaller."""
    below, body = _larger_first(below, body)
    spread = 0.3 if room.count == 1 else 0.6
    place = np.array([_around(rng, spread * room.half), rng.uniform(-0.5, 0.7)])
    off = 0.12 * below.radius * rng.uniform(-1, 1, 2)
    body = replace(_at(body, place + off), yaw=below.yaw + _around(rng, 0.3))
    return [_with(body, height=rng.uniform(0.7, 1.2)), _at(below, place)]


def _place_hiding(rng: np.random.Generator, body: Body, room: _Room, camera: Camera) -> tuple[list[Body], list[Wall]]:
    """A body that crosses the view behind a wall just large enough to cover it."""
    direction = str(rng.choice(("left", "right")))
    ahead = np.array(DIRECTIONS[direction])
    depth, r = rng.uniform(0.5, 0.9), reach(body)
    wall_depth = depth - r - rng.uniform(0.2, 0.4)
    half_width = rng.uniform(1.15, 1.35) * r + 0.05
    nearer = (camera.distance + wall_depth) / (camera.distance + depth)
    top = camera.height + (2 * rest_height(body) - camera.height) * nearer  # where the line of sight passes the wall
    half_height = 0.5 * (max(top, 2 * rest_height(body)) + 0.12)
    middle = np.array([_around(rng, 0.08 * room.half), depth])
    half_way = max(rng.uniform(0.55, 0.68) * room.half, half_width / nearer + 1.05 * r)
    body = _with(_at(body, middle - half_way * ahead), direction=direction)
    body = _with(body, speed=2 * half_way / (room.duration - body.motion.start))
    colour = str(rng.choice([c for c in ("brown", "white") if c != body.colour]))
    return [body], [Wall((middle[0], wall_depth), (half_width, 0.07, half_height), colour)]


def _fits(scene: Scene, first_new: int) -> bool:
    """Whether nothing overlaps or hides another at the start, and the new bodies stay apart and in view."""
    bodies, walls = scene.bodies, scene.walls
    begin = np.array([b.position for b in bodies] + [w.position for w in walls])
    reaches = np.array([reach(b) for b in bodies] + [float(np.hypot(*w.half[:2])) for w in walls])
    pairs = [(j, i) for i in range(first_new, len(begin)) for j in range(i)]
    pairs = [(i, j) for i, j in pairs if not _stacked(bodies, i, j)]
    away = np.maximum(scene.camera.distance + begin[:, 1], 0.1)
    for i, j in pairs:
        apart = np.hypot(*(begin[i] - begin[j])) - reaches[i] - reaches[j]
        aside = abs(begin[i, 0] / away[i] - begin[j, 0] / away[j])  # as the camera sees them
        if apart < _MARGIN or aside < 0.6 * (reaches[i] / away[i] + reaches[j] / away[j]):
            return False
    moving = simulate(scene, np.linspace(0.0, scene.duration, 9))
    place, size = moving.position, reaches * moving.scale
    screen, depth = project(moving, place)
    half = np.tan(moving.fov / 2)[:, None] * np.maximum(depth, 0.1)
    wide = size / half
    seen = slice(first_new, len(bodies))
    if (depth[:, seen] < 1.2 + size[:, seen]).any() or (np.abs(screen[:, seen]) + 0.6 * wide[:, seen, None] > 1).any():
        return False
    for i, j in pairs:
        close = (np.hypot(*(place[:, i, :2] - place[:, j, :2]).T) < size[:, i] + size[:, j]).any()
        if close and not _may_come_close(bodies, i, j):
            return False
        hidden = (np.abs(screen[:, i] - screen[:, j]) < np.maximum(wide[:, i], wide[:, j])[:, None]).all(axis=1)
        if j < len(bodies) and hidden.mean() > _MOST_HIDDEN:
            return False
    return True


def _stacked(bodies: Sequence[Body], i: int, j: int) -> bool:
    """Whether one of the two falls onto the other, which stands next in the list."""
    return abs(i - j) == 1 and max(i, j) < len(bodies) and bodies[min(i, j)].motion.kind == "stack"


def _may_come_close(bodies: Sequence[Body], i: int, j: int) -> bool:
    """Whether the two are a body and the next, which it strikes, or one that hides and a wall."""
    first, second = sorted((i, j))
    if second >= len(bodies):
        return first < len(bodies) and bodies[first].motion.kind == "hide"
    return second - first == 1 and bodies[first].motion.kind == "collide"


def _larger_first(first: Body, second: Body) -> tuple[Body, Body]:
    """The two with their sizes exchanged where the second is the larger."""
    if _SIZES.index(second.size) > _SIZES.index(first.size):
        return replace(first, size=second.size), replace(second, size=first.size)
    return first, second


def _launch_speed(way: float, duration: float, slowing_: float) -> float:
    """m/s at which a body covers `way` metres in `duration` s, or comes to rest there before."""
    if way > 0.5 * slowing_ * duration**2:
        return way / duration + 0.5 * slowing_ * duration
    return float(np.sqrt(2 * slowing_ * way))


def _around(rng: np.random.Generator, spread: float) -> float:
    return rng.uniform(-spread, spread)


def _at(body: Body, place: np.ndarray) -> Body:
    return replace(body, position=(float(place[0]), float(place[1])))


def _with(body: Body, **motion: Any) -> Body:
    return replace(body, motion=replace(body.motion, **motion))


def _rounded(value: Any) -> Any:
    """The same with every float at four decimals: short JSON, and no last-bit differences between machines."""
    if isinstance(value, (float, np.floating)):
        return round(float(value), 4)
    if isinstance(value, tuple):
        return tuple(_rounded(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _rounded(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value
