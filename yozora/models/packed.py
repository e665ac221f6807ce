"""Clips of different sizes and lengths as one sequence: each looks only at itself and at its own text, and nothing is
padded or cropped (as NaViT does with pictures: Dehghani et al. 2023).

What comes out is what the transformer says of each clip alone. On a GPU, attention over a packed sequence is one
kernel; on a CPU it goes part by part, equal parts together, which computes as little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor

from yozora.models.attention import Attend, attend
from yozora.models.positions import rotary_table
from yozora.models.transformer import Transformer

HALF = (torch.float16, torch.bfloat16)  # what the GPU's kernel takes


@dataclass(frozen=True)
class Parts:
    """How a packed sequence is divided: part i of the queries, so many tokens, looks at part i of the keys."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """As `attend`, for q [1, heads, N, d] and k, v [1, heads, L, d]. There is no bias: nothing is padded."""
        assert bias is None and q.shape[0] == 1
        if q.device.type == "cuda" and q.dtype in HALF:
            return self._varlen(q, k, v)
        made, queries, keys = [], 0, 0
        for (length, seen), alike in groupby(zip(self.queries, self.keys, strict=True)):
            count = len(list(alike))
            part = [_rows(q, queries, count, length), _rows(k, keys, count, seen), _rows(v, keys, count, seen)]
            made.append(attend(*part).transpose(0, 1).flatten(1, 2)[None])
            queries, keys = queries + count * length, keys + count * seen
        return torch.cat(made, dim=2)

    def _varlen(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        ends, seen = (
            torch.tensor([0, *accumulate(each)], dtype=torch.int32, device=q.device)
            for each in (self.queries, self.keys)
        )
        query, key, value = (each[0].transpose(0, 1).contiguous() for each in (q, k, v))
        made = varlen_attn(query, key, value, ends, seen, max(self.queries), max(self.keys))
        assert isinstance(made, Tensor)
        return made.transpose(0, 1)[None]


def _rows(x: Tensor, start: int, count: int, length: int) -> Tensor:
    """`count` parts of `length` tokens from `start` on: [1, heads, N, d] → [count, heads, length, d]."""
    return x[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


@dataclass(frozen=True)
class Sequenced:
    """Clips as one sequence of N tokens: `x` float32 [1, 1, N, width]; for each token `where` [N] its noise level is
    among the different `levels`; `table` [N, head_width / 2, 2] of its position; the texts `prompt` [1, L, width], one
    after the other; and how many tokens (`lengths`) and words each clip has."""

    x: Tensor
    where: Tensor
    levels: Tensor
    table: Tensor
    prompt: Tensor
    lengths: tuple[int, ...]
    words: tuple[int, ...]


def run_packed(
    transformer: Transformer, latents: Sequence[Tensor], levels: Sequence[Tensor], texts: Sequence[Tensor]
) -> list[Tensor]:
    """The velocity [C, T, H, W] of each clip: of latents [C, T, H, W], noise levels [T] and text [L, text_width], each
    of its own size. Clips of equal size are quickest side by side. Raises ValueError where sizes do not fit."""
    sequence = arrange(transformer, latents, levels, texts)
    by = Parts(sequence.lengths, sequence.lengths), Parts(sequence.lengths, sequence.words)
    x, time = take(transformer, sequence, by)
    return answer(transformer, sequence, transformer.head(x, time).float()[:, 0], latents)


def arrange(
    transformer: Transformer, latents: Sequence[Tensor], levels: Sequence[Tensor], texts: Sequence[Tensor]
) -> Sequenced:
    """The clips' tokens as one sequence: see `run_packed`."""
    grids = [transformer.token_grid(x[None], at[None]) for x, at in zip(latents, levels, strict=True)]
    tokens = [transformer.embed(x[None], grid).flatten(1, 2) for x, grid in zip(latents, grids, strict=True)]
    x = torch.cat(tokens, dim=1)[:, None]
    device, config = x.device, transformer.config
    spread = torch.cat([at.repeat_interleave(grid[1] * grid[2]) for at, grid in zip(levels, grids, strict=True)])
    values, where = spread.unique(return_inverse=True)  # few levels stand in many tokens
    table = torch.cat([rotary_table(config.head_width, grid, device, config.spacing) for grid in grids])
    prompt = transformer.text(torch.cat(list(texts))[None].to(transformer.patch.weight.dtype))
    lengths = tuple(frames * rows * columns for frames, rows, columns in grids)
    return Sequenced(x, where.to(device), values.to(device), table, prompt, lengths, tuple(map(len, texts)))


def take(transformer: Transformer, sequence: Sequenced, by: tuple[Attend, Attend]) -> tuple[Tensor, Tensor]:
    """What the blocks make of a sequence, and the time embedding: [1, 1, N, width] each."""
    time, modulation = (each[sequence.where][None, None] for each in transformer.time(sequence.levels))
    x = sequence.x
    for block in transformer.blocks:
        x = block(x, modulation, sequence.table, sequence.prompt, None, by)
    return x, time


def answer(transformer: Transformer, sequence: Sequenced, said: Tensor, latents: Sequence[Tensor]) -> list[Tensor]:
    """The velocity of each clip, of what the head `said` of the sequence's tokens [1, N, patch volume · channels]."""
    made = []
    for part, given in zip(said.split(sequence.lengths, dim=1), latents, strict=True):
        grid = transformer.token_grid(given[None], given.new_zeros(1, 1))
        made.append(transformer.unpatchify(part.unflatten(1, (grid[0], -1)), grid)[0].to(given.dtype))
    return made
