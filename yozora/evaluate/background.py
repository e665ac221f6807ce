"""Does the camera stand still? Corners of the background are followed through a clip: where they stay, it does.

What moves with the camera and what moves by itself look alike to a network that sees a clip small; the corners that no
thing covers tell them apart (Shi and Tomasi's corners, followed by Lucas and Kanade's pyramid: OpenCV's).
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

CORNERS = 80  # at most
SHARP = 0.01  # how sharp a corner must be, as a part of the sharpest
LEAST = 8  # corners that must be followed to the end
STILL = 0.006  # of the short side: how far three corners of four may get, at most; 0.8 pixels of 128
TONES, SAME = 2.0, 0.7  # of 255: how much the background varies at least, and changes on the mean at most
MARGIN = 0.06  # of the short side: around a thing, which its shadow and its edge take


def stands_still(frames: np.ndarray, things: np.ndarray) -> bool:
    """Whether the camera surely does, by frames uint8 `[T, H, W, 3]` and where things are in them, bool `[T, h, w]` of
    any resolution. Not so where there are too few corners to say, or where rain and waves move them."""
    pictures = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    free = _free(things, pictures[0].shape)
    start = cv2.goodFeaturesToTrack(pictures[0], CORNERS, SHARP, max(3.0, 0.03 * min(free.shape)), mask=free)
    if start is None or len(start) < LEAST:
        return False
    points, kept = start, np.ones(len(start), bool)
    way = np.zeros(len(start))
    for one, other in pairwise(pictures):
        there = np.empty_like(points)
        points, good, _ = cv2.calcOpticalFlowPyrLK(one, other, points, there, winSize=(11, 11), maxLevel=2)
        kept &= good.reshape(-1) == 1
        way = np.maximum(way, np.linalg.norm((points - start).reshape(-1, 2), axis=1))
    if kept.sum() < LEAST:
        return False
    return bool(np.quantile(way[kept], 0.75) < STILL * min(free.shape))


def hardly_changes(frames: np.ndarray, things: np.ndarray) -> bool:
    """Whether the background stays as it is, where it has no corners to be followed: arguments are those of
    `stands_still`. Not so where it is of one tone, and any camera would leave it as it is."""
    pictures = [cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), 1.0) for frame in frames]
    free = _free(things, pictures[0].shape) > 0
    first, *others = (picture[free].astype(np.float32) for picture in pictures[:: max(1, len(pictures) // 4)])
    if not others or not free.any() or first.std() < TONES:
        return False
    return float(np.max([np.abs(other - first) for other in others], axis=0).mean()) < SAME


def _free(things: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Where no thing ever comes near, uint8 `[H, W]`, 255 there."""
    ever = np.asarray(things.any(0), np.uint8)
    whole = cv2.resize(ever, size[::-1], interpolation=cv2.INTER_NEAREST)
    margin = 2 * round(MARGIN * min(size)) + 1
    return 255 * (cv2.dilate(whole, np.ones((margin, margin), np.uint8)) == 0).astype(np.uint8)
