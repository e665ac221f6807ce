"""How bodies travel over the ground: straight legs, slowed by friction, that end where two bodies strike each other.

Everything is in closed form between two strikes, and the strikes are looked for on a grid that starts at the strike
before, so a body's state at a time never depends on which other times were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from yozora.world.scene import DIRECTIONS, Body
from yozora.world.shapes import footprint, heading, mass, profile, reach, rest_height, rolls

GRAVITY = 9.81
SLIDING_FRICTION = 0.11
ROLLING_FRICTION = 0.012
RESTITUTION = 0.85  # of a strike between two bodies
_PHYSICAL = ("still", "roll", "slide", "collide")  # these strike and are struck; scripted bodies pass untouched
_STEP, _STEPS = 1 / 120, 120
_MOST_STRIKES = 64


@dataclass(frozen=True)
class Leg:
    """Straight travel from `start` s on: from `origin` (m) at `velocity` (m/s), losing `slowing` m/s each second."""

    start: float
    origin: tuple[float, float]
    velocity: tuple[float, float]
    slowing: float

    @property
    def speed(self) -> float:
        return float(np.hypot(*self.velocity))

    @property
    def direction(self) -> np.ndarray:
        """Unit vector [2] of travel, or zeros for a leg that stands still."""
        return np.array(self.velocity) / (self.speed or 1.0)

    @property
    def end(self) -> float:
        """When friction has stopped it, in seconds."""
        if self.speed == 0:
            return self.start
        return self.start + self.speed / self.slowing if self.slowing > 0 else np.inf

    def distance(self, times: np.ndarray) -> np.ndarray:
        """Metres gone at `times` (any shape)."""
        gone = np.clip(times, self.start, self.end) - self.start
        return gone * (self.speed - 0.5 * self.slowing * gone)

    def position(self, times: np.ndarray) -> np.ndarray:
        """[..., 2] metres at `times` [...]."""
        return np.array(self.origin) + self.distance(times)[..., None] * self.direction

    def velocity_at(self, time: float) -> np.ndarray:
        """[2] m/s at a time."""
        if not self.start <= time < self.end:
            return np.zeros(2)
        return self.direction * (self.speed - self.slowing * (time - self.start))


def plan_legs(bodies: Sequence[Body], until: float) -> list[list[Leg]]:
    """The legs of every body from 0 s to at least `until`, strikes included. Circles are not legs (see simulate)."""
    legs = [[_first_leg(body)] for body in bodies]
    able = [i for i, body in enumerate(bodies) if body.motion.kind in _PHYSICAL]
    pairs = [_Pair(i, j, bodies) for i, j in combinations(able, 2)]
    time, strikes = 0.0, 0
    while pairs and time < until and strikes < _MOST_STRIKES:
        if all(legs[i][-1].end <= time for i in able):
            break
        found = _next_strike(pairs, legs, time)
        if found is None:
            time += _STEP * _STEPS
            continue
        time, pair = found
        _strike(pair, bodies, legs, time)
        strikes += 1
    return legs


def locate(legs: Sequence[Leg], times: np.ndarray) -> np.ndarray:
    """Where a body with these legs is at `times` [F]: [F, 2] metres."""
    where = legs[0].position(times)
    for leg in legs[1:]:
        where = np.where((times >= leg.start)[:, None], leg.position(times), where)
    return where


def slowing(body: Body) -> float:
    """m/s lost each second: rolling loses little, sliding much."""
    return GRAVITY * (ROLLING_FRICTION if rolls(body) else SLIDING_FRICTION)


def _first_leg(body: Body) -> Leg:
    motion = body.motion
    direction = motion.kind if motion.kind in DIRECTIONS else motion.direction
    moves = motion.kind in (*DIRECTIONS, "roll", "slide", "collide", "hide") and direction
    x, y = DIRECTIONS[direction] if moves else (0.0, 0.0)
    loss = slowing(body) if motion.kind in _PHYSICAL else 0.0
    return Leg(motion.start, body.position, (x * motion.speed, y * motion.speed), loss)


class _Pair:
    """Two bodies that could meet, and how far apart their centres are when they touch."""

    def __init__(self, first: int, second: int, bodies: Sequence[Body]) -> None:
        self.first, self.second = first, second
        a, b = self.bodies = bodies[first], bodies[second]
        self.farthest = reach(a) + reach(b)
        heights = np.linspace(0, 2 * min(rest_height(a), rest_height(b)), 33)
        self.profiles = profile(a, heights), profile(b, heights)

    def gap(self, legs: Sequence[Sequence[Leg]], times: np.ndarray) -> np.ndarray:
        """[K] metres between the two at `times` [K] along the line between their centres; less than 0 in contact."""
        between = legs[self.second][-1].position(times) - legs[self.first][-1].position(times)
        apart = np.hypot(between[:, 0], between[:, 1])
        if apart.min() > self.farthest:
            return apart - self.farthest
        normal = between / np.maximum(apart, 1e-9)[:, None]
        (a, b), (wide_a, wide_b) = self.bodies, self.profiles
        widths = np.outer(_support(a, normal), wide_a) + np.outer(_support(b, normal), wide_b)
        return apart - widths.max(axis=1)


def _support(body: Body, normal: np.ndarray) -> np.ndarray:
    """How far [K] the body's footprint reaches along unit vectors [K, 2]."""
    corners = footprint(body)
    if corners is None:
        return np.full(len(normal), reach(body))
    c, s = np.cos(heading(body)), np.sin(heading(body))
    along, across = normal @ np.array([c, s]), normal @ np.array([-s, c])
    return corners[0] * np.abs(along) + corners[1] * np.abs(across)


