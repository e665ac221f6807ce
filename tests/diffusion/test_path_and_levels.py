"""The path, its loss, and the levels of training and sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yozora.diffusion import (
    SCHEDULES,
    add_noise,
    begin_at,
    flow_loss,
    sample_levels,
    schedule,
    shift_levels,
    spread_levels,
    velocity_target,
)

LATENTS = torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(1))


def test_the_path_goes_from_picture_to_noise_frame_by_frame() -> None:
    levels = torch.tensor([[0.0, 1.0, 0.25], [1.0, 0.0, 0.5]])
    noisy = add_noise(LATENTS, NOISE, levels)
    assert torch.equal(noisy[0, :, 0], LATENTS[0, :, 0])
    assert torch.equal(noisy[0, :, 1], NOISE[0, :, 1])
    assert torch.allclose(noisy[1, :, 2], (LATENTS[1, :, 2] + NOISE[1, :, 2]) / 2)


def test_levels_of_tokens_cover_their_patches() -> None:
    levels = torch.rand(2, 3, 2, 3)
    spread = spread_levels(levels, LATENTS)
    assert spread.shape == (2, 1, 3, 4, 6)
    assert spread[1, 0, 2, 3, 1] == levels[1, 2, 1, 0]
    with pytest.raises(ValueError, match="do not fit"):
        spread_levels(torch.rand(2, 3, 3, 3), LATENTS)
    with pytest.raises(ValueError, match="levels must be"):
        spread_levels(torch.rand(2), LATENTS)


def test_loss_counts_only_what_is_asked() -> None:
    levels = torch.tensor([[0.0, 0.5, 0.9], [0.3, 0.3, 0.3]])
    perfect = velocity_target(LATENTS, NOISE)
    assert flow_loss(perfect, LATENTS, NOISE, levels) == 0
    wrong = perfect.clone()
    wrong[0, :, 0] += 100  # a prompt: no question was asked
    assert flow_loss(wrong, LATENTS, NOISE, levels) == 0
    assert flow_loss(perfect + 2, LATENTS, NOISE, levels).item() == pytest.approx(4.0)
    assert flow_loss(perfect + 2, LATENTS, NOISE, torch.zeros(2, 3)) == 0
    only_last = torch.tensor([[0.0, 0.0, 1.0]])
    wrong[0, :, 2] += 3
    assert flow_loss(wrong[:1], LATENTS[:1], NOISE[:1], levels[:1], only_last).item() == pytest.approx(9.0)


@given(st.integers(1, 200), st.floats(0.1, 20))
def test_schedules_fall_from_one_to_zero(steps: int, shift: float) -> None:
    levels = schedule(steps, shift)
    assert levels.shape == (steps + 1,) and levels[0] == 1 and levels[-1] == 0
    assert (levels.diff() < 0).all()


def test_shift() -> None:
    assert shift_levels(0.5, 3.0) == pytest.approx(0.75)
    assert torch.allclose(schedule(4, 3.0)[2], torch.tensor(0.75, dtype=torch.float64))
    with pytest.raises(ValueError):
        schedule(0)
    with pytest.raises(ValueError):
        schedule(4, 0.0)


def test_training_levels() -> None:
    def draw(**how: float) -> torch.Tensor:
        return sample_levels((4000, 5), torch.Generator().manual_seed(0), **how)

    levels = draw()
    assert levels.shape == (4000, 5) and levels.min() > 0 and levels.max() < 1
    assert levels.mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.logit(levels).std().item() == pytest.approx(1.0, abs=0.02)
    assert draw(shift=3.0).median().item() == pytest.approx(0.75, abs=0.01)
    assert torch.equal(levels, draw())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("highest", [0.97, 0.6, 0.35, 1e-3])
def test_levels_that_begin_lower_follow_the_same_rule(name: str, highest: float) -> None:
    """Beginning at a level of the grid itself leaves out those above it."""
    levels = begin_at(SCHEDULES[name](16, 2.0), highest)
    assert len(levels) == 17 and levels[0] == highest and levels[-1] == 0
    assert (levels.diff() < 0).all()
    full = SCHEDULES[name](16, 2.0)
    torch.testing.assert_close(begin_at(full, float(full[8]))[::2], full[8:].double()[[0, 1, 2, 3, 4, 5, 6, 7, 8]])
    for highest in (1.0, 0.0):
        assert begin_at(full, highest).tolist() == full.tolist()
