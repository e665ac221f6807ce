"""The reader: what a whole clip shows, by name: how large a thing is, of what, how it moves, where, how it is filmed.

It measures generated videos beside the inspector, so it must not share their faults: it is trained on renders alone and
never sees a prompt. A few frames spread over the clip are enough; with each comes what the inspector takes for things,
and how well each place matches the frame before when that is moved a little: how things move and how it is filmed is
then learned from far fewer clips. Features meet those of the frame before at a fine grid, where a shaking camera still
shows, and those of all frames at coarser ones; each head then looks where it has learned to look. No normalisation
layers: residual branches start at zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from yozora.models.inspector import Block, Inspector, SquareClassifier

MOMENTS = ("size", "x", "y", "spread in x", "spread in y")
MOVES = (-6, -2, 0, 2, 6)  # pixels, in x and in y, by which the frame before is moved
CELL = 3  # pixels a side of the finest grid's cells


@dataclass(frozen=True)
class ReaderConfig:
    """`heads` names the classes of each head, in order. `frames` of `side` × `side` pixels are read; `widths` run from
    the grid of 1/3 of that to the coarsest, of 1/12; `looks` is how many places each head looks at. `materials` are
    read off squares of `crop` × `crop` pixels around a thing; `surface_widths` halve those each time but the first."""

    heads: dict[str, tuple[str, ...]]
    materials: tuple[str, ...] = ("matte", "rubber", "metal", "checkered", "striped", "glowing")
    frames: int = 9
    side: int = 96
    widths: tuple[int, ...] = (20, 40, 64)
    looks: int = 2
    surface_widths: tuple[int, ...] = (16, 32, 48, 56)
    crop: int = 32

    def __post_init__(self) -> None:
        for name in ("materials", "widths", "surface_widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        object.__setattr__(self, "heads", {name: tuple(values) for name, values in self.heads.items()})

    @property
    def grid(self) -> int:
        """Side of the coarsest grid, cells."""
        return self.side // CELL // 2 ** (len(self.widths) - 1)


class Reader(nn.Module):
    """Clips `[N, T, 4, S, S]` in -1..1, as `clip_to_read` makes them → logits `[N, classes]` of each head; and
    `surface`, which names the material in single squares, as `yozora.models.inspector.squares` makes them."""

    def __init__(self, config: ReaderConfig):
        super().__init__()
        self.config = config
        w, names = config.widths, list(config.heads)
        self.stem = nn.Conv2d(4 * CELL**2, w[0], 3, padding=1)
        before = [2 * w[0], *w[1:]]  # the finest features come with what has changed in them
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(before, w[1:], strict=False))
        self.match = nn.Conv2d(len(MOVES) ** 2, w[1], 1)
        self.blocks = nn.ModuleList(Block(width) for width in w[1:])
        self.over_time = nn.ModuleList(TimeBlock(width) for width in w[1:])
        self.place = nn.Parameter(torch.zeros(w[-1], config.grid, config.grid))
        self.moment = nn.Parameter(torch.zeros(config.frames, w[-1], 1, 1))
        self.mix = nn.Conv2d(w[-1], w[-1], 1)
        self.track = nn.Sequential(
            nn.Linear(len(MOMENTS) * config.frames, w[-1]), nn.ReLU(), nn.Linear(w[-1], w[-1]), nn.ReLU()
        )
        self.queries = nn.Parameter(torch.randn(len(names), config.looks, w[-1]) / w[-1] ** 0.5)
        wide = (config.looks + 2) * w[-1] + 2 * sum(w[1:])  # looks, whole, track; means and changes of things
        self.name = nn.ModuleDict({name: nn.Linear(wide, len(config.heads[name])) for name in names})
        self.surface = SquareClassifier(config.surface_widths, config.crop, len(config.materials))

    def forward(self, clips: Float[Tensor, "n t 4 s s"]) -> dict[str, Float[Tensor, "n classes"]]:
        count, frames = clips.shape[:2]
        thing = (clips[:, :, 3] + 1) / 2
        cells = F.pixel_unshuffle(clips.flatten(0, 1), CELL).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem(cells))
        x = torch.cat([x, x - earlier(x, frames)], dim=1)
        about = [self.track(4 * moments(thing).flatten(1))]  # small steps count
        for level, (down, block, over_time) in enumerate(zip(self.down, self.blocks, self.over_time, strict=True)):
            x = down(x)
            if level == 0:
                x = x + self.match(matches(clips[:, :, :3].mean(2), 2 * CELL))
            x = over_time(block(x), frames)
            about += of_things(x.unflatten(0, (count, frames)), thing)
        x = x + self.place + self.moment.repeat(count, 1, 1, 1)
        x = F.relu(self.mix(F.relu(x)))
        tokens = x.unflatten(0, (count, frames)).transpose(2, -1).flatten(1, 3)  # [N, T * w * h, W]
        scores = torch.einsum("nlw,hkw->nhkl", tokens, self.queries).float()
        seen = torch.einsum("nhkl,nlw->nhkw", scores.softmax(-1).to(tokens), tokens).flatten(2)
        about.append(tokens.mean(1))
        return {
            name: head(torch.cat([seen[:, number], *about], dim=1)).float()
            for number, (name, head) in enumerate(self.name.items())
        }


class TimeBlock(nn.Module):
    """Each cell meets itself in the frames before and after, and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """`[N * T, C, h, w]` → the same."""
        height, width = x.shape[-2:]
        lines = x.unflatten(0, (-1, frames)).permute(0, 3, 4, 2, 1).flatten(0, 2)  # [N * h * w, C, T]
        met = self.second(F.relu(self.first(F.relu(lines))))
        met = met.unflatten(0, (-1, height, width)).permute(0, 4, 3, 1, 2).flatten(0, 1)
        return x + met


