"""Does a filmed scene hold together in space? Corners are followed through a clip, and one camera's geometry fitted to
where they went: a rigid scene obeys it, a melting one does not.

The corners are Shi and Tomasi's, followed by Lucas and Kanade's pyramid and back again, the geometry is a fundamental
matrix or a homography found by RANSAC: OpenCV's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from yozora.evaluate.scenes import mean_known

CORNERS = 120  # at most
SHARP = 0.004  # how sharp a corner must be, as a part of the sharpest
AWAY = 0.03  # of the short side: how far apart corners are at least
BACK = 0.01  # of the short side: how near a corner must come back to where it was
FIT = 0.005  # of the short side: how near a point must be to where the geometry has it; 0.64 pixels of 128
LEAST = 16  # corners that must be followed, for a geometry of eight to say anything
MOVED = 0.02  # of the short side: how far the median corner must go, or there is no camera motion to judge


@dataclass(frozen=True)
class Fits:
    """Shares (0..1): of a clip's corners those `followed` through half of it, and of these, those that one `homography`
    or one `fundamental` matrix explains. NaN where there are too few corners, and the latter where nothing moves."""

    followed: float
    homography: float
    fundamental: float


def rigid(frames: np.ndarray, shuffled: bool = False) -> Fits:
    """Follows corners from the first frame to the middle one, and from there to the last, uint8 [T, H, W, 3]; the mean
    of both. With `shuffled`, each corner is given another one's way: the floor, since such a clip has the same motion
    in it but no geometry."""
    cv2.setRNGSeed(0)
    pictures, middle = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames], len(frames) // 2
    halves = [_fits(pictures[: middle + 1], shuffled), _fits(pictures[middle:], shuffled)]
    return Fits(*(mean_known(values) for values in zip(*(vars(half).values() for half in halves), strict=True)))


def _fits(pictures: list[np.ndarray], shuffled: bool) -> Fits:
    side = min(pictures[0].shape)
    found = cv2.goodFeaturesToTrack(pictures[0], CORNERS, SHARP, max(3.0, AWAY * side))
    if found is None or len(found) < LEAST:
        return Fits(np.nan, np.nan, np.nan)
    start = found.reshape(-1, 2)
    end, kept = _follow(pictures, start, BACK * side)
    share, one, other = float(kept.mean()), start[kept], end[kept]
    way = other - one
    if kept.sum() < LEAST or np.median(np.hypot(*way.T)) < MOVED * side:
        return Fits(share, np.nan, np.nan)
    if shuffled:
        other = one + way[np.random.default_rng(0).permutation(len(way))]
    near = FIT * side
    _, plane = cv2.findHomography(one, other, cv2.RANSAC, near, maxIters=5000, confidence=0.999)
    _, lines = cv2.findFundamentalMat(one, other, cv2.FM_RANSAC, near, 0.999, 5000)
    return Fits(share, _inside(plane), _inside(lines))


def _follow(pictures: list[np.ndarray], start: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Where points [N, 2] of the first picture are in the last, and which of them, followed back, come home."""
    there, kept = _along(pictures, start)
    back, returned = _along(pictures[::-1], there)
    return there, kept & returned & (np.hypot(*(back - start).T) < near)


def _along(pictures: list[np.ndarray], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.ones(len(points), bool)
    for one, other in pairwise(pictures):
        before = points.reshape(-1, 1, 2).astype(np.float32)
        after = np.empty_like(before)
        moved, good, _ = cv2.calcOpticalFlowPyrLK(one, other, before, after, winSize=(11, 11), maxLevel=2)
        points = moved.reshape(-1, 2)
        height, width = other.shape
        inside = ((points >= 0) & (points < (width, height))).all(1)
        kept &= (good.reshape(-1) == 1) & inside
    return points, kept


def _inside(mask: np.ndarray | None) -> float:
    """The share that a geometry explains; none is 0."""
    return 0.0 if mask is None else float((mask != 0).mean())
