"""Given frames come back untouched: they are laid over the decoded ones, and no step shows beside them.

The autoencoder gives every frame back a little differently. Where a given frame meets an invented one that difference
would show as a jump, so it is carried on into the invented frames. It fades out there: slowly where the picture stays
as it was, soon where it does not and what the difference belongs to is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STILL, MOVED = 0.88, 0.4  # how much of the difference is left from one frame to the next
MOTION = 8.0  # of 255: a change of a pixel's surroundings that is taken for motion
AROUND = 3  # pixels to every side that are a pixel's surroundings
DISSOLVE = 6  # frames over which what does not lead up to a given picture dissolves into it where it stands still
LEAST = 0.5  # of 255, where nothing is left to see


@dataclass(frozen=True, eq=False)
class Left:
    """What is left of a difference, float32 [H, W, 3], that belongs to a `frame`, uint8 [H, W, 3], as decoded."""

    difference: np.ndarray
    frame: np.ndarray


def composite(
    decoded: np.ndarray,
    given: np.ndarray,
    kept: np.ndarray,
    left: Left | None = None,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, Left | None]:
    """uint8 [F, H, W, 3]: `decoded`, over which `given` uint8 [G ≤ F, H, W, 3], its first frames, is laid as far as
    `kept`, float32 [G] or [G, H, W] in 0..1, says. Invented pixels before and after kept ones lean towards them.
    `left` is what the frames before these left; with the frames comes what these leave. `own`, of `given`'s shape, is
    what the autoencoder makes of the given frames by themselves, where `decoded` is not that: what is invented before
    them then dissolves into them as far as it does not lead up to them."""
    if not kept.any() and left is None:
        return decoded, None
    weights = kept if kept.ndim == 3 else kept[:, None, None]
    result = decoded.copy()
    there, backward = decoded[: len(given)].astype(np.float32), range(len(decoded) - 1, -1, -1)
    itself = there if own is None else own.astype(np.float32)
    error = given - itself
    after = _lean(result, decoded, error, weights, range(len(decoded)), left)
    _lean(result, decoded, error, weights, backward)
    if own is not None:
        _dissolve(result, decoded, itself - there, weights)
    for place in np.flatnonzero(weights.any((1, 2))):
        weight = weights[place][..., None]
        mixed = result[place] + (given[place] - result[place].astype(np.float32)) * weight
        result[place] = mixed.round()
    return result, after


def _lean(
    result: np.ndarray,
    decoded: np.ndarray,
    error: np.ndarray,
    weights: np.ndarray,
    order: range,
    left: Left | None = None,
) -> Left | None:
    """Adds to what is invented in `result` the `error` of what was kept before it, in this order of time."""
    nothing = np.zeros((1, 1, 1), np.float32)
    for place in order:
        kept = (weights[place][..., None] if place < len(weights) else nothing) == 1
        new, belongs = None, decoded[place]
        if left is not None:
            new = left.difference * _fade(left.frame, decoded[place])
            belongs = np.where(kept, belongs, left.frame)
        if kept.any():
            new = np.where(kept, error[place], 0.0 if new is None else new)
        if new is None or np.abs(new).max() < LEAST:
            left = None
            continue
        if not kept.all():
            result[place] = (result[place] + np.where(kept, 0.0, new)).round().clip(0, 255)
        left = Left(new, belongs)
    return left


def _dissolve(result: np.ndarray, decoded: np.ndarray, change: np.ndarray, weights: np.ndarray) -> None:
    """Adds to what is invented in `result` before something kept its `change`, by even steps: over DISSOLVE frames, or
    over all that are invented there where these are fewer; but not where `decoded` is unlike the kept frame, since what
    the change belongs to is not there yet, and would be seen as a ghost of its edges."""
    any_kept = np.append(weights.any((1, 2)), np.zeros(len(result) - len(weights), bool))
    difference, free, until = None, 0, 0
    for place in range(len(result) - 1, -1, -1):
        if any_kept[place]:
            kept = weights[place][..., None] == 1
            difference = np.where(kept, change[place], 0.0 if difference is None else difference)
            free, until = place - 1 - int(np.flatnonzero(any_kept[:place]).max(initial=-1)), place
        elif difference is not None and until - place <= DISSOLVE:
            share = max(0.0, 1 - (until - place) / (1 + min(DISSOLVE, free)))
            share = share * _likeness(decoded[until], decoded[place])
            result[place] = (result[place] + difference * share).round().clip(0, 255)


def _fade(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How much of a difference that belongs to one frame, uint8 [H, W, 3], is left at each further one in which the
    picture is like the other: float32 [H, W, 1]."""
    return MOVED + (STILL - MOVED) * _likeness(one, other)


def _likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float32 [H, W, 1] in 0..1: how like each other two frames, uint8 [H, W, 3], are around each pixel."""
    change = np.abs(one.astype(np.float32) - other).mean(-1)
    return np.exp(-np.square(box_mean(change, AROUND) / MOTION))[..., None]


def box_mean(picture: np.ndarray, radius: int) -> np.ndarray:
    """The mean of each pixel's surroundings, float32 [H, W]; the edge's pixels are repeated beyond it."""
    size = 2 * radius + 1
    padded = np.pad(picture.astype(np.float32), radius, mode="edge")
    for axis in (0, 1):
        padded = np.lib.stride_tricks.sliding_window_view(padded, size, axis).mean(-1)
    return padded
