"""A block of the transformer for a CPU: the same numbers, worked out in pieces of tokens that stay in its cache.

Written for whole clips, each small operation of a block reads and writes all tokens in main memory, which on a CPU with
fast matrix instructions (AMX) takes as long as the matrices themselves. Here a piece of some 256 tokens goes through
everything between two attentions before the next one does, matrices lie as oneDNN wants them, and the GELU is done as a
product leaves its registers. Nothing is approximated, and what a block holds at once no longer grows with its width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.models.attention import Attend, attend
from yozora.models.transformer import Block, CrossAttention, KeyValue, LayerNorm, SelfAttention, modulate

PIECE = 256
"""Tokens at a time: their float32 stream at a width of 1536 is 1.5 MiB, of a second-level cache of 2."""


class Packed(nn.Module):
    """A linear layer, for evaluation, whose matrix lies as oneDNN multiplies it best; with `gelu`, through that. Where
    the matrix is elsewhere (on the meta device), whoever brings it packs it."""

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        assert linear.bias is not None
        self.bias = linear.bias
        weight = linear.weight.detach()
        self.weight = nn.Parameter(weight if weight.is_meta else packed_matrix(weight), requires_grad=False)
        self.then = ("gelu", [], "tanh") if gelu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *self.then)


def packed_matrix(weight: Tensor) -> Tensor:
    """A matrix as oneDNN multiplies it best with `PIECE` tokens."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, PIECE)


def can_be_packed(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `Packed` does anything for this device and type: on CPUs that multiply bfloat16, if torch has oneDNN."""
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return False
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return all(hasattr(torch.ops.mkldnn, name) for name in names) and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Pieces(nn.Module):
    """A block, for evaluation, that is called as it is. With `packed`, its matrices are changed in their place."""

    def __init__(self, block: Block, packed: bool) -> None:
        super().__init__()
        self.block, self.packed = block, False
        self.dtype = block.ffn.up.weight.dtype
        if packed:
            self.pack()

    def pack(self) -> frozenset[str]:
        """Packs the matrices, but for that of the text's keys and values, which is used once a video; their names."""
        block, self.packed, names = self.block, True, set()
        for place in ("attention", "cross", "ffn"):
            part = block.get_submodule(place)
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear) and child is not block.cross.kv:
                    part.register_module(name, Packed(child, gelu=child is block.ffn.up))
                    names.add(f"block.{place}.{name}.weight")
        return frozenset(names)

    @property
    def cross(self) -> CrossAttention:
        """The block's."""
        return self.block.cross

    @torch.no_grad()
    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        table: Tensor,
        text: Tensor | KeyValue,
        bias: Tensor | None,
        by: tuple[Attend, Attend] = (attend, attend),
    ) -> Tensor:
        """As `yozora.models.transformer.Block`."""
        block, (batch, frames, space, width) = self.block, x.shape
        text = text if isinstance(text, tuple) else block.cross.key_value(text)
        told = (modulation + block.table.float()).expand(batch, frames, -1, -1, -1)
        qkv = x.new_empty(batch, frames, space, 3, width, dtype=self.dtype)
        table = table.unflatten(0, (frames, space))
        for row, place in pieces(batch, frames, space):
            shift, scale, *_ = at(told[row], place).unbind(-2)
            h = modulated(x[row][place], shift, scale, block.norm_self).to(self.dtype)
            queries_keys_values(block.attention, h, table[place], qkv[row][place])

        q, k, v = (each.unflatten(-1, (block.attention.heads, -1)).transpose(1, 2)
                   for each in qkv.flatten(1, 2).unbind(2))  # fmt: skip
        attended = by[0](q, k, v).transpose(1, 2).flatten(2).unflatten(1, (frames, space))
        del q, k, v, qkv

        after = torch.empty_like(x)
        biases = None if bias is None else bias.expand(batch, -1, frames * space, -1).unflatten(2, (frames, space))
        for row, place in pieces(batch, frames, space):
            _, _, gate, shift, scale, ffn_gate = at(told[row], place).unbind(-2)
            piece = torch.addcmul(x[row][place], block.attention.out(attended[row][place]), gate)
            own = None if biases is None else biases[row].movedim(0, -2)[place].flatten(0, 1).movedim(-2, 0)[None]
            h = block.norm_cross(piece).to(self.dtype)
            piece += look(block.cross, h, (text[0][row], text[1][row]), own, by[1])
            h = modulated(piece, shift, scale, block.norm_ffn).to(self.dtype)
            hidden = block.ffn.up(h)
            if not self.packed:
                hidden = F.gelu(hidden, approximate="tanh")
            torch.addcmul(piece, block.ffn.down(hidden), ffn_gate, out=after[row][place])
        return after


def pieces(batch: int, frames: int, space: int) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """The clip and the (frames, tokens of each) of every piece: whole frames where they are small, else parts."""
    together = max(1, PIECE // space)
    parts = max(1, round(space / PIECE))
    ends = [space * (n + 1) // parts for n in range(parts)]
    for row in range(batch):
        for first in range(0, frames, together):
            for start, end in zip([0, *ends], ends, strict=False):
                yield row, (slice(first, first + together), slice(start, end))


def at(told: Tensor, place: tuple[slice, slice]) -> Tensor:
    """A piece's part of what is told of each token, or of each frame [T, S or 1, ...]."""
    return told[place] if told.shape[1] > 1 else told[place[0]]


def modulated(x: Tensor, shift: Tensor, scale: Tensor, norm: LayerNorm) -> Tensor:
    """Normed tokens, scaled and shifted: in one pass where all of them are so alike."""
    if shift.numel() == x.shape[-1]:
        return F.layer_norm(x, norm.normalized_shape, 1 + scale.view(-1), shift.view(-1), norm.eps)
    return modulate(norm(x), shift, scale)


def queries_keys_values(attention: SelfAttention, h: Tensor, table: Tensor, made: Tensor) -> None:
    """Puts those of tokens h [t, s, width] into `made` [t, s, 3, width], queries and keys normed and turned."""
    qkv = attention.qkv(h).unflatten(-1, (3, -1))
    qk = qkv[..., :2, :].to(torch.float32, copy=True)
    mean_square = torch.linalg.vecdot(qk, qk).unsqueeze(-1) / qk.shape[-1]
    norms = torch.stack((attention.norm_q.weight, attention.norm_k.weight)).float()
    qk.mul_(torch.rsqrt(mean_square + attention.norm_q.eps)).mul_(norms)
    pairs = torch.view_as_complex(qk.unflatten(-1, (attention.heads, -1, 2)))
    pairs.mul_(torch.view_as_complex(table)[:, :, None, None])
    made[..., :2, :] = qk
    made[..., 2, :] = qkv[..., 2, :]


def look(cross: CrossAttention, h: Tensor, text: KeyValue, bias: Tensor | None, by: Attend) -> Tensor:
    """What tokens h [t, s, width] find in a text, keys and values [heads, L, width / heads]."""
    k, v = (each[None] for each in text)
    q = cross.split(cross.norm_q(cross.q(h)).to(v.dtype).flatten(0, 1)[None])
    return cross.out(by(q, k, v, bias).transpose(1, 2).flatten(2)).view(h.shape)
