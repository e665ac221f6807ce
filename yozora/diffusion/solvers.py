"""Solvers: how to step from one noise level to the next, when every token may have levels of its own.

A solver sees the levels before and after a step and the model's answers at this and the last step; a token whose level
does not change is left exactly as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from yozora.diffusion.path import spread_levels

MAX_AHEAD = 1.5
"""How far a solver extrapolates, in lengths of the last step: a held token may have joined by a very short one."""


class Answer(NamedTuple):
    """What the model said: levels float64 [B, T] or [B, T, h, w]; the velocity and the clean latents that it means."""

    levels: Tensor
    velocity: Tensor
    clean: Tensor


class Past(NamedTuple):
    """A step that was taken: the latents from which it went, and what the model had said."""

    latents: Tensor
    answer: Answer


Solver = Callable[[Tensor, Tensor, Answer, Answer | None], Tensor]
"""(latents [B, C, T, H, W] at the answer's levels, levels to reach, answer, last answer or None) → latents there."""

Corrector = Callable[[Tensor, Answer, Sequence[Past]], Tensor]
"""(latents at the answer's levels, answer, the steps before, at most two) → better latents at the same levels."""


def euler(latents: Tensor, reach: Tensor, answer: Answer, last: Answer | None) -> Tensor:
    """First order: straight along the velocity."""
    return torch.addcmul(latents, spread(reach - answer.levels, latents), answer.velocity)


def multistep(latents: Tensor, reach: Tensor, answer: Answer, last: Answer | None) -> Tensor:
    """Second order (Adams-Bashforth): along the velocity extrapolated to the middle of the step; Euler's first."""
    velocity = answer.velocity
    if last is not None:
        ahead = extrapolation(reach - answer.levels, answer.levels - last.levels)
        velocity = torch.addcmul(velocity, spread(ahead, latents), velocity - last.velocity)
    return torch.addcmul(latents, spread(reach - answer.levels, latents), velocity)


def dpm(latents: Tensor, reach: Tensor, answer: Answer, last: Answer | None) -> Tensor:
    """Second order: DPM-Solver++(2M) (Lu et al. 2022) with signal 1 - t and noise t.

    The clean latents are extrapolated over log(signal / noise). Where a token came from pure noise or goes to none,
    that is infinite and the step is of first order.
    """
    clean = answer.clean
    if last is not None:
        here = log_signal(answer.levels)
        ahead = extrapolation(log_signal(reach) - here, here - log_signal(last.levels))
        clean = torch.addcmul(clean, spread(ahead, latents), clean - last.clean)
    left = torch.where(answer.levels > 0, reach / answer.levels, 1.0)
    # what (1 - t')·D + t'·(x - (1 - t)·D) / t comes to, written so that it is x itself where t' = t
    return torch.addcmul(latents, spread(1 - left, latents), clean - latents)


def unic(latents: Tensor, answer: Answer, past: Sequence[Past]) -> Tensor:
    """UniC-2 with B(h) = e^h - 1, in clean latents (Zhao et al. 2023): the last step, which led to `latents`, taken
    again now that the model has answered there, too. `past` holds that step and the one before it, oldest first.

    With `dpm`, which is UniP-2, as the predictor this is UniPC. A token whose level did not change stays as it is.
    """
    began, said = past[-1]
    here = log_signal(said.levels)
    step = log_signal(answer.levels) - here
    decay = torch.expm1(-step)
    first = -decay / step - 1  # h·φ₂(-h), as the paper has it; then twice φ₃, both over B(-h)
    first, second = first / decay, 2 * (-first / step - 0.5) / decay
    weight, slope = torch.full_like(step, 0.5), torch.zeros_like(step)
    before = said if len(past) == 1 else past[-2].answer
    ratio = (log_signal(before.levels) - here) / step
    usable = step.isfinite() & ratio.isfinite() & (ratio.abs() >= 0.5 / MAX_AHEAD)
    share = (first - second) / (1 - ratio)
    weight, slope = torch.where(usable, first - share, weight), torch.where(usable, share / ratio, slope)
    clean = torch.addcmul(said.clean, spread(weight, latents), answer.clean - said.clean)
    clean = torch.addcmul(clean, spread(slope, latents), before.clean - said.clean)
    left = spread(answer.levels / said.levels, latents)
    signal = spread(-(1 - answer.levels) * decay, latents)
    return torch.where(spread_levels(answer.levels != said.levels, latents), left * began + signal * clean, latents)


FLOW_MAP = "flow-map"
"""What few-step weights are sampled with: the velocity is already the mean one over the step, so straight along it."""

SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "multistep": multistep,
    "dpm++": dpm,
    FLOW_MAP: euler,
    "unipc": dpm,
}
CORRECTORS: dict[str, Corrector] = {"unipc": unic}
"""What some solvers do before each step but the first, with the model's answer there."""


def extrapolation(step: Tensor, before: Tensor) -> Tensor:
    """Half of a step's length over the length of the one before; 0 where either is zero or infinite."""
    usable = step.isfinite() & before.isfinite() & (before != 0)
    return torch.where(usable, step / (2 * before), 0.0).clamp(max=MAX_AHEAD)


def log_signal(levels: Tensor) -> Tensor:
    """log(signal / noise) at a level: from -∞ for pure noise to ∞ for none."""
    return torch.log1p(-levels) - torch.log(levels)


def spread(levels: Tensor, latents: Tensor) -> Tensor:
    """`spread_levels` in the latents' own type."""
    return spread_levels(levels, latents).to(latents.dtype)
