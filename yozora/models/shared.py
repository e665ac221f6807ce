"""A transformer whose work is divided over several processes, for videos that take one device too long.

`Shared` divides the tokens: each process runs all blocks on a stretch of them. To attend to the others, keys and values
are gathered from all (as in `yozora.train.context`); everything else happens to each token alone. In the end each
process has the whole velocity. `Halved` divides a batch of two halves, such as those of guidance, over two processes,
which have nothing to say to each other before they are done. Nothing is approximated, and every process must be given
the same.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from yozora.errors import CanvasError
from yozora.models.attention import attend
from yozora.models.transformer import Entered, KeyValue, Transformer


class Shared:
    """A transformer, for evaluation, that is called as it is, by all processes of a group together."""

    def __init__(self, model: Transformer, group: dist.ProcessGroup) -> None:
        self.model, self.group = model, group
        self.config, self.patch, self.blocks = model.config, model.patch, model.blocks

    def prepare_text(self, text: Tensor) -> list[KeyValue]:
        """As the transformer's."""
        return self.model.prepare_text(text)

    @torch.no_grad()
    def __call__(
        self,
        latents: Tensor,
        levels: Tensor,
        text: Tensor | list[KeyValue],
        text_mask: Tensor | None = None,
        spans: Tensor | None = None,
    ) -> Tensor:
        """As the transformer's `forward`."""
        entered = self.enter(latents, levels, text, text_mask, spans)
        x = entered.x
        for block, given in zip(self.blocks, entered.given, strict=True):
            x = block(x, *given)
        return self.leave(x, entered).to(latents.dtype)

    def enter(
        self, latents: Tensor, levels: Tensor, text: Tensor | list[KeyValue], text_mask: Tensor | None,
        spans: Tensor | None = None,
    ) -> Entered:  # fmt: skip
        """As the transformer's, of this process's stretch: tokens [B, 1, n, width]."""
        whole = self.model.enter(latents, levels, text, text_mask, spans)
        frames, space = whole.x.shape[1:3]
        start, end = self.stretches(frames * space)[dist.get_rank(self.group)]

        def own(each: Tensor) -> Tensor:
            """[B, T or 1, S or 1, ...] → [B, 1, n, ...], or [B, 1, 1, ...] where all tokens have the same."""
            if torch.equal(each, each[:, :1, :1].expand_as(each)):
                return each[:, :1, :1]
            return each.expand(-1, frames, space, *each.shape[3:]).flatten(1, 2)[:, None, start:end]

        modulation, table, _, bias = whole.given[0]
        modulation, table = own(modulation), table[start:end]
        if bias is not None and bias.shape[2] > 1:
            bias = bias[:, :, start:end]
        ways = (self.attend_to_all(frames * space), attend)
        given = [(modulation, table, prompt, bias, ways) for _, _, prompt, _ in whole.given]
        return Entered(whole.x.flatten(1, 2)[:, None, start:end], own(whole.time), whole.grid, cast(Any, given))

    def leave(self, x: Tensor, entered: Entered) -> Tensor:
        """As the transformer's: the whole velocity, on every process."""
        frames, rows, columns = entered.grid
        own = self.model.head(x, entered.time).float()[:, 0]
        said = self.gather(own, frames * rows * columns, axis=1).unflatten(1, (frames, -1))
        return self.model.unpatchify(said, entered.grid)

    def stretches(self, tokens: int) -> list[tuple[int, int]]:
        """Where each process's tokens begin and end. Raises CanvasError where one would get none."""
        count = dist.get_world_size(self.group)
        if tokens < count:
            raise CanvasError(f"{tokens} tokens cannot be shared by {count} processes: start fewer")
        ends = [tokens * (n + 1) // count for n in range(count)]
        return list(zip([0, *ends], ends, strict=False))

    def attend_to_all(self, tokens: int) -> Any:
        """Attention of this process's queries to the keys and values of all."""

        def look(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
            k, v = self.gather(torch.stack((k, v)), tokens, axis=3)
            return attend(q, k, v, bias)

        return look

    def gather(self, own: Tensor, tokens: int, axis: int) -> Tensor:
        """What all processes have of their tokens, in their order. Stretches differ by a token at most, and are made
        equal for the network."""
        sizes = [end - start for start, end in self.stretches(tokens)]
        rows = own.movedim(axis, 0)
        even = rows.new_zeros(max(sizes), *rows.shape[1:])
        even[: len(rows)] = rows
        parts = [torch.empty_like(even) for _ in sizes]
        dist.all_gather(parts, even, group=self.group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).movedim(0, axis)

    def total(self, value: Tensor) -> Tensor:
        """The sum of what each process has, the same on all."""
        value = value.clone()
        dist.all_reduce(value, group=self.group)
        return value


class Halved:
    """A transformer, for evaluation, that is called as it is, by two processes together: each works out a half of the
    batch, and all of a batch that has no halves."""

    def __init__(self, model: Transformer, group: dist.ProcessGroup) -> None:
        assert dist.get_world_size(group) == 2
        self.model, self.group = model, group

    def prepare_text(self, text: Tensor) -> list[KeyValue]:
        """As the transformer's."""
        return self.model.prepare_text(text)

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, levels: Tensor, text: Tensor | list[KeyValue], text_mask: Tensor | None = None,
        spans: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """As the transformer's `forward`."""
        size = len(latents)
        if size % 2:
            return self.model(latents, levels, text, text_mask, spans)
        start = dist.get_rank(self.group) * size // 2

        def own(each: Tensor) -> Tensor:
            return each[start : start + size // 2] if len(each) == size else each

        texts = [(own(k), own(v)) for k, v in text] if isinstance(text, list) else own(text)
        masks, ways = (None if each is None else own(each) for each in (text_mask, spans))
        half = self.model(own(latents), own(levels), texts, masks, ways).contiguous()
        halves = [torch.empty_like(half) for _ in range(2)]
        dist.all_gather(halves, half, group=self.group)
        return torch.cat(halves)
