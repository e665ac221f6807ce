"""Reuse between steps: where the first block of a transformer does nearly what it did when a step was last worked out
(first-block caching, after TeaCache, Liu et al. 2024), the step is not: its answer is carried on along the line through
the last two. That keeps a solver's order. Adding again what the other blocks had added, as these do, does not, and was
6 dB further from the exact video at the same speed.

The dial is how far the first block's answer may differ, relative to its size: 0 is off and exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yozora.diffusion.path import spread_levels
from yozora.models.shared import Shared
from yozora.models.transformer import KeyValue, Transformer

MOST = 2  # steps that may be carried one after the other
FAR = MOST + 1  # lengths of the last step: a held token may have joined by a very short one, and is carried no further


class Full(NamedTuple):
    """A step that was worked out in full: its levels, the answer, and what the first block added to the tokens."""

    levels: Tensor
    answer: Tensor
    first: Tensor


class Reuse:
    """A transformer for one run over its levels, to be called as it is. `full` counts the steps worked out in full, of
    `calls`."""

    def __init__(self, model: Transformer | Shared, dial: float) -> None:
        self.model, self.dial = model, dial
        self.calls = self.full = self.carried = 0
        self._past: list[Full] = []

    def prepare_text(self, text: Tensor) -> list[KeyValue]:
        """As the transformer's."""
        return self.model.prepare_text(text)

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, levels: Tensor, text: Tensor | list[KeyValue], text_mask: Tensor | None = None
    ) -> Tensor:
        """As the transformer's `forward`."""
        entered = self.model.enter(latents, levels, text, text_mask)
        x = self.model.blocks[0](entered.x, *entered.given[0])
        first = x - entered.x
        self.calls += 1
        if self._may_be_carried(first) and (ahead := self._ahead(levels)).max() <= FAR:
            self.carried += 1
            return self._carry(ahead)
        for block, given in zip(list(self.model.blocks)[1:], entered.given[1:], strict=True):
            x = block(x, *given)
        answer = self.model.leave(x, entered).to(latents.dtype)
        if self._past and self._past[-1].answer.shape != answer.shape:  # guidance has begun, or is over
            self._past = []
        self._past = [*self._past[-1:], Full(levels, answer, first.to(self.model.patch.weight.dtype))]
        self.full, self.carried = self.full + 1, 0
        return answer

    def _may_be_carried(self, first: Tensor) -> bool:
        """Whether the first block does nearly what it did, and there is a line to go on along."""
        if len(self._past) < 2 or self._past[-1].first.shape != first.shape or self.carried >= MOST:
            return False
        then = self._past[-1].first.float()
        sums = torch.stack(((first - then).abs().sum(), then.abs().sum()))
        if isinstance(self.model, Shared):  # its processes see a stretch each, and must decide alike
            sums = self.model.total(sums)
        return bool(sums[0] < self.dial * sums[1])

    def _ahead(self, levels: Tensor) -> Tensor:
        """How far levels are ahead of the last ones, in lengths of the last step; 0 where a token's level stays."""
        before, last = self._past
        step = last.levels - before.levels
        return torch.where(step != 0, (levels - last.levels) / step, torch.where(levels == last.levels, 0.0, torch.inf))

    def _carry(self, ahead: Tensor) -> Tensor:
        """The answer on the line through the last two, so far ahead."""
        before, last = self._past
        ahead = spread_levels(ahead, last.answer).to(last.answer.dtype)
        return torch.addcmul(last.answer, ahead, last.answer - before.answer)
