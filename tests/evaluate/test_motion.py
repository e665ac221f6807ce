"""The direction of a moving mask, from synthetic masks whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest

from yozora.evaluate.motion import FOCAL, direction, ground_step, track

FRAMES, HEIGHT, WIDTH = 25, 64, 64


def filmed(start: tuple[float, float], end: tuple[float, float], size: float = 0.9, width: int = WIDTH) -> np.ndarray:
    """Masks bool [T, H, W] of a square of `size` metres on the ground that slides from one place (x, y) to another, as
    seen by a camera 6 m back and 2 m up."""
    masks = np.zeros((FRAMES, HEIGHT, width), bool)
    for mask, part in zip(masks, np.linspace(0, 1, FRAMES), strict=True):
        x, y = np.array(start) + part * (np.array(end) - np.array(start))
        scale = FOCAL * HEIGHT / (6 + y)
        middle, bottom = width / 2 + x * scale, HEIGHT * 0.3 + 2.0 * scale
        left, right = max(0, round(middle - size / 2 * scale)), max(0, round(middle + size / 2 * scale))
        mask[max(0, round(bottom - size * scale)) : max(0, round(bottom)), left:right] = True
    return masks


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("left", (1.2, 0.0), (-1.2, 0.0)),
        ("right", (-1.2, 0.5), (1.2, 0.5)),
        ("towards", (0.0, 2.0), (0.0, -1.0)),
        ("away", (0.0, -1.0), (0.0, 2.0)),
        ("towards", (0.8, 2.0), (0.8, -1.0)),  # drifts outwards on the screen as it comes
        ("away", (-0.8, -1.0), (-0.8, 2.0)),
        ("right", (-0.3, 0.0), (0.3, 0.0)),
        ("", (0.4, 0.3), (0.4, 0.3)),
    ],
)
def test_direction_of_a_sliding_square(name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    assert direction(track(filmed(start, end))) == name


def test_the_step_is_what_was_walked() -> None:
    path = track(filmed((-0.6, 0.0), (0.6, 0.0)))
    sideways, deeper = ground_step(path, path.seen)
    # from the middle of the first quarter of the frames to the middle of the last: 19 of 24 steps
    assert sideways == pytest.approx(1.2 * 19 / 24 / 6, rel=0.05)
    assert abs(deeper) < 0.02


@pytest.mark.parametrize("sign", [1, -1])
def test_what_falls_or_grows_where_it_is_goes_nowhere(sign: int) -> None:
    still = filmed((0.3, 0.0), (0.3, 0.0))
    fallen = np.stack([np.roll(mask, t // 2 - 12, axis=0) for t, mask in enumerate(still)])
    assert direction(track(fallen[::sign])) == ""
    grown = np.concatenate([filmed((0.3, 0.0), (0.3, 0.0), size)[:1] for size in np.linspace(0.5, 1.2, FRAMES)])
    assert direction(track(grown[::sign])) == ""


def test_what_turns_back_goes_nowhere() -> None:
    there, back = filmed((-1.0, 0.0), (1.0, 0.0)), filmed((1.0, 0.0), (-0.6, 0.0))
    assert direction(track(np.concatenate([there, back]))) == ""


def test_a_wide_frame_does_not_matter() -> None:
    assert direction(track(filmed((-1.5, 0.0), (1.5, 0.0), width=112))) == "right"


def test_a_thing_that_leaves_the_frame() -> None:
    masks = filmed((0.0, 0.0), (4.0, 0.0))
    assert not masks[-1].any()
    assert direction(track(masks)) == "right"


def test_a_thing_that_appears_late() -> None:
    masks = filmed((1.0, 0.0), (-1.0, 0.0))
    masks[:8] = False
    assert direction(track(masks)) == "left"


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_too_few_frames_say_nothing(seen: int) -> None:
    masks = filmed((1.0, 0.0), (-1.0, 0.0))
    masks[seen:] = False
    assert direction(track(masks)) == ""


def test_track_of_known_rectangles() -> None:
    masks = np.zeros((2, 10, 20), bool)
    masks[0, 2:6, 5:9] = True
    masks[1, 0:1, 0:2] = True
    path = track(masks)
    assert path.area.tolist() == [16, 2]
    assert path.x.tolist() == [7, 1]
    assert path.y.tolist() == [4, 0.5]
    assert path.cut.tolist() == [False, True]
