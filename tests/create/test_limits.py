"""What is of the wrong type or out of range is refused in one short line; NumPy's numbers are as good as Python's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yozora.create.limits import as_seeds, check_guidance, check_seeds, check_steps, check_variations
from yozora.create.sizes import Grid, Native, check_fps, check_seconds, choose_size, frames_for
from yozora.errors import CanvasError


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


NO_NUMBERS = [
    None,
    "3",
    "",
    b"3",
    [],
    [1],
    (2,),
    {},
    True,
    False,
    np.bool_(True),
    2j,
    object(),
    Rude(),
    "x" * 9000,
    "a\nb",
]
NO_WHOLE_NUMBERS = [*NO_NUMBERS, 2.5, 2.0, math.nan, math.inf, np.float32(2)]
HUGE = 10**5000  # more digits than Python writes out
ANYTHING = st.one_of(
    st.sampled_from([*NO_WHOLE_NUMBERS, HUGE, -HUGE]), st.integers(), st.floats(), st.text(), st.lists(st.integers())
)

CHECKS: dict[str, Callable[[Any], object]] = {
    "steps": check_steps,
    "guidance": check_guidance,
    "variations": check_variations,
    "seeds": lambda value: check_seeds([value]),
    "a seed": as_seeds,
    "fps": check_fps,
    "seconds": check_seconds,
    "length": lambda value: frames_for(value, 12.0, Native()),
    "frames": Grid().check_frames,
    "width": lambda value: Grid().check_size(value, 64),
    "height": lambda value: Grid().check_size(64, value),
    "size": lambda value: choose_size(Native(), size=value),
    "sides": lambda value: choose_size(Native(), size=(value, value)),
    "aspect": lambda value: choose_size(Native(), aspect=value),
    "resolution": lambda value: choose_size(Native(), resolution=value),
}


def refusal(check: Callable[[Any], object], value: Any) -> str:
    """What is said against the value, or "" where it is taken."""
    try:
        check(value)
    except CanvasError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("what", CHECKS)
@given(value=ANYTHING)
def test_whatever_is_given_is_taken_or_refused_in_a_short_line(what: str, value: object) -> None:
    line = refusal(CHECKS[what], value)
    assert "\n" not in line and len(line) < 200


@pytest.mark.parametrize("what", ["steps", "variations", "seeds", "frames", "width", "height", "sides"])
@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_whole_number(what: str, value: object) -> None:
    assert "must be a whole number, not" in refusal(CHECKS[what], value)


@pytest.mark.parametrize("what", ["guidance", "fps", "seconds"])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number(what: str, value: object) -> None:
    assert f"{what} must be a number, not" in refusal(CHECKS[what], value)


@pytest.mark.parametrize("size", [(128,), (1, 2, 3), 128, 128.0, [], object(), True])
def test_what_is_no_pair(size: object) -> None:
    assert "is not a size" in refusal(CHECKS["size"], size)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_whole_numbers_of_numpy(kind: type) -> None:
    for what in ("steps", "variations", "seeds", "guidance", "fps", "seconds", "resolution"):
        assert refusal(CHECKS[what], kind(50)) == ""
    width, height = choose_size(Native(), size=(kind(128), kind(96)))
    assert (type(width), type(height)) == (int, int) and (width, height) == (128, 96)
    assert choose_size(Native(), size=np.array([128, 96], kind)) == (128, 96)  # type: ignore[arg-type]
    assert [type(seed) for seed in as_seeds(kind(3))] == [int]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_other_numbers_of_numpy(kind: type) -> None:
    for what in ("guidance", "fps", "seconds", "aspect"):
        assert refusal(CHECKS[what], kind(1.5)) == ""
    assert type(frames_for(kind(1.5), 12.0, Native())) is int


def test_seeds_are_one_or_several() -> None:
    assert as_seeds(7) == as_seeds(np.array([7])) == [7]  # type: ignore[arg-type]
    assert as_seeds([1, 2]) == as_seeds((1, 2)) == [1, 2]
    for seeds in ("12", b"12", [], ["1"], [[1]], None, -1, 2**63, range(65)):
        with pytest.raises(CanvasError):
            as_seeds(seeds)  # type: ignore[arg-type]
