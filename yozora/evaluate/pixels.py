"""What frames alone say of a clip, whatever they show: likeness to other frames, flicker, and how evenly it moves.

Nothing here is learned, so these hold for any footage. Frames are uint8 [T, H, W, 3].
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

BLOCK = 8  # pixels: side of the squares that are told apart into those that stand still and those that move
LOW_PASS = 5  # frames that are averaged, so that flicker itself is not taken for motion
STILL = 8.0  # of 255: by how much a square's average may go up and down in a clip in which it stands still
LEAST_STILL = 0.5  # of all squares: with fewer the camera moves, and fine texture that shifts would count as flicker
_SIDE, _SIGMA = 11, 1.5  # SSIM's window
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity (Wang, Bovik, Sheikh and Simoncelli, 2004) of uint8 pictures [..., H, W, 3] of at least
    11 × 11: a Gaussian window of 11 × 11 with σ = 1.5, only where it lies inside; the mean over channels and pictures.
    """
    x, y = (torch.from_numpy(np.ascontiguousarray(each)).double().movedim(-1, -3) for each in (one, other))
    x, y = (each.reshape(-1, 1, *each.shape[-2:]) for each in (x, y))
    line = torch.exp(-0.5 * ((torch.arange(_SIDE).double() - _SIDE // 2) / _SIGMA) ** 2)
    line = line / line.sum()

    def blur(z: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(z, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    top, bottom = (2 * mx * my + _C1) * (2 * vxy + _C2), (mx * mx + my * my + _C1) * (vx + vy + _C2)
    return float((top / bottom).mean())


def flicker(frames: np.ndarray) -> float:
    """Mean of |x[t-1] - 2 x[t] + x[t+1]| over the pixels that stand still, of 255; 0 for a perfectly steady picture.

    NaN for fewer than three frames and where less than half of the picture stands still."""
    still = still_squares(frames)
    if len(frames) < 3 or still.mean() < LEAST_STILL:
        return float("nan")
    x = frames.astype(np.int16)
    return float(_squares(np.abs(x[:-2] - 2 * x[1:-1] + x[2:]).astype(np.float32)).mean((0, 3))[still].mean())


def smoothness(frames: np.ndarray) -> float:
    """1 - Σ|s[t+1] - s[t]| / Σ(s[t+1] + s[t]), where s[t] is the mean absolute step of the pixels that do not stand
    still: 1 for an even pace, 0 for one that stops at every other frame. NaN for fewer than three frames and where
    nothing moves."""
    moving = ~still_squares(frames)
    if len(frames) < 3 or not moving.any():
        return float("nan")
    steps = _squares(np.abs(np.diff(frames.astype(np.int16), axis=0)).astype(np.float32)).mean(3)[:, moving].mean(1)
    total = float((steps[1:] + steps[:-1]).sum())
    return 1 - float(np.abs(np.diff(steps)).sum()) / total if total else float("nan")


def still_squares(frames: np.ndarray) -> np.ndarray:
    """bool [h, w]: in which squares of BLOCK pixels the picture stands still. That is where the average over the square
    and LOW_PASS frames stays, in every channel, within STILL."""
    means = _squares(frames.astype(np.float32))
    window = min(LOW_PASS, len(means))
    total = np.cumsum(np.concatenate([np.zeros_like(means[:1]), means]), axis=0, dtype=np.float64)
    slow = (total[window:] - total[:-window]) / window
    return (np.ptp(slow, axis=0) <= STILL).all(-1)


def _squares(pictures: np.ndarray) -> np.ndarray:
    """[T, H, W, C] → [T, h, w, C], the mean of each square of BLOCK pixels (of smaller ones in small pictures); the
    rest at the right and the bottom is left out."""
    count, height, width, channels = pictures.shape
    side = min(BLOCK, height, width)
    h, w = height // side, width // side
    cut = pictures[:, : h * side, : w * side]
    return cut.reshape(count, h, side, w, side, channels).mean((2, 4))
