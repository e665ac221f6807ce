"""Context parallelism: several processes share the tokens of a packed sequence, for clips too long for one.

Each process runs the blocks on a stretch of the sequence, whose tokens may begin and end within a clip. To attend to
the whole of their clips, keys and values are gathered from all (as Llama 3 was trained: Grattafiori et al. 2024); all
else happens to each token alone. In the end the answers are gathered, so that each process sees whole clips. Positions,
noise levels and texts go with the tokens; the block-diagonal mask is that of the pack. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from yozora.errors import ConfigError
from yozora.models.packed import Parts, Sequenced, answer, arrange, take
from yozora.models.transformer import Transformer
from yozora.train.mesh import Mesh


def run_shared(
    transformer: Transformer, latents: Sequence[Tensor], levels: Sequence[Tensor], texts: Sequence[Tensor], mesh: Mesh
) -> list[Tensor]:
    """`yozora.models.packed.run_packed`, by all processes of a row of the mesh together. Each gets all velocities, and
    of their gradient keeps what its own tokens caused: the sum over the row is the gradient of the whole."""
    whole = arrange(transformer, latents, levels, texts)
    stretches = split_evenly(sum(whole.lengths), mesh.context)
    start, end = stretches[mesh.place]
    own, clips = stretch(whole, start, end)
    first, last = clips.start, clips.stop
    ahead = sum(whole.lengths[:first])
    seen = slice(ahead, ahead + sum(whole.lengths[first:last]))
    gather = _Row(tuple(b - a for a, b in stretches), mesh)
    by = Gathered(Parts(own.lengths, whole.lengths[first:last]), seen, gather), Parts(own.lengths, own.words)
    x, time = take(transformer, own, by)
    said = transformer.head(x, time).float()[0, 0]  # [n, patch]
    return answer(transformer, whole, gather(said, 0, shared=True)[None], latents)


def split_evenly(tokens: int, processes: int) -> list[tuple[int, int]]:
    """Where each process's stretch begins and ends. Raises ConfigError where one would get none."""
    if tokens < processes:
        raise ConfigError(f"{tokens} tokens cannot be shared by {processes} processes: set a smaller parallel.context")
    ends = [tokens * (n + 1) // processes for n in range(processes)]
    return list(zip([0, *ends], ends, strict=False))


def stretch(whole: Sequenced, start: int, end: int) -> tuple[Sequenced, slice]:
    """The tokens from `start` to `end` with the texts of their clips, and which clips those are. Its `lengths` are the
    tokens of each that lie within."""
    ends = list(accumulate(whole.lengths))
    begins = [0, *ends[:-1]]
    within = [n for n in range(len(ends)) if begins[n] < end and ends[n] > start]
    clips = slice(within[0], within[-1] + 1)
    lengths = tuple(min(ends[n], end) - max(begins[n], start) for n in within)
    before = sum(whole.words[: clips.start])
    words = whole.words[clips]
    prompt = whole.prompt[:, before : before + sum(words)]
    own = Sequenced(
        whole.x[:, :, start:end], whole.where[start:end], whole.levels, whole.table[start:end], prompt, lengths, words
    )
    return own, clips


@dataclass(frozen=True)
class Gathered:
    """How the tokens of a stretch attend to the whole of their clips, whose keys and values are at `seen` of those that
    are gathered."""

    parts: Parts
    seen: slice
    gather: _Row

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """As `Parts`, of the stretch's own queries, keys and values [1, heads, n, d]."""
        both = self.gather(torch.stack((k, v)), 3)[:, :, :, self.seen]
        return self.parts(q, both[0], both[1], bias)


@dataclass(frozen=True)
class _Row:
    """Gathers what the processes of a row have of each of their `sizes` tokens."""

    sizes: tuple[int, ...]
    mesh: Mesh

    def __call__(self, x: Tensor, axis: int, shared: bool = False) -> Tensor:
        """x [..., tokens of this process, ...] → [..., all tokens, ...]. `shared`: all do the same with the result, so
        that each one's gradient is all of it; else it is the sum of theirs."""
        rows = _Gather.apply(x.movedim(axis, 0), self, shared)
        assert isinstance(rows, Tensor)
        return rows.movedim(0, axis)


class _Gather(torch.autograd.Function):
    """[n, ...] → [N, ...]. Stretches differ by a token at most, and are made equal for the network."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, row: _Row, shared: bool) -> Tensor:
        ctx.row, ctx.shared = row, shared
        most = max(row.sizes)
        even = x.new_zeros(most, *x.shape[1:])
        even[: len(x)] = x
        gathered = x.new_empty(most * len(row.sizes), *x.shape[1:])
        dist.all_gather_into_tensor(gathered, even, group=row.mesh.row)
        return torch.cat([part[:size] for part, size in zip(gathered.split(most), row.sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        row: _Row = ctx.row
        parts = gradients[0].split(row.sizes)
        place = row.mesh.place
        if ctx.shared:
            return parts[place].contiguous(), None, None
        most = max(row.sizes)
        even = gradients[0].new_zeros(len(parts), most, *gradients[0].shape[1:])
        for number, part in enumerate(parts):
            even[number, : len(part)] = part
        own = gradients[0].new_empty(most, *gradients[0].shape[1:])
        dist.reduce_scatter_tensor(own, even.flatten(0, 1), group=row.mesh.row)
        return own[: row.sizes[place]].contiguous(), None, None
