"""The diffusion transformer: noisy latents, a noise level for every token and a text in, a velocity out.

The form is the one that today's best open video models share, and loads their weights (Wan):

- spacetime patches, and rotary positions over frame, row and column, so any length, size and aspect works;
- every token has its own noise level; where levels are given per latent frame, a frame's time is embedded once;
- one time MLP is shared by all blocks, each of which adds a bias table of its own;
- queries and keys are RMS-normed over the full width, before the heads are split;
- cross-attention to the text has an affine norm before it and no gate after it.

The residual stream, norms, rotation and modulation are float32; the matrices run in their own or autocast's type.
Nothing here knows of devices, sharding, compilation or caching between steps: those wrap it from outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.models.attention import Attend, attend, attention_bias
from yozora.models.positions import PLACE_WIDTH, place_table, rotary_table, rotate, sinusoid

MAX_WIDTH, MAX_DEPTH, MAX_PATCH, MAX_FFN = 2**16, 2**10, 64, 64  # beyond, a configuration is a mistake

ADDED = {"added": True}  # marks what weights of before there was it need not name: they have its default

KeyValue = tuple[Tensor, Tensor]
"""Keys and values [B, heads, L, width / heads] of one block's cross-attention: those of a prompt never change."""


# ---- configuration ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer. `channels` are those of a latent; `ffn` is the feed-forward's width over `width`;
    `freq_dim` is the length of a noise level's sinusoid; `cross_norm` puts an affine norm before cross-attention."""

    channels: int = 32
    width: int = 256
    depth: int = 8
    heads: int = 4
    ffn: float = 4.0
    text_width: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    freq_dim: int = 256
    eps: float = 1e-6
    cross_norm: bool = True
    absolute: bool = False
    """Whether each token is also told where it stands: rotary positions alone only compare tokens, and pure noise looks
    the same everywhere. The open models do without."""
    spacing: float = field(default=1.0, metadata=ADDED)
    """How far apart neighbouring rows, and columns, are to the rotary positions: half as far where a network that
    learned with larger patches goes on with smaller ones."""
    spans: bool = field(default=False, metadata=ADDED)
    """Whether it is told how far each step goes, and answers with the mean velocity over it: a flow map (see
    `yozora.models.adapter`)."""
    out_channels: int | None = None
    """Channels of the velocity, where a model reads more than it writes (None: `channels`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch", tuple(self.patch))
        sizes = {"channels": self.channels, "width": self.width, "depth": self.depth, "heads": self.heads}
        sizes |= {"text_width": self.text_width, "out_channels": self.out_channels or self.channels}
        for name, value in sizes.items():
            if not 1 <= value <= (most := MAX_DEPTH if name == "depth" else MAX_WIDTH):
                raise ValueError(f"{name} must be from 1 to {most}")
        if len(self.patch) != 3 or not 1 <= min(self.patch) <= max(self.patch) <= MAX_PATCH:
            raise ValueError(f"patch must be 3 sizes from 1 to {MAX_PATCH} (frames, rows, columns), not {self.patch}")
        if self.width % self.heads or self.head_width % 2 or self.head_width < 6:
            raise ValueError(f"width {self.width} over {self.heads} heads must be an even whole number of at least 6")
        if not 2 <= self.freq_dim <= MAX_WIDTH or self.freq_dim % 2:
            raise ValueError(f"freq_dim must be even and from 2 to {MAX_WIDTH}, not {self.freq_dim}")
        if not 0 < self.spacing <= MAX_PATCH:
            raise ValueError(f"spacing must be positive and at most {MAX_PATCH}, not {self.spacing}")
        if not 0 < self.eps < 1:
            raise ValueError(f"eps must lie between 0 and 1, not {self.eps}")
        if not 1 / self.width <= self.ffn <= MAX_FFN:
            raise ValueError(f"ffn must be positive and at most {MAX_FFN}, not {self.ffn}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def ffn_width(self) -> int:
        return round(self.width * self.ffn)

    @property
    def patch_volume(self) -> int:
        return self.patch[0] * self.patch[1] * self.patch[2]


# ---- norm, modulation ------------------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis and scale."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., width] of any type → float32; worked out in float32."""
    x = x.float()
    mean_square = torch.linalg.vecdot(x, x).unsqueeze(-1) / x.shape[-1]
    return x * torch.rsqrt(mean_square + eps) * weight.float()


