"""What a run may ask for besides its canvas, with any model: how many steps, how much guidance, which seeds."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, cast

from yozora.errors import CanvasError

MAX_STEPS = 1000
MAX_GUIDANCE = 50.0
MAX_SEED = 2**63 - 1
MAX_VARIATIONS = 64


def check_steps(steps: int) -> None:
    """Raises CanvasError for a number of model evaluations that is none or out of range."""
    check_whole(steps, "steps")
    if not 1 <= steps <= MAX_STEPS:
        raise CanvasError(f"{shown(steps)} steps cannot be taken: use 1 to {MAX_STEPS}")


def check_guidance(guidance: float) -> None:
    """Raises CanvasError for a guidance that is no number or out of range."""
    check_number(guidance, "guidance")
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise CanvasError(f"guidance {shown(guidance)} is out of range: use 0 to {MAX_GUIDANCE:g} (1 is none)")


def check_reuse(dial: float) -> None:
    """Raises CanvasError for a dial of reuse between steps that is no number or out of range."""
    check_number(dial, "reuse")
    if not 0 <= dial <= 1:
        raise CanvasError(f"reuse {shown(dial)} is out of range: use 0 (off, exact) to 1")


def parse_interval(text: str) -> tuple[float, float]:
    """ "LOW:HIGH", noise levels between which there is guidance, as numbers. Raises CanvasError."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise CanvasError(f"interval {text[:40]!r} is not LOW:HIGH, two noise levels such as 0.3:1") from None
    check_interval((low, high))
    return low, high


def check_interval(interval: tuple[float, float]) -> None:
    """Raises CanvasError for what are no two noise levels, the lower one first."""
    for level in interval:
        check_number(level, "interval")
    if not 0 <= interval[0] < interval[1] <= 1:
        said = ":".join(map(shown, interval))
        raise CanvasError(
            f"interval {said} is none: use two noise levels from 0 (picture) to 1 (noise), the lower first"
        )


def check_tile(side: int) -> None:
    """Raises CanvasError for a side of tiles that is no whole number of pixels, or none."""
    check_whole(side, "tile")
    if side < 1:
        raise CanvasError(f"tiles of {shown(side)} pixels cannot be: ask for 256, say")


def check_variations(count: int) -> None:
    """Raises CanvasError for a batch that is empty or too large."""
    check_whole(count, "variations")
    if not 1 <= count <= MAX_VARIATIONS:
        raise CanvasError(f"{shown(count)} variations cannot be made at once: use 1 to {MAX_VARIATIONS}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises CanvasError for seeds, one a variation, that are too many, none, no whole numbers or out of range."""
    check_variations(len(seeds))
    for seed in seeds:
        check_whole(seed, "a seed")
        if not 0 <= seed <= MAX_SEED:
            raise CanvasError(f"seed {shown(seed)} is out of range: use 0 to {MAX_SEED}")


def as_seeds(seed: int | Sequence[int]) -> list[int]:
    """One seed, or several, as a list of Python's own numbers (NumPy's are taken, too). Raises CanvasError."""
    if isinstance(seed, (str, bytes)):
        check_whole(seed, "a seed")
    try:
        seeds: list[Any] = list(cast(Any, seed))
    except TypeError:
        seeds = [seed]
    check_seeds(seeds)
    return [int(each) for each in seeds]


def check_whole(value: Any, what: str) -> None:
    """Raises CanvasError for what is no whole number, of Python or NumPy; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise CanvasError(f"{what} must be a whole number, not {shown(value)}")


def check_number(value: Any, what: str) -> None:
    """Raises CanvasError for what is no real number, of Python or NumPy; True and False are none."""
    try:
        if isinstance(value, Real) and not isinstance(value, bool):
            float(value)
            return
    except OverflowError:  # a whole number of hundreds of digits
        pass
    raise CanvasError(f"{what} must be a number, not {shown(value)}")


def shown(value: Any) -> str:
    """A value as an error names it: one line, and short."""
    try:
        if isinstance(value, Real) and not isinstance(value, Integral):
            return f"{float(value):g}"
        text = " ".join(repr(value).split())
    except Exception:  # of a number of over 4300 digits, and of other people's objects
        return f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}…"
