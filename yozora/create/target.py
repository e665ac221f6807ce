"""What a clip is to be enhanced to: size, rate and fit, checked before any work and without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from yozora.clip import Recipe
from yozora.create.given import Fit, check_fit, crop_box, pad_box
from yozora.create.sizes import (
    MAX_SIDE,
    Grid,
    Native,
    check_fps,
    parse_aspect,
    parse_resolution,
    parse_size,
    within_sides,
)
from yozora.errors import CanvasError

MOST_TIMES = 120  # more frames than there were


@dataclass(frozen=True)
class Target:
    """Frames of `source` (width, height) at `source_fps` become frames of `size` at `fps`. Raises CanvasError."""

    source: tuple[int, int]
    source_fps: float
    size: tuple[int, int]
    fps: float
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        check_fit(self.fit)
        Grid(1, 1, 1).check_size(*self.size)
        if self.fps != self.source_fps:
            check_fps(self.fps)
        if self.step < Fraction(1, MOST_TIMES):
            raise CanvasError(f"{self.source_fps:g} to {self.fps:g} frames a second is too far: ask for fewer")

    @property
    def step(self) -> Fraction:
        """Frames of the source from one frame to the next."""
        return _exact(self.source_fps) / _exact(self.fps)

    def count(self, frames: int) -> int:
        """How many frames so many become: as near to the same length as there is, and at least one."""
        return max(1, math.floor(frames / self.step + Fraction(1, 2))) if frames else 0

    @property
    def crop(self) -> tuple[int, int, int, int]:
        """What of the source is used: left, top, width, height."""
        return crop_box(self.source, self.size) if self.fit == "crop" else (0, 0, *self.source)

    @property
    def inner(self) -> tuple[int, int]:
        """(width, height) of the picture on the frame: all of it, unless it is padded."""
        return pad_box(self.source, self.size)[2:] if self.fit == "pad" else self.size

    def recipe(self, recipe: Recipe | None, source: str = "") -> Recipe:
        """The clip's recipe, with what became of it under "enhance" in its canvas; of a clip that has none, or was
        enhanced before, `source` says which file it was."""
        recipe = recipe or Recipe()
        said: dict[str, Any] = {"size": list(self.size), "fps": self.fps, "fit": self.fit}
        if source and (not recipe.canvas or "enhance" in recipe.canvas):
            return replace(recipe, canvas={"enhance": said | {"source": source}})
        return replace(recipe, canvas=recipe.canvas | {"enhance": said})


def choose_target(
    source: tuple[int, int],
    source_fps: float,
    size: str | tuple[int, int] = "1080p",
    fps: float | None = None,
    fit: Fit = "crop",
    aspect: str | float | None = None,
) -> Target:
    """The target for frames of `source` (width, height) at `source_fps`. `size` is exact, (width, height) or
    "1920x1080", or the pixels of the short side, "1080p", of the source's shape unless another `aspect` is given; `fps`
    None keeps the rate. Raises CanvasError."""
    if isinstance(size, str):
        ratio = source[0] / source[1] if aspect is None else parse_aspect(aspect)
        exact = any(sign in size for sign in "xX×*")
        size = parse_size(size) if exact else _of_shape(ratio, parse_resolution(size))
    return Target(source, source_fps, size, source_fps if fps is None else fps, fit)


def enlarged(native: Native, aspect: str | float | None, resolution: str | int | None) -> str | None:
    """What a video is enhanced to, "1080p", where a resolution of that aspect is so far above what a model was trained
    on that a trained size, enlarged, is what to make; None where it is made as it is. Raises CanvasError."""
    if resolution is None:
        return None
    ratio = native.size[0] / native.size[1] if aspect is None else parse_aspect(aspect)
    short = parse_resolution(resolution)
    return f"{short}p" if native.enlarges(short, ratio) else None


def falls_short(size: str | tuple[int, int], target: Target) -> list[str]:
    """A line where the target's short side has fewer pixels than were asked for, because the long one has the most that
    there are."""
    if not isinstance(size, str) or any(sign in size for sign in "xX×*"):
        return []
    short, (width, height) = parse_resolution(size), target.size
    if min(width, height) >= short - 1:
        return []
    return [f"{short}p of this shape would have a side of over {MAX_SIDE} pixels: it becomes {width}x{height}"]


def check_even(path: Path, size: tuple[int, int]) -> None:
    """Raises CanvasError for a size that a video file of that name cannot have."""
    if path.suffix.lower() == ".mp4" and any(side % 2 for side in size):
        (width, height), (w, h) = size, (side // 2 * 2 for side in size)
        raise CanvasError(f"the sides of an MP4 are even, not {width}x{height}: ask for {max(2, w)}x{max(2, h)}")


def _of_shape(ratio: float, short: int) -> tuple[int, int]:
    """The size of that short side and shape, in even numbers, which every video format takes; smaller where a side
    would be larger than there is."""
    if short < 2:
        raise CanvasError(f"{short}p is too small: at least 2p")
    sides = within_sides(short * max(1.0, ratio), short * max(1.0, 1 / ratio))
    width, height = (2 * max(1, round(side / 2)) for side in sides)
    return width, height


def _exact(fps: float) -> Fraction:
    """A rate as a ratio of whole numbers, such as 30000 / 1001."""
    return Fraction(fps).limit_denominator(1001)
