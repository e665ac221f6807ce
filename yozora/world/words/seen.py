"""What of a scene can be seen and so be told: the bodies that show, whom they strike, where they stand; its facts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yozora.world.cameras import project
from yozora.world.scene import COLOURS, DIRECTIONS, SHAPES, Scene, Trajectory
from yozora.world.shapes import reach
from yozora.world.simulate import simulate
from yozora.world.travel import plan_legs

COLOURLESS_STYLES = ("sketch", "film noir")
FACTS = (
    *("count", "shape", "colour", "size", "material", "motion", "direction", "colour_to"),
    *("second_shape", "second_colour", "second_size", "second_material", "second_motion", "second_direction"),
    *("ground", "time", "weather", "camera", "camera_direction", "style"),
    "relation",  # where the second body is from the main one
)
_GREY = np.array([0.2126, 0.7152, 0.0722])  # luminance of linear light (Rec. 709)
_MIN_TONE_STEP = 0.12  # of perceived lightness, 0 to 1: below this a change of tone does not show


@dataclass(frozen=True)
class Seen:
    """What can be told of a scene. Indices count `scene.bodies` and `scene.walls`.

    `visible`: bodies that show at some time, the main one first; `struck`: when each body first meets which other one;
    `partner`: the body that a colliding or stacking body hits or lands on; `wall`: what a hiding body goes behind.
    """

    scene: Scene
    visible: tuple[int, ...]
    partner: dict[int, int]
    struck: dict[int, tuple[float, int]]
    wall: dict[int, int]

    @property
    def main(self) -> int | None:
        """The first body that does something, else the first that shows; None for an empty scene."""
        return self.visible[0] if self.visible else None

    @property
    def second(self) -> int | None:
        """The body that the main one meets, else the next one."""
        if self.main is None:
            return None
        others = [i for i in self.visible if i != self.main]
        return self.partner.get(self.main, others[0] if others else None)

    @property
    def coloured(self) -> bool:
        """Whether colours can be told apart in this style."""
        return self.scene.style not in COLOURLESS_STYLES

    @property
    def outdoors(self) -> bool:
        """Whether there is a sky with a time of day and weather to speak of."""
        return self.scene.place.ground not in ("studio", "space")

    def motion(self, body: int) -> str:
        """The kind of motion as it is seen, a key of the table of motions."""
        motion, colour = self.scene.bodies[body].motion, self.scene.bodies[body].colour
        if motion.kind == "recolour":
            if motion.colour_to in ("", colour):
                return "still"
            if self.coloured:
                return "recolour"
            step = _lightness(motion.colour_to) - _lightness(colour)
            return "still" if abs(step) < _MIN_TONE_STEP else "lighter" if step > 0 else "darker"
        if motion.kind in ("collide", "stack") and body not in self.partner:
            return "collide_alone" if motion.kind == "collide" else "fall"
        if motion.kind == "hide" and body not in self.wall:
            return "hide_alone"
        return "travel" if motion.kind in DIRECTIONS else motion.kind

    def direction(self, body: int) -> str:
        """left, right, towards, away or ""."""
        motion = self.scene.bodies[body].motion
        return motion.kind if motion.kind in DIRECTIONS else motion.direction

    def rests(self, body: int) -> bool:
        """Whether it really stays where it is (nothing strikes it)."""
        return self.motion(body) == "still" and body not in self.struck

    def relation(self, body: int, other: int) -> str:
        """Where `body` is from `other` in the first view: left, right, behind, front, or "" if too close to say."""
        (x0, y0), (x1, y1) = self.scene.bodies[other].position, self.scene.bodies[body].position
        far = max(self.scene.camera.distance, 1.0)
        across = x1 / max(1 + y1 / far, 0.2) - x0 / max(1 + y0 / far, 0.2)
        away, least = y1 - y0, 0.3
        if max(abs(across), abs(away)) < least:
            return ""
        if abs(across) >= 0.8 * abs(away):
            return "left" if across < 0 else "right"
        return "front" if away < 0 else "behind"


def look_at(scene: Scene) -> Seen:
    """Works out what shows in `scene` and who meets whom."""
    trajectory = simulate(scene, np.linspace(0.0, scene.duration, 9))
    visible = [i for i in range(len(scene.bodies)) if _shows(trajectory, i)]
    struck = _strikes(scene)
    partner = _partners(scene, struck, visible)
    wall = {
        i: int(np.argmin([np.hypot(*np.subtract(w.position, scene.bodies[i].position)) for w in scene.walls]))
        for i in visible
        if scene.walls and scene.bodies[i].motion.kind == "hide"
    }
    seen = Seen(scene, tuple(visible), partner, struck, wall)
    return Seen(scene, tuple(sorted(visible, key=lambda i: seen.motion(i) == "still")), partner, struck, wall)


def hidden_span(seen: Seen, body: int) -> tuple[float, float] | None:
    """From when to when (s) a hiding body is wholly behind its wall, the first time; None if it never is."""
    times = np.linspace(0.0, seen.scene.duration, 81)
    trajectory = simulate(seen.scene, times)
    points = _points(trajectory, body)
    wall = len(seen.scene.bodies) + seen.wall[body]
    blocked: np.ndarray = np.all(_blocks(trajectory, wall, points), axis=1, keepdims=False)
    if bool(blocked[0]) or not bool(np.any(blocked)):
        return None
    first = int(np.argmax(blocked))
    free = np.flatnonzero(~blocked & (times > times[first]))
    return float(times[first]), float(times[free[0]] if len(free) else times[-1])


def labels(seen: Seen) -> dict[str, str]:
    """Every fact in FACTS that can be seen, in the scene's own words; "none" for what there is not."""
    scene, found = seen.scene, dict.fromkeys(FACTS, "none")
    found["count"] = str(len(seen.visible))
    for prefix, index in (("", seen.main), ("second_", seen.second)):
        if index is None:
            continue
        body = scene.bodies[index]
        found |= {f"{prefix}{name}": getattr(body, name) for name in ("shape", "size", "material")}
        found[f"{prefix}colour"] = body.colour if seen.coloured else "none"
        found[f"{prefix}motion"] = "still" if seen.motion(index) == "still" else body.motion.kind
        found[f"{prefix}direction"] = seen.direction(index) or "none"
        if not prefix and seen.motion(index) == "recolour":
            found["colour_to"] = body.motion.colour_to
    if seen.main is not None and seen.second is not None:
        found["relation"] = seen.relation(seen.second, seen.main) or "none"
    found["ground"], found["style"] = scene.place.ground, scene.style
    found["camera"], found["camera_direction"] = scene.camera.kind, scene.camera.direction or "none"
    if seen.outdoors:
        found["time"], found["weather"] = scene.place.time, scene.place.weather
    elif scene.place.weather != "clear":
        found["weather"] = scene.place.weather
    return found


