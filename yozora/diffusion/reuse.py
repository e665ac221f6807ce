"""Reuse between steps: where the first block of a transformer does nearly what it did at the last full step, what all
others added then is added again instead of being worked out anew (as first-block caching and TeaCache do, Liu et al.
2024). Carrying it on along the line through the last two full steps was tried, and is worse.

The dial is how far the first block's answer may differ, relative to its size: 0 is off and exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yozora.models.shared import Shared
from yozora.models.transformer import KeyValue, Transformer

MOST = 3  # steps that may be reused one after the other


@dataclass(frozen=True, eq=False)
class Full:
    """A step that was worked out in full: what the first block added to the tokens, and all others."""

    first: Tensor
    others: Tensor


class Reuse:
    """A transformer for one run over its levels, to be called as it is. `full` counts the steps worked out in full, of
    `calls`."""

    def __init__(self, model: Transformer | Shared, dial: float) -> None:
        self.model, self.dial = model, dial
        self.calls = self.full = self.reused = 0
        self._last: Full | None = None

    def prepare_text(self, text: Tensor) -> list[KeyValue]:
        """As the transformer's."""
        return self.model.prepare_text(text)

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, levels: Tensor, text: Tensor | list[KeyValue], text_mask: Tensor | None = None
    ) -> Tensor:
        """As the transformer's `forward`."""
        entered = self.model.enter(latents, levels, text, text_mask)
        begin = entered.x
        x = self.model.blocks[0](begin, *entered.given[0])
        first = x - begin
        self.calls += 1
        if self._last is not None and self._near(first, self._last):
            self.reused += 1
            x = x + self._last.others.float()
        else:
            after = x
            for block, given in zip(list(self.model.blocks)[1:], entered.given[1:], strict=True):
                x = block(x, *given)
            dtype = self.model.patch.weight.dtype
            self._last = Full(first.to(dtype), (x - after).to(dtype))
            self.full, self.reused = self.full + 1, 0
        return self.model.leave(x, entered).to(latents.dtype)

    def _near(self, first: Tensor, last: Full) -> bool:
        """Whether the first block does nearly what it did."""
        if last.first.shape != first.shape or self.reused >= MOST:
            return False
        then = last.first.float()
        sums = torch.stack(((first - then).abs().sum(), then.abs().sum()))
        if isinstance(self.model, Shared):  # its processes see a stretch each, and must decide alike
            sums = self.model.total(sums)
        return bool(sums[0] < self.dial * sums[1])
