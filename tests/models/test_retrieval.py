"""Clips beside the text: tokens of any size, silence where none is shown, and what guidance makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from yozora.diffusion import guided
from yozora.diffusion.beside import ShownClips, guided_beside
from yozora.diffusion.guidance import across
from yozora.errors import ModelError
from yozora.models.retrieval import Beside, RetrievalAdapter, RetrievalConfig, Shown
from yozora.models.transformer import Transformer, TransformerConfig

BASE = TransformerConfig(channels=2, width=24, depth=2, heads=2, text_width=8, freq_dim=8, patch=(1, 1, 1))
LATENTS, LEVELS = torch.randn(2, 2, 3, 4, 4), 0.5 + 0.5 * torch.rand(2, 3)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(BASE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def adapter() -> RetrievalAdapter:
    torch.manual_seed(1)
    adapter = RetrievalAdapter(RetrievalConfig(rank=4, clips=2, moments=2, patch=2, base=BASE))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return adapter.eval()


def text_of(length: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[0, length - 1 :] = length == 1
    return torch.randn(batch, length, 8, generator=torch.Generator().manual_seed(seed)), mask


def clips(count: int = 2, seed: int = 0, shape: tuple[int, ...] = (2, 5, 4, 6)) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5, 4, 6), (1, 3, 5), (2, 1, 1)])
def test_a_clip_of_any_size_is_some_tokens(adapter: RetrievalAdapter, shape: tuple[int, ...]) -> None:
    tokens = adapter.tokens(torch.randn(3, 2, 2, *shape))
    assert tokens.shape == (3, 2 * 2 * -(-shape[1] // 2) * -(-shape[2] // 2), BASE.width)
    one = adapter.tokens(torch.zeros(1, 1, 2, *shape))
    assert not torch.equal(adapter.tokens(torch.ones(1, 1, 2, *shape)), one)


def looked(adapter: RetrievalAdapter, model: Transformer, latents: Tensor, shown: Tensor) -> Shown:
    return adapter.look(model, latents[None].expand(len(shown), -1, -1, -1, -1, -1), shown)


@torch.no_grad()
def test_where_none_is_shown_it_answers_as_without(model: Transformer, adapter: RetrievalAdapter) -> None:
    text = text_of(5)
    shown = torch.tensor([[False, False], [True, False]])
    said = Beside(model)(LATENTS, LEVELS, *text, looked(adapter, model, clips(), shown))
    alone = model(LATENTS, LEVELS, *text)
    assert torch.equal(said[0], alone[0]) and not torch.allclose(said[1], alone[1], atol=1e-3)
    other = torch.stack([clips()[0], clips(seed=9)[1]])
    again = Beside(model)(LATENTS, LEVELS, *text, looked(adapter, model, other, shown))
    assert torch.allclose(again[1], said[1], atol=1e-5)  # what is not shown is not looked at


@torch.no_grad()
def test_each_frame_keeps_its_own_text_beside_clips(model: Transformer, adapter: RetrievalAdapter) -> None:
    states, mask = text_of(4)
    seen = looked(adapter, model, clips(), torch.ones(2, 2, dtype=torch.bool))
    one = Beside(model)(LATENTS, LEVELS, states, mask, seen)
    other = Beside(model)(LATENTS, LEVELS, states, mask[:, None].expand(-1, 3, -1), seen)
    assert torch.allclose(one, other, atol=1e-5)


@torch.no_grad()
def test_a_fresh_one_changes_nothing(model: Transformer) -> None:
    fresh = RetrievalAdapter(RetrievalConfig(rank=4, base=BASE)).eval()
    seen = looked(fresh, model, clips(), torch.ones(2, 2, dtype=torch.bool))
    said = Beside(model)(LATENTS, LEVELS, *text_of(5), seen)
    assert torch.allclose(said, model(LATENTS, LEVELS, *text_of(5)), atol=1e-6)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("projected", [False, True])
@torch.no_grad()
def test_guidance_by_clips_is_what_its_formula_says(
    model: Transformer, adapter: RetrievalAdapter, guidance: float, scale: float, projected: bool
) -> None:
    text, null, shown = text_of(5), text_of(1, batch=1, seed=1), clips()
    seen = looked(adapter, model, shown, torch.ones(2, 2, dtype=torch.bool))
    with_clips, alone = Beside(model)(LATENTS, LEVELS, *text, seen), model(LATENTS, LEVELS, *text)
    push = with_clips - model(LATENTS, LEVELS, null[0].expand(2, -1, -1), null[1].expand(2, -1))
    if projected:
        push = across(push, LATENTS, with_clips, LEVELS)
    expected = with_clips + (scale - 1) * (with_clips - alone) + (guidance - 1) * push
    velocity = guided_beside(model, text, null, guidance, ShownClips(adapter, shown, scale), projected)
    assert torch.allclose(velocity(LATENTS, LEVELS, LEVELS), expected, atol=1e-4)
    if projected:  # below the level of details nothing is pushed
        low = torch.full_like(LEVELS, 0.2)
        with_clips = Beside(model)(LATENTS, low, *text, seen)
        expected = with_clips + (scale - 1) * (with_clips - model(LATENTS, low, *text))
        assert torch.allclose(velocity(LATENTS, low, low), expected, atol=1e-4)
    if guidance == 1 and scale == 0:
        plain = guided(model, text, None)(LATENTS, LEVELS, LEVELS)
        assert torch.allclose(velocity(LATENTS, LEVELS, LEVELS), plain, atol=1e-4)


def test_another_transformers_is_refused(adapter: RetrievalAdapter) -> None:
    other = Transformer(TransformerConfig(channels=2, width=24, depth=3, heads=2, text_width=8, freq_dim=8))
    with pytest.raises(ModelError, match="of another transformer"):
        adapter.check(other)
    with pytest.raises(ValueError, match="rank must be from 1"):
        RetrievalConfig(rank=0)
