"""Reuse between steps: off is exact, the dial trades work for nearness, each row of a batch has a past of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import yozora
from yozora.diffusion import guided, sample, schedule
from yozora.diffusion.reuse import MOST, Full, Reuse
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
    for dial in (0.05, 0.1, 0.3):
        reuse = Reuse(model, dial)
        errors.append(float((run(reuse) - exact).norm() / exact.norm()))
        counts.append(reuse.full)
    assert counts[0] == STEPS > counts[1] > counts[2] >= STEPS // (MOST + 1)
    assert errors[0] == 0 and min(errors[1:]) > 0 and max(errors) < 0.05


def test_it_is_nearer_than_fewer_steps_of_as_much_work() -> None:
    model = network()
    exact, reuse = run(model), Reuse(model, 0.3)
    near = (run(reuse) - exact).norm()
    assert reuse.full < 0.5 * STEPS and near < (run(model, reuse.full) - exact).norm()


def test_an_answer_that_is_carried_lies_on_the_line_and_held_tokens_stay() -> None:
    reuse, none = Reuse(network(), 1.0), torch.zeros(1)
    before = Full(torch.tensor([[0.8, 0.0]]), torch.zeros(1, 1, 2, 1, 1), none)
    reuse._past = [before, Full(torch.tensor([[0.6, 0.0]]), torch.ones(1, 1, 2, 1, 1), none)]
    carried = reuse._carry(reuse._ahead(torch.tensor([[0.5, 0.0]])))
    assert carried.flatten().tolist() == pytest.approx([1.5, 1.0])
    assert reuse._ahead(torch.tensor([[0.5, 0.1]])).isinf().tolist() == [[False, True]]  # it has just joined


def test_a_token_that_joins_by_a_short_step_is_not_carried_far() -> None:
    model, levels = network(), schedule(STEPS, 3.0)
    generator = torch.Generator().manual_seed(1)
    noise, known = (torch.randn(1, 4, 3, 4, 4, generator=generator) for _ in range(2))
    text = torch.randn(1, 5, 16, generator=generator)
    hold = torch.tensor([[1 - float(levels[20]) - 1e-5, 0.0, 0.0]], dtype=torch.float64)

    def end(network: Transformer | Reuse) -> torch.Tensor:
        velocity = guided(network, (text, None), (torch.zeros_like(text), None), 3.0)
        *_, step = sample(velocity, noise, levels, known=known, hold=hold)
        return step.latents

    exact, reuse = end(model), Reuse(model, 0.3)
    assert (end(reuse) - exact).norm() < 0.1 * exact.norm() and reuse.full < reuse.calls


def test_where_guidance_ends_nothing_is_carried_over() -> None:
    model = network()
    generator = torch.Generator().manual_seed(1)
    noise, text = torch.randn(1, 4, 3, 4, 4, generator=generator), torch.randn(1, 5, 16, generator=generator)

    def end(network: Transformer | Reuse) -> torch.Tensor:
        velocity = guided(network, (text, None), (torch.zeros_like(text), None), 3.0, (0.5, 1.0))
        *_, step = sample(velocity, noise, schedule(40))
        return step.latents

    exact, reuse = end(model), Reuse(model, 0.1)
    assert (end(reuse) - exact).norm() < 0.05 * exact.norm()
    assert reuse.full < reuse.calls == 40


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
