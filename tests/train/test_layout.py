"""The second task of the transformer's training, and starting from smaller networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yozora.errors import ConfigError
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.layout import CLASSES, WALL, LayoutHead, body_maps, name_bodies, near_bodies, watched
from yozora.train.transformer import grow
from yozora.world import MIXES, render, sample_scene
from yozora.world.scene import COLOURS, SHAPES

TINY = TransformerConfig(channels=4, width=24, depth=2, heads=2, text_width=16, freq_dim=32)


def test_maps_show_the_bodies_where_the_picture_has_them() -> None:
    scene = next(s for s in (sample_scene(n, MIXES["simple"]) for n in range(50)) if len(s.bodies) == 2)
    maps = body_maps(scene, 128, 64, 9, 12.0, 0.25)
    assert maps.shape == (3, 8, 16) and maps.dtype == torch.uint8
    truth = render(scene, 128, 64, 9, 12.0, start=0.25, truth=True).truth
    assert truth is not None
    for latent, frame in enumerate((0, 2, 6)):  # the middle of what each latent frame covers
        centres = truth.ids[frame, 4::8, 4::8]
        assert (maps[latent].numpy() == centres).mean() > 0.97  # a cell's centre lies between four pixels


def test_names_are_those_of_the_bodies() -> None:
    scene = next(s for s in (sample_scene(n, MIXES["full"]) for n in range(300)) if s.walls)
    wall = len(scene.bodies) + 1
    named = name_bodies(scene, torch.tensor([[[0, 1, wall]]], dtype=torch.uint8))[0, 0]
    body = scene.bodies[0]
    assert named.tolist() == [
        [0, 0],
        [1 + SHAPES.index(body.shape), 1 + list(COLOURS).index(body.colour)],
        [WALL, 0],
    ]


def test_the_head_reads_each_cell_from_the_token_it_lies_in() -> None:
    """Trained on tokens that hold nothing but their own cells' classes, it names every cell."""
    random = np.random.default_rng(0)
    named = torch.from_numpy(random.integers(0, 9, (2, 3, 8, 12, 2)).clip(max=[CLASSES[0] - 1, CLASSES[1] - 1]))
    own = named.unflatten(3, (3, 4)).unflatten(2, (2, 4)).transpose(3, 4).flatten(4).flatten(2, 3)  # [B, T, S, 32]
    tokens = torch.nn.functional.one_hot(own, 12).flatten(3).float()
    head = LayoutHead(tokens.shape[-1], (1, 2, 2))
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(60):
        optimiser.zero_grad()
        loss, right = head.loss(tokens, named)
        loss.backward()
        optimiser.step()
    assert right > 0.99 and loss < 0.1


def test_a_fresh_head_does_not_disturb_what_it_reads() -> None:
    head = LayoutHead(16, (1, 2, 2))
    tokens = torch.randn(1, 2, 4, 16, requires_grad=True)
    loss, _ = head.loss(tokens, torch.ones(1, 2, 8, 8, 2, dtype=torch.long))
    loss.backward()
    assert tokens.grad is not None and not tokens.grad.any()
    assert head.out.weight.grad is not None and head.out.weight.grad.any()  # but it learns


def test_watching_ends() -> None:
    module = torch.nn.Linear(2, 3)
    with watched(module) as seen:
        module(torch.zeros(1, 2))
    module(torch.zeros(1, 2))
    assert [each.shape for each in seen] == [(1, 3)]


def test_a_grown_transformer_answers_as_before() -> None:
    torch.manual_seed(0)
    small = Transformer(TINY)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    large = grow(small, {"depth": 4, "absolute": True})
    assert large.config.depth == 4 and large.place is not None
    given = torch.randn(1, 4, 2, 4, 4), torch.rand(1, 2), torch.randn(1, 3, 16)
    torch.testing.assert_close(large(*given), small(*given))


def test_smaller_patches_begin_by_what_the_whole_ones_knew() -> None:
    """With clips that are even within each old patch the embedding is the same, and the answer is the mean over it."""
    torch.manual_seed(0)
    coarse = Transformer(TINY)
    for parameter in coarse.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    fine = grow(coarse, {"patch": [1, 1, 2], "spacing": 0.5})
    assert fine.config.patch == (1, 1, 2) and fine.config.spacing == 0.5
    even = torch.randn(1, 4, 3, 2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    before, after = coarse.patchify(even, (3, 2, 2)), fine.patchify(even, (3, 4, 2))
    torch.testing.assert_close(
        after.unflatten(2, (2, 2, 2)), before.unflatten(2, (2, 1, 2)).expand(-1, -1, -1, 2, -1, -1)
    )
    time = torch.zeros(1, 1, TINY.width)
    old, new = coarse.head(before, time), fine.head(before, time)
    rows = old.unflatten(-1, (2, 2, 4)).mean(2 + 1)  # [B, T, S, rows, columns, C] over the rows
    torch.testing.assert_close(new, rows.flatten(-2))
    with pytest.raises(ConfigError, match=r"does not fit \[model\]"):
        grow(coarse, {"patch": [1, 4, 4]})


def test_what_is_near_a_body_is_found() -> None:
    named = torch.zeros(1, 5, 8, 8, 2, dtype=torch.long)
    named[0, 0, 0, 1] = 2  # a body in the corner of the first frame
    named[0, 4, :, :, 0] = WALL  # which is no body
    near = near_bodies(named)
    assert near.shape == (1, 5, 4, 4)
    expected = torch.zeros(1, 5, 4, 4)
    expected[0, :2, :2, :2] = 1
    assert torch.equal(near, expected)


@pytest.mark.parametrize("change", [{"width": 48}, {"depth": 1}])
def test_a_transformer_does_not_shrink_or_change(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"does not fit \[model\]"):
        grow(Transformer(TINY), change)


@pytest.mark.parametrize("change", [{"heads": 1}, {"eps": 1e-3}, {"cross_norm": False}, {"spacing": 0.5}])
def test_what_no_shape_shows_does_not_change_either(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{next(iter(change))}: .* were made for .*, not "):
        grow(Transformer(TINY), change)
