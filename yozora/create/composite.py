"""Given frames come back untouched: they are laid over the decoded ones, and no step shows beside them.

The autoencoder gives every frame back a little differently. Where a given frame meets an invented one that difference
would show as a jump, so it is carried on into the invented frames and fades out there.
"""

from __future__ import annotations

import numpy as np

FADE = 0.6  # how much of the difference is left from one frame to the next
LEAST = 0.5  # of 255, where nothing is left to see


def composite(decoded: np.ndarray, given: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """uint8 [F, H, W, 3]: `decoded`, over which `given` uint8 [G ≤ F, H, W, 3], its first frames, is laid as far as
    `kept`, float32 [G] or [G, H, W] in 0..1, says. Invented pixels before and after kept ones lean towards them."""
    result = decoded.copy()
    if not kept.any():
        return result
    weights = kept if kept.ndim == 3 else kept[:, None, None]
    _lean(result, given, weights, range(len(decoded)))
    _lean(result, given, weights, range(len(decoded) - 1, -1, -1))
    for place in np.flatnonzero(weights.any((1, 2))):
        weight = weights[place][..., None]
        mixed = result[place] + (given[place] - result[place].astype(np.float32)) * weight
        result[place] = mixed.round()
    return result


def _lean(frames: np.ndarray, given: np.ndarray, weights: np.ndarray, order: range) -> None:
    """Adds to what is invented the fading difference of what was kept before it, in place, in this order of time."""
    difference: np.ndarray | None = None
    for place in order:
        weight = weights[place][..., None] if place < len(weights) else np.zeros((1, 1, 1), np.float32)
        kept = weight == 1
        if kept.any():
            error = given[place] - frames[place].astype(np.float32)
            faded = 0.0 if difference is None else difference * FADE
            new = np.where(kept, error, faded)
        elif difference is not None:
            new = difference * FADE
        else:
            continue
        if not kept.all():
            moved = frames[place] + np.where(kept, 0.0, new)
            frames[place] = moved.round().clip(0, 255)
        difference = new if np.abs(new).max() >= LEAST else None
