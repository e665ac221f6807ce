"""Evening out latent frames: what stands still no longer pulses, what moves and what is cut stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from yozora.create.deblock import deblock


def boiling(groups: int, size: float, seed: int = 0) -> Tensor:
    """A still picture of 32x32 with other details of `size` in each latent frame: [1, 3, 1 + 4 groups, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(1, 3, 1, 32, 32, generator=generator) - 0.5
    details = size * torch.randn(1, 3, groups + 1, 32, 32, generator=generator)
    return torch.cat([picture + details[:, :, :1], (picture + details[:, :, 1:]).repeat_interleave(4, dim=2)], dim=2)


def steps(frames: Tensor) -> Tensor:
    return frames.diff(dim=2).abs().mean((0, 1, 3, 4))


def test_what_stands_still_changes_evenly() -> None:
    frames = boiling(5, 0.01)
    before, after = steps(frames), steps(deblock(frames, None, 4))
    assert before.amax() > 0.01 and (before == 0).sum() == 15  # all of it at the borders
    assert after.amax() < 0.35 * before.amax()
    assert after.amax() < 1.6 * after.amin()
    torch.testing.assert_close(deblock(frames, None, 4)[:, :, ::4], frames[:, :, ::4])  # and comes as far


def test_what_moves_and_a_cut_stay_as_they_are() -> None:
    moving = torch.zeros(1, 3, 9, 32, 32)
    for place in range(9):
        moving[:, :, place, 8:24, 2 * place : 2 * place + 8] = 1
    assert (deblock(moving, None, 4) - moving).abs().mean() < 0.01
    cut = boiling(2, 0.0)
    cut[:, :, 5:] = -cut[:, :, 5:] + 0.4
    assert (deblock(cut, None, 4) - cut).abs().mean() < 0.01


def test_a_stream_is_evened_as_one_piece_is() -> None:
    frames = boiling(4, 0.01)
    whole = deblock(frames, None, 4)
    begin = deblock(frames[:, :, :9], None, 4)
    rest = deblock(frames[:, :, 9:], begin[:, :, -1], 4)
    torch.testing.assert_close(torch.cat([begin, rest], dim=2), whole)


def test_a_picture_is_left_alone() -> None:
    picture = torch.rand(1, 3, 1, 16, 16)
    assert torch.equal(deblock(picture, None, 4), picture)
