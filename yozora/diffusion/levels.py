"""Noise levels: which ones training draws, and which ones sampling walks down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
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


def begin_at(levels: Tensor, highest: float) -> Tensor:
    """As many levels, spaced by the same rule, from `highest` on: where nothing has more noise than that, steps above
    it would change nothing. `levels` that begin lower stay, and where nothing has any noise all do."""
    if not 0 < highest < levels[0]:
        return levels
    places, grid = np.linspace(0, 1, len(levels)), levels.double().numpy()
    first = np.interp(highest, grid[::-1], places[::-1])
    begun = np.interp(np.linspace(first, 1, len(levels)), places, grid)
    begun[0] = highest  # interpolating rounds
    return torch.from_numpy(begun)


def wan_schedule(steps: int, shift: float = 1.0) -> Tensor:
    """As `schedule`, on the grid of Wan's own release and of diffusers up to 0.36: it begins below 1, at 0.999 shifted,
    since that was the first of the thousand levels in training. (In what float64 rounds, it is that of diffusers.)"""
    return _to_zero(_wan(steps, shift))


def wan_schedule_later(steps: int, shift: float = 1.0) -> Tensor:
    """As `schedule`, on the grid of diffusers from 0.37 on: from a millionth below 1, as if towards 0.001."""
    return _to_zero(_wan_later(steps, shift))


def _to_zero(levels: Tensor) -> Tensor:
    """The levels and 0, rounded to float32 as there: next to 1, the rounding is a good part of log(signal / noise)."""
    return torch.cat((levels, torch.zeros(1))).float().double()


def _wan(steps: int, shift: float) -> Tensor:
    return shift_levels((1 - _line(steps)).flip(0)[:-1], shift)


def _wan_later(steps: int, shift: float) -> Tensor:
    levels = shift_levels(_line(steps)[:-1], shift)
    levels[0] -= 1e-6
    return levels


def _line(steps: int) -> Tensor:
    """Even steps from 1 to a thousandth, to the bit as NumPy makes them."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return torch.from_numpy(np.linspace(1.0, 0.001, steps + 1))


Schedule = Callable[[int, float], Tensor]

SCHEDULES: dict[str, Schedule] = {"even": schedule, "wan": wan_schedule, "wan-0.37": wan_schedule_later}
"""Grids of noise levels by the names that model cards use."""

UNROUNDED: dict[str, Schedule] = {"wan": _wan, "wan-0.37": _wan_later}
"""The same before they are rounded to float32, where they are: float64 [steps], without the 0."""


def whole_levels(levels: Tensor, count: int = 1000, grid: Tensor | None = None) -> Tensor:
    """Levels as models see them that were trained on `count` of them, numbered 0..count: rounded down, as Wan's code
    does. What float32 loses of a level is made up for first; where levels are on a `grid`, float64 [steps], it is
    the grid's own number that is rounded down, which may lie next to a whole one by no more than float64's rounding."""
    numbers = levels.double() * count + 1e-4
    if grid is not None:
        grid = grid.to(levels.device)
        same = levels.float()[..., None] == grid.float()
        numbers = torch.where(same.any(-1), grid[same.byte().argmax(-1)] * count, numbers)
    return (numbers.floor() / count).to(levels.dtype)


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
