"""Clips as points in a space of features, and distances there.

The features are the project's own inspector's, averaged over the picture: they know the shapes and colours of the
simulated world and little else, so distances in them compare models of that world with one another and with the
renderer. They are no FVD, whose features come from a network trained on human actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from yozora.clip import Clip
from yozora.evaluate.inspector import BATCH, pictures_of
from yozora.models.inspector import Inspector

QUIET = 0.01  # a change of features that is as good as none
SMALL, MOMENTS = 32, 9  # pixels of the short side, and frames, by which clips are compared as pictures


@dataclass(frozen=True, eq=False)
class Points:
    """Clips, a row each: `picture` is the mean of the features over all frames, `change` their mean absolute step from
    frame to frame (both float64 [N, D]), `small` the clip's own pixels, shrunken, 0..255 (float32 [N, P])."""

    picture: np.ndarray
    change: np.ndarray
    small: np.ndarray

    def __len__(self) -> int:
        return len(self.picture)

    @property
    def features(self) -> np.ndarray:
        """Both kinds side by side, [N, 2 D]."""
        return np.concatenate([self.picture, self.change], axis=1)

    @property
    def pace(self) -> np.ndarray:
        """The logarithm of `change`, which a few clips that change a lot would else outweigh: [N, D]."""
        return np.log(QUIET + self.change)

    @staticmethod
    def join(points: list[Points]) -> Points:
        """All rows of several."""
        return Points(*(np.concatenate([getattr(p, name) for p in points]) for name in ("picture", "change", "small")))


@torch.no_grad()
def point_of(clip: Clip, inspector: Inspector) -> Points:
    """One clip as one row. All clips that are compared must have the same size and length."""
    rows: list[torch.Tensor] = []
    hook = inspector.inward[-1].register_forward_hook(lambda _, __, out: rows.append(out.float().mean((2, 3)).cpu()))
    try:
        for start in range(0, len(clip.frames), BATCH):
            inspector(pictures_of(clip.frames[start : start + BATCH], inspector))
    finally:
        hook.remove()
    seen = torch.cat(rows).double().numpy()
    change = np.abs(np.diff(seen, axis=0)).mean(0) if len(seen) > 1 else np.zeros(seen.shape[1])
    return Points(seen.mean(0)[None], change[None], _shrunken(clip.frames).reshape(1, -1))


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """|m - n|² + tr(A + B - 2 √(A B)) for means m, n and covariances A, B of two sets of points [N, D] (Dowson and
    Landau, 1982). Few points make it too large: compare only distances between sets of the same sizes."""
    (m, a), (n, b) = (_moments(points) for points in (one, other))
    root = _root(a)
    inner = np.linalg.eigvalsh(root @ b @ root)
    return max(0.0, float(np.square(m - n).sum() + np.trace(a) + np.trace(b) - 2 * np.sqrt(inner.clip(0)).sum()))


def kernel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Squared maximum mean discrepancy of two sets [N, D] under the kernel (x · y / D + 1)³, unbiased, so that its
    expectation does not depend on how many points there are (KID: Bińkowski et al., 2018). It may fall below 0."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: np.ndarray) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(one) + within(other) - 2 * float(kernel(one, other).mean())


def spread(points: np.ndarray) -> float:
    """Mean distance of all pairs of points [N, D]."""
    return float(torch.pdist(torch.from_numpy(points)).mean())


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """From each point the distance to the nearest of `others`, as the root of the mean square over coordinates: [N]."""
    found = torch.cdist(torch.from_numpy(points).double(), torch.from_numpy(others).double()).amin(1).numpy()
    return found / np.sqrt(points.shape[1])


def _moments(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return points.mean(0), np.atleast_2d(np.cov(points, rowvar=False))


def _root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _shrunken(frames: np.ndarray) -> np.ndarray:
    """At most MOMENTS frames, evenly spaced, each by the means of squares that make its short side about SMALL."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, MOMENTS).round().astype(int))
    side = max(1, min(frames.shape[1:3]) // SMALL)
    h, w = frames.shape[1] // side, frames.shape[2] // side
    cut = frames[chosen, : h * side, : w * side].astype(np.float32)
    return cut.reshape(len(chosen), h, side, w, side, 3).mean((2, 4))
