"""The video autoencoders of Wan 2.1 (8× in space, 16 channels) and Wan 2.2 (16×, 48 channels): causal in time, 4×.

What is unusual about them, and about how they run here:
- The first frame skips every change of length in time: it stays one frame, and what comes after it is halved or doubled
  without looking at it (doubling) or by looking at its last frame (halving).
- Wan 2.2 folds 2×2 pixels into channels first, and has averaged or repeated channels as shortcuts around each stage.
- State is given in and returned: each causal convolution's last two frames. A stream gives the numbers of one pass, and
  a chunk runs latent frame by latent frame, so that memory does not grow with its length.
- Tensors lie channels last. On a CPU, norms run in pieces that stay in its cache, which is several times as fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yozora.errors import CanvasError
from yozora.models.autoencoder import Streams
from yozora.models.wan_layers import (
    LAST,
    Attention,
    CausalConv,
    Down,
    Memory,
    ResidualBlock,
    Up,
    activate,
    average,
    closed,
    fold,
    give_back,
    opened,
    remember,
    repeat,
    taken,
    unfold,
)

State = tuple[Any, ...]
"""A stream's: a memory (see `wan_layers`), in tuples."""

MAX_WIDTH, MAX_DEPTH = 2**16, 2**6
TOGETHER = 2**14  # cells of frames that go through a stage of the decoder at a time


@dataclass(frozen=True)
class WanAutoencoderConfig:
    """`width` and `decoder_width` are those of the finest grid, which `multiples` multiply, from fine to coarse;
    `halves_time` says where, between these, time is halved, too. `mean` and `std` of each latent channel."""

    channels: int = 16
    width: int = 96
    decoder_width: int = 96
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    depth: int = 2
    halves_time: tuple[bool, ...] = (False, True, True)
    residual: bool = False
    """Whether stages have shortcuts around them, as in Wan 2.2."""
    patch: int = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sizes = (self.channels, self.width, self.decoder_width, self.depth, self.patch, *self.multiples)
        if not 1 <= min(sizes) <= max(sizes) <= MAX_WIDTH:
            raise ValueError(f"sizes must be between 1 and {MAX_WIDTH}")
        if max(self.width, self.decoder_width) * max(self.multiples) > MAX_WIDTH:
            raise ValueError(f"widths times multiples must be at most {MAX_WIDTH}")
        if max(self.depth, len(self.multiples), self.patch) > MAX_DEPTH:
            raise ValueError(f"depth, patch and the number of multiples must be at most {MAX_DEPTH}")
        if len(self.halves_time) != len(self.multiples) - 1:
            raise ValueError("halves_time must say something of each step between the multiples")
        known = all(map(math.isfinite, (*self.mean, *self.std)))
        if not (known and len(self.mean) == len(self.std) == self.channels and min(self.std, default=0) > 0):
            raise ValueError(f"mean and std must be {self.channels} numbers each, std positive")

    @property
    def spatial(self) -> int:
        """Pixels along one side of a latent cell."""
        return self.patch * 2 ** len(self.halves_time)

    @property
    def temporal(self) -> int:
        """Frames in a latent frame (the first latent frame holds one)."""
        return 2 ** sum(self.halves_time)


WAN21_AUTOENCODER = WanAutoencoderConfig(
    mean=(
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ),
    std=(
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
    ),
)  # fmt: skip
WAN22_AUTOENCODER = WanAutoencoderConfig(
    channels=48, width=160, decoder_width=256, residual=True, patch=2,
    mean=(
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
        -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
        -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
        -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
        0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ),
    std=(
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
        0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
        0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
        0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
        0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ),
)  # fmt: skip


class WanAutoencoder(Streams):
    """Frames `[B, 3, 1+4k, H, W]` in -1..1 to latents `[B, channels, 1+k, h, w]` of unit variance, and back."""

    def __init__(self, config: WanAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, frames: Tensor) -> Tensor:
        """All frames at once, float32; the means of what the encoder says. Raises CanvasError where the frame count is
        not 1 + 4k or a side is no multiple of a latent cell's."""
        if frames.shape[2] % self.config.temporal != 1 % self.config.temporal:
            raise CanvasError(f"the autoencoder takes 1 + {self.config.temporal}k frames, not {frames.shape[2]}")
        return self.encode_chunk(frames, None)[0]

    def encode_chunk(self, frames: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The next frames of a stream: 1 + 4k of them at its start (`state` None), 4k later."""
        cell, step = self.config.spatial, self.config.temporal
        if frames.shape[-2] % cell or frames.shape[-1] % cell:
            raise CanvasError(
                f"the autoencoder takes sides that are multiples of {cell}, not {frames.shape[-1]}x{frames.shape[-2]}"
            )
        pieces = list(frames[:, :, int(state is None) :].split(step, dim=2))
        if state is None:
            pieces = [frames[:, :, :1], *(piece for piece in pieces if piece.shape[2])]
        made, memory = [], opened(state)
        for piece in pieces:
            latents, memory = self.encoder(fold(piece, self.config.patch), memory)
            made.append(latents.float())
        mean, std = self._statistics(frames.device)
        return (torch.cat(made, dim=2) - mean) / std, closed(memory)

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The next latent frames of a stream: n of them give 4n frames, and 4n - 3 at its start (`state` None). Frames
        are in -1..1, but not clamped."""
        mean, std = self._statistics(latents.device)
        latents = latents.float() * std + mean
        made, memory = [], opened(state)
        for latent in latents.split(1, dim=2):
            frames, memory = self.decoder(latent, memory)
            made.append(unfold(frames, self.config.patch))
        return torch.cat(made, dim=2), closed(memory)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(each, device=device) for each in (self.config.mean, self.config.std))
        return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


