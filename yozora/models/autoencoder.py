"""The video autoencoder: frames in, a small grid of latents out, and back.

What is unusual about it:
- No 3D convolution. Every block is 2D and also sees part of the frame before it (its *memory*), which makes the network
  causal in time: an image is a video of one frame, and a long video streams through in bounded memory.
- 4x in time and 16x in space, half of the spatial work done by a pixel-unshuffle before the first convolution.
- Each resampling step has a parameter-free shortcut (averaged or repeated channels), which a strongly compressing
  autoencoder needs in order to train fast (Chen et al., "Deep Compression Autoencoder", 2024).
- In training, noise of a fixed size is added to the latents, whose size is bounded: so much information a channel and
  no more, and a decoder that forgives small errors of the diffusion model.
- Outside, latents have zero mean and unit variance per channel, by statistics gathered in training.

Streaming state is a plain tuple of tensors, given in and returned; the modules keep nothing between calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from yozora.errors import CanvasError

MAX_WIDTH, MAX_DEPTH = 2**16, 2**10

State = tuple[Tensor, ...]
Frames = Float[Tensor, "b 3 t h w"]
Latents = Float[Tensor, "b c k i j"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Widths and depths run from the finest grid (1/4 of the picture) to the coarsest (1/16)."""

    channels: int = 32
    encoder_widths: tuple[int, int, int] = (48, 96, 192)
    encoder_depths: tuple[int, int, int] = (1, 1, 2)
    decoder_widths: tuple[int, int, int] = (64, 128, 256)
    decoder_depths: tuple[int, int, int] = (2, 2, 3)
    latent_noise: float = 0.1

    def __post_init__(self) -> None:
        e, d = self.encoder_widths, self.decoder_widths
        depths = (*self.encoder_depths, *self.decoder_depths)
        if not (min(self.channels, *e, *d) >= 1 and max(self.channels, *e, *d) <= MAX_WIDTH):
            raise ValueError(f"channels and widths must be between 1 and {MAX_WIDTH}")
        if not 0 <= min(depths) <= max(depths) <= MAX_DEPTH:
            raise ValueError(f"depths must be between 0 and {MAX_DEPTH}")
        if not 0 <= self.latent_noise <= 10:
            raise ValueError(f"latent_noise must be between 0 and 10, not {self.latent_noise}")
        groups = {  # the shortcuts average or repeat whole groups of channels
            "encoder_widths": (8 * e[0] % e[1], 8 * e[1] % e[2], e[2] % self.channels),
            "decoder_widths": (d[2] % self.channels, 8 * d[1] % d[2], 8 * d[0] % d[1]),
        }
        for name, rests in groups.items():
            if any(rests):
                raise ValueError(
                    f"{name}: 8 times a width must be a multiple of the next coarser one, and the coarsest one of "
                    f"channels ({self.channels})"
                )

    @property
    def spatial(self) -> int:
        """Pixels along one side of a latent cell."""
        return 16

    @property
    def temporal(self) -> int:
        """Frames in a latent frame (the first latent frame holds one)."""
        return 4


class Streams(nn.Module):
    """A video autoencoder that has `encode`, and `encode_chunk` and `decode_chunk`, of the next frames and the state
    that the last ones left; and the streams and the one pass that these make."""

    def encode(self, frames: Any) -> Tensor:
        """The latents of all frames at once."""
        raise NotImplementedError

    def encode_chunk(self, frames: Any, state: Any) -> tuple[Tensor, Any]:
        """The next frames of a stream → their latents and the state after them (None: it begins)."""
        raise NotImplementedError

    def decode_chunk(self, latents: Any, state: Any) -> tuple[Tensor, Any]:
        """The next latents of a stream → their frames and the state after them (None: it begins)."""
        raise NotImplementedError

    def encode_stream(self, chunks: Iterable[Float[Tensor, "b 3 _ h w"]]) -> Iterator[Float[Tensor, "b c _ i j"]]:
        """`encode_chunk` over an iterable; memory does not grow with its length."""
        state = None
        for chunk in chunks:
            latents, state = self.encode_chunk(chunk, state)
            yield latents

    def decode(self, latents: Latents) -> Frames:
        """All frames at once, in -1..1 but not clamped."""
        frames, _ = self.decode_chunk(latents, None)
        return frames

    def decode_stream(self, chunks: Iterable[Float[Tensor, "b c _ i j"]]) -> Iterator[Float[Tensor, "b 3 _ h w"]]:
        """`decode_chunk` over an iterable; memory does not grow with its length."""
        state = None
        for chunk in chunks:
            frames, state = self.decode_chunk(chunk, state)
            yield frames


