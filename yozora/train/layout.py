"""A second thing to learn while learning to denoise: from half way up the transformer, say what stands where.

The simulated world knows which body every pixel shows. A linear head on the tokens of a middle block names shape and
colour of what is to appear in a grid of cells within each token, however noisy the latents are. What the network must
find for that (which thing, where, of what form) is what its later blocks need for the picture, and the answer comes
straight and sharp instead of by way of many pixels; with features of a large vision network as the target this is
known as representation alignment (Yu et al. 2024). The head is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.world import Scene, simulate
from yozora.world.scene import COLOURS, SHAPES
from yozora.world.truth import truth_of

CELLS = 2
"""Cells along each side of a latent pixel; the maps are taken at their centres."""
TEMPORAL, SPATIAL = 4, 16
WALL = len(SHAPES) + 1
CLASSES = (len(SHAPES) + 2, len(COLOURS) + 1)  # nothing, the shapes, a wall; nothing (or a wall), the colours


def body_maps(scene: Scene, width: int, height: int, frames: int, fps: float, start: float) -> Tensor:
    """Which body each cell shows in the frame at the middle of each latent frame: uint8 [1 + (frames - 1) / 4,
    CELLS · height / 16, CELLS · width / 16], 0 for none and n + 1 for body n; walls are the last ones."""
    moments = np.array([max(0, k * TEMPORAL - TEMPORAL // 2) for k in range(1 + (frames - 1) // TEMPORAL)])
    trajectory = simulate(scene, start + moments / fps)
    return torch.from_numpy(truth_of(trajectory, CELLS * width // SPATIAL, CELLS * height // SPATIAL).ids).byte()


def name_bodies(scene: Scene, bodies: Tensor) -> Tensor:
    """`body_maps` [T, H, W] → int64 [T, H, W, 2]: the classes of shape and of colour (see CLASSES)."""
    names = [(0, 0)]
    names += [(1 + SHAPES.index(body.shape), 1 + list(COLOURS).index(body.colour)) for body in scene.bodies]
    names += [(WALL, 0)] * len(scene.walls)
    return torch.tensor(names)[bodies.long()]


def near_bodies(named: Tensor) -> Tensor:
    """`name_bodies` [B, T, H, W, 2] → float32 [B, T, H / CELLS, W / CELLS]: 1 in the latent's pixels with a body in
    them or next to them, in place or time, since a cell's centre does not see all; 0 elsewhere."""
    body = ((named[..., 0] > 0) & (named[..., 0] != WALL)).float()
    return F.max_pool3d(F.max_pool3d(body, (1, CELLS, CELLS)), 3, stride=1, padding=1)


class LayoutHead(nn.Module):
    """Tokens [B, T, S, width] → logits [B, T, S, cells in a token, sum(CLASSES)]."""

    def __init__(self, width: int, patch: tuple[int, int, int]):
        super().__init__()
        self.side = (CELLS * patch[1], CELLS * patch[2])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, self.side[0] * self.side[1] * sum(CLASSES))
        nn.init.zeros_(self.out.weight)  # silent at first: what it has yet to learn must not disturb a trained network

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.norm(tokens)).unflatten(-1, (-1, sum(CLASSES)))

    def loss(self, tokens: Tensor, named: Tensor) -> tuple[Tensor, float]:
        """Mean cross-entropy, and the share of cells with a body whose shape is named right; `named` as
        `name_bodies`, [B, T, H, W, 2]."""
        cells = named.unflatten(3, (-1, self.side[1])).unflatten(2, (-1, self.side[0])).transpose(3, 4)
        cells = cells.flatten(4, 5).flatten(2, 3)  # [B, T, S, cells, 2]
        shapes, colours = self(tokens).float().split(CLASSES, dim=-1)
        loss = sum(
            F.cross_entropy(logits.flatten(0, -2), cells[..., n].flatten())
            for n, logits in enumerate((shapes, colours))
        )
        body = cells[..., 0] > 0
        right = (shapes.detach().argmax(-1) == cells[..., 0])[body].float().mean().item() if body.any() else 0.0
        return torch.as_tensor(loss), right


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that receives what `module` answers while the context lasts."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, answer: Tensor) -> None:
        seen.append(answer)

    handle = module.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
