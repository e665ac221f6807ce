"""Guidance: one batched pass gives what two passes give; cues stay with their frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import yozora
from yozora.create.limits import parse_interval
from yozora.diffusion import cue_text, guided
from yozora.errors import CanvasError
from yozora.models.transformer import Transformer, TransformerConfig


class Counting(Transformer):
    """Counts its passes and the clips in each."""

    def forward(self, latents: Tensor, *rest: object) -> Tensor:  # type: ignore[override]
        self.batches = [*getattr(self, "batches", []), len(latents)]
        return super().forward(latents, *rest)  # type: ignore[arg-type]


@pytest.fixture
def model() -> Counting:
    torch.manual_seed(0)
    model = Counting(TransformerConfig(channels=2, width=24, depth=2, heads=2, text_width=8, freq_dim=8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


LATENTS, LEVELS = torch.randn(2, 2, 3, 4, 4), torch.rand(2, 3)


def text_of(length: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[0, length - 1 :] = length == 1
    return torch.randn(batch, length, 8, generator=torch.Generator().manual_seed(seed)), mask


@torch.no_grad()
def test_one_pass_equals_two(model: Counting) -> None:
    text, null = text_of(5), text_of(1, batch=1, seed=1)
    with_text = model(LATENTS, LEVELS, *text)
    without = model(LATENTS, LEVELS, null[0].expand(2, -1, -1), null[1].expand(2, -1))
    model.batches = []
    got = guided(model, text, null, 3.0)(LATENTS, LEVELS, LEVELS)
    assert model.batches == [4]
    assert torch.allclose(got, without + 3 * (with_text - without), atol=1e-4)


@torch.no_grad()
def test_no_guidance_is_one_plain_pass(model: Counting) -> None:
    text = text_of(5)
    expected = model(LATENTS, LEVELS, *text)
    model.batches = []
    assert torch.allclose(guided(model, text, None)(LATENTS, LEVELS, LEVELS), expected, atol=1e-5)
    assert model.batches == [2]
    with pytest.raises(ValueError, match="null"):
        guided(model, text, None, 2.0)


@torch.no_grad()
def test_projected_guidance_pushes_across_what_is_foreseen(model: Counting) -> None:
    text, null = text_of(5), text_of(1, seed=1)
    levels = torch.tensor([[0.0, 0.4, 0.9], [0.7, 0.7, 0.7]])  # the first frame of the first clip is held
    plain = guided(model, text, None)(LATENTS, levels, levels)
    push = guided(model, text, null, 3.0, projected=True)(LATENTS, levels, levels) - plain
    assert push.abs().amax() > 0.01 and not push[0, :, 0].any()
    clean = LATENTS - levels[:, None, :, None, None] * plain
    clean[0, :, 0] = 0
    assert (push * clean).flatten(1).sum(1).abs().amax() < 1e-4 * float(push.norm() * clean.norm())
    further = guided(model, text, null, 5.0, projected=True)(LATENTS, levels, levels) - plain
    torch.testing.assert_close(further, 2 * push, atol=1e-4, rtol=1e-4)  # a direction, and how far along it


@torch.no_grad()
def test_projected_guidance_ends_before_the_details(model: Counting) -> None:
    text, null = text_of(5), text_of(1, seed=1)
    velocity, plain = guided(model, text, null, 3.0, projected=True), guided(model, text, None)
    levels = torch.tensor([[0.3, 0.2, 0.3], [0.3, 0.0, 0.5]])  # only the second clip is not yet that far
    push = velocity(LATENTS, levels, levels) - plain(LATENTS, levels, levels)
    assert push[0].abs().amax() < 1e-5 < push[1].abs().amax()
    model.batches = []
    for late in (torch.full((2, 3), 0.39), torch.zeros(2, 3)):
        torch.testing.assert_close(velocity(LATENTS, late, late), plain(LATENTS, late, late))
    assert model.batches == [2] * 4  # nobody asks what there would be without the prompt


@torch.no_grad()
def test_guidance_can_be_limited_to_an_interval(model: Counting) -> None:
    text, null = text_of(5), text_of(1, seed=1)
    velocity = guided(model, text, null, 3.0, interval=(0.2, 0.8))
    plain = guided(model, text, None)
    for level, same in ((0.9, True), (0.5, False), (0.1, True)):
        levels = torch.full((2, 3), level)
        assert torch.allclose(velocity(LATENTS, levels, levels), plain(LATENTS, levels, levels), atol=1e-5) == same


@torch.no_grad()
def test_cues_reach_their_own_frames(model: Counting) -> None:
    first, second = text_of(4, batch=1), text_of(6, batch=1, seed=1)
    states, mask = cue_text([first, second], torch.tensor([0, 1, 1]))
    assert states.shape == (1, 10, 8) and mask.shape == (1, 3, 10)
    assert mask[0].sum(1).tolist() == [3, 5, 5]
    assert not mask[0, 0, 4:].any() and not mask[0, 1:, :4].any()
    one = cue_text([first, second], torch.tensor([1, 1, 1]))
    assert torch.allclose(model(LATENTS[:1], LEVELS[:1], *one), model(LATENTS[:1], LEVELS[:1], *second), atol=1e-5)
    guided(model, (states, mask), text_of(1, batch=1), 2.0)(LATENTS[:1], LEVELS[:1], LEVELS[:1])


def test_outside_its_interval_there_is_one_plain_pass(tiny_model: Path) -> None:
    """By the Generator: at levels below the interval the prompt alone counts, and the recipe says so."""

    def make(**options: Any) -> tuple[yozora.Clip, int]:
        generator = yozora.load(tiny_model, device="cpu", dtype=torch.float32, **options)
        rows: list[int] = []
        generator.bundle.transformer.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
        clip = generator.generate("a red ball", size=(64, 64), seconds=0.5, steps=6, guidance=4.0)
        return clip, sum(rows)

    whole, early, none = make(), make(interval=(0.5, 1.0)), make(interval=(0.0, 0.01))
    assert whole[1] == 12 and 6 < early[1] < 12 and none[1] == 6
    assert not np.array_equal(whole[0].frames, early[0].frames)
    assert early[0].recipe is not None and whole[0].recipe is not None
    assert (early[0].recipe.interval, whole[0].recipe.interval) == ("0.5:1", "")
    for wrong in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.5), (0.9, 0.2)):
        with pytest.raises(CanvasError, match="the lower first"):
            yozora.load(tiny_model, device="cpu", interval=wrong)
    for text in ("0.3", "a:b", "0:1:2", ""):
        with pytest.raises(CanvasError, match=r"LOW:HIGH"):
            parse_interval(text)
