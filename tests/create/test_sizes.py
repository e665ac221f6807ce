"""Sizes and lengths: what fits the grid, and what is said about what does not."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yozora.create import Grid, Native, choose_size, frames_for
from yozora.create.sizes import MAX_SIDE, fit_size, misshapen, parse_aspect, parse_resolution, parse_size
from yozora.errors import CanvasError

GRID = Grid()
NATIVE = Native(sizes=((128, 128), (160, 96), (96, 160)), frames_max=25, fps=12.0)


def test_latent_frame_0_is_frame_0_and_every_other_one_is_four_frames() -> None:
    assert [GRID.latent_frames(frames) for frames in (1, 5, 9, 17)] == [1, 2, 3, 5]
    assert GRID.latent_shape(256, 128, 17) == (5, 8, 16)


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [(100, 130, "fit are 96x128 and 128x128$"), (10, 64, "fits is 32x64$"), (1, 1, "fits is 32x32$")],
)
def test_a_size_off_the_grid_names_the_nearest_that_fit(width: int, height: int, nearest: str) -> None:
    with pytest.raises(CanvasError, match=nearest):
        GRID.check_size(width, height)


@pytest.mark.parametrize("side", [0, -32, MAX_SIDE + 32, 10**9])
def test_a_side_out_of_range_is_refused(side: int) -> None:
    with pytest.raises(CanvasError):
        GRID.check_size(64, side)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_a_size_passes_or_is_a_line_and_the_sizes_named_pass(width: int, height: int) -> None:
    try:
        GRID.check_size(width, height)
    except CanvasError as error:
        assert "\n" not in str(error)
        if "nearest" in str(error):
            names = re.findall(r"\d+x\d+", str(error).split("nearest")[1])
            assert len(set(names)) == len(names) >= 1
            for name in names:
                GRID.check_size(*parse_size(name))
    else:
        assert width % 32 == height % 32 == 0


@given(st.floats(0.001, 60), st.floats(1, 120))
def test_the_length_made_is_the_nearest_that_fits(seconds: float, fps: float) -> None:
    frames = frames_for(seconds, fps, NATIVE)
    GRID.check_frames(frames)
    assert frames >= 1
    assert abs(frames - seconds * fps) <= 2 + 1e-6 or frames == 1


@pytest.mark.parametrize("seconds", [0, -1, -0.0, 10_000, 60.01, math.nan, math.inf, -math.inf])
def test_a_length_out_of_range_says_the_limit_and_the_trained_length(seconds: float) -> None:
    with pytest.raises(CanvasError, match=r"at most 60 s \(this model was trained on up to 2.08 s\)"):
        frames_for(seconds, 12.0, NATIVE)


def test_no_length_is_the_longest_trained() -> None:
    assert frames_for(None, 12.0, NATIVE) == 25


@given(st.floats(1 / 8, 8), st.floats(32 * 32, 2**21))
def test_a_fit_is_on_the_grid_and_near_in_shape_and_area(ratio: float, area: float) -> None:
    width, height = fit_size(ratio, area, GRID)
    GRID.check_size(width, height)
    # a side moves by at most one token, or up to the smallest one
    assert abs(width - math.sqrt(area * ratio)) <= 32
    assert abs(height - math.sqrt(area / ratio)) <= 32


def test_an_aspect_takes_a_trained_size_of_that_aspect_else_one_of_the_trained_area() -> None:
    assert choose_size(NATIVE) == (128, 128)
    assert choose_size(NATIVE, aspect="5:3") == (160, 96)
    assert choose_size(NATIVE, aspect="9:16") == (96, 160)
    assert choose_size(NATIVE, aspect="4:1") == (256, 64)
    assert choose_size(NATIVE, aspect="16:9", resolution="144p") in ((256, 160), (288, 160))
    assert choose_size(NATIVE, resolution=256) == (256, 256)
    assert choose_size(NATIVE, "64x96") == (64, 96)


@pytest.mark.parametrize(
    "size", ["", "64", "64x", "ax64", "64x64x64", "1e3x64", "6.4x64", "64x64\n64", "9" * 50 + "x64"]
)
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(CanvasError, match="is not a size"):
        parse_size(size)


@pytest.mark.parametrize("aspect", ["", "0:1", "1:0", "-1:1", "nan", "inf", "1:2:3", "wide", 0, -1.0, math.nan])
def test_what_is_no_aspect(aspect: str | float) -> None:
    with pytest.raises(CanvasError, match="is not an aspect"):
        parse_aspect(aspect)


@pytest.mark.parametrize("resolution", ["", "0", "-5", "p", "12.5p", "100000", 0, -1])
def test_what_is_no_resolution(resolution: str | int) -> None:
    with pytest.raises(CanvasError, match="is not a resolution"):
        parse_resolution(resolution)


@pytest.mark.parametrize("aspect", ["9:1", "1:9", "100:1", "1:1000000", "1e300:1", 0.001])
def test_any_shape_is_fitted(aspect: str | float) -> None:
    for resolution in (None, "480p", 4096):
        width, height = choose_size(NATIVE, aspect=aspect, resolution=resolution)
        GRID.check_size(width, height)
        assert (width > height) == (parse_aspect(aspect) > 1)
    wide = choose_size(NATIVE, aspect="9:1")
    assert 6 <= wide[0] / wide[1] <= 12


def test_the_flattest_shape_is_no_larger_than_what_was_trained() -> None:
    for aspect, size in (("100000:1", (1024, 16)), (1e-9, (16, 1024)), ("64:1", (1024, 16))):
        assert choose_size(Native(grid=Grid(16, 4, 1)), aspect=aspect) == size
    assert misshapen((1024, 16), "100000:1") == [
        "the aspect '100000:1' is flatter than this model can make: it becomes 1024x16"
    ]
    assert misshapen((1024, 16), "64:1") == misshapen((160, 96), "16:9") == misshapen((64, 64), None) == []


def test_what_is_far_above_what_was_trained_is_enlarged() -> None:
    assert not NATIVE.enlarges(128, 1.0) and not NATIVE.enlarges(96, 16 / 9)
    assert NATIVE.enlarges(480, 1.0) and NATIVE.enlarges(144, 16 / 9)
    (line,) = NATIVE.cautions(512, 512, 17, 12.0)
    assert "--enhance 1080p" in line


def test_a_size_and_an_aspect_exclude_each_other() -> None:
    with pytest.raises(CanvasError, match="not both"):
        choose_size(NATIVE, size=(64, 64), aspect="1:1")


def test_cautions_speak_of_what_is_outside_the_trained_range_only() -> None:
    assert NATIVE.cautions(128, 128, 17, 12.0) == []
    assert NATIVE.cautions(160, 96, 1, 1.0) == []  # a picture has no rate
    assert len(NATIVE.cautions(256, 256, 17, 12.0)) == 1
    assert len(NATIVE.cautions(256, 32, 33, 24.0)) == 3


def test_up_to_64_times_the_tokens_of_the_largest_trained_canvas() -> None:
    assert GRID.tokens(160, 96, 25) == 5 * 3 * 7
    NATIVE.check_tokens(1024, 1024, 25)  # 64 times 128x128
    NATIVE.check_tokens(128, 128, 1 + 4 * 447)
    with pytest.raises(CanvasError, match=r"1024 times .* 64 times is the limit: ask for a smaller size or fewer seco"):
        NATIVE.check_tokens(4096, 4096, 25)
    with pytest.raises(CanvasError, match="the limit"):
        NATIVE.check_tokens(1024, 1024, 29)
