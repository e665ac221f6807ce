"""The shipped inspector on renders, its parts on made-up masks, and folders that are not one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from yozora.clip import Clip
from yozora.errors import ModelError
from yozora.evaluate import Finding, film, following_prompts, inspect_clip, load_inspector, score
from yozora.evaluate.inspector import WEIGHTS
from yozora.models.folder import save_module
from yozora.models.inspector import Inspector, InspectorConfig, largest_part
from yozora.world.scene import COLOURS, SHAPES


def test_shipped_weights_are_small_and_know_every_name() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 2 * 2**20
    config = load_inspector().config
    assert config.colours == tuple(COLOURS)
    assert config.shapes == SHAPES


def test_renders_are_read_rightly() -> None:
    prompts = following_prompts(64)[:24:2]  # every second one names a direction
    assert all(prompt.direction for prompt in prompts)
    findings = [inspect_clip(film(prompt, (128, 128), 17, 8)) for prompt in prompts]
    scores = score(prompts, findings)
    assert len(prompts) == 12
    assert scores["colour"].right >= 11, list(zip(prompts, findings, strict=True))
    assert scores["shape"].right >= 10, list(zip(prompts, findings, strict=True))
    assert scores["direction"].right >= 11, list(zip(prompts, findings, strict=True))


def test_a_picture_has_no_direction() -> None:
    prompt = following_prompts(64)[1]
    finding = inspect_clip(film(prompt, (160, 96), 1, 12))
    assert finding.colour == prompt.colour
    assert finding.direction == ""


@pytest.mark.parametrize("size", [(1, 1), (17, 30), (128, 128)])
def test_an_empty_clip_shows_nothing(size: tuple[int, int]) -> None:
    grey = Clip(np.full((3, *size, 3), 128, np.uint8), 8)
    assert inspect_clip(grey) == Finding()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (33, 50), (64, 64)])
def test_output_grid_covers_any_size(height: int, width: int) -> None:
    network = Inspector(InspectorConfig(widths=(8, 8, 8), shape_widths=(8, 8)))
    frames, grid = torch.zeros(2, 3, height, width), ((height + 1) // 2, (width + 1) // 2)
    cells = network(frames)
    assert cells.thing.shape == (2, *grid)
    assert cells.colour.shape == (2, 10, *grid)
    assert network.shapes(frames, cells.thing.sigmoid(), torch.tensor([[0, 0, 1, 1]] * 2).float()).shape == (2, 6)


def test_the_square_around_a_thing_follows_it() -> None:
    network = Inspector(InspectorConfig(widths=(8, 8, 8)))
    frames, masks = torch.zeros(2, 3, 64, 96) - 1, torch.zeros(2, 32, 48)
    for n, (x, y) in enumerate([(4, 6), (30, 18)]):
        masks[n, y : y + 5, x : x + 7] = 1
        frames[n, :, 2 * y : 2 * y + 10, 2 * x : 2 * x + 14] = 0.5
    boxes = torch.tensor([[4, 6, 11, 11], [30, 18, 37, 23]]).float()
    one, other = network.shapes(frames, masks, boxes)
    assert torch.allclose(one, other, atol=1e-5)


def test_largest_part() -> None:
    mask = torch.zeros(3, 12, 16, dtype=torch.bool)
    mask[0, 1:4, 1:4] = True  # 9 cells
    mask[0, 4, 4] = True  # joined at a corner
    mask[0, 8:10, 8:14] = True  # 12 cells
    mask[1, 5, 2:9] = True
    parts = largest_part(mask)
    assert parts[0].sum() == 12 and parts[0, 8:10, 8:14].all()
    assert torch.equal(parts[1], mask[1])
    assert not parts[2].any()


def test_a_winding_part_stays_whole() -> None:
    mask = torch.zeros(1, 15, 15, dtype=torch.bool)
    for row in range(0, 15, 2):
        mask[0, row] = True
        mask[0, row + 1 : row + 2, -1 if row % 4 == 0 else 0] = True
    assert torch.equal(largest_part(mask), mask)


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    network = Inspector(InspectorConfig(widths=(8, 16), shape_widths=(8, 16)))
    save_module(network, tmp_path)
    again = load_inspector(tmp_path)
    frames = torch.rand(1, 3, 32, 32)
    assert again.config == network.config
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    torch.testing.assert_close(network(frames).colour, again(frames).colour)  # sums may differ by where weights lie


def test_folders_that_are_no_inspector(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load_inspector(tmp_path / "nowhere")
    with pytest.raises(ModelError):
        load_inspector(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(WEIGHTS, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError):
        load_inspector(broken)
