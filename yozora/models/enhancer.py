"""The enhancer: one small network makes frames four times as large, another draws the frame between two.

What is unusual about it:
- Everything happens at the size of the input; only the last layer writes 4x4 pixels for each of its own (the sub-pixel
  convolution of Shi et al., 2016). No layer normalises: residual branches start at zero.
- What is learned is added to a bicubic resize, so an untrained upscaler is a bicubic resize.
- For the frame between, motion is looked for before anything is learned: both frames are shifted by every motion of a
  small set that would bring them together at the moment asked for, and compared (the bilateral cost volume of BMBC,
  Park et al., 2020). Convolutions then turn these costs into where each pixel comes from, in both frames.
- A frame between is made of pixels of the two frames, moved: nothing is invented, so nothing flickers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from yozora.models.inspector import Block

CELL = 4  # pixels of a side of the grid on which motion is looked for
CERTAIN = 32.0  # how steeply a difference (frames are in -1..1) makes a motion unlikely
STILL = 0.05  # what a cell of motion must make up for: most of a picture stands, and plain areas fit anywhere
LARGEST_SEARCH = 192  # pixels of the short side: in larger frames motion is looked for at this size

Frames = Float[Tensor, "n 3 h w"]
Moments = Float[Tensor, "n"]


@dataclass(frozen=True)
class EnhancerConfig:
    """`factor` is how much larger frames become. Motion of up to `reach` cells of 4 pixels between two frames is looked
    for; the networks that judge it, first on cells and then on pixels of 2, have `search_` and `refine_` sizes."""

    factor: int = 4
    width: int = 48
    depth: int = 6
    reach: int = 4
    search_width: int = 48
    search_depth: int = 2
    refine_width: int = 32
    refine_depth: int = 1

    def __post_init__(self) -> None:
        if self.factor not in (2, 4):
            raise ValueError(f"factor must be 2 or 4, not {self.factor}")
        if min(self.width, self.search_width, self.refine_width) < 1 or not 1 <= self.reach <= 16:
            raise ValueError("widths must be at least 1 and reach between 1 and 16")
        if min(self.depth, self.search_depth, self.refine_depth) < 0:
            raise ValueError("depths must be at least 0")


class Enhancer(nn.Module):
    """`upscaler` makes frames larger, `between` draws the frame between two."""

    def __init__(self, config: EnhancerConfig):
        super().__init__()
        self.config = config
        self.upscaler = Upscaler(config)
        self.between = Between(config)


class Upscaler(nn.Module):
    """Frames `[N, 3, H, W]` in -1..1 → float32 `[N, 3, factor * H, factor * W]`, not clamped. No pixel matters to
    another that is more than `halo` pixels of the input away."""

    def __init__(self, config: EnhancerConfig):
        super().__init__()
        self.factor, self.halo = config.factor, 2 * config.depth + 2
        self.body = Body(3, config.width, config.depth, 3 * config.factor**2)

    def forward(self, frames: Frames) -> Float[Tensor, "n 3 hh ww"]:
        plain = F.interpolate(frames.float(), scale_factor=float(self.factor), mode="bicubic")
        return plain + F.pixel_shuffle(self.body(frames), self.factor)


class Between(nn.Module):
    """Two frames `[N, 3, H, W]` in -1..1 and a moment `[N]` in 0..1 (0 is the first frame, 1 the second) → the frame at
    that moment, float32."""

    def __init__(self, config: EnhancerConfig):
        super().__init__()
        self.reach = config.reach
        motions = (2 * config.reach + 1) ** 2
        # costs, both frames, likely motion, moment → two paths and a share
        self.search = Body(motions + 6 + 2 + 1, config.search_width, config.search_depth, 5)
        # both frames, both moved, the two paths and the share so far, moment
        self.refine = Body(12 + 5 + 1, config.refine_width, config.refine_depth, 5)

    def forward(self, before: Frames, after: Frames, moment: Moments) -> Frames:
        return self.draw(before, after, moment)[-1]

    def draw(self, before: Frames, after: Frames, moment: Moments) -> tuple[Frames, Frames]:
        """The frame by the first estimate of motion, and by the refined one."""
        before, after, t = before.float(), after.float(), moment.float().clamp(1e-3, 1 - 1e-3).view(-1, 1, 1, 1)
        size = search_size(*before.shape[-2:])
        first, second = self.paths(resize(before, size), resize(after, size), t)
        return blend(before, after, first, t), blend(before, after, second, t)

    def paths(self, before: Frames, after: Frames, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where each pixel comes from, on two grids, of 1/4 and of 1/2 of the sides (multiples of 4): 5 channels, the
        way to its place in the first frame (x, y), in the second (both in pixels of the grid), and the share of the
        first frame in it (a logit, to be added to that of a cross-fade)."""
        a, b = F.avg_pool2d(before, CELL), F.avg_pool2d(after, CELL)
        motions = neighbourhood(self.reach, a.device)
        costs = compare(a, b, motions, t)
        likely = (-CERTAIN * costs).softmax(1)[:, :, None] * motions[:, :, None, None]
        motion, moments = likely.sum(1), t.expand(-1, 1, *a.shape[-2:])
        start = torch.cat([-t * motion, (1 - t) * motion, torch.zeros_like(motion[:, :1])], dim=1)
        first = start + self.search(torch.cat([4 * costs, a, b, motion, moments], dim=1))

        a, b = F.avg_pool2d(before, 2), F.avg_pool2d(after, 2)
        grown, moments = grow(first, a.shape[-2:]), t.expand(-1, 1, *a.shape[-2:])
        moved = [move(a, grown[:, :2]), move(b, grown[:, 2:4])]
        return first, grown + self.refine(torch.cat([a, b, *moved, grown, moments], dim=1))


