"""Where one clip turns into another, the change goes by even steps; nowhere else are frames mixed."""

from __future__ import annotations

import numpy as np
import pytest

from yozora.clip import Clip
from yozora.create import Canvas, Grid, Native, blend, extend, fill, load, loop, remix
from yozora.create.pace import CLOSING, closing, even_pace, in_transition, leading_up
from yozora.create.windows import turn_of

GRID = Grid()
NATIVE = Native(sizes=((64, 64), (96, 64)), frames_max=25, fps=8.0)


def clip(frames: int, seed: int = 0) -> Clip:
    return Clip(np.random.default_rng(seed).integers(0, 256, (frames, 64, 64, 3), np.uint8), 8.0)


def brightening(frames: int, seed: int = 0) -> Clip:
    """A picture of a few large squares that grows brighter step by step. (Of frames of noise a mixture is nearer to
    both than they are to each other, so that no pace of theirs is even.)"""
    picture = np.random.default_rng(seed).integers(0, 200, (1, 4, 4, 3)).repeat(32, 1).repeat(32, 2)
    return Clip((picture + np.arange(frames)[:, None, None, None]).astype(np.uint8), 8.0)


def test_a_group_goes_in_equal_steps_from_the_frame_before_it_to_its_last() -> None:
    grey = np.array([10, 50, 66, 74, 90, 90, 91], np.uint8)
    frames = np.broadcast_to(grey[:, None, None, None], (7, 4, 6, 3)).copy()
    result = even_pace(frames, [(1, 5)])
    assert result[:, 0, 0, 0].tolist() == [10, 30, 50, 70, 90, 90, 91]
    assert (frames[:, 0, 0, 0] == grey).all()


def test_a_path_with_corners_goes_in_equal_steps_too() -> None:
    """Squares that change one after the other: across a corner a step is shorter than around it."""
    path = np.zeros((9, 8, 8, 3), np.uint8)
    for number in range(1, 9):
        path[number:, number - 1] = 25 * number
        path[number, :, 7] = 200 * (number % 2)  # and what comes and goes
    result = even_pace(path, [(1, 9)]).astype(np.float32)
    steps = np.abs(np.diff(result, axis=0)).mean((1, 2, 3))
    assert steps.max() <= 1.15 * steps.min(), steps  # 1.7 as it is, and 3.1 spaced but once
    assert np.array_equal(result[0], path[0]) and np.array_equal(result[-1], path[-1])


def test_what_stands_still_stays() -> None:
    frames = np.full((9, 4, 4, 3), 7, np.uint8)
    assert np.array_equal(even_pace(frames, [(1, 5), (5, 9)]), frames)


@pytest.mark.parametrize(
    ("canvas", "wanted"),
    [
        (lambda: blend(clip(25), clip(25, 1), native=NATIVE, curve="0:0,0.34:0,0.66:1,1:1"), [3]),
        (lambda: remix(clip(25), "a", native=NATIVE, strength=0.6), []),
        (lambda: extend(clip(13), "a", native=NATIVE), []),
        (lambda: fill([(0.0, clip(5)), (2.1, clip(8))], native=NATIVE), []),
    ],
)
def test_only_what_is_held_in_part_and_unevenly_is_in_transition(canvas, wanted: list[int]) -> None:
    assert np.flatnonzero(in_transition(canvas(), GRID)).tolist() == wanted


@pytest.mark.filterwarnings("ignore::yozora.create.YozoraWarning")
@pytest.mark.parametrize("frames", [9, 25, 41])
def test_a_blend_is_at_an_even_pace_and_ends_as_given(frames: int) -> None:
    generator = load("mini", "cpu")
    a, b = brightening(frames), brightening(frames, 1)
    canvas: Canvas = blend(a, b, native=generator.native)
    made = generator.run_many(canvas, [3], steps=1)[0].frames
    assert np.array_equal(made[0], a.frames[0]) and np.array_equal(made[-1], b.frames[-1])
    turning = np.flatnonzero(in_transition(canvas, generator.native.grid))
    assert len(turning)
    for latent in turning:
        start = generator.native.grid.first_frame(int(latent))
        path = made[start - 1 : start + 4].astype(np.float32)
        steps = np.abs(np.diff(path, axis=0)).mean((1, 2, 3))
        assert steps.max() <= 1.6 * steps.min() + 1, (latent, steps)


@pytest.mark.filterwarnings("ignore::yozora.create.YozoraWarning")
@pytest.mark.parametrize("given", [True, False])
def test_a_loop_closes_at_an_even_pace(given: bool) -> None:
    generator = load("mini", "cpu")
    native = generator.native
    rows, columns = np.indices((128, 128)) / 128
    waves = np.stack([np.sin(9 * columns + 9 * k * rows) * 90 + 128 for k in (1, 2, 3)], -1)
    moving = Clip(np.stack([np.roll(waves, 3 * f * f // 4, 1) for f in range(9)]).astype(np.uint8), native.fps)
    canvas = loop(moving if given else None, "a red ball bounces on the grass", native=native, seconds=2.0)
    made = generator.run_many(canvas, [3], steps=4)[0].frames
    turned = turn_of(canvas, native)
    assert bool(turned) is not given
    if given:
        assert np.array_equal(made[:9], moving.frames)
        closed = np.concatenate([made[-CLOSING:], made[:1]])
    else:
        closed = np.concatenate([made[-turned:], made[: turned + 1]])  # over its first frame, which follows its last
    steps = np.abs(np.diff(closed.astype(np.float32), axis=0)).mean((1, 2, 3))
    assert steps.max() <= 1.5 * steps.min(), steps  # over 4 without


def test_where_what_is_made_backward_leads_up_to_what_exists() -> None:
    assert leading_up(45) == (37, 46)
    assert leading_up(5) == (1, 6)


def test_where_a_loop_closes() -> None:
    assert closing(25, 0) == (13, 26)  # up to its first frame
    assert closing(25, 6) == (19, 31)
