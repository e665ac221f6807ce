"""Attention on a CPU, in pieces and whole, against torch's own in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from yozora.models import attention
from yozora.models.attention import attend


@pytest.mark.parametrize("piece", [1, 100, 2**20])
@pytest.mark.parametrize("shape", [None, (1, 1, 1, 13), (2, 1, 1, 13), (2, 1, 11, 13), (2, 3, 11, 13)])
@pytest.mark.parametrize("tiles", [False, True])
def test_pieces_are_the_whole(
    piece: int, shape: tuple[int, ...] | None, tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PIECE", piece)
    monkeypatch.setattr(attention, "TILES", tiles)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8).bfloat16() for n in (11, 13, 13))
    bias = None if shape is None else torch.randn(shape)
    exact = F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), None if bias is None else bias.bfloat16().float()
    )
    made = attend(q, k, v, bias)
    assert made.dtype == torch.bfloat16 and made.shape == exact.shape
    torch.testing.assert_close(made.float(), exact, rtol=0, atol=0.03)


def test_gradients_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PIECE", 1)
    torch.manual_seed(0)
    given = [torch.randn(1, 2, 5, 8).bfloat16() for _ in range(3)]
    for learned in range(3):
        parts = [each.clone().requires_grad_(n == learned) for n, each in enumerate(given)]
        exact = [each.float().detach().requires_grad_(n == learned) for n, each in enumerate(given)]
        attend(parts[0], parts[1], parts[2]).float().square().sum().backward()
        F.scaled_dot_product_attention(exact[0], exact[1], exact[2]).square().sum().backward()
        made, asked = parts[learned].grad, exact[learned].grad
        assert made is not None and asked is not None
        assert (made.float() - asked).norm() < 0.03 * asked.norm()