def _next_strike(pairs: list[_Pair], legs: list[list[Leg]], time: float) -> tuple[float, _Pair] | None:
    """The first contact of two approaching bodies within the next second."""
    times = time + _STEP * np.arange(_STEPS + 1)
    best: tuple[float, _Pair] | None = None
    for pair in pairs:
        if max(legs[pair.first][-1].end, legs[pair.second][-1].end) <= time:
            continue
        gap = pair.gap(legs, times)
        touching = np.flatnonzero((gap[1:] < 0) & (gap[1:] < gap[:-1] - 1e-7))
        if len(touching) == 0:
            continue
        k = int(touching[0])
        part = gap[k] / (gap[k] - gap[k + 1]) if gap[k] > 0 else 0.0
        if best is None or times[k] + part * _STEP < best[0]:
            best = float(times[k] + part * _STEP), pair
    return best


def _strike(pair: _Pair, bodies: Sequence[Body], legs: list[list[Leg]], time: float) -> None:
    """Gives both bodies of a pair a new leg: momentum is kept, RESTITUTION of the closing speed comes back."""
    now = np.array(time)
    a, b = legs[pair.first][-1], legs[pair.second][-1]
    where_a, where_b = a.position(now), b.position(now)
    normal = (where_b - where_a) / max(float(np.hypot(*(where_b - where_a))), 1e-9)
    fast_a, fast_b = a.velocity_at(time), b.velocity_at(time)
    closing = float((fast_a - fast_b) @ normal)
    bounce = RESTITUTION if closing > 0.02 else 0.0  # a body at rest against another must not rattle
    mass_a, mass_b = mass(bodies[pair.first]), mass(bodies[pair.second])
    impulse = (1 + bounce) * max(closing, 0.0) * mass_a * mass_b / (mass_a + mass_b)
    for index, where, fast in (
        (pair.first, where_a, fast_a - impulse / mass_a * normal),
        (pair.second, where_b, fast_b + impulse / mass_b * normal),
    ):
        point, velocity = (float(where[0]), float(where[1])), (float(fast[0]), float(fast[1]))
        legs[index].append(Leg(time, point, velocity, slowing(bodies[index])))
