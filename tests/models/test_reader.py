"""The reader's network: what goes in, what comes out, and what it depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from yozora.models.folder import load_module, save_module
from yozora.models.inspector import Inspector, InspectorConfig
from yozora.models.reader import MOVES, Reader, ReaderConfig, clip_to_read, earlier, matches

TINY = ReaderConfig(
    {"size": ("small", "large"), "ground": ("sand", "snow", "grass")},
    frames=3,
    side=24,
    widths=(4, 6, 8),
    surface_widths=(4, 6),
)


def tiny() -> Reader:
    """A reader whose every weight matters."""
    torch.manual_seed(0)
    network = Reader(TINY)
    for parameter in network.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return network


def test_every_head_has_its_own_classes() -> None:
    logits = tiny()(torch.randn(2, 3, 4, 24, 24))
    assert {name: one.shape for name, one in logits.items()} == {"size": (2, 2), "ground": (2, 3)}


def test_materials_are_named_square_by_square() -> None:
    assert tiny().surface(torch.randn(5, 4, 32, 32)).shape == (5, 6)


def test_clips_of_a_batch_do_not_meet() -> None:
    network, clips = tiny(), torch.randn(3, 3, 4, 24, 24)
    together, alone = network(clips), network(clips[1:2])
    for name in TINY.heads:
        assert torch.allclose(together[name][1:2], alone[name], atol=1e-5)


def test_the_order_of_the_frames_matters() -> None:
    network, clips = tiny(), torch.randn(1, 3, 4, 24, 24)
    assert not torch.allclose(network(clips)["size"], network(clips.flip(1))["size"], atol=1e-3)


def test_earlier_keeps_the_first_frame_of_each_clip() -> None:
    x = torch.arange(6).float().view(6, 1, 1, 1)
    assert earlier(x, 3).flatten().tolist() == [0, 0, 1, 3, 3, 4]


def test_a_moved_square_matches_where_it_came_from() -> None:
    grey = torch.zeros(1, 2, 48, 48)
    grey[0, 0, 20:30, 20:30] = 1
    grey[0, 1, 22:32, 26:36] = 1  # two down, six to the right
    moves = [(y, x) for y in MOVES for x in MOVES]
    first, second = matches(grey, 6)
    assert moves[int(second[:, 3, 4].argmin())] == (2, 6)
    assert first[moves.index((0, 0))].eq(first.amin(0)).all()  # it has no frame before: nothing has moved
    assert not second[:, 0, 0].any()  # nothing to see there


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 30, 17), (25, 128, 128), (4, 96, 160)])
def test_any_clip_can_be_read(shape: tuple[int, int, int]) -> None:
    inspector = Inspector(InspectorConfig(widths=(4, 4), shape_widths=(4, 4))).requires_grad_(False)
    frames = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    clip = clip_to_read(frames, TINY, inspector)
    assert clip.shape == (3, 4, 24, 24)
    assert clip.abs().max() <= 1.05
    assert all(torch.isfinite(one).all() for one in tiny()(clip[None]).values())


def test_first_middle_and_last_frame_are_read() -> None:
    inspector = Inspector(InspectorConfig(widths=(4, 4), shape_widths=(4, 4))).requires_grad_(False)
    frames = torch.zeros(25, 24, 24, 3, dtype=torch.uint8)
    frames += (10 * torch.arange(25, dtype=torch.uint8))[:, None, None, None]
    levels = clip_to_read(frames, TINY, inspector)[:, :3].mean((1, 2, 3))
    assert torch.allclose(levels * 127.5 + 127.5, torch.tensor([0.0, 120.0, 240.0]), atol=0.01)


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    network, clips = tiny(), torch.randn(1, 3, 4, 24, 24)
    save_module(network, tmp_path)
    again = load_module(Reader, tmp_path)
    assert again.config == network.config
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    torch.testing.assert_close(network(clips)["ground"], again(clips)["ground"])  # sums may differ by where weights lie
