"""The inspector: it finds the thing in a frame, the colour of each of its cells, and its shape.

It measures generated videos, so it must not share their faults: it is trained on renders alone, sees one frame at a
time and never a prompt. A small U-Net finds things and colours; a smaller classifier then looks at a square around one
thing, scaled to a fixed size, with the mask as a fourth channel: that way a shape is learned from far fewer frames than
cell by cell. No normalisation layers: residual branches start at zero, which is enough at this size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class InspectorConfig:
    """The names are the classes, in order. `widths` run from the finest grid (1/2 of the picture) to the coarsest;
    `shape_widths` halve the square of `crop` × `crop` pixels each time but the first."""

    colours: tuple[str, ...] = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "white")
    shapes: tuple[str, ...] = ("sphere", "box", "cylinder", "cone", "capsule", "torus")
    widths: tuple[int, ...] = (16, 32, 48, 64)
    shape_widths: tuple[int, ...] = (24, 48, 96, 128)
    crop: int = 32

    def __post_init__(self) -> None:
        for name in ("colours", "shapes", "widths", "shape_widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists


class Cells(NamedTuple):
    """Logits for every cell of the output grid: whether it shows a thing, and which colour that thing is."""

    thing: Float[Tensor, "n h w"]
    colour: Float[Tensor, "n colours h w"]


class Inspector(nn.Module):
    """Frames `[N, 3, H, W]` in -1..1 of any size → `Cells` on a grid of ceil(H / 2) × ceil(W / 2); and `shapes`."""

    def __init__(self, config: InspectorConfig):
        super().__init__()
        self.config = config
        w = config.widths
        self.stem = nn.Conv2d(12, w[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(w))
        self.inward = nn.ModuleList(Block(width) for width in w)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(w))
        self.outward = nn.ModuleList(Block(width) for width in w[:-1])
        self.head = nn.Conv2d(w[0], 1 + len(config.colours), 1)
        self.classifier = SquareClassifier(config.shape_widths, config.crop, len(config.shapes))

    def forward(self, frames: Float[Tensor, "n 3 hh ww"]) -> Cells:
        height, width = ((side + 1) // 2 for side in frames.shape[-2:])
        seen = self.features(frames)
        x = seen[-1]
        for level in reversed(range(len(self.outward))):
            finer = F.interpolate(self.up[level](x), scale_factor=2.0, mode="nearest")
            x = self.outward[level](finer + seen[level])
        logits = self.head(F.relu(x)).float()[..., :height, :width]
        return Cells(logits[:, 0], logits[:, 1:])

    def features(self, frames: Float[Tensor, "n 3 hh ww"]) -> list[Tensor]:
        """What it sees on each of its grids [N, width, h, w], from half of the picture's sides (padded to a multiple of
        the coarsest grid's cells) to the coarsest."""
        unit = 2 ** len(self.config.widths)
        right, below = -frames.shape[-1] % unit, -frames.shape[-2] % unit
        padded = F.pad(frames, (0, right, 0, below), mode="replicate")
        x = F.relu(self.stem(F.pixel_unshuffle(padded, 2).contiguous(memory_format=torch.channels_last)))
        seen = []
        for level, block in enumerate(self.inward):
            x = block(self.down[level - 1](x) if level else x)
            seen.append(x)
        return seen

    def shapes(
        self, frames: Float[Tensor, "n 3 hh ww"], thing: Float[Tensor, "n h w"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n shapes"]:
        """Logits of the shape of one thing a frame. `thing` is how surely (0..1) each cell shows it, `boxes` where it
        is: left, top, right, bottom in cells. (A box in cells, not pixels, because that is what masks give.)"""
        return self.classifier(squares(frames, thing, boxes, self.config.crop)).float()


def squares(
    frames: Float[Tensor, "n 3 hh ww"], thing: Float[Tensor, "n h w"], boxes: Float[Tensor, "n 4"], size: int
) -> Float[Tensor, "n 4 size size"]:
    """The square around one thing a frame, scaled to `size` pixels a side; see `Inspector.shapes`."""
    height, width = thing.shape[-2:]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = 0.6 * (boxes[:, 2:] - boxes[:, :2]).amax(1).clamp(min=2)[:, None]  # a tenth of room on either side
    steps = (torch.arange(size, device=frames.device) + 0.5) / size * 2 - 1
    x = (centre[:, :1] + half * steps) / width * 2 - 1
    y = (centre[:, 1:] + half * steps) / height * 2 - 1
    where = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    odd = (0, 2 * width - frames.shape[-1], 0, 2 * height - frames.shape[-2])
    whole = F.pad(frames, odd, mode="replicate").float()
    picture = F.grid_sample(whole, where, padding_mode="border", align_corners=False)
    mask = F.grid_sample(thing.float()[:, None], where, padding_mode="zeros", align_corners=False)
    return torch.cat([picture, 2 * mask - 1], dim=1)


def boxes(mask: Tensor) -> Tensor:
    """Left, top, right, bottom of each mask, bool `[N, h, w]` → float `[N, 4]`; the whole frame for an empty one."""
    sides = []
    for dim in (1, 2):  # columns, then rows
        filled = mask.any(dim).float()
        size = filled.shape[1]
        empty = ~filled.any(1)
        sides.append(
            (filled.argmax(1).masked_fill(empty, 0), (size - filled.flip(1).argmax(1)).masked_fill(empty, size))
        )
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def largest_part(mask: Tensor) -> Tensor:
    """The largest connected part (of eight neighbours) of each mask, bool `[N, h, w]`."""
    number, sizes = parts_of(mask)
    return mask & (number == sizes.argmax(1)[:, None, None])


def parts_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The connected parts (of eight neighbours) of each mask, bool `[N, h, w]`: the number of each cell's part, int64
    `[N, h, w]`, 0 outside, and the sizes of the parts by their numbers `[N, h * w + 1]`, 0 for the outside.

    Every cell takes the highest number among its neighbours until nothing changes; a part then shares one number.
    """
    count, height, width = mask.shape
    inside = mask.float()
    number = torch.arange(1, height * width + 1, device=mask.device).float().view(1, height, width) * inside
    while number.any():
        spread = F.max_pool2d(number[:, None], 3, stride=1, padding=1)[:, 0] * inside
        if torch.equal(spread, number):
            break
        number = spread
    flat = number.long().view(count, -1)
    sizes = torch.zeros(count, height * width + 1, dtype=torch.long, device=mask.device)
    sizes.scatter_add_(1, flat, torch.ones_like(flat))
    sizes[:, 0] = 0
    return number.long(), sizes


class Block(nn.Module):
    """Two 3x3 convolutions and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class SquareClassifier(nn.Module):
    """Squares `[N, 4, crop, crop]` (picture and mask, -1..1) → logits `[N, classes]`."""

    def __init__(self, w: tuple[int, ...], crop: int, classes: int):
        super().__init__()
        self.stem = nn.Conv2d(4, w[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(w))
        self.head = nn.Linear(w[-1] * (crop // 2 ** (len(w) - 1)) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x.contiguous(memory_format=torch.channels_last)))
        for layer in self.down:
            x = F.relu(layer(x))
        return self.head(x.flatten(1))
