"""Scaled dot-product attention, by whichever way is quickest for the size at hand."""

from __future__ import annotations

import itertools
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 2**24
"""Scores (batch · heads · queries · keys) up to which a CPU holds them all at once: 32 MiB in bfloat16."""
PIECE = 2**20
"""Scores that a CPU works on at a time where nothing is learned: 2 MiB in bfloat16, which stay in its cache."""
TILES: bool = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
"""Whether this CPU has instructions for tiles of bfloat16 matrices (AMX), which the fused kernel uses forwards."""


class Attend(Protocol):
    """A way to attend: `attend`, or one that does the same on what is packed or spread over several machines."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor: ...


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q·kᵀ / √d + bias)·v for q [B, heads, N, d], k and v [B, heads, L, d], bias broadcast to [B, heads, N, L].

    In bfloat16 on a CPU, the fused kernel of torch 2.13 takes 0.3 to 0.8 times as long as two plain products where
    there are `TILES`, but forwards alone: with its gradients it takes up to 2.6 times as long, and without tiles 2.5
    times forwards and 4 to 8 backwards (64 to 832 tokens). Without tiles, and where nothing is learned, two products of
    some queries at a time take 0.5 to 0.6 times as long as it does (512 to 8192 keys); where something is, it is the
    one that needs no memory beyond `SMALL`.
    """
    bias = None if bias is None else bias.to(q.dtype)
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in (q, k, v))
    whole = learns or torch.compiler.is_compiling()  # which would write every piece out
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or (TILES and not learns) or (whole and scores > SMALL):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    q = q * q.shape[-1] ** -0.5
    if whole or scores <= PIECE:
        return _two_products(q, k, v, bias)
    made, rows = torch.empty_like(q), max(1, PIECE // k.shape[2])
    if bias is not None:
        bias = bias.expand(*q.shape[:3], -1)
    for place in itertools.product(range(q.shape[0]), range(q.shape[1])):
        for row in range(0, q.shape[2], rows):
            part = (*place, slice(row, row + rows))
            made[part] = _two_products(q[part], k[place], v[place], None if bias is None else bias[part])
    return made


def _two_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    weights = q @ k.transpose(-1, -2)
    return torch.softmax(weights if bias is None else weights + bias, dim=-1) @ v


def attention_bias(mask: Tensor | None, grid: tuple[int, int, int]) -> Tensor | None:
    """Which text counts, bool [B, L] or [B, T, L] → float32 0 or -inf, [B, 1, 1, L] or [B, 1, T·S, L]."""
    if mask is None:
        return None
    bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))
    if mask.ndim == 2:
        return bias[:, None, None]
    if mask.shape[1] not in (1, grid[0]):
        raise ValueError(f"a text mask of {mask.shape[1]} frames does not fit {grid[0]} latent frames")
    return bias[:, :, None].expand(-1, grid[0], grid[1] * grid[2], -1).flatten(1, 2).unsqueeze(1)
