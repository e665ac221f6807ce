"""Clips that a transformer is shown beside the text: a few dozen tokens of each, which cross-attention looks at, too.

What is kept of a clip are patches of a few moments of its latents, put through a small network. In each block tokens
look at them with the queries that they ask the text with, and what they find is added to what the text says (decoupled
cross-attention: IP-Adapter, Ye et al. 2023). Keys come of the block's own matrix for the text and a low-rank change of
it, values of a low-rank matrix that begins at zero: a fresh adapter changes nothing, and neither does one where no clip
is shown. The transformer knows nothing of it: `Beside` runs its blocks with another way to attend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.adapter import LowRank
from yozora.models.attention import Attend, attend
from yozora.models.positions import PLACE_WIDTH, place_table
from yozora.models.transformer import MAX_PATCH, MAX_WIDTH, FeedForward, KeyValue, Transformer, TransformerConfig

MAX_CLIPS, MAX_MOMENTS = 16, 64


@dataclass(frozen=True)
class RetrievalConfig:
    """`base` is the transformer that it is for, `rank` that of the changes. Of up to `clips` clips `moments` latent
    frames each are kept, in patches of so many rows and columns."""

    rank: int = 64
    clips: int = 2
    moments: int = 3
    patch: int = 2
    base: TransformerConfig = field(default_factory=TransformerConfig)

    def __post_init__(self) -> None:
        most = {"rank": MAX_WIDTH, "clips": MAX_CLIPS, "moments": MAX_MOMENTS, "patch": MAX_PATCH}
        for name, end in most.items():
            if not 1 <= getattr(self, name) <= end:
                raise ValueError(f"{name} must be from 1 to {end}")


class Shown(NamedTuple):
    """Clips as the blocks look at them: every block's keys and values `[B, heads, K · N, width / heads]`; what is added
    to scores, 0 or -inf, float32 `[B, 1, 1, K · N]`; and which rows are shown any, 0 or 1, float32 `[B, 1, 1, 1]`."""

    key_values: list[KeyValue]
    bias: Tensor
    any: Tensor

    def rows(self, rows: slice) -> Shown:
        """Those of some rows."""
        return Shown([(k[rows], v[rows]) for k, v in self.key_values], self.bias[rows], self.any[rows])


class RetrievalAdapter(nn.Module):
    """What makes tokens of clips, and keys and values of these."""

    def __init__(self, config: RetrievalConfig) -> None:
        super().__init__()
        self.config = config
        base = config.base
        self.embed = FeedForward(base.channels * config.patch**2, base.width, base.width)
        self.place = nn.Linear(PLACE_WIDTH, base.width, bias=False)
        self.which = nn.Parameter(torch.zeros(config.clips, base.width))
        self.norm = nn.LayerNorm(base.width)
        matrices = {f"blocks.{n}.cross.kv.weight": torch.empty(2 * base.width, base.width) for n in range(base.depth)}
        self.changes = LowRank(matrices, config.rank)

    def tokens(self, latents: Tensor) -> Tensor:
        """Clean latents `[B, K, C, T, h, w]`, K at most `clips`, of any length and size → tokens `[B, KN, width]`."""
        patch, count, moments = self.config.patch, latents.shape[1], self.config.moments
        x = moments_of(latents, moments).flatten(0, 1)
        below, right = (-side % patch for side in x.shape[-2:])
        x = F.pad(x, (0, right, 0, below, 0, 0), mode="replicate")
        x = x.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).permute(0, 2, 3, 5, 1, 4, 6)  # [BK, M, r, c, C, p, p]
        rows, columns = x.shape[2:4]
        places = place_table((moments, rows, columns), latents.device).to(self.which.dtype)
        x = self.embed(x.flatten(4).flatten(2, 3).to(self.which.dtype)) + self.place(places)
        x = x.unflatten(0, (-1, count)) + self.which[:count, None, None]
        return self.norm(x).flatten(1, 3)

    def look(self, transformer: Transformer, latents: Tensor, shown: Tensor) -> Shown:
        """Clips `[B, K, C, T, h, w]` of each row, those of them that are `shown`, bool `[B, K]`, as the transformer's
        blocks look at them: once a video, not a step. Raises ModelError where the transformer is another."""
        self.check(transformer)
        tokens, made = self.tokens(latents), []
        for number, block in enumerate(transformer.blocks):
            cross, key = block.cross, f"blocks/{number}/cross/kv/weight"
            change = F.linear(F.linear(tokens, self.changes.down[key]), self.changes.up[key])  # type: ignore[arg-type]
            k, v = change.chunk(2, dim=-1)
            k = cross.kv(tokens).chunk(2, dim=-1)[0] + k  # type: ignore[operator, union-attr]
            made.append((cross.split(cross.norm_k(k).to(v.dtype)), cross.split(v)))  # type: ignore[operator, union-attr]
        some = shown.any(1)
        seen = (shown | ~some[:, None]).repeat_interleave(
            tokens.shape[1] // shown.shape[1], dim=1
        )  # each row needs one
        bias = torch.zeros(seen.shape, device=latents.device).masked_fill(~seen, float("-inf"))
        return Shown(made, bias[:, None, None], some.float().view(-1, 1, 1, 1))

    def check(self, transformer: Transformer) -> None:
        """Raises ModelError where it was made for another transformer."""
        if transformer.config != self.config.base:
            raise ModelError("what shows it clips is of another transformer: copy the whole model folder")


def moments_of(latents: Tensor, moments: int) -> Tensor:
    """So many frames of latents `[..., T, h, w]`, evenly spread from the first to the last; of fewer, some twice."""
    chosen = torch.linspace(0, latents.shape[-3] - 1, moments).round().long()
    return latents[..., chosen.to(latents.device), :, :]


class Beside:
    """A transformer that looks at clips, too: to be called as it is, with what it is shown at the end."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    def __call__(
        self,
        latents: Tensor,
        levels: Tensor,
        text: Tensor | list[KeyValue],
        text_mask: Tensor | None,
        shown: Shown,
    ) -> Tensor:
        """As the transformer's `forward`."""
        entered = self.model.enter(latents, levels, text, text_mask)
        x = entered.x
        for block, given, (k, v) in zip(self.model.blocks, entered.given, shown.key_values, strict=True):
            x = block(x, *given, (attend, self._attend(k, v, shown)))
        return self.model.leave(x, entered).to(latents.dtype)

    def _attend(self, key: Tensor, value: Tensor, shown: Shown) -> Attend:
        """What the text says, and what the clips do."""

        def look(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
            return attend(q, k, v, bias) + attend(q, key, value, shown.bias) * shown.any.to(q.dtype)

        return look
