"""The one sampler: every token goes from its own starting level down to picture, and a held one joins on the way.

With `hold` h in 0..1 for a token, its level at sampling time t is min(t, 1 - h). That rule is every way of creating: a
token with h = 1 is a prompt, one with h = 0 is invented, one in between is remixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from yozora.diffusion.guidance import Velocity
from yozora.diffusion.path import add_noise, spread_levels
from yozora.diffusion.solvers import CORRECTORS, SOLVERS, Answer, Past


@dataclass(frozen=True, eq=False)
class Step:
    """One step of sampling, done.

    index of total (from 1) has reached sampling level `level` (0 at the end) with `latents` float32 [B, C, T, H, W],
    the result if it is the last; `estimate`, of the same shape, is the clean picture as the model saw it at this step.
    """

    index: int
    total: int
    level: float
    latents: Tensor
    estimate: Tensor


def sample(
    velocity: Velocity,
    noise: Tensor,
    levels: Tensor,
    *,
    known: Tensor | None = None,
    hold: Tensor | None = None,
    solver: str = "multistep",
) -> Iterator[Step]:
    """Run the flow from noise to latents: one Step after every evaluation of the model.

    noise: standard normal [B, C, T, H, W], drawn by the caller. levels: [steps + 1], falling, from `schedule`.
    known: clean latents of what is held, [B or 1, C, T, H, W], of any value where hold is 0. hold: 0..1, [B or 1, T]
    for latent frames or [B or 1, T, h, w] for tokens. Tokens with hold 1 come back exactly as they are in `known`.
    The same noise gives the same result. Raises ValueError where the arguments do not fit each other.
    """
    if solver not in SOLVERS:
        raise ValueError(f"no solver {solver!r}; there are {', '.join(SOLVERS)}")
    times = levels.double().cpu()
    if times.ndim != 1 or len(times) < 2 or times[0] > 1 or times[-1] < 0 or (times.diff() >= 0).any():
        raise ValueError("levels must fall from at most 1 to at least 0")
    ceiling = level_ceiling(noise, known, hold)
    return run(velocity, start(noise, known, ceiling, float(times[0])), times, ceiling, solver)


def level_ceiling(noise: Tensor, known: Tensor | None, hold: Tensor | None) -> Tensor:
    """The level that each frame or token never exceeds, 1 - hold: float64 [B, T] or [B, T, h, w]."""
    batch, frames = noise.shape[0], noise.shape[2]
    if (known is None) != (hold is None):
        raise ValueError("known latents and hold go together: give both or neither")
    if known is None or hold is None:
        return torch.ones(batch, frames, dtype=torch.float64, device=noise.device)
    if known.shape[1:] != noise.shape[1:] or known.shape[0] not in (1, batch):
        raise ValueError(f"known latents of {tuple(known.shape)} do not fit noise of {tuple(noise.shape)}")
    if hold.shape[0] not in (1, batch):
        raise ValueError(f"hold of {tuple(hold.shape)} does not fit {batch} clips")
    if not ((hold >= 0) & (hold <= 1)).all():
        raise ValueError("hold must lie between 0 and 1")
    spread_levels(hold, noise)  # raises where it does not fit
    return (1 - hold.to(noise.device, torch.float64)).expand(batch, *hold.shape[1:])


@torch.no_grad()
def start(noise: Tensor, known: Tensor | None, ceiling: Tensor, highest: float) -> Tensor:
    """Noise, and what is known under as much noise as its level asks, which is at most the `highest`."""
    noise = noise.float()
    if known is None:
        return noise
    known = known.to(noise.device, torch.float32)
    free = spread_levels(ceiling, noise) >= 1  # nothing is known there, and it need not even be finite
    return torch.where(free, noise, add_noise(known.expand_as(noise), noise, ceiling.clamp(max=highest)))


def run(velocity: Velocity, latents: Tensor, times: Tensor, ceiling: Tensor, solver: str) -> Iterator[Step]:
    """The loop of `sample`, once its arguments are known to fit."""
    total = len(times) - 1
    past: tuple[Past, ...] = ()
    for index, (time, reach) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True), start=1):
        with torch.no_grad():  # not around the yield: the caller's code is its own
            levels, next_levels = ceiling.clamp(max=time), ceiling.clamp(max=reach)
            direction = velocity(latents, levels.float(), next_levels.float()).float()
            clean = torch.addcmul(latents, spread_levels(-levels, latents).float(), direction)
            answer = Answer(levels, direction, clean)
            if past and solver in CORRECTORS:
                latents = CORRECTORS[solver](latents, answer, past)
            last, past = past[-1].answer if past else None, (*past[-1:], Past(latents, answer))
            latents = SOLVERS[solver](latents, next_levels, answer, last)
        yield Step(index, total, reach, latents, clean)
