"""Convolutions by Winograd's algorithm, against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from yozora.models import winograd


@pytest.mark.parametrize("strip", [1, 2**22])
@pytest.mark.parametrize(
    ("known", "missing", "frames", "rows", "columns", "width", "out"),
    [
        (4, 0, 3, 8, 8, 5, 3),
        (3, 1, 3, 7, 9, 8, 6),  # no whole tiles at the ends
        (1, 2, 3, 6, 5, 8, 6),  # a video's first frame
        (2, 0, 1, 3, 2, 4, 4),  # pictures smaller than a tile
    ],
)
def test_it_is_torchs_convolution(
    known: int, missing: int, frames: int, rows: int, columns: int, width: int, out: int, strip: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(winograd, "STRIP", strip)
    torch.manual_seed(0)
    seen = torch.randn(known, rows + 2, columns, width)
    seen[:, 0] = seen[:, -1] = 0
    weight, bias = torch.randn(out, width, frames, 3, 3), torch.randn(out)
    before = torch.cat((seen.new_zeros(missing, *seen.shape[1:]), seen))
    exact = F.conv3d(before.permute(3, 0, 1, 2), weight, bias, padding=(0, 0, 1)).permute(1, 2, 3, 0)
    for each in (weight, winograd.lay_weight(weight)):
        assert torch.equal(each, weight)
        made = winograd.convolve(seen, each, bias, missing)
        assert made.shape == exact.shape == (known + missing - frames + 1, rows, columns, out)
        torch.testing.assert_close(made, exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_it_is_used_where_it_pays() -> None:
    wide, narrow = torch.empty(96, 64, 3, 3, 3), torch.empty(3, 96, 3, 3, 3)
    large, small = torch.empty(3, 66, 64, 64), torch.empty(1, 18, 16, 64)
    with torch.no_grad():
        assert winograd.pays(large, wide)
        assert not winograd.pays(large, narrow) and not winograd.pays(small, wide)
        assert not winograd.pays(large, wide.bfloat16())
    assert not winograd.pays(large, wide)  # it has no gradients
