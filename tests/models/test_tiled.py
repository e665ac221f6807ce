"""Decoding in tiles: the same in a stream and at once, exact where one tile is enough, and no seam to be seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from yozora.create import Generator
from yozora.create.generator import load
from yozora.errors import CanvasError
from yozora.models.tiled import Tiled, shares, spans


@pytest.fixture(scope="module")
def mini() -> Generator:
    return load("mini", "cpu", torch.float32)


def picture(width: int, height: int, frames: int) -> torch.Tensor:
    """Discs that move over a gradient, float32 [1, 3, frames, height, width] in -1..1."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    made = []
    for n in range(frames):
        frame = torch.stack((x, y, 1 - x))
        for row, column, colour in ((0.3, 0.3, 0.9), (0.55, 0.6, 0.1), (0.75, 0.4, 0.5)):
            disc = ((y - row) ** 2 + (x - column - 0.02 * n) ** 2) < 0.02
            frame = torch.where(disc, torch.tensor([colour, 1 - colour, 0.5])[:, None, None], frame)
        made.append(frame)
    return torch.stack(made, dim=1)[None] * 2 - 1


@pytest.mark.parametrize(("length", "tile"), [(16, 8), (17, 8), (60, 32), (104, 32), (5, 8), (9, 8)])
def test_tiles_cover_a_side_and_their_shares_add_up(length: int, tile: int) -> None:
    found = spans(length, tile)
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(end - start == min(tile, length) for start, end in found)
    assert all(before[1] - after[0] >= tile // 4 for before, after in pairwise(found))
    total = torch.zeros(length * 4)
    for span in found:
        total[span[0] * 4 : span[1] * 4] += shares(span, found, 4)
    assert torch.allclose(total, torch.ones(length * 4), atol=1e-6)


@torch.inference_mode()
def test_no_seam_and_the_same_in_a_stream(mini: Generator) -> None:
    whole = mini.bundle.autoencoder
    latents = whole.encode(picture(256, 192, 5))
    exact, tiled = whole.decode(latents), Tiled(whole, 128)
    made = tiled.decode(latents)
    assert made.shape == exact.shape
    error = float((made - exact).clamp(-1, 1).square().mean()) / 4
    assert -10 * np.log10(error) > 40
    assert tiled.decode_chunk(latents[:, :, :1], None, keep=False)[1] is None
    streamed = torch.cat(list(tiled.decode_stream(latents.split(1, dim=2))), dim=2)
    assert torch.allclose(streamed, made, atol=1e-5)
    assert torch.equal(Tiled(whole, 256).decode(latents), exact)  # one tile is the whole


def test_tiles_that_are_too_small(mini: Generator) -> None:
    with pytest.raises(CanvasError, match="tiles of 32 pixels are too small for this model: ask for 64 or more"):
        Tiled(mini.bundle.autoencoder, 32)


def test_a_model_decodes_in_tiles_and_says_so() -> None:
    generator = load("mini", "cpu", tile=64)
    clip = generator.generate("a red ball", size=(128, 128), seconds=0.1, steps=1, solver="flow-map")
    assert clip.frames.shape[1:3] == (128, 128)
    assert clip.recipe is not None and clip.recipe.tile == 64
