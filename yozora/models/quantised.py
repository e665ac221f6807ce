"""Weights in eight bits: half the memory of bfloat16, for a small error in each.

Each row of a matrix (an output channel) has a scale of its own. "int8" stores whole numbers from -127 to 127, "fp8" the
floats of eight bits that GPUs have (e4m3: four bits of exponent, three of mantissa). Only storage is of eight bits: a
matrix becomes floats again when it is multiplied with, so any device can do it, and activations stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


class EightBit(nn.Module):
    """A linear layer, for evaluation, whose matrix is stored in eight bits with a scale a row."""

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        weight, scale = quantise_rows(linear.weight.detach(), KINDS[kind], linear.weight.dtype)
        self.stored, self.scale = (nn.Parameter(each, requires_grad=False) for each in (weight, scale))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        # the scale goes to what comes out, where it costs a number a token and row and not one a weight
        scaled = F.linear(x, self.stored.to(x.dtype)) * self.scale
        return scaled if self.bias is None else scaled + self.bias


def quantise_rows(matrix: Tensor, dtype: torch.dtype, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A matrix [rows, columns] in eight bits, and the scales [rows] that it is multiplied by."""
    most = 127.0 if dtype == torch.int8 else torch.finfo(dtype).max
    matrix = matrix.float()
    scale = (matrix.abs().amax(dim=1).clamp(min=1e-12) / most).to(scale_dtype)  # rounded first, so that it is exact
    scaled = (matrix / scale.float()[:, None]).clamp_(-most, most)
    return (scaled.round_() if dtype == torch.int8 else scaled).to(dtype), scale


def in_eight_bits(module: nn.Module, kind: str) -> None:
    """Stores every linear layer within a module in eight bits, one after the other, in its place."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Linear):
                part.register_module(name, EightBit(child, kind))
