"""Decoding in tiles: an autoencoder that holds only a part of the picture at once, for large frames and little memory.

Tiles overlap by a quarter and are blended there, each side fading as the other comes in, so that no seam shows. What
a network sees beyond a tile's edge is lost, so the picture is not the same to the bit: how near is in the tests.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from yozora.errors import CanvasError
from yozora.models.autoencoder import Streams

LEAST = 4  # cells of a tile's side


class Tiled(Streams):
    """An autoencoder that decodes in tiles of `side` pixels, and is called as it is. Raises CanvasError for a side of
    less than `LEAST` of its cells."""

    def __init__(self, whole: Any, side: int) -> None:
        super().__init__()
        check_side(side, whole.config.spatial)
        self.whole, self.config, self.side = whole, whole.config, side
        self.cells = side // self.config.spatial

    def encode(self, frames: Tensor) -> Tensor:
        """All frames at once, not in tiles."""
        return self.whole.encode(frames)

    def encode_chunk(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next frames of a stream, not in tiles."""
        return self.whole.encode_chunk(frames, state)

    def decode_chunk(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As the autoencoder's; the state is that of every tile."""
        *_, height, width = latents.shape
        places = [(rows, columns) for rows in spans(height, self.cells) for columns in spans(width, self.cells)]
        states, after, made = state or (None,) * len(places), [], None
        cell = self.config.spatial
        for (rows, columns), each in zip(places, states, strict=True):
            tile, each = self.whole.decode_chunk(latents[..., slice(*rows), slice(*columns)].contiguous(), each)
            after.append(each)
            if made is None:
                made = tile.new_zeros((*tile.shape[:3], height * cell, width * cell), dtype=torch.float32)
            share = shares(rows, spans(height, self.cells), cell)[:, None] * shares(
                columns, spans(width, self.cells), cell
            )
            part = made[..., rows[0] * cell : rows[1] * cell, columns[0] * cell : columns[1] * cell]
            part.addcmul_(tile.float(), share.to(tile.device))
        assert made is not None
        return made.to(latents.dtype), tuple(after)


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
