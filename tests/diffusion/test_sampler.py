"""The sampler and its solvers: known answers, order of convergence, diffusers' schedulers, what is held."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yozora.diffusion import SOLVERS, Step, add_noise, sample, schedule, spread_levels

MEAN, SPREAD = 0.7, 0.4  # of the Gaussian that the exact velocity below leads to


def gaussian(latents: Tensor, levels: Tensor, _: Tensor) -> Tensor:
    """The exact velocity where pictures are normal with MEAN and SPREAD: E[noise - picture | latents]."""
    t = spread_levels(levels, latents).double()
    centred = latents.double() - (1 - t) * MEAN
    variance = ((1 - t) * SPREAD) ** 2 + t**2
    return ((t - (1 - t) * SPREAD**2) * centred / variance - MEAN).to(latents.dtype)


def noise_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def last(steps: object) -> Step:
    *_, step = steps  # type: ignore[misc]
    return step


def error(solver: str, count: int, high: float = 1.0, low: float = 0.0) -> float:
    """Distance from the exact answer when going from level `high` to `low`."""
    noise = noise_of(2, 3, 2, 4, 4)

    def exact(t: float) -> Tensor:
        return (1 - t) * MEAN + ((1 - t) ** 2 * SPREAD**2 + t**2) ** 0.5 * noise

    levels = torch.linspace(high, low, count + 1, dtype=torch.float64)
    return (last(sample(gaussian, exact(high), levels, solver=solver)).latents - exact(low)).norm().item()


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("multistep", 2), ("dpm++", 2)])
def test_order_of_convergence(solver: str, order: int) -> None:
    """DPM-Solver++ counts in log(signal / noise), infinite at both ends, and is of second order only between them."""
    ends = (0.95, 0.05) if solver == "dpm++" else (1.0, 0.0)
    coarse, fine = error(solver, 32, *ends), error(solver, 128, *ends)
    assert 4**order * 0.6 < coarse / fine < 4**order * 2
    assert order == 1 or fine < error("euler", 128, *ends) * 0.2


def deterministic_velocity() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    weight = noise_of(4, 4, seed=5) * 0.3

    def velocity(latents: Tensor, levels: Tensor, _: Tensor) -> Tensor:
        mixed = torch.einsum("dc,bcthw->bdthw", weight, latents)
        return torch.tanh(mixed + spread_levels(levels, latents)) + 0.2 * latents

    return velocity


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_same_numbers_as_diffusers_euler(shift: float) -> None:
    diffusers: Any = importlib.import_module("diffusers")  # its lazy exports have no types

    velocity, noise = deterministic_velocity(), noise_of(2, 4, 2, 2, 2)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=schedule(7, shift)[:-1].tolist())
    latents = noise
    for t in scheduler.timesteps:
        answer = velocity(latents, (t / 1000).float().expand(2, 2), noise)
        latents = scheduler.step(answer, t, latents, return_dict=False)[0]
    assert torch.allclose(last(sample(velocity, noise, schedule(7, shift), solver="euler")).latents, latents, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_same_numbers_as_diffusers_dpm() -> None:
    diffusers: Any = importlib.import_module("diffusers")  # its lazy exports have no types

    velocity, noise = deterministic_velocity(), noise_of(2, 4, 2, 2, 2)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        flow_shift=2.0,
        solver_order=2,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(9)
    levels, latents = scheduler.sigmas.double(), noise
    for n, t in enumerate(scheduler.timesteps):
        answer = velocity(latents, levels[n].float().expand(2, 2), noise)
        latents = scheduler.step(answer, t, latents, return_dict=False)[0]
    noise_left = add_noise(torch.zeros_like(noise), noise, levels[0].float().expand(2, 2)) / levels[0]
    assert torch.allclose(
        last(sample(velocity, noise_left.float(), levels, solver="dpm++")).latents, latents, atol=1e-5
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_count_down_and_estimates_converge(solver: str) -> None:
    noise = noise_of(1, 2, 3, 2, 2)
    steps = list(sample(gaussian, noise, schedule(10, 2.0), solver=solver))
    assert [step.index for step in steps] == list(range(1, 11)) and {step.total for step in steps} == {10}
    assert all(a.level > b.level for a, b in itertools.pairwise(steps)) and steps[-1].level == 0
    assert (steps[0].estimate - MEAN).abs().max() < 1e-5  # from pure noise, the mean is all there is to see
    assert torch.equal(steps[-1].latents, last(sample(gaussian, noise, schedule(10, 2.0), solver=solver)).latents)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1)), min_size=3, max_size=3),
    st.sampled_from(list(SOLVERS)),
    st.integers(1, 9),
)
def test_levels_follow_the_hold(hold: list[float], solver: str, count: int) -> None:
    seen = []

    def velocity(latents: Tensor, levels: Tensor, _: Tensor) -> Tensor:
        seen.append(levels)
        return gaussian(latents, levels, levels)

    noise, known = noise_of(2, 2, 3, 2, 2), noise_of(1, 2, 3, 2, 2, seed=1)
    held, times = torch.tensor([hold]), schedule(count, 1.7)
    result = last(sample(velocity, noise, times, known=known, hold=held, solver=solver)).latents
    assert result.isfinite().all() and result.abs().max() < 50
    for time, levels in zip(times, seen, strict=False):
        expected = torch.minimum(time, 1 - held.double()).float().expand(2, 3)
        assert torch.equal(levels, expected)
    for frame, h in enumerate(hold):
        if h == 1:
            assert torch.equal(result[:, :, frame], known[:, :, frame].expand(2, -1, -1, -1))


def test_a_remix_stays_near_what_is_known() -> None:
    known = torch.full((1, 2, 1, 2, 2), MEAN + SPREAD)
    noise = noise_of(1, 2, 1, 2, 2)

    def distance(hold: float) -> float:
        steps = sample(gaussian, noise, schedule(50), known=known, hold=torch.tensor([[hold]]))
        return (last(steps).latents - known).abs().mean().item()

    assert distance(1.0) == 0 < distance(0.9) < distance(0.5) < distance(0.0)


def test_tokens_can_be_held_one_by_one() -> None:
    noise, known = noise_of(1, 2, 2, 4, 4), noise_of(1, 2, 2, 4, 4, seed=1)
    hold = torch.zeros(1, 2, 2, 2)
    hold[0, 1, 0, 1] = 1
    result = last(sample(gaussian, noise, schedule(5), known=known, hold=hold)).latents
    same = result == known
    assert same[:, :, 1, :2, 2:].all() and same.sum() == 2 * 4


def test_what_is_not_held_need_not_be_finite() -> None:
    noise, known = noise_of(1, 2, 2, 2, 2), torch.full((1, 2, 2, 2, 2), torch.nan)
    known[:, :, 0] = 1
    steps = sample(gaussian, noise, schedule(5), known=known, hold=torch.tensor([[1.0, 0.0]]))
    assert last(steps).latents.isfinite().all()


def test_gradients_of_the_caller_are_left_alone() -> None:
    for _ in sample(gaussian, noise_of(1, 2, 1, 2, 2), schedule(2)):
        assert torch.is_grad_enabled()


def test_arguments_that_do_not_fit() -> None:
    noise, times = noise_of(2, 2, 3, 2, 2), schedule(4)
    with pytest.raises(ValueError, match="solver"):
        sample(gaussian, noise, times, solver="magic")
    for wrong in (times.flip(0), times[:1], times + 0.1, times[None]):
        with pytest.raises(ValueError, match="levels"):
            sample(gaussian, noise, wrong)
    with pytest.raises(ValueError, match="go together"):
        sample(gaussian, noise, times, known=noise)
    with pytest.raises(ValueError, match="do not fit"):
        sample(gaussian, noise, times, known=noise[:, :, :2], hold=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="do not fit"):
        sample(gaussian, noise, times, known=noise, hold=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample(gaussian, noise, times, known=noise, hold=torch.full((1, 3), 1.5))
