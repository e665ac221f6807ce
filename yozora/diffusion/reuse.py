"""Reuse between steps, of two things that change slowly on the way from noise to picture.

What guidance adds to a prompt's answer (the push away from no prompt's) is held: only every second of the steps that
are worked out makes it anew, and the others are one pass instead of two (Lv et al. 2024, FasterCache, hold parts so).
And where the first block of the transformer does nearly what it did when a step was last worked out (first-block
caching, after TeaCache, Liu et al. 2024), the step is not: the prompt's answer is carried on along the line through the
last two. That keeps the solver's order, which adding again what the other blocks had added does not.

The dial, above 0, is how far the first block's answer may differ, relative to its size. Off is to do without.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yozora.diffusion.path import spread_levels
from yozora.models.shared import Shared
from yozora.models.transformer import Entered, KeyValue, Transformer

MOST = 1  # steps that may be carried one after the other


class Said(NamedTuple):
    """A step that was worked out: its levels, and the prompt's answer."""

    levels: Tensor
    answer: Tensor


class Pair(NamedTuple):
    """Texts as the blocks look at them, and their mask (None: all states count): of `both` halves of guidance, the
    prompt's first, and of the prompt alone."""

    both: list[KeyValue]
    both_mask: Tensor | None
    plain: list[KeyValue]
    mask: Tensor | None


class Reuse:
    """A transformer for one run over its levels. Of its `calls`, `carried` were not worked out, and `halved` were one
    pass though there was guidance."""

    def __init__(self, model: Transformer | Shared, dial: float) -> None:
        self.model, self.dial = model, dial
        self.calls = self.carried = self.halved = 0
        self._past: list[Said] = []
        self._first: Tensor | None = None  # what the first block added when a step was last worked out
        self._in_a_row = 0
        self._push: Tensor | None = None
        self._held = False

    def prepare_text(self, text: Tensor) -> list[KeyValue]:
        """As the transformer's."""
        return self.model.prepare_text(text)

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, levels: Tensor, text: list[KeyValue], text_mask: Tensor | None = None
    ) -> Tensor:
        """As the transformer's `forward`, of the prompt alone."""
        self.calls += 1
        begun = self._begin(latents, levels, text, text_mask)
        return self._carry(levels) if begun is None else self._go_on(*begun, latents, levels)

    @torch.no_grad()
    def guided(self, latents: Tensor, levels: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        """The prompt's answer, and the push: what that is more than the other half's."""
        self.calls += 1
        begun = self._begin(latents, levels, pair.plain, pair.mask)
        if begun is None and self._push is not None:
            return self._carry(levels), self._push
        if begun is None or self._push is None or self._held:
            answer, self._push = self._both(latents, levels, pair)
            self._keep(levels, answer)
            self._held = False
            return answer, self._push
        self._held = True
        self.halved += 1
        return self._go_on(*begun, latents, levels), self._push

    def _both(self, latents: Tensor, levels: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        said = self.model(torch.cat((latents, latents)), torch.cat((levels, levels)), pair.both, pair.both_mask)
        with_text, without = said.chunk(2)
        return with_text, with_text - without

    def _begin(
        self, latents: Tensor, levels: Tensor, text: list[KeyValue], mask: Tensor | None
    ) -> tuple[Entered, Tensor] | None:
        """The tokens after the first block; None where it does nearly what it did, and the step may be carried."""
        entered = self.model.enter(latents, levels, text, mask)
        x = self.model.blocks[0](entered.x, *entered.given[0])
        first = x - entered.x
        if len(self._past) == 2 and self._in_a_row < MOST and self._near(first):
            self.carried, self._in_a_row = self.carried + 1, self._in_a_row + 1
            return None
        self._first, self._in_a_row = first.to(self.model.patch.weight.dtype), 0
        return entered, x

    def _go_on(self, entered: Entered, x: Tensor, latents: Tensor, levels: Tensor) -> Tensor:
        """The answer, from what the first block made."""
        for block, given in zip(list(self.model.blocks)[1:], entered.given[1:], strict=True):
            x = block(x, *given)
        answer = self.model.leave(x, entered).to(latents.dtype)
        self._keep(levels, answer)
        return answer

    def _keep(self, levels: Tensor, answer: Tensor) -> None:
        self._past = [*self._past[-1:], Said(levels, answer)]

    def _carry(self, levels: Tensor) -> Tensor:
        """The answer on the line through the last two; the last one where a token's level stays as it is."""
        before, last = self._past
        step = last.levels - before.levels
        ahead = torch.where(step != 0, (levels - last.levels) / step, 0.0)
        ahead = spread_levels(ahead, last.answer).to(last.answer.dtype)
        return torch.addcmul(last.answer, ahead, last.answer - before.answer)

    def _near(self, first: Tensor) -> bool:
        """Whether the first block does nearly what it did."""
        assert self._first is not None
        if self._first.shape != first.shape:
            return False
        then = self._first.float()
        sums = torch.stack(((first - then).abs().sum(), then.abs().sum()))
        if isinstance(self.model, Shared):  # its processes see a stretch each, and must decide alike
            sums = self.model.total(sums)
        return bool(sums[0] < self.dial * sums[1])
