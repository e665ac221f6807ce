"""Classifier-free guidance (Ho & Salimans 2022): the velocity under a prompt, pushed away from that under another.

Much guidance makes things clearer and their colours too strong. The latter is what the push has in common with the
clean picture that is foreseen; without that part (adaptive projected guidance, Sadat et al. 2025, of which this is the
projection), a push several times as large does little harm, and none if it ends before the details are drawn
(Kynkäänniemi et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yozora.diffusion.levels import whole_levels
from yozora.diffusion.path import spread_levels
from yozora.diffusion.reuse import Reuse
from yozora.models.shared import Halved, Shared
from yozora.models.transformer import KeyValue, Transformer

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(latents [B, C, T, H, W], levels, the levels that the step goes to) → velocity [B, C, T, H, W]; levels are [B, T] or
[B, T, h, w]. Only a flow map asks where the step goes."""

DETAIL = 0.4
"""The level below which projected guidance no longer pushes: what is decided there are details."""

Text = tuple[Tensor, Tensor | None]
"""States [B, L, width] and mask bool [B, L], or [B, T, L] where each latent frame follows a text of its own; None where
all states count, as those of open models do, whose paddings are zeros that they have learned with."""


@torch.no_grad()
def guided(
    model: Transformer | Shared | Halved | Reuse,
    text: Text,
    null: Text | None,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    projected: bool = False,
) -> Velocity:
    """The velocity null + guidance · (text - null), both halves from one batched pass; guidance 1 is text alone.

    null: states of the negative prompt (that of "" by default), for each clip or one for all; only needed where
    guidance is not 1. Outside `interval` (sampling levels, Kynkäänniemi et al. 2024) there is one plain pass. Keys
    and values of the texts are computed here, once. Held tokens are shown at their own level in both halves.
    projected: leave out of each clip's push the part along the clean clip that the prompt's half foresees, and all of
    it once the clip's highest level is below DETAIL.
    """
    batch = text[0].shape[0]
    if guidance == 1.0:
        plain, mask = model.prepare_text(text[0]), text[1]
        return lambda latents, levels, _: model(latents, levels, plain, mask)
    if null is None:
        raise ValueError(f"guidance {guidance:g} needs the states of a null text")

    states, mask = join(text, repeat(null, batch))
    both = model.prepare_text(states)
    plain: list[KeyValue] = [(k[:batch], v[:batch]) for k, v in both]
    if projected:
        interval = max(interval[0], DETAIL), interval[1]

    def velocity(latents: Tensor, levels: Tensor, _: Tensor) -> Tensor:
        if interval != (0.0, 1.0) and not interval[0] <= float(levels.max()) <= interval[1]:
            return model(latents, levels, plain, None if mask is None else mask[:batch])
        answer = model(torch.cat((latents, latents)), torch.cat((levels, levels)), both, mask)
        with_text, without = answer.chunk(2)
        if projected:
            early = levels.flatten(1).amax(1).view(-1, 1, 1, 1, 1) >= DETAIL
            push = across(with_text - without, latents, with_text, levels)
            return with_text + (guidance - 1) * torch.where(early, push, 0.0)
        return torch.lerp(without, with_text, guidance)

    return velocity


def across(push: Tensor, latents: Tensor, velocity: Tensor, levels: Tensor) -> Tensor:
    """What of each clip's push is at right angles to the clean clip that the velocity foresees, by what has noise.

    All but levels (see `add_noise`) are [B, C, T, H, W]; returns float32. Held tokens, at level 0, are not pushed.
    """
    noise = spread_levels(levels, latents).float()
    moves = (noise > 0).float()
    push, clean = push.float() * moves, (latents.float() - noise * velocity.float()) * moves
    along = (push * clean).flatten(1).sum(1) / clean.square().flatten(1).sum(1).clamp_min(1e-12)
    return push - along.view(-1, 1, 1, 1, 1) * clean


