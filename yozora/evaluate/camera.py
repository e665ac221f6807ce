"""How the camera moves, by the geometry of the background: corners are followed through a clip, and each way to film
that the world knows (`yozora.world.cameras`) is asked how well it explains where they went.

A corner below the horizon is taken to lie on the ground, one above it far away. Each way has one number, how far it
goes, which is the one that explains most; a hand holds the camera where each moment is explained by a shake of its own,
and none of the ways explains them all. What is filmed by other cameras than the world's is not read rightly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from yozora.world.cameras import film
from yozora.world.scene import CAMERA_DIRECTIONS, Camera, Scene

CORNERS, SHARP = 100, 0.01  # at most, in each frame that is begun from; how sharp, as a part of the sharpest
MOMENTS = 7  # frames that corners are followed from and to, evenly spread
LEAST = 8  # corners that must be followed from one moment to the next, for these two to count
MARGIN = 0.05  # of the short side: around a thing, which its shadow and its edge take
BACK = 0.01  # of the short side: how near a corner must come back to where it was
MOST = 0.04  # of the short side: a corner that is farther off counts as this far: it lies on nothing that is known
SKY = -0.02  # a ray that falls less is taken to end far away
FAR = 1e4
AMOUNTS = {"pan": (0.1, 0.5), "tilt": (0.08, 0.42), "dolly": (0.6, 3.2), "orbit": (0.25, 1.3), "zoom": (1.15, 2.2)}
TRIED = 12  # amounts of each way and direction
LED, ALONE = 0.6, 0.8  # of how far off a still camera, and the next best way, leave corners: a way must do better
SHOOK, LIGHT = 0.5, 0.01  # of how far off a still camera leaves them, and over the short side: a hand's shake
UNSTEADY = 0.5  # of a shake's sum: as far as a hand gets, at most
RESTS = 0.015  # over the short side: what waves and falling snow do to corners before a camera that stands still
PLAIN = Camera(distance=6.0, height=2.2, fov=0.69)  # as the world films, on the whole


@dataclass(frozen=True)
class Flow:
    """Corners in a clip of `size` (height, width): for each pair of `moments` (frame numbers) where they were and where
    they went, places [N, 2] in pixels."""

    size: tuple[int, int]
    frames: int
    moments: list[tuple[int, int]]
    steps: list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Filmed:
    """How far corners are off, on the mean, over the short side: where the camera stood still, where it went each of
    the ways by the best amount (`ways` and `amounts`, by kind and direction), and where each step were a shake of its
    own (`shaken`). `steady`: how far all steps get together, of their sum: 1 where a camera is led."""

    still: float
    shaken: float
    ways: dict[tuple[str, str], float]
    amounts: dict[tuple[str, str], float]
    steady: float


def filmed(frames: np.ndarray, things: np.ndarray) -> Filmed | None:
    """By frames uint8 `[T, H, W, 3]`, and where things are in them, bool `[T, h, w]` of any resolution; None where too
    few corners can be followed."""
    flow = follow(frames, things)
    if len(flow.steps) < 3 or sum(len(a) for a, _ in flow.steps) < 3 * LEAST:
        return None
    tried = {(kind, to): _explained(flow, kind, to) for kind in AMOUNTS for to in CAMERA_DIRECTIONS[kind]}
    ways, amounts = ({way: each[n] for way, each in tried.items()} for n in (0, 1))
    shaken, steady = _shakes(flow)
    return Filmed(_off(flow, [start for start, _ in flow.steps]), shaken, ways, amounts, steady)


def camera_of(read: Filmed) -> tuple[str, str] | None:
    """The way that a clip is filmed, and where to ("": nowhere), as `yozora.world.scene` names them; None where none is
    sure."""
    (kind, to), off = min(read.ways.items(), key=lambda way: way[1])
    others = min(value for way, value in read.ways.items() if way[0] != kind)
    if off < LED * read.still and off < ALONE * others:
        return kind, to
    if read.still > LIGHT and read.shaken < SHOOK * read.still and read.steady < UNSTEADY:
        return "handheld", ""
    return ("still", "") if read.still < min(RESTS, off / 0.95) else None


def follow(frames: np.ndarray, things: np.ndarray) -> Flow:
    """Follows the corners of each of MOMENTS frames to the next of them, and back again."""
    pictures = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    height, width = pictures[0].shape
    side = min(height, width)
    moments = sorted(set(np.linspace(0, len(frames) - 1, MOMENTS).round().astype(int).tolist()))
    steps, used = [], []
    for one, other in pairwise(moments):
        free = _free(things[one], (height, width), side)
        start = cv2.goodFeaturesToTrack(pictures[one], CORNERS, SHARP, max(3.0, 0.03 * side), mask=free)
        if start is None:
            continue
        end, kept = _along(pictures[one : other + 1], start)
        back, returned = _along(pictures[one : other + 1][::-1], end)
        kept &= returned & (np.linalg.norm((back - start).reshape(-1, 2), axis=1) < max(0.7, BACK * side))
        there = end.reshape(-1, 2)
        inside = ((there >= 0) & (there < (width - 1, height - 1))).all(1)
        clear = np.zeros(len(there), bool)
        ends = _free(things[other], (height, width), side)
        clear[inside] = ends[there[inside, 1].astype(int), there[inside, 0].astype(int)] > 0
        kept &= inside & clear
        if kept.sum() >= LEAST:
            steps.append((start.reshape(-1, 2)[kept].astype(float), there[kept].astype(float)))
            used.append((one, other))
    return Flow((height, width), len(frames), used, steps)


def _along(pictures: list[np.ndarray], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.ones(len(points), bool)
    for one, other in pairwise(pictures):
        there = np.empty_like(points)
        points, good, _ = cv2.calcOpticalFlowPyrLK(one, other, points, there, winSize=(11, 11), maxLevel=2)
        kept &= good.reshape(-1) == 1
    return points, kept


def _free(things: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    """Where no thing is, nor near, uint8 `[H, W]`, 255 there."""
    whole = cv2.resize(np.asarray(things, np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    margin = 2 * round(MARGIN * side) + 1
    return 255 * (cv2.dilate(whole, np.ones((margin, margin), np.uint8)) == 0).astype(np.uint8)


def _explained(flow: Flow, kind: str, to: str) -> tuple[float, float]:
    """How far corners are off where the camera went this way, by the best amount; and that amount."""
    amounts = np.linspace(*AMOUNTS[kind], TRIED)
    offs = []
    for amount in amounts:
        camera = Camera(kind, to, float(amount), PLAIN.distance, PLAIN.height, PLAIN.fov)
        scene = Scene(0, (), camera=camera)
        eye, look, fov = film(scene, np.linspace(0.0, scene.duration, flow.frames))
        lands = []
        for (one, other), (start, _) in zip(flow.moments, flow.steps, strict=True):
            lands.append(_seen_again(start, flow.size, *(each[[one, other]] for each in (eye, look, fov))))
        offs.append(_off(flow, lands))
    best = int(np.argmin(offs))
    return offs[best], float(amounts[best])


def _seen_again(
    places: np.ndarray, size: tuple[int, int], eye: np.ndarray, look: np.ndarray, fov: np.ndarray
) -> np.ndarray:
    """Where places [N, 2] of one view are in another, by the camera at both: centre [2, 3], axes [2, 3, 3] and vertical
    field of view [2]."""
    height, width = size
    middle = np.array([width, height]) / 2
    half = height / 2
    across = (places - middle) / half * (1, -1) * np.tan(fov[0] / 2)
    rays = np.column_stack([across, np.ones(len(across))]) @ look[0]
    falls = rays[:, 2]
    reach = np.where(falls < SKY, -eye[0, 2] / np.minimum(falls, SKY), FAR)
    seen = (eye[0] + reach[:, None] * rays - eye[1]) @ look[1].T
    ahead = np.maximum(seen[:, 2:], 1e-6)
    return seen[:, :2] / ahead / np.tan(fov[1] / 2) * (1, -1) * half + middle


def _off(flow: Flow, lands: list[np.ndarray]) -> float:
    """The mean distance of where corners are from where they `land`, over the short side; each at most MOST."""
    side = min(flow.size)
    each = [np.linalg.norm(end - land, axis=1) / side for (_, end), land in zip(flow.steps, lands, strict=True)]
    return float(np.minimum(np.concatenate(each), MOST).mean())


def _shakes(flow: Flow) -> tuple[float, float]:
    """How far corners are off where each step is the shift, turn and growth that explain most of it; and how far the
    shifts get together, over their sum."""
    lands, shifts = [], []
    for start, end in flow.steps:
        change, _ = cv2.estimateAffinePartial2D(start, end, method=cv2.LMEDS)
        if change is None:
            change = np.eye(2, 3)
        lands.append(start @ change[:, :2].T + change[:, 2])
        shifts.append(np.median(end - start, axis=0))
    way = np.array(shifts)
    total = np.linalg.norm(way, axis=1).sum()
    return _off(flow, lands), float(np.linalg.norm(way.sum(0)) / max(total, 1e-6))