def _lightness(colour: str) -> float:
    return float(_GREY @ np.array(COLOURS[colour])) ** (1 / 2.2)


def _strikes(scene: Scene) -> dict[int, tuple[float, int]]:
    """For each body that meets another within the scene: when first, and whom."""
    legs = plan_legs(scene.bodies, scene.duration)
    first: dict[int, tuple[float, int]] = {}
    for i, own in enumerate(legs):
        for leg in own[1:]:
            if leg.start > scene.duration:
                continue
            others = [j for j, theirs in enumerate(legs) if j != i and any(t.start == leg.start for t in theirs[1:])]
            if others:
                first[i] = (leg.start, others[0])
                break
    return first


def _partners(scene: Scene, struck: dict[int, tuple[float, int]], visible: list[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for i in visible:
        body = scene.bodies[i]
        if body.motion.kind == "collide" and i in struck and struck[i][1] in visible:
            found[i] = struck[i][1]
        if body.motion.kind == "stack":
            apart = {
                j: float(np.hypot(*np.subtract(scene.bodies[j].position, body.position))) for j in visible if j != i
            }
            under = [j for j in sorted(apart, key=lambda j: apart[j]) if apart[j] < reach(scene.bodies[j])]
            if under:
                found[i] = under[0]
    return found


def _shows(trajectory: Trajectory, body: int) -> bool:
    """Whether some part of a body is inside the frame and in front of everything at one of the trajectory's times."""
    points = _points(trajectory, body)
    screen, depth = project(trajectory, points)
    inside = (depth > 0.1) & (np.abs(screen) < 1.0).all(axis=-1)
    for other in range(trajectory.position.shape[1]):
        if other != body and inside.any():
            inside &= ~_blocks(trajectory, other, points)
    return bool(inside.any())


def _points(trajectory: Trajectory, body: int) -> np.ndarray:
    """[F, 5, 3] the centre of a body and points near its left, right, upper and lower ends, metres."""
    half, size = trajectory.half[body], trajectory.scale[:, body, None]
    is_torus = trajectory.shape[body] == SHAPES.index("torus")
    width, height = half[0] + (half[2] if is_torus else 0.0), max(half[2], 0.5 * half[0])
    offsets = 0.8 * np.array([(0, 0, 0), (width, 0, 0), (-width, 0, 0), (0, 0, height), (0, 0, -height)])
    return trajectory.position[:, body, None] + size[:, :, None] * offsets


def _blocks(trajectory: Trajectory, other: int, points: np.ndarray) -> np.ndarray:
    """[F, P] whether the box around `other` (a little smaller) stands between the eye and points [F, P, 3]."""
    is_wall = trajectory.shape[other] == SHAPES.index("box")
    half = trajectory.half[other] * trajectory.scale[:, other, None] * (1.0 if is_wall else 0.7)  # [F, 3]
    centre = trajectory.position[:, other]
    start, way = trajectory.eye[:, None], points - trajectory.eye[:, None]
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    low = (centre - half)[:, None] - start
    high = (centre + half)[:, None] - start
    enter = np.minimum(low / way, high / way).max(axis=-1)
    leave = np.maximum(low / way, high / way).min(axis=-1)
    return (enter < leave) & (enter > 0) & (enter < 0.98)