def in_whole_levels(velocity: Velocity, count: int, grid: Tensor | None = None) -> Velocity:
    """A velocity whose model is told levels as one that was trained on `count` of them is (see `whole_levels`)."""
    return lambda latents, levels, reach: velocity(latents, whole_levels(levels, count, grid), reach)


@torch.no_grad()
def flow_map(model: Transformer | Shared | Halved, text: Text) -> Velocity:
    """The mean velocity over each step, from a model that has learned it with guidance in it: one pass, no guidance."""
    prompt, mask = model.prepare_text(text[0]), text[1]
    return lambda latents, levels, reach: model(latents, levels, prompt, mask, levels - reach)


def join(*texts: Text) -> Text:
    """Texts below one another in one batch, padded to one length."""
    if all(mask is None for _, mask in texts) and len({states.shape[1] for states, _ in texts}) == 1:
        return torch.cat([states for states, _ in texts]), None
    masked = [_masked(text) for text in texts]
    length = max(state.shape[1] for state, _ in masked)
    frames = max((mask.shape[1] for _, mask in masked if mask.ndim == 3), default=0)
    states, masks = [], []
    for state, mask in masked:
        short = length - state.shape[1]
        states.append(F.pad(state, (0, 0, 0, short)))
        mask = F.pad(mask, (0, short))
        masks.append((mask.unsqueeze(1) if mask.ndim == 2 else mask).expand(-1, frames, -1) if frames else mask)
    return torch.cat(states), torch.cat(masks)


def repeat(text: Text, batch: int) -> Text:
    """A text of one clip, or of each already, for each clip of a batch."""
    states, mask = text
    return states.expand(batch, *states.shape[1:]), None if mask is None else mask.expand(batch, *mask.shape[1:])


def cue_text(states: list[Text], owner: Tensor) -> tuple[Tensor, Tensor]:
    """Several prompts over one clip, as one text: each latent frame attends to the tokens of its own cue only.

    states: what the text encoder made of each cue, ([1, L_i, width], mask [1, L_i]); owner int64 [T]: the cue that each
    latent frame follows. Returns (states [1, ΣL_i, width], mask [1, T, ΣL_i]).
    """
    masked = [_masked(each) for each in states]
    cue = torch.cat([torch.full((mask.shape[1],), n, device=owner.device) for n, (_, mask) in enumerate(masked)])
    valid = torch.cat([mask for _, mask in masked], dim=1)
    return torch.cat([state for state, _ in masked], dim=1), (owner[:, None] == cue) & valid[:, None]


def _masked(text: Text) -> tuple[Tensor, Tensor]:
    """A text with a mask."""
    states, mask = text
    return states, states.new_ones(states.shape[:2], dtype=torch.bool) if mask is None else mask


def row_by_row(velocities: Sequence[Velocity]) -> Velocity:
    """A velocity of one clip for each of a batch. A CPU is no slower at that, and rounds in a batch otherwise than
    alone: so each variation is, to the bit, what its seed gives by itself."""

    def each(latents: Tensor, levels: Tensor, reach: Tensor) -> Tensor:
        rows = zip(velocities, latents.split(1), levels.split(1), reach.split(1), strict=True)
        return torch.cat([velocity(*row) for velocity, *row in rows])

    return each


def of_some(make: Callable[[Sequence[int]], Velocity], wanted: Callable[[], Sequence[int]]) -> Velocity:
    """The velocity of those rows of a batch that are `wanted` at each step, by what `make` makes for them. The others
    stay where they are, and cost nothing."""
    rows: Sequence[int] = ()
    inner: Velocity | None = None

    def velocity(latents: Tensor, levels: Tensor, reach: Tensor) -> Tensor:
        nonlocal rows, inner
        now = wanted()
        if inner is None or list(now) != list(rows):
            rows, inner = now, make(now)
        if len(rows) == len(latents):
            return inner(latents, levels, reach)
        answer = torch.zeros_like(latents)
        if rows:
            places = torch.tensor(rows, device=latents.device)
            answer[places] = inner(latents[places], levels[places], reach[places]).to(answer.dtype)
        return answer

    return velocity