class Autoencoder(Streams):
    """Frames `[B, 3, 1+4k, H, W]` in -1..1 to latents `[B, channels, 1+k, H/16, W/16]` of unit variance, and back."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.norm = LatentNorm(config.channels)
        self.decoder = Decoder(config)

    def encode(self, frames: Frames) -> Latents:
        """All frames at once. The frame count must be 1 + 4k and the sides multiples of 16, else CanvasError."""
        if frames.shape[2] % 4 != 1:
            raise CanvasError(f"the autoencoder takes 1, 5, 9, ... frames, not {frames.shape[2]}")
        latents, _ = self.encode_chunk(frames, None)
        return latents

    def encode_chunk(self, frames: Frames, state: State | None) -> tuple[Latents, State]:
        """The next frames of a stream: 1 + 4k of them at its start (`state` None), 4k later."""
        if frames.shape[-2] % 16 or frames.shape[-1] % 16:
            raise CanvasError(
                f"the autoencoder takes sides that are multiples of 16, not {frames.shape[-1]}x{frames.shape[-2]}"
            )
        latents, after = self.encoder(frames.transpose(1, 2), state)
        return self.norm(latents.transpose(1, 2)), after

    def decode_chunk(self, latents: Latents, state: State | None) -> tuple[Frames, State]:
        """The next latent frames of a stream: n of them give 4n frames, and 4n - 3 at its start (`state` None)."""
        frames, after = self.decoder(self.norm.undo(latents).transpose(1, 2), state)
        return frames.transpose(1, 2), after

    def forward(self, frames: Frames) -> Frames:
        """Reconstruction."""
        return self.decode(self.encode(frames))

    def noisy_forward(self, frames: Frames, generator: torch.Generator) -> tuple[Frames, Latents]:
        """For training: reconstruction through latents with noise of size `latent_noise`, and those latents before the
        noise and before normalisation. Their statistics are gathered on the way."""
        latents = self.encoder(frames.transpose(1, 2), None)[0]
        self.norm.gather(latents.transpose(1, 2))
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        again = self.decoder(latents + self.config.latent_noise * noise, None)[0]
        return again.transpose(1, 2), latents.transpose(1, 2)


class LatentNorm(nn.Module):
    """Per-channel normalisation by running statistics, and back; `momentum` is how fast they follow."""

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, momentum: float = 0.01):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    @torch.no_grad()
    def gather(self, x: Latents) -> None:
        """Moves the statistics towards those of a batch, unless it is not finite."""
        x = x.float()
        if not x.isfinite().all():
            return
        square = (x - self.mean[:, None, None, None]).square().mean((0, 2, 3, 4))
        self.mean.lerp_(x.mean((0, 2, 3, 4)), self.momentum)
        self.var.lerp_(square, self.momentum)

    def forward(self, x: Latents) -> Latents:
        mean, std = self._shaped(x)
        return (x - mean) / std

    def undo(self, x: Latents) -> Latents:
        """The inverse."""
        mean, std = self._shaped(x)
        return x * std + mean

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, 1, 1, 1)
        return self.mean.to(x.dtype).view(shape), (self.var + 1e-5).sqrt().to(x.dtype).view(shape)


class Encoder(nn.Module):
    """Pixel-unshuffle by 4, then three grids of blocks with two halvings of time and space between them."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        w, d = config.encoder_widths, config.encoder_depths
        self.stem = conv(48, w[0])
        layers: list[nn.Module] = [Block(w[0]) for _ in range(d[0])]
        for level in (1, 2):
            layers += [Down(w[level - 1], w[level]), *(Block(w[level]) for _ in range(d[level]))]
        self.layers = nn.ModuleList(layers)
        self.head = conv(w[2], config.channels)

    def forward(self, x: Float[Tensor, "b t 3 h w"], state: State | None) -> tuple[Tensor, State]:
        batch = x.shape[0]
        x = F.pixel_unshuffle(x.flatten(0, 1), 4).contiguous(memory_format=torch.channels_last)
        x, state = run_layers(self.layers, self.stem(x), batch, state)
        return (self.head(x) + pool_channels(x, self.head.out_channels)).unflatten(0, (batch, -1)), state