@torch.no_grad()
def matches(grey: Float[Tensor, "n t s s"], cell: int) -> Float[Tensor, "nt moves h w"]:
    """How well each cell of `cell` pixels a side matches the frame before, moved by each pair of MOVES: the difference,
    over its mean for all moves; above 0 for worse than that mean, 0 where there is nothing to see."""
    frames, most = grey.shape[1], max(MOVES)
    now = grey.flatten(0, 1)
    before = F.pad(earlier(now[:, None], frames), (most,) * 4, mode="replicate")[:, 0]
    side = now.shape[-1]
    differences = []
    for y in MOVES:
        for x in MOVES:
            moved = before[:, most - y : most - y + side, most - x : most - x + side]
            differences.append(F.avg_pool2d((now - moved).abs()[:, None], cell))
    each = torch.cat(differences, dim=1)
    mean = each.mean(1, keepdim=True)
    return (each - mean) / (mean + 0.01)


def moments(thing: Float[Tensor, "n t s s"]) -> Float[Tensor, "n t m"]:
    """MOMENTS of what is taken for things in each frame: how large all of it is (the side of a square, over the
    frame's), where its middle is (-1..1), and how far it spreads to either side."""
    side = torch.linspace(-1, 1, thing.shape[-1], device=thing.device)
    mass = thing.mean((2, 3))
    total = (thing.shape[-1] * mass.clamp_min(1e-3))[..., None]
    shares = [thing.mean(2) / total, thing.mean(3) / total]  # by column, by row
    middles = [(share * side).sum(-1) for share in shares]
    spreads = [
        (share * (side - middle[..., None]).square()).sum(-1).clamp_min(1e-6).sqrt()
        for share, middle in zip(shares, middles, strict=True)
    ]
    return torch.stack([mass.clamp_min(1e-6).sqrt(), *middles, *spreads], dim=-1)


def of_things(x: Float[Tensor, "n t c h w"], thing: Float[Tensor, "n t s s"]) -> list[Float[Tensor, "n c"]]:
    """The features where things are: their mean over the frames, and how much they change."""
    cells = F.adaptive_avg_pool2d(thing, (x.shape[-2], x.shape[-1]))
    shown = torch.einsum("ntchw,nthw->ntc", F.relu(x), cells) / cells.sum((2, 3)).clamp_min(0.1)[..., None]
    return [shown.mean(1), (shown.var(1, correction=0) + 1e-4).sqrt()]


def earlier(x: Tensor, frames: int) -> Tensor:
    """Each frame's features `[N * T, C, h, w]` replaced by those of the frame before; the first keeps its own."""
    clips = x.unflatten(0, (-1, frames))
    return torch.cat([clips[:, :1], clips[:, :-1]], dim=1).flatten(0, 1)


def clip_to_read(
    frames: UInt8[Tensor, "t h w 3"], config: ReaderConfig, inspector: Inspector
) -> Float[Tensor, "tt 4 s s"]:
    """The frames of a clip that the reader reads, evenly spread from the first to the last (those of a shorter clip
    more than once), scaled to its square; the fourth channel is how surely each place shows a thing."""
    where = torch.linspace(0, len(frames) - 1, config.frames).round().long()
    pictures = frames[where.to(frames.device)].permute(0, 3, 1, 2).float() / 127.5 - 1
    size = (config.side, config.side)
    scaled = F.interpolate(pictures, size=size, mode="bilinear", antialias=True, align_corners=False)
    thing = F.interpolate(inspector(scaled).thing.sigmoid()[:, None], size=size, mode="bilinear", align_corners=False)
    return torch.cat([scaled, 2 * thing - 1], dim=1)
