"""An even pace where one picture turns into another.

A latent frame brings most of its change with the first of its frames. Where things move that is hardly seen, but where
the whole picture changes, as in a blend, it goes by fits and starts. So the frames of such latent frames are spaced
anew: by equal parts of the change between them, each mixed from the two between which it then stands. So are a loop's
last frames, where what was made last meets what was there first, and those that were made backward, before what they
lead up to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from yozora.create.canvas import Canvas
from yozora.create.sizes import Grid

CLOSING = 12  # frames
ROUNDS = 24  # of spacing anew, at most: a path has corners, and to go across one is shorter than to go around it
EVEN = 1.02  # times the shortest step: how long the longest may be
LEADING = 8


def in_transition(canvas: Canvas, grid: Grid) -> np.ndarray:
    """bool [T]: the latent frames in which clips are held in part, and otherwise than in one of their neighbours."""
    hold = np.zeros(grid.latent_frames(canvas.frames), np.float32)
    for anchor in canvas.anchors:
        first, last = anchor.span(grid)
        hold[first:last] = np.maximum(hold[first:last], anchor.holds(grid))
    turns = np.diff(hold) != 0
    return (hold > 0) & (hold < 1) & (np.append(turns, False) | np.insert(turns, 0, False))


def closing(end: int, turned: int) -> tuple[int, int]:
    """The frames start ≤ f < stop over which a loop of `end` frames closes, the last of them one that stays: its
    first frame; or of one that begins `turned` frames later, that with which it ends."""
    return (end - turned, end + turned) if turned else (end - CLOSING, end + 1)


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Where rising numbers follow each other without a gap: the first of each run and the one after its last."""
    ends = [place + 1 for place in places if place + 1 not in places]
    return list(zip([place for place in places if place - 1 not in places], ends, strict=True))


def leading_up(exist: int) -> tuple[int, int]:
    """The frames start ≤ f < stop over which what is invented leads up to frame number `exist`, which stays."""
    return max(1, exist - LEADING), exist + 1


def even_pace(frames: np.ndarray, groups: Iterable[tuple[int, int]]) -> np.ndarray:
    """uint8 [F, H, W, 3]: `frames`, of which each group, from its first frame to the one after its last, goes in equal
    steps from the frame before it to its last. The frame before it must be there."""
    result = frames.copy()
    for start, stop in groups:
        path = spaced = best = frames[start - 1 : stop].astype(np.float32)
        places, least = np.arange(len(path), dtype=np.float64), np.inf
        for _ in range(ROUNDS):
            steps = np.abs(np.diff(spaced, axis=0)).mean((1, 2, 3))
            uneven = steps.max() / max(steps.min(), 1e-9)
            if uneven < least:
                best, least = spaced, uneven
            if not steps.any() or uneven <= EVEN:
                break
            gone = np.append(0, steps.cumsum())
            places = np.interp(np.linspace(0, gone[-1], len(path)), gone, places)
            spaced = _at(path, places)
        result[start : stop - 1] = best[1:-1].round()
    return result


def _at(path: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Frames float32 between those of a path, each mixed from the two between which it stands."""
    before = np.minimum(places.astype(int), max(0, len(path) - 2))
    part = (places - before).astype(np.float32)[:, None, None, None]
    return path[before] + (path[np.minimum(before + 1, len(path) - 1)] - path[before]) * part
