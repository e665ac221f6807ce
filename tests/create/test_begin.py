"""Warm starts: sampling begins from another clip's latents, under fresh noise, and skips steps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from yozora.clip import Clip
from yozora.create import Canvas, Cue, Generator, Progress, load
from yozora.create.begin import Begin
from yozora.create.streaming import window_seed
from yozora.diffusion import SCHEDULES
from yozora.errors import CanvasError

CANVAS = Canvas(64, 64, 9, 8.0, (Cue(0, "a red ball"),))


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return load(tiny_model, "cpu", torch.float32)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(7))


def _run(generator: Generator, begin: Begin | None, steps: int = 8, seed: int = 0) -> tuple[int, Clip]:
    """How many times the model was asked, and what came of it."""
    *progress, clip = generator.run(CANVAS, seed, steps=steps, begin=begin)
    assert isinstance(clip, Clip)
    return sum(isinstance(each, Progress) and each.stage == "sample" for each in progress), clip


def test_steps_are_skipped(generator: Generator, latents: torch.Tensor) -> None:
    for share, count in ((0.0, 8), (0.25, 6), (0.5, 4), (0.99, 1)):
        assert _run(generator, Begin(latents, share))[0] == count
    assert [Begin(latents, 0.25).skipped(steps) for steps in (1, 2, 3, 5, 16)] == [0, 0, 1, 1, 4]


def test_fresh_noise_for_every_seed_and_the_same_for_the_same(generator: Generator, latents: torch.Tensor) -> None:
    one, again, other = (_run(generator, Begin(latents), seed=seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(one.frames, again.frames) and not np.array_equal(one.frames, other.frames)


def test_nothing_skipped_is_no_warm_start(generator: Generator, latents: torch.Tensor) -> None:
    assert np.array_equal(_run(generator, Begin(latents, 0.0))[1].frames, _run(generator, None)[1].frames)


def test_sampling_begins_where_the_schedule_is_after_the_skipped_steps(
    generator: Generator, latents: torch.Tensor
) -> None:
    levels = SCHEDULES["even"](8, 1.0)
    left, known, hold = Begin(latents, 0.25).start(levels, 3)
    assert torch.equal(left, levels[2:]) and known.shape == (1, 4, 3, 4, 4)
    assert torch.allclose(1 - hold, left[:1]) and hold.shape == (1, 3)
    noise = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(window_seed(3, 0)))
    begun = (1 - levels[2]) * latents + levels[2] * noise
    from yozora.diffusion.sampler import level_ceiling, start

    made = start(noise[None], known, level_ceiling(noise[None], known, hold), float(left[0]))
    assert torch.allclose(made[0], begun.float(), atol=1e-6)


def test_the_less_is_left_the_nearer_it_stays(generator: Generator) -> None:
    source = _run(generator, None, seed=9)[1]
    frames = torch.from_numpy(source.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.inference_mode():
        latents = generator.bundle.autoencoder.encode(frames)[0]
        own = generator.bundle.autoencoder.decode(latents[None])[0]

    def distance(share: float) -> float:
        made = _run(generator, Begin(latents, share), steps=16)[1]
        return float((torch.from_numpy(made.frames).permute(3, 0, 1, 2) / 127.5 - 1 - own).square().mean())

    assert distance(0.9) < distance(0.5) < distance(0.0)


def test_the_recipe_says_so(generator: Generator, latents: torch.Tensor) -> None:
    recipe = _run(generator, Begin(latents, 0.25, "clips/a.mp4"))[1].recipe
    assert recipe is not None and recipe.library == {"begin": "clips/a.mp4", "share": 0.25, "skipped": 2}


def test_longer_latents_are_cut_and_others_are_refused(generator: Generator, latents: torch.Tensor) -> None:
    assert _run(generator, Begin(torch.cat([latents, latents], 1), 0.25))[0] == 6
    for wrong in (latents[:, :2], latents[:3], latents[:, :, :2]):
        with pytest.raises(CanvasError, match="no start for a canvas"):
            _run(generator, Begin(wrong))
    with pytest.raises(CanvasError, match="made from text"):
        generator.loop(None, "a ball", begin=Begin(latents))
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(CanvasError, match="share"):
            Begin(latents, share)
    with pytest.raises(CanvasError, match="C, T, h, w"):
        Begin(latents[0])
