"""Where tokens stand, and how noisy they are, as numbers that a transformer can use."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

PLACE_WIDTH = 32  # half of it for the frame's number, a quarter each for row and column


@functools.lru_cache(maxsize=32)
def rotary_table(head_width: int, grid: tuple[int, int, int], device: torch.device, spacing: float = 1.0) -> Tensor:
    """Cosines and sines float32 [T·H·W, head_width / 2, 2] that turn the pairs of a head by the token's position; rows
    and columns are `spacing` apart.

    The head is split over (frame, row, column) as in Wan: d - 4·(d//6), 2·(d//6), 2·(d//6), so 44 + 42 + 42 of 128.
    """
    side = 2 * (head_width // 6)
    angles = []
    with torch.inference_mode(False):  # the table is shared with training, which may not save inference tensors
        for axis, width in enumerate((head_width - 2 * side, side, side)):
            frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            place = torch.arange(grid[axis], dtype=torch.float64) * (spacing if axis else 1.0)
            angle = torch.outer(place, frequency)
            shape = [1, 1, 1, width // 2]
            shape[axis] = grid[axis]
            angles.append(angle.view(shape).expand(*grid, width // 2))
        angle = torch.cat(angles, dim=-1).flatten(0, 2)
        return torch.stack((angle.cos(), angle.sin()), dim=-1).float().to(device)


@functools.lru_cache(maxsize=32)
def place_table(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Where tokens stand, float32 [T, S, PLACE_WIDTH]: sines and cosines of the frame's number, as a transformer's
    positions (Vaswani et al. 2017), and of row and column as parts of the picture, so that any size has the same edges.
    """
    eighth = PLACE_WIDTH // 8
    with torch.inference_mode(False):  # as above
        frame = torch.arange(grid[0], dtype=torch.float64)[:, None] * 100.0 ** -(torch.arange(2 * eighth) / 2 / eighth)
        sides = [
            ((torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n - 0.5) * torch.pi * 2.0 ** torch.arange(eighth)
            for n in grid[1:]
        ]
        row, column = (torch.cat((side.sin(), side.cos()), dim=-1) for side in sides)
        parts = (
            torch.cat((frame.sin(), frame.cos()), dim=-1)[:, None, None].expand(*grid, -1),
            row[None, :, None].expand(*grid, -1),
            column[None, None].expand(*grid, -1),
        )
        return torch.cat(parts, dim=-1).flatten(1, 2).float().to(device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the interleaved pairs of x float32 [..., d] by table [..., d / 2, 2]."""
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # torch.compile makes no code for complex numbers
        (a, b), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table)).flatten(-2)


def sinusoid(levels: Tensor, width: int) -> Tensor:
    """Noise levels [...] in 0..1 → float32 [..., width]: cosines then sines of level · 1000 at falling frequencies."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float64, device=levels.device) / half
    angle = levels.double().unsqueeze(-1) * (1000.0 * 10000.0**-exponent)
    return torch.cat((angle.cos(), angle.sin()), dim=-1).float()
