"""The straight path from picture (level 0) to noise (level 1), and the loss of a model that walks it (rectified flow).

Levels may differ in every frame or token: see `spread_levels` for how they meet latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def add_noise(latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """(1 - t)·latents + t·noise for latents and noise [B, C, T, H, W] and levels [B, T] or [B, T, h, w] in 0..1."""
    return torch.lerp(latents, noise, spread_levels(levels, latents).to(latents.dtype))


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """What the model is to predict: the path's derivative by the level, noise - latents."""
    return noise - latents


def flow_loss(
    velocity: Tensor, latents: Tensor, noise: Tensor, levels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean squared error of a predicted velocity, a scalar in float32.

    velocity, latents, noise: [B, C, T, H, W]. Tokens at level exactly 0 are prompts, not questions: they do not count.
    levels, and weights if given (0 or more, how much a frame or token counts): [B, T] or [B, T, h, w].
    """
    error, count = flow_error(velocity, latents, noise, levels, weights)
    return error / count.clamp_min(1e-8)


def flow_error(
    velocity: Tensor, latents: Tensor, noise: Tensor, levels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum of squared errors of which `flow_loss` is the mean, and of how many numbers it is the sum (by weight)."""
    error = (velocity.float() - velocity_target(latents.float(), noise.float())).square()
    counts = _counts(latents, levels, weights)
    return (error * counts).sum(), counts.sum() * error.shape[1]


def flow_count(latents: Tensor, levels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The second of what `flow_error` says, which no velocity is needed for."""
    return _counts(latents, levels, weights).sum() * latents.shape[1]


def _counts(latents: Tensor, levels: Tensor, weights: Tensor | None) -> Tensor:
    """How much each latent pixel counts: [B, 1, T, H, W]."""
    asked = (levels > 0).float() if weights is None else (levels > 0).float() * weights
    return spread_levels(asked, latents).expand(latents.shape[0], 1, *latents.shape[2:])


def spread_levels(levels: Tensor, latents: Tensor) -> Tensor:
    """Levels [B, T] or [B, T, h, w] → [B, 1, T, H or 1, W or 1], to multiply latents [B, C, T, H, W].

    T, h and w may be whole fractions of the latents' sizes (the patch) or 1. Raises ValueError where they do not fit.
    """
    if levels.ndim not in (2, 4):
        raise ValueError(f"levels must be [B, T] or [B, T, h, w], not {tuple(levels.shape)}")
    spread = levels[:, None, :, None, None] if levels.ndim == 2 else levels.unsqueeze(1)
    for axis in (2, 3, 4):
        have, want = spread.shape[axis], latents.shape[axis]
        if want % have:
            raise ValueError(f"levels of {tuple(levels.shape)} do not fit latents of {tuple(latents.shape)}")
        if have not in (1, want):
            spread = spread.repeat_interleave(want // have, dim=axis)
    return spread


def mean_error(velocity: Tensor, latents: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of each clip, [B] float32: for loss curves by noise level."""
    return F.mse_loss(velocity.float(), velocity_target(latents, noise).float(), reduction="none").mean((1, 2, 3, 4))
