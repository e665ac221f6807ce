"""Reuse between steps: off is exact, the dial trades work for nearness, each row of a batch has a past of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import yozora
from yozora.diffusion import guided, sample, schedule
from yozora.diffusion.reuse import MOST, Reuse
from yozora.errors import CanvasError
from yozora.models.folder import save_module
from yozora.models.transformer import Transformer, TransformerConfig


def network() -> Transformer:
    """A transformer whose every weight counts, and whose answers change smoothly with the level."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(channels=4, width=48, depth=4, heads=4, text_width=16, freq_dim=32))
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


STEPS = 60


def run(model: Transformer | Reuse, steps: int = STEPS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise, text = torch.randn(1, 4, 3, 4, 4, generator=generator), torch.randn(1, 5, 16, generator=generator)
    velocity = guided(model, (text, None), (torch.zeros_like(text), None), 3.0)
    *_, step = sample(velocity, noise, schedule(steps, 3.0))
    return step.latents


def test_off_is_exact() -> None:
    model = network()
    off = Reuse(model, 0.0)
    assert torch.equal(run(off), run(model))
    assert off.full == off.calls == STEPS


def test_the_dial_trades_work_for_nearness() -> None:
    model = network()
    exact, errors, counts = run(model), [], []
    for dial in (0.1, 0.3):
        reuse = Reuse(model, dial)
        errors.append((run(reuse) - exact).norm() / exact.norm())
        counts.append(reuse.full)
    assert STEPS > counts[0] > counts[1] >= STEPS // (MOST + 1)
    assert 0 < errors[0] < errors[1] < 0.2


def test_a_model_reuses_when_asked(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deeper"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(1)
    deeper = Transformer(TransformerConfig(channels=4, width=32, depth=3, heads=2, ffn=2.0, text_width=16))
    for parameter in deeper.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    save_module(deeper, folder / "transformer")

    def make(reuse: float, seeds: list[int]) -> list[np.ndarray]:
        generator = yozora.load(folder, device="cpu", dtype=torch.float32, reuse=reuse)
        canvas = yozora.create.text_to_video("a red ball", native=generator.native, size=(64, 64), seconds=1)
        clips = generator.run_many(canvas, seeds, steps=8)
        assert all(clip.recipe is not None and clip.recipe.reuse == reuse for clip in clips)
        return [clip.frames for clip in clips]

    both, alone = make(1.0, [3, 4]), make(1.0, [4])
    assert np.array_equal(both[1], alone[0])
    assert not np.array_equal(alone[0], make(0.0, [4])[0])
    with pytest.raises(CanvasError, match="reuse 2 is out of range"):
        make(2.0, [4])