class Encoder(nn.Module):
    """Pixels [B, 3·patch², T, H, W] → the latents' means [B, channels, T', h, w]."""

    def __init__(self, config: WanAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * multiple for multiple in (1, *config.multiples)]
        self.stem = CausalConv(3 * config.patch**2, widths[0])
        halves: list[bool | None] = [*config.halves_time, None]
        self.stages = nn.ModuleList(
            DownStage(width, out, config.depth, half, config.residual)
            for width, out, half in zip(widths[:-1], widths[1:], halves, strict=True)
        )
        self.middle = Middle(widths[-1])
        self.norm = nn.Parameter(torch.ones(widths[-1]))
        self.head = CausalConv(widths[-1], 2 * config.channels)
        self.latent = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        stem, stages, middle, head = taken(memory, 4)
        x, stem = self.stem(*remember(x.to(self.stem.weight.dtype).contiguous(memory_format=LAST), stem))
        x, stages = run(self.stages, x, stages)
        x, middle = self.middle(x, middle)
        x, head = self.head(*activate(x, self.norm, head, self.head.weight.dtype))
        return self.latent(x).chunk(2, dim=1)[0], [stem, stages, middle, head]


class Decoder(nn.Module):
    """Latents [B, channels, T, h, w] → pixels [B, 3·patch², T', H, W]."""

    def __init__(self, config: WanAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.decoder_width * multiple for multiple in (config.multiples[-1], *config.multiples[::-1])]
        self.latent = nn.Conv3d(config.channels, config.channels, 1)
        self.stem = CausalConv(config.channels, widths[0])
        self.middle = Middle(widths[0])
        doubles: list[bool | None] = [*config.halves_time[::-1], None]
        stages, width = [], widths[0]
        for out, double in zip(widths[1:], doubles, strict=True):
            after = out if config.residual or double is None else out // 2
            stages.append(UpStage(width, out, after, config.depth + 1, double, config.residual))
            width = after
        self.stages = nn.ModuleList(stages)
        self.norm = nn.Parameter(torch.ones(width))
        self.head = CausalConv(width, 3 * config.patch**2)

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        memory = memory or [None, None, [None] * len(self.stages), None]
        x = self.latent(x.to(self.latent.weight.dtype).contiguous(memory_format=LAST))
        x, memory[0] = self.stem(*remember(x, memory[0]))
        x, memory[1] = self.middle(x, memory[1])
        return self.refine(x, 0, memory), memory

    def refine(self, x: Tensor, number: int, memory: Memory) -> Tensor:
        """The stages from the `number`-th on, and the head. The larger the frames have become, the fewer go on at a
        time, so that little is held at once."""
        if number == len(self.stages):
            x, memory[3] = self.head(*activate(x, self.norm, memory[3], self.head.weight.dtype))
            return x
        made, states, cells = [], memory[2], x[0, 0, 0].numel()
        for piece in x.split(max(1, TOGETHER // cells), dim=2):
            if x.device.type == "cpu" and cells >= TOGETHER and number == len(self.stages) - 1:
                give_back()  # most is held there; before the stage before it, too, it would cost a tenth of the time
            piece, states[number] = self.stages[number](piece, states[number])
            made.append(self.refine(piece, number + 1, memory))
        return torch.cat(made, dim=2)


# ---- stages ----------------------------------------------------------------------------------------------------------


class DownStage(nn.Module):
    """Residual blocks, then half the rows and columns, and half the frames if it `halves` (None: none of it)."""

    def __init__(self, width: int, out: int, depth: int, halves: bool | None, residual: bool) -> None:
        super().__init__()
        self.out, self.halves, self.residual = out, halves, residual
        self.blocks = nn.ModuleList(ResidualBlock(width if n == 0 else out, out) for n in range(depth))
        self.sample = None if halves is None else Down(out, halves)

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        blocks, sample = taken(memory, 2)
        y, blocks = run(self.blocks, x, blocks)
        if self.sample is not None:
            y, sample = self.sample(y, sample)
        if self.residual:
            y = y + average(x, self.out, 1 if self.halves is None else 2, 2 if self.halves else 1)
        return y, [blocks, sample]


class UpStage(nn.Module):
    """Residual blocks, then twice the rows and columns, and twice the frames if it `doubles` (None: none of it)."""

    def __init__(self, width: int, out: int, after: int, depth: int, doubles: bool | None, residual: bool) -> None:
        super().__init__()
        self.out, self.doubles, self.residual = out, doubles, residual and doubles is not None
        self.blocks = nn.ModuleList(ResidualBlock(width if n == 0 else out, out) for n in range(depth))
        self.sample = None if doubles is None else Up(out, after, doubles)

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        blocks, sample = taken(memory, 2)
        y, blocks = run(self.blocks, x, blocks)
        begins = sample is None
        if self.sample is not None:
            y, sample = self.sample(y, sample)
        if self.residual:
            y = y + repeat(x, self.out, 2 if self.doubles else 1, begins)
        return y, [blocks, sample]


class Middle(nn.Module):
    """A residual block, attention within each frame, and another block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ResidualBlock(width, width)
        self.attention = Attention(width)
        self.second = ResidualBlock(width, width)

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        first, second = taken(memory, 2)
        x, first = self.first(x, first)
        x, second = self.second(self.attention(x), second)
        return x, [first, second]


def run(layers: nn.ModuleList, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
    """Layers one after the other, each with its own part of the memory (None: a video begins)."""
    after = []
    for layer, own in zip(layers, taken(memory, len(layers)), strict=True):
        x, own = layer(x, own)
        after.append(own)
    return x, after
