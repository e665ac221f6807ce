"""Projected guidance against that of diffusers, which works on pictures foreseen and not on velocities."""

from __future__ import annotations

import pytest
import torch

from yozora.diffusion.guidance import across

guiders = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5, 6.0])
def test_the_foreseen_picture_is_theirs(guidance: float) -> None:
    torch.manual_seed(1)
    latents, with_text, without = (torch.randn(3, 4, 2, 5, 6) for _ in range(3))
    levels = torch.tensor([0.9, 0.5, 0.1])[:, None].expand(3, 2)
    noise = levels[:, None, :, None, None]
    theirs = guiders.normalized_guidance(
        latents - noise * with_text, latents - noise * without, guidance - 1, eta=0.0, use_original_formulation=True
    )
    velocity = with_text + (guidance - 1) * across(with_text - without, latents, with_text, levels)
    torch.testing.assert_close(latents - noise * velocity, theirs, atol=1e-5, rtol=1e-5)