class Body(nn.Module):
    """A convolution, `depth` residual blocks and a convolution that starts at zero; float32 comes out."""

    def __init__(self, channels: int, width: int, depth: int, out: int):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Conv2d(width, out, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return self.head(F.relu(x)).float()


def search_size(height: int, width: int) -> tuple[int, int]:
    """The size, in multiples of 4, at which motion is looked for in frames of this size."""
    scale = min(1.0, LARGEST_SEARCH / min(height, width))
    return tuple(max(1, round(side * scale / CELL)) * CELL for side in (height, width))  # pyright: ignore[reportReturnType]


def resize(frames: Frames, size: tuple[int, int]) -> Float[Tensor, "n 3 hh ww"]:
    """Frames at (height, width), antialiased."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)


def neighbourhood(reach: int, device: torch.device) -> Float[Tensor, "k 2"]:
    """All motions (x, y) of up to `reach` whole cells each way."""
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32, device=device)
    return torch.cartesian_prod(steps, steps)


def compare(a: Frames, b: Frames, motions: Float[Tensor, "k 2"], t: Tensor) -> Float[Tensor, "n k h w"]:
    """How much the frames differ at each place and for each motion, if that is what passes there at the moment `t`: the
    mean difference of 3 x 3 pixels, and a little more the faster it is."""
    count, kinds = len(a), len(motions)
    ways = motions.repeat(count, 1)[:, :, None, None]
    moments = t.repeat_interleave(kinds, dim=0)
    there = move(a.repeat_interleave(kinds, dim=0), -moments * ways)
    here = move(b.repeat_interleave(kinds, dim=0), (1 - moments) * ways)
    costs = (there - here).abs().mean(1).unflatten(0, (count, kinds))
    alike = F.avg_pool2d(costs, 3, stride=1, padding=1, count_include_pad=False)
    return alike + STILL * motions.norm(dim=1)[:, None, None]


def grow(paths: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Two paths and a share, on a grid of another size; paths are then in pixels of that."""
    tall, wide = size[0] / paths.shape[-2], size[1] / paths.shape[-1]
    scale = paths.new_tensor([wide, tall, wide, tall, 1.0]).view(1, 5, 1, 1)
    return F.interpolate(paths, size=tuple(size), mode="bilinear", align_corners=False) * scale


def move(frames: Tensor, way: Tensor) -> Tensor:
    """Each pixel taken from `way` `[N, 2, h or 1, w or 1]` (x, y) pixels away; what lies outside repeats the border."""
    height, width = frames.shape[-2:]
    x = torch.arange(width, device=frames.device) + 0.5
    y = (torch.arange(height, device=frames.device) + 0.5)[:, None]
    where = [(x + way[:, 0]).expand(-1, height, -1) / width, (y + way[:, 1]).expand(-1, -1, width) / height]
    grid = 2 * torch.stack(where, dim=-1).float() - 1
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def blend(before: Frames, after: Frames, paths: Tensor, t: Tensor) -> Frames:
    """The frame at `t` out of two, by their paths and shares on any grid."""
    paths = grow(paths, before.shape[-2:])
    share = (paths[:, 4:] + torch.log((1 - t) / t)).sigmoid()
    return share * move(before, paths[:, :2]) + (1 - share) * move(after, paths[:, 2:4])
