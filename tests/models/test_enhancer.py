"""The enhancer's networks: their size, what they are before training, and how far they look."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from yozora.models.enhancer import Between, Enhancer, EnhancerConfig, Upscaler, search_size
from yozora.models.folder import load_module, save_module

TINY = EnhancerConfig(width=4, depth=1, reach=2, search_width=4, search_depth=1, refine_width=4, refine_depth=1)


def awake(config: EnhancerConfig = TINY) -> Enhancer:
    """Every weight drawn, so that each input matters."""
    torch.manual_seed(0)
    enhancer = Enhancer(config).eval().requires_grad_(False)
    for parameter in enhancer.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return enhancer


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth random frames [1, 3, H, W] in about -1..1."""
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return 2 * F.interpolate(coarse, size=(height, width), mode="bicubic") - 1


def test_the_weights_of_the_shipped_size_are_below_a_megabyte(tmp_path: Path) -> None:
    save_module(Enhancer(EnhancerConfig()), tmp_path, torch.bfloat16)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000
    assert load_module(Enhancer, tmp_path).config == EnhancerConfig()


@pytest.mark.parametrize("factor", [2, 4])
def test_untrained_it_is_a_bicubic_resize(factor: int) -> None:
    frames = texture(24, 32)
    large = Upscaler(EnhancerConfig(factor=factor, width=4, depth=1))(frames)
    assert torch.equal(large, F.interpolate(frames, scale_factor=float(factor), mode="bicubic"))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 5), (33, 64)])
def test_frames_of_any_size(height: int, width: int) -> None:
    enhancer, frames = awake(), torch.rand(2, 3, height, width) * 2 - 1
    assert enhancer.upscaler(frames).shape == (2, 3, 4 * height, 4 * width)
    between = enhancer.between(frames, frames.flip(0), torch.tensor([0.25, 0.5]))
    assert between.shape == frames.shape
    assert between.isfinite().all()


def test_no_pixel_matters_beyond_the_halo() -> None:
    upscaler, frames = awake().upscaler, texture(8, 64)
    other = frames.clone()
    other[..., 40] += 1
    changed = (upscaler(frames) != upscaler(other)).any(dim=(0, 1, 2)).nonzero().flatten() // 4
    assert upscaler.halo >= 40 - changed.min() > 2
    assert upscaler.halo >= changed.max() - 40 > 2


@pytest.mark.parametrize("moment", [0.25, 0.5, 0.75])
def test_motion_is_found_before_anything_is_learned(moment: float) -> None:
    scene = texture(160, 160)

    def seen(at: float) -> Tensor:
        x, y = round(16 + 8 * at), round(16 - 4 * at)
        return scene[..., y : y + 128, x : x + 128]

    before, after, true = seen(0), seen(1), seen(moment)
    inside = (..., slice(16, -16), slice(16, -16))
    drawn = Between(EnhancerConfig())(before, after, torch.tensor([moment]))
    error, faded = ((frame - true)[inside].abs().mean() for frame in (drawn, torch.lerp(before, after, moment)))
    assert error < 0.02 < 0.1 < faded


def test_ends_and_stillness_are_kept() -> None:
    before, after = texture(64, 96), texture(64, 96, seed=1)
    between = Between(EnhancerConfig())
    for moment, end in ((0.0, before), (1.0, after)):
        assert (between(before, after, torch.tensor([moment])) - end).abs().max() < 0.02
    assert (between(before, before, torch.tensor([0.5])) - before).abs().mean() < 0.02


def test_large_frames_are_searched_at_a_small_size() -> None:
    assert search_size(128, 160) == (128, 160)
    assert search_size(1080, 1920) == (192, 340)
    assert search_size(1, 3) == (4, 4)
    frames = texture(400, 400)
    assert Between(TINY)(frames, frames, torch.tensor([0.5])).shape == frames.shape


@pytest.mark.parametrize("change", [{"factor": 3}, {"width": 0}, {"reach": 0}, {"reach": 17}, {"depth": -1}])
def test_sizes_that_cannot_be(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        EnhancerConfig(**change)