class Decoder(nn.Module):
    """The encoder's mirror, wider: it invents what the latents leave out."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        w, d = config.decoder_widths, config.decoder_depths
        self.stem = conv(config.channels, w[2])
        layers: list[nn.Module] = [Block(w[2]) for _ in range(d[2])]
        for level in (1, 0):
            layers += [Up(w[level + 1], w[level]), *(Block(w[level]) for _ in range(d[level]))]
        self.layers = nn.ModuleList(layers)
        self.head = conv(w[0], 48)

    def forward(self, x: Float[Tensor, "b t c h w"], state: State | None) -> tuple[Tensor, State]:
        batch = x.shape[0]
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.stem(x) + x.repeat(1, self.stem.out_channels // x.shape[1], 1, 1)
        x, state = run_layers(self.layers, x, batch, state)
        return F.pixel_shuffle(self.head(F.relu(x)), 4).unflatten(0, (batch, -1)), state


def run_layers(layers: nn.ModuleList, x: Tensor, batch: int, state: State | None) -> tuple[Tensor, State]:
    """Threads one state tensor a layer through the layers (`state` None: the start of a video); x `[B*T, C, h, w]`."""
    before = state or (None,) * len(layers)
    after = []
    for layer, memory in zip(layers, before, strict=True):
        x, memory = layer(x, batch, memory)
        after.append(memory)
    return x, tuple(after)


class Block(nn.Module):
    """Two 3x3 convolutions on a normed copy, and a skip; the first also sees half the channels of the frame before."""

    def __init__(self, width: int):
        super().__init__()
        self.memory = width // 2
        self.scale = nn.Parameter(torch.ones(width))
        self.first = conv(width + self.memory, width)
        self.second = conv(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, batch: int, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        normed = F.rms_norm(x.permute(0, 2, 3, 1), self.scale.shape, self.scale.to(x.dtype), 1e-5).permute(0, 3, 1, 2)
        seen = normed[:, : self.memory]
        if memory is None:
            memory = torch.zeros_like(seen[:batch])
        frames = seen.unflatten(0, (batch, -1))
        shifted = torch.cat([memory[:, None], frames[:, :-1]], dim=1).flatten(0, 1)
        h = self.second(F.relu(self.first(torch.cat([normed, shifted], dim=1))))
        return x + h, frames[:, -1]


class Down(nn.Module):
    """Two frames and 2x2 cells become one; the first frame of a video stands for two."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.merge = nn.Conv2d(8 * width, out, 1)

    def forward(self, x: Tensor, batch: int, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        frames = x.unflatten(0, (batch, -1))
        if memory is None:
            frames = torch.cat([frames[:, :1], frames], dim=1)
        pairs = frames.unflatten(1, (-1, 2)).flatten(2, 3).flatten(0, 1)  # [B*T/2, 2*C, h, w]
        cells = F.pixel_unshuffle(pairs, 2).contiguous(memory_format=torch.channels_last)
        return self.merge(cells) + pool_channels(cells, self.merge.out_channels), x.new_empty(0)


class Up(nn.Module):
    """One frame becomes two, one cell 2x2; of the first frame of a video only the second is kept."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.out = out
        self.split = nn.Conv2d(width, 8 * out, 1)

    def forward(self, x: Tensor, batch: int, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        cells = self.split(x) + x.repeat_interleave(8 * self.out // x.shape[1], dim=1)
        pairs = F.pixel_shuffle(cells, 2).unflatten(0, (batch, -1)).unflatten(2, (2, self.out))
        frames = pairs.flatten(1, 2)
        if memory is None:
            frames = frames[:, 1:]
        return frames.flatten(0, 1).contiguous(memory_format=torch.channels_last), x.new_empty(0)


def conv(width: int, out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(width, out, 3, padding=1)


def pool_channels(x: Float[Tensor, "n c h w"], out: int) -> Float[Tensor, "n o h w"]:
    """The shortcut of a narrowing layer: groups of neighbouring channels averaged."""
    return x.unflatten(1, (out, -1)).mean(2)
