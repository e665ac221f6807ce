"""Reuse between steps: the dial trades work for nearness, off is exact, each row of a batch has a past of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import yozora
from yozora.diffusion import guided, sample, schedule
from yozora.diffusion.reuse import MOST, Reuse, Said
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


def test_the_dial_says_how_much_work_is_saved_and_the_answer_stays_near() -> None:
    model = network()
    exact, errors, passes = run(model), [], []
    for dial in (1e-9, 0.1, 0.3):
        reuse = Reuse(model, dial)
        errors.append((run(reuse) - exact).norm() / exact.norm())
        assert reuse.calls == STEPS
        passes.append(2 * STEPS - 2 * reuse.carried - reuse.halved)
    assert min(errors) > 0 and max(errors) < 0.05
    assert 2 * STEPS > passes[0] == STEPS + STEPS // 2 > passes[1] > passes[2] >= STEPS * 1.5 // (MOST + 1)


def test_it_is_nearer_than_as_much_work_in_fewer_steps() -> None:
    model = network()
    exact, reuse = run(model), Reuse(model, 0.1)
    near = (run(reuse) - exact).norm()
    as_much = (2 * STEPS - 2 * reuse.carried - reuse.halved) // 2
    assert as_much < 0.7 * STEPS and near < (run(model, as_much) - exact).norm()


def test_an_answer_that_is_carried_lies_on_the_line_and_held_tokens_stay() -> None:
    reuse = Reuse(network(), 1.0)
    reuse._past = [Said(torch.tensor([[0.8, 0.0]]), torch.zeros(1, 1, 2, 1, 1)),
                   Said(torch.tensor([[0.6, 0.0]]), torch.ones(1, 1, 2, 1, 1))]  # fmt: skip
    carried = reuse._carry(torch.tensor([[0.5, 0.0]])).flatten().tolist()
    assert carried == pytest.approx([1.5, 1.0])


def test_where_guidance_ends_the_prompt_alone_goes_on() -> None:
    model, sizes = network(), list[int]()
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    generator = torch.Generator().manual_seed(1)
    noise, text = torch.randn(1, 4, 3, 4, 4, generator=generator), torch.randn(1, 5, 16, generator=generator)

    def end(network: Transformer | Reuse) -> torch.Tensor:
        velocity = guided(network, (text, None), (torch.zeros_like(text), None), 3.0, (0.5, 1.0), projected=True)
        *_, step = sample(velocity, noise, schedule(40))
        return step.latents

    exact, reuse = end(model), Reuse(model, 0.1)
    sizes.clear()
    assert (end(reuse) - exact).norm() < 0.05 * exact.norm()
    assert 0 < reuse.halved < 20 and reuse.carried and sizes.count(2) < 20  # whole pairs, which the model is called for


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
