"""Decoding in tiles: an autoencoder that holds only a part of the picture at once, for large frames and little memory.

An autoencoder that is causal remembers more of the frames before than it holds of the one at hand, so it is that memory
above all which a tile makes smaller. Tiles overlap by a quarter and are blended there, one fading as the next comes in.
What a network sees beyond a tile's edge is lost, so the picture is not the same to the bit: how near is in the tests.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor

from yozora.errors import CanvasError
from yozora.models.autoencoder import Streams

LEAST = 4  # cells of a tile's side
TOGETHER = 4  # latent frames of a tile decoded at a time


class Tiled(Streams):
    """An autoencoder that decodes in tiles of `side` pixels, and is called as it is. Raises CanvasError for a side of
    less than `LEAST` of its cells."""

    def __init__(self, whole: Any, side: int) -> None:
        super().__init__()
        check_side(side, whole.config.spatial)
        self.whole, self.config, self.side = whole, whole.config, side
        self.cells = side // self.config.spatial
        self.home = torch.device("cpu")

    def encode(self, frames: Tensor) -> Tensor:
        """All frames at once, not in tiles."""
        return self.whole.encode(frames)

    def encode_chunk(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next frames of a stream, not in tiles."""
        return self.whole.encode_chunk(frames, state)

    def decode_chunk(self, latents: Tensor, state: Any, keep: bool = True) -> tuple[Tensor, Any]:
        """As the autoencoder's, but frames are float32 and in the computer's memory. Each tile goes through all these
        latents before the next one, and the state of those that are not at work waits there, too: give as many latents
        at once as there are. Without `keep` there is no state after them (None)."""
        *_, height, width = latents.shape
        cell, step = self.config.spatial, self.config.temporal
        rows, columns = spans(height, self.cells), spans(width, self.cells)
        states, after = state or (None,) * (len(rows) * len(columns)), []
        count = step * latents.shape[2] - (step - 1 if state is None else 0)
        made = torch.zeros(len(latents), 3, count, height * cell, width * cell, device=self.home)
        for (row, column), each in zip(product(rows, columns), states, strict=True):
            each, place = moved(each, latents.device), 0
            part = made[..., row[0] * cell : row[1] * cell, column[0] * cell : column[1] * cell]
            share = shares(row, rows, cell)[:, None] * shares(column, columns, cell)
            for piece in latents[..., slice(*row), slice(*column)].split(TOGETHER, dim=2):
                tile, each = self.whole.decode_chunk(piece.contiguous(), each)
                part[:, :, place : place + tile.shape[2]].addcmul_(tile.to(self.home, torch.float32), share)
                place += tile.shape[2]
            after.append(moved(each, self.home) if keep else None)
            del each, tile
        return made, tuple(after) if keep else None


def moved(state: Any, device: torch.device) -> Any:
    """A state, tensors in nested tuples, on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    return tuple(moved(each, device) for each in state) if isinstance(state, tuple) else state


def check_side(side: int, cell: int) -> None:
    """Raises CanvasError for tiles of less than `LEAST` cells of so many pixels."""
    if side < LEAST * cell:
        raise CanvasError(f"tiles of {side} pixels are too small for this model: ask for {LEAST * cell} or more")


def spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along a side, evenly, each over its neighbours by a quarter or more."""
    if length <= tile:
        return [(0, length)]
    count = 1 + math.ceil((length - tile) / (tile - tile // 4))
    starts = [(length - tile) * n // (count - 1) for n in range(count)]
    return [(start, start + tile) for start in starts]


def shares(own: tuple[int, int], all_spans: list[tuple[int, int]], cell: int) -> Tensor:
    """How much a tile counts at each pixel along a side: float32 of its length; those of all tiles add up to 1."""
    place = torch.arange(own[0] * cell, own[1] * cell) + 0.5
    heights = [tent(place, start * cell, end * cell, all_spans[-1][1] * cell) for start, end in all_spans]
    return heights[all_spans.index(own)] / torch.stack(heights).sum(0)


def tent(place: Tensor, start: int, end: int, length: int) -> Tensor:
    """The distance to a tile's nearer edge, 0 outside; the picture's own edges are none."""
    left = place - start if start else torch.full_like(place, torch.inf)
    right = end - place if end < length else torch.full_like(place, torch.inf)
    return torch.minimum(left, right).clamp(0, (end - start) / 4)
