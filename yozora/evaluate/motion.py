"""Where a thing goes, from the track of its mask: plain geometry, nothing learned.

Under a pinhole camera of the world's usual make, a mask's place and size give the thing's place on the ground, up to
one unknown scale: what looks r times smaller is r times farther away, and a shift across the screen is there r times as
long a step. Whether the track leads farther sideways or in depth names the direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOCAL = 1.42  # frame heights: of the still camera, whose vertical field of view is 0.66 to 0.72 rad
DROP = 0.30  # camera height over its distance: how far below the horizon, in focal lengths, a thing stands
LEAST_STEP = 0.04  # of the distance to the camera; less than that counts as standing still
AGREE = 0.2  # of how far it gets in depth by its size: as far, at least, by where it stands, and the other way round
STRAIGHT = 0.6  # of all the way it makes from quarter to quarter: as far as it gets, at least; what turns back does not
LEAST_FRAMES = 3


@dataclass(frozen=True, eq=False)
class Track:
    """A mask through a clip of `width` × `height`: all arrays are [T], in the mask's own cells.

    `x` and `y` are the middle of the mask and `area` is 0 where nothing is seen; `cut` (bool) is where the mask touches
    the frame's edge, so that part of the thing may be outside.
    """

    width: int
    height: int
    x: np.ndarray
    y: np.ndarray
    area: np.ndarray
    cut: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """Bool [T]."""
        return self.area > 0


def track(mask: np.ndarray) -> Track:
    """Follows the mask, bool [T, H, W]."""
    height, width = mask.shape[1:]
    area = mask.sum((1, 2)).astype(float)
    size = np.maximum(area, 1)
    x = (mask.sum(1) * (np.arange(width) + 0.5)).sum(1) / size
    y = (mask.sum(2) * (np.arange(height) + 0.5)).sum(1) / size
    edge = np.ones((height, width), bool)
    edge[1:-1, 1:-1] = False
    return Track(width, height, x, y, area, np.asarray((mask & edge).any((1, 2))))


def direction(path: Track) -> str:
    """One of left, right, towards and away; "" where it gets nowhere, turns back, or is hardly seen."""
    whole = path.seen & ~path.cut
    use = whole if whole.sum() >= LEAST_FRAMES else path.seen
    if use.sum() < LEAST_FRAMES:
        return ""
    sideways, deeper = ground_step(path, use)
    if max(abs(sideways), abs(deeper)) < LEAST_STEP:
        return ""
    if abs(sideways) >= abs(deeper):
        return "right" if sideways > 0 else "left"
    return "away" if deeper > 0 else "towards"


def ground_step(path: Track, use: np.ndarray) -> tuple[float, float]:
    """How far the thing gets to the right and away from the camera, from the first quarter of the frames `use` (bool
    [T]) to the last, over its mean distance from the camera; 0 for a way that it does not go straight on."""
    nearness = np.sqrt(path.area[use])
    distance = np.median(nearness) / nearness
    across = (path.x[use] - path.width / 2) / (FOCAL * path.height)
    below = (path.y[use] - path.height / 2) / (FOCAL * path.height)
    # depth is seen twice: in the mask's size, and in how far below the horizon it stands. What falls comes no nearer,
    # and what grows stands where it did: only where both say so is it taken for true
    by_size, by_place = _change(distance), _change(-below / DROP)
    less, more = sorted((by_size, by_place), key=abs)
    agree = by_size * by_place > 0 and abs(less) >= AGREE * abs(more)
    return _change(across * distance), 0.5 * (by_size + by_place) if agree else 0.0


def _change(values: np.ndarray) -> float:
    """From the mean of the first quarter to that of the last; 0 where they go to and fro."""
    quarter = max(1, round(len(values) / 4))
    means = [part.mean() for part in np.array_split(values, min(4, len(values)))]
    if abs(means[-1] - means[0]) < STRAIGHT * np.abs(np.diff(means)).sum():
        return 0.0
    return float(values[-quarter:].mean() - values[:quarter].mean())