class LayerNorm(nn.LayerNorm):
    """Layer norm of the float32 stream, in float32 whatever the type of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift normed tokens as their noise level asks."""
    return torch.addcmul(shift, x, 1 + scale)


# ---- attention and block ---------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Every token of the clip looks at every other."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.norm_q = RMSNorm(config.width, config.eps)
        self.norm_k = RMSNorm(config.width, config.eps)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, table: Tensor, by: Attend = attend) -> Tensor:
        """x [B, N, width], table [N, head_width / 2, 2] → [B, N, width]."""
        qkv = self.qkv(x).unflatten(-1, (3, -1))  # [B, N, 3, width]
        norms = torch.stack((self.norm_q.weight, self.norm_k.weight))  # both at once: small operations cost by number
        qk = rms_norm(qkv[:, :, :2], norms, self.norm_q.eps).unflatten(-1, (self.heads, -1))
        qk = rotate(qk, table[:, None, None]).to(qkv.dtype)
        v = qkv[:, :, 2].unflatten(-1, (self.heads, -1))
        q, k, v = (each.transpose(1, 2) for each in (qk[:, :, 0], qk[:, :, 1], v))
        return self.out(by(q, k, v).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Every token looks at the text."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.width, config.width)
        self.kv = nn.Linear(config.width, 2 * config.width)
        self.norm_q = RMSNorm(config.width, config.eps)
        self.norm_k = RMSNorm(config.width, config.eps)
        self.out = nn.Linear(config.width, config.width)

    def key_value(self, text: Tensor) -> KeyValue:
        """Text [B, L, width] → its keys and values."""
        k, v = self.kv(text).chunk(2, dim=-1)
        return self.split(self.norm_k(k).to(v.dtype)), self.split(v)

    def forward(self, x: Tensor, text: Tensor | KeyValue, bias: Tensor | None, by: Attend = attend) -> Tensor:
        """x [B, N, width]; text [B, L, width] or its keys and values; bias added to scores [B, 1, N or 1, L]."""
        k, v = text if isinstance(text, tuple) else self.key_value(text)
        q = self.split(self.norm_q(self.q(x)).to(v.dtype))
        return self.out(by(q, k, v, bias).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two matrices with a GELU between them, each token on its own."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward: each adds to the stream what it finds in a normed copy of it."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm_self = LayerNorm(config.width, config.eps, elementwise_affine=False)
        self.attention = SelfAttention(config)
        self.norm_cross = LayerNorm(config.width, config.eps) if config.cross_norm else nn.Identity()
        self.cross = CrossAttention(config)
        self.norm_ffn = LayerNorm(config.width, config.eps, elementwise_affine=False)
        self.ffn = FeedForward(config.width, config.ffn_width, config.width)
        self.table = nn.Parameter(torch.zeros(6, config.width))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        table: Tensor,
        text: Tensor | KeyValue,
        bias: Tensor | None,
        by: tuple[Attend, Attend] = (attend, attend),
    ) -> Tensor:
        """x float32 [B, T, S, width], S tokens in each of T frames; modulation [B, T or 1, S or 1, 6, width]; `by`: how
        tokens attend to each other and to the text."""
        frames, dtype = x.shape[1], self.ffn.up.bias.dtype
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (modulation + self.table.float()).unbind(-2)

        h = modulate(self.norm_self(x), shift, scale).to(dtype)
        x = x + self.attention(h.flatten(1, 2), table, by[0]).unflatten(1, (frames, -1)) * gate

        h = self.norm_cross(x).to(dtype)
        x = x + self.cross(h.flatten(1, 2), text, bias, by[1]).unflatten(1, (frames, -1))

        h = modulate(self.norm_ffn(x), ffn_shift, ffn_scale).to(dtype)
        return x + self.ffn(h) * ffn_gate


# ---- the model -------------------------------------------------------------------------------------------------------


class TimeEmbedding(nn.Module):
    """Noise levels [...], and spans where it is told of them → an embedding float32 [..., width] and the blocks'
    modulation float32 [..., 6, width]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.freq_dim = config.freq_dim
        self.up = nn.Linear(config.freq_dim, config.width)
        self.down = nn.Linear(config.width, config.width)
        self.modulation = nn.Linear(config.width, 6 * config.width)
        self.span = nn.Linear(config.freq_dim, config.width, bias=False) if config.spans else None

    def forward(self, levels: Tensor, spans: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(levels.device.type, enabled=False):  # levels a thousandth apart must stay apart
            hidden = self.up(sinusoid(levels, self.freq_dim).to(self.up.weight.dtype))
            if self.span is not None:
                spans = torch.zeros_like(levels) if spans is None else spans
                hidden = hidden + self.span(sinusoid(spans, self.freq_dim).to(self.span.weight.dtype))
            time = self.down(F.silu(hidden))
            return time.float(), self.modulation(F.silu(time)).float().unflatten(-1, (6, -1))


class Head(nn.Module):
    """Tokens [B, T, S, width] and the time embedding → patches of the velocity [B, T, S, patch volume · channels]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(config.width, config.eps, elementwise_affine=False)
        self.table = nn.Parameter(torch.zeros(2, config.width))
        self.out = nn.Linear(config.width, config.patch_volume * (config.out_channels or config.channels))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (time.unsqueeze(-2) + self.table.float()).unbind(-2)
        return self.out(modulate(self.norm(x), shift, scale).to(self.out.weight.dtype))


class Entered(NamedTuple):
    """What blocks start from: tokens float32 [B, T, S, width], the embedding of their times, the grid of tokens, and
    what each block is given besides."""

    x: Tensor
    time: Tensor
    grid: tuple[int, int, int]
    given: list[tuple[Tensor, Tensor, Tensor | KeyValue, Tensor | None]]


class Transformer(nn.Module):
    """The velocity of noisy latents. A fresh one answers zero: every branch ends in a zero matrix."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Linear(config.channels * config.patch_volume, config.width)
        self.place = nn.Linear(PLACE_WIDTH, config.width, bias=False) if config.absolute else None
        self.time = TimeEmbedding(config)
        self.text = FeedForward(config.text_width, config.width, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head = Head(config)
        self.initialise()

    def initialise(self) -> None:
        """Fresh weights: Xavier matrices, but branches start silent behind open gates, so that all learn at once."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Block):
                for branch in (module.attention.out, module.cross.out, module.ffn.down):
                    nn.init.zeros_(branch.weight)
                with torch.no_grad():
                    module.table.zero_()[2::3] = 1.0  # the two gates
        nn.init.zeros_(self.time.modulation.weight)
        nn.init.zeros_(self.head.out.weight)
        if self.time.span is not None:
            nn.init.zeros_(self.time.span.weight)
        if self.place is not None:
            nn.init.zeros_(self.place.weight)

    def forward(
        self,
        latents: Tensor,
        levels: Tensor,
        text: Tensor | list[KeyValue],
        text_mask: Tensor | None = None,
        spans: Tensor | None = None,
    ) -> Tensor:
        """Velocity (noise - picture) float [B, C, T, H, W] of noisy latents.

        latents [B, C, T, H, W]: sizes must be multiples of the patch. levels: noise levels 0..1, [B, T] for the frames
        of the token grid (T / patch) or [B, T, H / ph, W / pw] for its tokens; an axis of 1 broadcasts.
        text [B, L, text_width] or what `prepare_text` made of it; text_mask bool, True where there is text: [B, L], or
        [B, T, L] for a text of its own in each frame (each row needs a True). spans, as levels: how far down each goes
        in this step, for a flow map (None: no way at all). Raises ValueError where sizes do not fit.
        """
        entered = self.enter(latents, levels, text, text_mask, spans)
        x = entered.x
        for block, given in zip(self.blocks, entered.given, strict=True):
            x = block(x, *given)
        return self.leave(x, entered).to(latents.dtype)

    def enter(
        self, latents: Tensor, levels: Tensor, text: Tensor | list[KeyValue], text_mask: Tensor | None,
        spans: Tensor | None = None,
    ) -> Entered:  # fmt: skip
        """What `forward` does before the blocks."""
        grid = self.token_grid(latents, levels)
        x = self.embed(latents, grid)
        time, modulation = self.time(*(_by_token(each) for each in (levels, spans)))
        table = rotary_table(self.config.head_width, grid, latents.device, self.config.spacing)
        prompts = text if isinstance(text, list) else [self.text(text.to(self.patch.weight.dtype))] * len(self.blocks)
        bias = attention_bias(text_mask, grid)
        return Entered(x, time, grid, [(modulation, table, prompt, bias) for prompt in prompts])

    def leave(self, x: Tensor, entered: Entered) -> Tensor:
        """What `forward` does after the blocks: tokens float32 [B, T, S, width] → the velocity float32."""
        return self.unpatchify(self.head(x, entered.time).float(), entered.grid)

    def prepare_text(self, text: Tensor) -> list[KeyValue]:
        """Every block's keys and values of text [B, L, text_width], to be given as `text`: once a video, not a step."""
        projected = self.text(text.to(self.patch.weight.dtype))
        return [block.cross.key_value(projected) for block in self.blocks]  # type: ignore[operator, union-attr]

    def token_grid(self, latents: Tensor, levels: Tensor) -> tuple[int, int, int]:
        """(T, H, W) in tokens, once everything is known to fit."""
        batch, channels, *size = latents.shape
        frames, rows, columns = self.config.patch
        if channels != self.config.channels:
            raise ValueError(f"latents have {channels} channels, the model takes {self.config.channels}")
        if size[0] % frames or size[1] % rows or size[2] % columns:
            raise ValueError(f"latents of {tuple(size)} are no multiple of the patch {self.config.patch}")
        grid = (size[0] // frames, size[1] // rows, size[2] // columns)
        wanted = (batch, *grid[: levels.ndim - 1])
        fits = levels.ndim in (2, 4) and all(n in (1, m) for n, m in zip(levels.shape, wanted, strict=True))
        if not fits or (levels.ndim == 4 and levels.shape[2:] not in (grid[1:], (1, 1))):
            raise ValueError(f"levels of {tuple(levels.shape)} do not fit {batch} clips of {grid} tokens")
        return grid

    def embed(self, latents: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Latents [B, C, T, H, W] → tokens float32 [B, T, S, width] that know where they stand."""
        x = self.patchify(latents, grid)
        if self.place is not None:
            x = x + self.place(place_table(grid, latents.device).to(self.place.weight.dtype)).float()
        return x

    def patchify(self, latents: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """[B, C, T, H, W] → float32 tokens [B, T, S, width]."""
        (t, h, w), (pt, ph, pw) = grid, self.config.patch
        patches = latents.unflatten(4, (w, pw)).unflatten(3, (h, ph)).unflatten(2, (t, pt))
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(2, 3)  # [B, T, S, C·pt·ph·pw]
        return self.patch(patches.to(self.patch.weight.dtype)).float()

    def unpatchify(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Patches [B, T, S, pt·ph·pw·C] → [B, C, T, H, W]."""
        x = x.unflatten(2, grid[1:]).unflatten(-1, (*self.config.patch, -1))  # [B, T, H, W, pt, ph, pw, C]
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _by_token(levels: Tensor | None) -> Tensor | None:
    """[B, T] or [B, T, h, w] → [B, T, S or 1]."""
    if levels is None:
        return None
    return levels.unsqueeze(-1) if levels.ndim == 2 else levels.flatten(2)
