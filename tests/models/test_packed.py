"""A packed sequence says of each clip what the transformer says of it alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yozora.models.attention import attend
from yozora.models.packed import Parts, run_packed
from yozora.models.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(
    channels=4, width=24, depth=2, heads=2, ffn=2.0, text_width=16, patch=(1, 2, 2), absolute=True
)


def transformer_of(config: TransformerConfig = CONFIG) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(config)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def clips_of(sizes: list[tuple[int, int, int]], seed: int = 1) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    random = torch.Generator().manual_seed(seed)
    latents = [torch.randn(4, t, 2 * h, 2 * w, generator=random) for t, h, w in sizes]
    levels = [torch.rand(t, generator=random) for t, _, _ in sizes]
    texts = [torch.randn(1 + number % 3, 16, generator=random) for number in range(len(sizes))]
    return latents, levels, texts


SIZES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=30)
@given(st.lists(SIZES, min_size=1, max_size=5))
def test_each_clip_as_alone(sizes: list[tuple[int, int, int]]) -> None:
    transformer = transformer_of()
    latents, levels, texts = clips_of(sizes)
    with torch.no_grad():
        together = run_packed(transformer, latents, levels, texts)
        for x, at, text, made in zip(latents, levels, texts, together, strict=True):
            alone = transformer(x[None], at[None], text[None])[0]
            torch.testing.assert_close(made, alone, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_the_clips_alone() -> None:
    latents, levels, texts = clips_of([(3, 2, 2), (1, 1, 3), (1, 1, 3), (2, 3, 1)])
    packed, alone = transformer_of(), transformer_of()
    sum(made.square().sum() for made in run_packed(packed, latents, levels, texts)).backward()  # type: ignore[union-attr]
    for x, at, text in zip(latents, levels, texts, strict=True):
        alone(x[None], at[None], text[None]).square().sum().backward()
    for (name, one), other in zip(packed.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, atol=1e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_clip_does_not_see_another() -> None:
    transformer = transformer_of()
    latents, levels, texts = clips_of([(2, 2, 2), (3, 1, 2)])
    with torch.no_grad():
        before = run_packed(transformer, latents, levels, texts)[0]
        changed = run_packed(transformer, [latents[0], latents[1] + 5], levels, [texts[0], texts[1] - 3])[0]
    assert torch.equal(before, changed)


def test_parts_are_attention_under_a_block_diagonal_mask() -> None:
    random = torch.Generator().manual_seed(2)
    parts = Parts((3, 2, 2, 5), (1, 4, 4, 2))
    q, k, v = (torch.randn(1, 2, n, 8, generator=random) for n in (12, 11, 11))
    owner_q = torch.repeat_interleave(torch.arange(4), torch.tensor(parts.queries))
    owner_k = torch.repeat_interleave(torch.arange(4), torch.tensor(parts.keys))
    bias = torch.zeros(12, 11).masked_fill(owner_q[:, None] != owner_k[None], float("-inf"))
    torch.testing.assert_close(parts(q, k, v), attend(q, k, v, bias[None, None]))


def test_sizes_that_do_not_fit() -> None:
    transformer = transformer_of()
    latents, levels, texts = clips_of([(2, 2, 2)])
    with pytest.raises(ValueError, match="no multiple of the patch"):
        run_packed(transformer, [latents[0][..., :3]], levels, texts)
    with pytest.raises(ValueError, match="do not fit"):
        run_packed(transformer, latents, [levels[0][:1].expand(5)], texts)
    with pytest.raises(ValueError, match="zip"):
        run_packed(transformer, latents, [], texts)
