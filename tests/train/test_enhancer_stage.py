"""The enhancer's stage at a tiny size: rendered and filmed moments, what is done to them, and a run to the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from yozora.clip import Clip
from yozora.create.enhance import enhance_clip, load_enhancer
from yozora.errors import ConfigError, ModelError
from yozora.models.autoencoder import Autoencoder, AutoencoderConfig
from yozora.models.folder import save_module
from yozora.train import run
from yozora.train.config import EnhancerStage, Media, World
from yozora.train.enhancer import cut_alike, worsened
from yozora.train.moments import Moments, MomentSource
from yozora.train.settings import read_config

ROOT = Path(__file__).parents[2]
WORLD = World.model_validate({"mix": "simple", "buckets": [{"width": 32, "height": 32, "frames": 5, "batch": 2}]})


def write(folder: Path, **extra: str) -> Path:
    """A configuration in which each network is as small as can be."""
    lines = [
        *(f"{key} = {value}" for key, value in extra.items()),
        "crop = 16",
        f'[run]\nout = "{folder}/out"\nsteps = 2\nworkers = 0\nsample_every = 2\ndevice = "cpu"',
        "[optim]\nadamw = 1e-3\nmuon = 0.01\nwarmup = 1",
        '[world]\nmix = "simple"\nbuckets = [{ width = 32, height = 32, frames = 5, batch = 2 }]',
        "[model]\nwidth = 4\ndepth = 1\nreach = 1\nsearch_width = 4\nsearch_depth = 0\nrefine_width = 4",
    ]
    path = folder / "enhancer.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_run_makes_weights_that_enhance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    coder = Autoencoder(AutoencoderConfig(4, (8, 8, 8), (1, 1, 1), (8, 8, 8), (1, 1, 1)))
    save_module(coder, tmp_path / "coder")
    export = run("enhancer", write(tmp_path, autoencoder=f'"{tmp_path}/coder"'))
    assert list((tmp_path / "out" / "samples").iterdir())
    network = load_enhancer(export)
    assert any(parameter.abs().max() > 0 for parameter in network.upscaler.body.head.parameters())
    assert any(parameter.abs().max() > 0 for parameter in network.between.refine.head.parameters())
    clip = enhance_clip(Clip(np.zeros((2, 16, 16, 3), np.uint8), 12), "64p", 24, enhancer=network)
    assert clip.frames.shape == (4, 64, 64, 3)


def test_the_shipped_configuration_is_valid() -> None:
    config = read_config(EnhancerStage, ROOT / "configs" / "enhancer.toml")
    assert config.autoencoder is not None
    assert (ROOT / config.autoencoder).is_dir()


def check(batch: Moments) -> None:
    assert (batch.low.shape, batch.high.shape) == ((2, 3, 5, 32, 32), (2, 3, 128, 128))
    assert batch.middle.shape == (2, 3, 32, 32)
    assert ((batch.moment > 0) & (batch.moment < 1)).all()
    assert 0 <= batch.shown < 5
    assert 0 <= batch.first < 4


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).abs().mean())


def test_rendered_moments_are_of_one_scene_and_the_same_for_the_same_step() -> None:
    source = MomentSource(WORLD, None, 4, seed=1)
    for step in range(3):
        batch = source.batch(step)
        check(batch)
        assert torch.equal(batch.low, source.batch(step).low)
        shrunk = torch.nn.functional.avg_pool2d(batch.high.float(), 4)
        assert difference(shrunk, batch.low[:, :, batch.shown]) < 6
        neighbours = [batch.low[:, :, batch.first + i] for i in (0, 1)]
        assert all(difference(batch.middle, frame) <= difference(*neighbours) + 1 for frame in neighbours)
    assert not torch.equal(source.batch(0).low, source.batch(1).low)


def test_clips_give_every_second_frame_and_one_between(tmp_path: Path) -> None:
    frames = np.zeros((40, 140, 150, 3), np.uint8)
    frames += (5 * np.arange(40, dtype=np.uint8))[:, None, None, None]
    (tmp_path / "deep").mkdir()
    Clip(frames, 24).write(tmp_path / "deep" / "a.mp4")
    Clip(frames[:1, :100], 1).write(tmp_path / "small.png")
    (tmp_path / "notes.txt").write_text("no clip")
    batch = MomentSource(WORLD, Media(folder=tmp_path, share=1.0), 4, seed=0).batch(0)
    check(batch)
    levels = batch.low.float().mean((1, 3, 4))
    steps = levels.diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 10), atol=2)
    assert torch.allclose(batch.moment, torch.tensor(0.5))
    between = (levels[:, batch.first] + levels[:, batch.first + 1]) / 2
    assert torch.allclose(batch.middle.float().mean((1, 2, 3)), between, atol=2)
    assert torch.allclose(batch.high.float().mean((1, 2, 3)), levels[:, batch.shown], atol=2)


def test_a_clip_that_is_too_short_repeats_its_last_frame(tmp_path: Path) -> None:
    Clip(np.full((1, 128, 128, 3), 90, np.uint8), 1).write(tmp_path / "a.png")
    batch = MomentSource(WORLD, Media(folder=tmp_path, share=1.0), 4, seed=0).batch(0)
    check(batch)
    assert batch.low.unique().tolist() == [90]


def test_the_same_square_is_cut_from_both() -> None:
    low = torch.arange(24 * 20).float().reshape(1, 1, 20, 24)
    high = low.repeat_interleave(4, -1).repeat_interleave(4, -2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        small, large = cut_alike(low, high, 16, generator)
        assert torch.equal(torch.nn.functional.avg_pool2d(large, 4), small)


def test_half_of_the_frames_are_left_as_they_are() -> None:
    frames = torch.rand(400, 3, 8, 8) * 2 - 1
    changed = (worsened(frames, torch.Generator().manual_seed(0)) - frames).flatten(1).abs().amax(1)
    assert 250 < (changed > 0).sum() < 350  # half are blurred, half are noised
    assert changed.max() < 1.5


@pytest.mark.parametrize(
    ("extra", "error", "match"),
    [
        ({"autoencoder": '"nowhere"'}, ModelError, "no model folder"),
        ({"media": '{ folder = "nowhere" }'}, ConfigError, "no clip of 128x128 or more"),
        ({"media": '{ folder = "nowhere", share = 0 }'}, ConfigError, "share"),
        ({"coded": "2"}, ConfigError, "coded"),
    ],
)
def test_mistakes_are_found_at_the_start(
    tmp_path: Path, extra: dict[str, str], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        run("enhancer", write(tmp_path, **extra))


@pytest.mark.parametrize("change", ["crop=64", "world.buckets=[{width=32, height=32, frames=1, batch=1}]"])
def test_buckets_that_are_too_small(tmp_path: Path, change: str) -> None:
    with pytest.raises(ConfigError, match="each needs 5 frames"):
        run("enhancer", write(tmp_path), [change])
