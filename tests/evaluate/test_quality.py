"""Measures of video quality: on sets of points and clips whose answers are known, and all of them on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import structural_similarity

import yozora
from yozora.clip import Clip
from yozora.evaluate import film, load_inspector, ssim
from yozora.evaluate.features import Points, frechet, kernel_distance, nearest, point_of, spread
from yozora.evaluate.pixels import flicker, smoothness, still_squares
from yozora.evaluate.quality import COLUMNS, quality
from yozora.evaluate.scenes import FIRST, draw_prompts, twins
from yozora.train.data import HELD_OUT_SEEDS
from yozora.world.describe import facts


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 8))


def moving_square(steps: list[int], size: int = 64) -> np.ndarray:
    """A white square on grey that moves by so many pixels each time."""
    frames = np.full((len(steps) + 1, size, size, 3), 90, np.uint8)
    for frame, x in zip(frames, np.cumsum([0, *steps]), strict=True):
        frame[20:36, x : x + 16] = 255
    return frames


def test_frechet_distance_of_a_set_to_itself_is_zero(points: np.ndarray) -> None:
    assert frechet(points, points) == pytest.approx(0, abs=1e-6)
    assert frechet(points, points[::-1]) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_a_shift_is_its_squared_length(points: np.ndarray) -> None:
    shift = np.arange(8.0)
    assert frechet(points, points + shift) == pytest.approx(np.square(shift).sum(), rel=1e-6)


def test_frechet_distance_of_a_scaling(points: np.ndarray) -> None:
    centred = points - points.mean(0)  # tr(A + 9 A - 2 * 3 A) = 4 tr A
    assert frechet(centred, 3 * centred) == pytest.approx(4 * np.trace(np.cov(centred, rowvar=False)), rel=1e-6)


def test_frechet_distance_of_few_points_in_many_dimensions() -> None:
    few = np.random.default_rng(1).normal(size=(3, 64))
    assert frechet(few, few) == pytest.approx(0, abs=1e-5)
    assert np.isfinite(frechet(few, few[:2] + 1))


def test_kernel_distance_tells_equal_from_other() -> None:
    random = np.random.default_rng(2)
    one, same, other = random.normal(size=(400, 8)), random.normal(size=(400, 8)), random.normal(1, 1, size=(400, 8))
    assert abs(kernel_distance(one, same)) < 0.2 < kernel_distance(one, other)


def test_spread_and_nearest(points: np.ndarray) -> None:
    assert spread(np.zeros((4, 3))) == 0
    assert spread(np.array([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(5)
    assert nearest(points[:5], points) == pytest.approx(np.zeros(5), abs=1e-6)
    assert nearest(np.zeros((1, 4)), np.full((2, 4), [[2.0], [7.0]])) == pytest.approx([2])


@pytest.mark.parametrize("size", [(11, 11), (64, 48)])
def test_ssim_agrees_with_scikit_image(size: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    one = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    other = np.clip(one + random.normal(0, 40, one.shape), 0, 255).astype(np.uint8)
    theirs: Any = structural_similarity(
        one, other, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(one, other) == pytest.approx(float(theirs), abs=1e-9)
    assert ssim(np.stack([one, one]), np.stack([one, other])) == pytest.approx((1 + float(theirs)) / 2, abs=1e-9)
    assert ssim(one, one) == pytest.approx(1)


def test_a_flickering_clip_flickers() -> None:
    steady = np.full((9, 32, 32, 3), 100, np.uint8)
    blinking = steady.copy()
    blinking[1::2] += 6
    assert flicker(steady) == 0
    assert flicker(blinking) == pytest.approx(12)  # |a - 2 (a + 6) + a|


def test_an_even_fade_does_not_flicker() -> None:
    fade = np.broadcast_to(np.arange(100, 106, dtype=np.uint8)[:, None, None, None], (6, 32, 32, 3))
    assert flicker(fade) == 0


def test_what_moves_is_no_flicker() -> None:
    frames = moving_square([4] * 8)
    still = still_squares(frames)
    assert still[0].all() and not still[3].all()
    assert flicker(frames) == 0
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    assert np.isnan(flicker(np.repeat(np.repeat(noise[:, ::8, ::8], 8, 1), 8, 2)))  # nothing stands still


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_frames_have_no_motion(count: int) -> None:
    frames = moving_square([4] * (count - 1))
    assert np.isnan(flicker(frames)) and np.isnan(smoothness(frames))


def test_an_even_pace_is_smoother_than_a_stutter() -> None:
    even, stutter = smoothness(moving_square([4] * 8)), smoothness(moving_square([8, 0] * 4))
    assert even > 0.95
    assert stutter == pytest.approx(0, abs=0.01)
    assert np.isnan(smoothness(np.full((9, 32, 32, 3), 7, np.uint8)))


def test_a_copied_clip_is_nearer_than_another() -> None:
    inspector = load_inspector()
    prompts = draw_prompts(4, FIRST["quality"], 1.0)
    points = Points.join([point_of(film(prompt, (64, 64), 5, 5), inspector) for prompt in prompts])
    copied, others = points.features[:1], points.features[1:]
    assert len(points) == 4
    assert nearest(copied, points.features)[0] < 1e-6 < nearest(copied, others)[0]
    assert nearest(points.small[:1], points.small)[0] < 1e-3 < nearest(points.small[:1], points.small[1:])[0]


def test_a_still_clip_has_no_change() -> None:
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8), 20, 0)
    point = point_of(Clip(frames, 8), load_inspector())
    assert point.change == pytest.approx(np.zeros_like(point.change), abs=1e-5)
    assert point.pace == pytest.approx(np.full_like(point.change, np.log(0.01)), abs=1e-3)
    assert point.small.shape == (1, 9 * 32 * 32 * 3)


def test_prompts_are_held_out_and_the_same_every_time() -> None:
    prompts = draw_prompts(6, FIRST["quality"], 2.0)
    assert prompts == draw_prompts(6, FIRST["quality"], 2.0) == draw_prompts(8, FIRST["quality"], 2.0)[:6]
    assert all(prompt.scene.seed >= HELD_OUT_SEEDS for prompt in prompts)
    assert len({prompt.text for prompt in prompts}) == 6


def test_twins_show_what_the_prompt_states() -> None:
    prompt = next(p for p in draw_prompts(8, FIRST["quality"], 2.0) if len(p.scene.bodies) == 1)
    found = twins(prompt, 3, 2.0)
    assert found
    for twin in found:
        shown = facts(twin.scene)
        assert (shown["colour"], shown["shape"]) == (prompt.colour, prompt.shape)
        assert twin.scene != prompt.scene


@pytest.mark.filterwarnings("ignore::yozora.create.YozoraWarning")  # the tiny model reads short prompts alone
def test_quality_of_a_tiny_model(tiny_model: Path) -> None:
    steps: list[tuple[int, int]] = []
    section = quality(yozora.load(tiny_model), 2, lambda done, total, what: steps.append((done, total)))
    rows = {row[0]: row[1:] for row in section.rows}
    assert section.columns == ("", *COLUMNS)
    assert "inspector" in section.about and "no FVD" in section.about
    assert all(rows["Fréchet distance of pictures"])
    assert rows["PSNR, dB"][:2] == ("", "") and "dB" in rows["PSNR, dB"][2]
    assert rows["distance between seeds of a prompt"][0]
    figures = section.figures["rows"]
    assert figures["Fréchet distance of pictures"]["model"] > figures["Fréchet distance of pictures"]["renders"]
    assert figures["SSIM"][COLUMNS[2]] < 1
    assert json.dumps(section.figures, allow_nan=False)
    assert len(section.clips) == 2 and section.clips[0].good is None
    assert [done for done, _ in steps] == list(range(len(steps)))
    assert steps[-1][0] <= steps[-1][1]
