"""Clips that a transformer is shown beside the text: a few dozen tokens of each, which cross-attention looks at, too.

What is kept of a clip are patches of a few moments of its latents, put through a small network; each block makes keys
and values of them by its own matrices for the text and a low-rank change of these (Hu et al. 2021), which the text does
not pass through. They are joined to the text's: a transformer knows nothing of it, and where no clip is shown it
answers to the bit as it does without an adapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.adapter import LowRank
from yozora.models.positions import PLACE_WIDTH, place_table
from yozora.models.transformer import MAX_PATCH, MAX_WIDTH, FeedForward, KeyValue, Transformer, TransformerConfig

MAX_CLIPS, MAX_MOMENTS = 16, 64
WORDS = 8.0


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
        nn.init.constant_(self.norm.weight, 0.3)  # fresh ones say little, and so drown no words
        matrices = {f"blocks.{n}.cross.kv.weight": torch.empty(2 * base.width, base.width) for n in range(base.depth)}
        self.changes = LowRank(matrices, config.rank)

    def tokens(self, latents: Tensor) -> Tensor:
        """Clean latents `[B, K, C, T, h, w]`, K at most `clips`, of any length and size → tokens `[B, KN, width]`."""
        patch, count = self.config.patch, latents.shape[1]
        chosen = torch.linspace(0, latents.shape[3] - 1, self.config.moments).round().long()
        x = latents[:, :, :, chosen.to(latents.device)].flatten(0, 1)
        below, right = (-side % patch for side in x.shape[-2:])
        x = F.pad(x, (0, right, 0, below, 0, 0), mode="replicate")
        x = x.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).permute(0, 2, 3, 5, 1, 4, 6)  # [BK, M, r, c, C, p, p]
        rows, columns = x.shape[2:4]
        places = place_table((latents.shape[3], rows, columns), latents.device)[chosen.to(latents.device)]
        x = self.embed(x.flatten(4).flatten(2, 3).to(self.which.dtype)) + self.place(places.to(self.which.dtype))
        x = x.unflatten(0, (-1, count)) + self.which[:count, None, None]
        return self.norm(x).flatten(1, 3)

    def key_values(self, transformer: Transformer, latents: Tensor) -> list[KeyValue]:
        """Every block's keys and values of clips, as of `Transformer.prepare_text`."""
        tokens, made = self.tokens(latents), []
        for number, block in enumerate(transformer.blocks):
            cross, key = block.cross, f"blocks/{number}/cross/kv/weight"
            change = F.linear(F.linear(tokens, self.changes.down[key]), self.changes.up[key])  # type: ignore[arg-type]
            k, v = (cross.kv(tokens) + change).chunk(2, dim=-1)  # type: ignore[operator, union-attr]
            made.append((cross.split(cross.norm_k(k).to(v.dtype)), cross.split(v)))  # type: ignore[operator, union-attr]
        return made

    def beside(
        self,
        transformer: Transformer,
        text: list[KeyValue],
        mask: Tensor | None,
        latents: Tensor,
        shown: Tensor,
    ) -> tuple[list[KeyValue], Tensor]:
        """A text that was prepared, with its mask, and the clips `[B, K, C, T, h, w]` of each row that are `shown`,
        bool `[B, K]`, joined: keys, values and what is added to scores, float32 `[B, L + K · N]` or
        `[B, T, L + K · N]`, as a transformer takes them. All of a row's clips together begin with the weight of
        WORDS words. Raises ModelError where the transformer is another."""
        self.check(transformer)
        clips = self.key_values(transformer, latents)
        joined = [(torch.cat((k, a), 2), torch.cat((v, b), 2)) for (k, v), (a, b) in zip(text, clips, strict=True)]
        batch, length = text[0][0].shape[0], text[0][0].shape[2]
        if mask is None:
            mask = torch.ones(batch, length, dtype=torch.bool, device=latents.device)
        each = clips[0][0].shape[2] // shown.shape[1]
        weigh = torch.full(shown.shape, math.log(WORDS / clips[0][0].shape[2]), device=latents.device)
        weigh = weigh.masked_fill(~shown, float("-inf")).repeat_interleave(each, dim=1)
        words = torch.zeros(mask.shape, device=latents.device).masked_fill(~mask, float("-inf"))
        if mask.ndim == 3:
            weigh = weigh[:, None].expand(-1, mask.shape[1], -1)
        return joined, torch.cat((words, weigh), dim=-1)

    def check(self, transformer: Transformer) -> None:
        """Raises ModelError where it was made for another transformer."""
        if transformer.config != self.config.base:
            raise ModelError("what shows it clips is of another transformer: copy the whole model folder")
