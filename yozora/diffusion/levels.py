"""Noise levels: which ones training draws, and which ones sampling walks down."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Level = TypeVar("Level", float, Tensor)


def shift_levels(levels: Level, shift: float) -> Level:
    """s·t / (1 + (s - 1)·t): more levels near noise for s > 1, as larger videos need (Esser et al. 2024)."""
    if shift <= 0:
        raise ValueError(f"shift must be positive, not {shift}")
    return shift * levels / (1 + (shift - 1) * levels)


def schedule(steps: int, shift: float = 1.0) -> Tensor:
    """The levels that sampling in `steps` steps stops at: float64 [steps + 1], from exactly 1 down to exactly 0."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    levels = shift_levels(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift)
    levels[0] = 1.0  # the shift rounds
    return levels


def sample_levels(
    shape: int | tuple[int, ...],
    generator: torch.Generator | None = None,
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
) -> Tensor:
    """Training levels in 0..1, float32 of `shape`: a normal through a sigmoid (Esser et al. 2024), then shifted."""
    size = (shape,) if isinstance(shape, int) else shape
    device = None if generator is None else generator.device
    normal = torch.randn(size, generator=generator, device=device)
    return shift_levels(torch.sigmoid(mean + std * normal), shift)
