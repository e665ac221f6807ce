"""Which sizes and lengths a model can make: its grid of tokens, and the nearest fit to what was asked for.

The autoencoder turns 16×16 pixels into one latent pixel, the transformer 2×2 latent pixels into one token, so a side is
a multiple of 32. Latent frame 0 covers frame 0 alone and latent frame k covers frames 4k-3 … 4k, so a video has
1 + 4k frames and one picture is a video of one frame. (The numbers are the default grid's.)
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

from yozora.create.limits import check_number, check_whole, shown
from yozora.errors import CanvasError

MAX_SECONDS = 60.0
MAX_SIDE = 4096
MAX_PIXELS = 2**32  # width × height × frames
MAX_TIMES = 64  # tokens sampled at once, against those of the largest canvas that the model was trained on
FPS_RANGE = (1.0, 120.0)
FAR = 2  # times the trained area, either way: beyond it a model hardly makes anything good


@dataclass(frozen=True)
class Grid:
    """How pixels become tokens: pixels a latent pixel, frames a latent frame, latent pixels a token (each side)."""

    spatial: int = 16
    temporal: int = 4
    patch: int = 2

    @property
    def step(self) -> int:
        """Pixels a token: width and height are multiples of it."""
        return self.spatial * self.patch

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a video of `frames` = 1 + 4k frames."""
        return 1 + (frames - 1) // self.temporal

    def latent_frame(self, frame: Any) -> Any:
        """The latent frame that frame number `frame` (an int, or an array of them) falls into."""
        return (frame + self.temporal - 1) // self.temporal

    def first_frame(self, latent: int) -> int:
        """The first frame of a latent frame."""
        return max(0, 1 + self.temporal * (latent - 1)) if latent else 0

    def latent_shape(self, width: int, height: int, frames: int) -> tuple[int, int, int]:
        """(latent frames, latent height, latent width)."""
        return self.latent_frames(frames), height // self.spatial, width // self.spatial

    def tokens(self, width: int, height: int, frames: int) -> int:
        """Tokens of a canvas."""
        return self.latent_frames(frames) * (height // self.step) * (width // self.step)

    def nearest_frames(self, seconds: float, fps: float) -> int:
        """The length 1 + 4k, in frames, that is nearest to so many seconds."""
        return 1 + self.temporal * max(0, round((seconds * fps - 1) / self.temporal))

    def check_size(self, width: int, height: int) -> None:
        """Raises CanvasError, naming the nearest sizes that fit, where a side is no multiple of the token."""
        for name, side in (("width", width), ("height", height)):
            check_whole(side, name)
            if side <= 0:
                raise CanvasError(f"{name} {shown(side)} is not a size: it must be positive")
            if side > MAX_SIDE:
                raise CanvasError(f"{name} {shown(side)} is too large: at most {MAX_SIDE} pixels")
        if width % self.step or height % self.step:
            sides = (dict.fromkeys(_around(side, self.step)) for side in (width, height))
            fit = sorted(itertools.product(*sides), key=lambda size: abs(size[0] - width) + abs(size[1] - height))
            first, *others = [f"{w}x{h}" for w, h in fit[:2]]
            nearest = f"nearest that fit are {first} and {others[0]}" if others else f"nearest that fits is {first}"
            raise CanvasError(f"size {width}x{height} is no multiple of {self.step}: the {nearest}")

    def check_frames(self, frames: int) -> None:
        """Raises CanvasError, naming the nearest lengths, where `frames` is not 1 + 4k."""
        check_whole(frames, "frames")
        if frames < 1:
            raise CanvasError(f"{shown(frames)} frames is not a length: use 1 + {self.temporal}k frames")
        if (frames - 1) % self.temporal:
            low = 1 + (frames - 1) // self.temporal * self.temporal
            raise CanvasError(
                f"{shown(int(frames))} frames is not 1 + {self.temporal}k: "
                f"the nearest that fit are {shown(int(low))} and {shown(int(low + self.temporal))}"
            )


@dataclass(frozen=True)
class Native:
    """What a model was trained on: its sizes (width, height), its shortest and longest videos, its rate, its grid."""

    sizes: tuple[tuple[int, int], ...] = ((128, 128),)
    frames_min: int = 1
    frames_max: int = 17
    fps: float = 8.0
    grid: Grid = Grid()

    @property
    def size(self) -> tuple[int, int]:
        """The size made when none is asked for: the first."""
        return self.sizes[0]

    @property
    def seconds_max(self) -> float:
        """The longest trained length in seconds."""
        return self.frames_max / self.fps

    @property
    def window(self) -> int:
        """Latent frames that are sampled together: the longest trained length, but at least 3, so that one can hold the
        end of another."""
        return max(3, self.grid.latent_frames(self.frames_max))

    @property
    def overlap(self) -> int:
        """Latent frames of a window that the next one holds, at least."""
        return min(max(2, self.window // 4), self.window - 2)

    def makes(self, width: int, height: int) -> bool:
        """Whether a size is on the grid and not far from what was trained."""
        areas = [w * h for w, h in self.sizes]
        on_grid = width % self.grid.step == 0 and height % self.grid.step == 0
        return on_grid and min(areas) / FAR <= width * height <= max(areas) * FAR

    def enlarges(self, short: int, ratio: float) -> bool:
        """Whether so many pixels of the short side, in a shape, are so far above what was trained that a trained size,
        enlarged, is what to make."""
        return short * short * max(ratio, 1 / ratio) > FAR * max(w * h for w, h in self.sizes)

    @property
    def tokens_max(self) -> int:
        """Tokens of the largest canvas that the model was trained on."""
        return max(self.grid.tokens(w, h, self.frames_max) for w, h in self.sizes)

    def at_once(self, width: int, height: int, frames: int, most: int) -> int:
        """How many canvases make a batch of no more tokens than `most` of the largest that the model was trained on: at
        most so many, and at least one."""
        tokens = self.grid.tokens(width, height, min(frames, self.frames_max))
        return max(1, min(most, most * self.tokens_max // tokens))

    def check_tokens(self, width: int, height: int, frames: int) -> None:
        """Raises CanvasError for a canvas so far above what was trained that hours of work would come to nothing."""
        times = self.grid.tokens(width, height, frames) / self.tokens_max
        if times > MAX_TIMES:
            raise CanvasError(
                f"{frames} frames of {width}x{height} are {times:.0f} times the most this model was trained on, and "
                f"{MAX_TIMES} times is the limit: ask for a smaller size or fewer seconds (--enhance 1080p enlarges)"
            )

    def cautions(self, width: int, height: int, frames: int, fps: float, shown: int | None = None) -> list[str]:
        """One line for each way in which a canvas lies outside what the model was trained on. `shown`: how many of its
        frames are not trimmed, if not all are."""
        lines = []
        areas = [w * h for w, h in self.sizes]
        shapes = [w / h for w, h in self.sizes]
        inside = min(areas) * 0.79 <= width * height <= max(areas) * 1.26
        if not (inside and min(shapes) * 0.99 <= width / height <= max(shapes) * 1.01):
            known = ", ".join(f"{w}x{h}" for w, h in self.sizes)
            way = ": things may come twice; a trained size that is enlarged (--enhance 1080p) looks better"
            larger = way if width * height > max(areas) * 1.26 else ""
            lines.append(f"{width}x{height} is outside the sizes this model was trained on ({known}){larger}")
        if not self.frames_min <= frames <= self.frames_max:
            span = f"{self.frames_min / self.fps:.2g} to {self.seconds_max:.3g} s"
            parts = ": it is made in overlapping parts" if frames > self.frames_max else ""
            lines.append(
                f"{(shown or frames) / fps:.3g} s is outside the lengths this model was trained on ({span}){parts}"
            )
        if frames > 1 and not math.isclose(fps, self.fps, rel_tol=0.01):
            lines.append(f"{fps:g} frames a second is not the rate this model was trained on ({self.fps:g})")
        return lines


def frames_for(seconds: float | None, fps: float, native: Native) -> int:
    """Frames nearest to `seconds` at `fps`; None is the model's longest trained video. Raises CanvasError for a length
    that is not finite, not positive or above MAX_SECONDS."""
    check_fps(fps)
    if seconds is None:
        return native.frames_max
    check_seconds(seconds, f" (this model was trained on up to {native.seconds_max:.3g} s)")
    return native.grid.nearest_frames(seconds, fps)


def choose_size(
    native: Native,
    size: str | tuple[int, int] | None = None,
    aspect: str | float | None = None,
    resolution: str | int | None = None,
) -> tuple[int, int]:
    """(width, height) for what was asked: an exact size, or the nearest fit to an aspect ("16:9" or width / height) and
    a resolution (pixels of the short side, "144p" or 144). Without a resolution, the trained size or the fit to the
    trained area that is nearest. Raises CanvasError."""
    if size is not None:
        if aspect is not None or resolution is not None:
            raise CanvasError("give a size, or an aspect and a resolution, not both")
        width, height = parse_size(size) if isinstance(size, str) else _pair(size)
        native.grid.check_size(width, height)
        return int(width), int(height)
    if aspect is None and resolution is None:
        return native.size
    ratio = native.size[0] / native.size[1] if aspect is None else parse_aspect(aspect)
    if resolution is None:
        area = native.size[0] * native.size[1]
        most = area / native.grid.step**2  # as flat as this area can be: one token high
        ratio = min(max(ratio, 1 / most), most)
        fits = (*native.sizes, fit_size(ratio, area, native.grid))
        return min(fits, key=lambda size: _misfit(size, ratio, size[0] * size[1] if size in native.sizes else area))
    short = parse_resolution(resolution)
    return fit_size(ratio, short * short * max(ratio, 1 / ratio), native.grid)


def misshapen(size: tuple[int, int], aspect: str | float | None) -> list[str]:
    """A line where a size is of a shape far from the aspect that was asked for. Raises CanvasError for what is none."""
    width, height = size
    if aspect is None or abs(math.log(width / height / parse_aspect(aspect))) < math.log(FAR):
        return []
    return [f"the aspect {shown(aspect)} is flatter than this model can make: it becomes {width}x{height}"]


def fit_size(ratio: float, area: float, grid: Grid) -> tuple[int, int]:
    """The (width, height) on the grid nearest to the width / height `ratio` and the `area` in square pixels, with no
    side larger than MAX_SIDE."""
    ideal = within_sides(math.sqrt(area * ratio), math.sqrt(area / ratio))
    columns, rows = (_around(round(side), grid.step) for side in ideal)
    options = [(w, h) for w in columns for h in rows]
    return min(options, key=lambda size: _misfit(size, ratio, area))


def within_sides(width: float, height: float) -> tuple[float, float]:
    """The same shape, smaller where a side is larger than MAX_SIDE."""
    scale = min(1.0, MAX_SIDE / max(width, height))
    return width * scale, height * scale


def parse_size(text: str) -> tuple[int, int]:
    """(256, 144) from "256x144". Raises CanvasError."""
    match = re.fullmatch(r"\s*(-?\d{1,9})\s*[xX×*]\s*(-?\d{1,9})\s*", text)
    if not match:
        hint = (
            "; for a short side such as 480p there is the resolution" if re.fullmatch(r"\s*\d+\s*[pP]\s*", text) else ""
        )
        raise CanvasError(f"{text[:40]!r} is not a size: write WIDTHxHEIGHT, for example 256x144{hint}")
    return int(match[1]), int(match[2])


def parse_aspect(aspect: str | float) -> float:
    """Width / height from "16:9", "16/9" or a number. Raises CanvasError for what is no shape."""
    if not isinstance(aspect, str):
        check_number(aspect, "aspect")
    parts = re.split("[:/]", aspect) if isinstance(aspect, str) else [aspect]
    try:
        across, down = (float(parts[0]), float(parts[1])) if len(parts) == 2 else (float(parts[0]), 1.0)
        ratio = across / down if len(parts) <= 2 and across > 0 and down > 0 else math.nan
    except (ValueError, ArithmeticError):
        ratio = math.nan
    if not 0 < ratio < math.inf:
        raise CanvasError(f"{shown(aspect)} is not an aspect: write for example 16:9, 1:1 or 9:16")
    return min(max(ratio, 1 / MAX_SIDE), MAX_SIDE)


def parse_resolution(resolution: str | int) -> int:
    """Pixels of the short side from "144p", "144" or 144. Raises CanvasError."""
    if isinstance(resolution, str):
        match = re.fullmatch(r"\s*(\d{1,6})\s*[pP]?\s*", resolution)
        short = int(match[1]) if match else 0
    else:
        check_whole(resolution, "resolution")
        short = int(resolution)
    if not 1 <= short <= MAX_SIDE:
        raise CanvasError(
            f"{shown(resolution)} is not a resolution: give the pixels of the short side, for example 128p or 256"
        )
    return short


def check_fps(fps: float) -> None:
    """Raises CanvasError for a rate out of range."""
    check_number(fps, "fps")
    low, high = FPS_RANGE
    if not low <= fps <= high:
        raise CanvasError(f"{shown(fps)} frames a second is not a rate: use {low:g} to {high:g}")


def check_seconds(seconds: float, note: str = "") -> None:
    """Raises CanvasError, whose line ends in `note`, for a length that is not finite, not positive or too long."""
    check_number(seconds, "seconds")
    if not 0 < seconds < math.inf:
        raise CanvasError(
            f"{shown(seconds)} s is not a length: ask for more than 0 and at most {MAX_SECONDS:g} s{note}"
        )
    if seconds > MAX_SECONDS:
        raise CanvasError(f"{shown(seconds)} s is too long: at most {MAX_SECONDS:g} s{note}")


def _pair(size: Any) -> tuple[Any, Any]:
    try:
        width, height = size
    except (TypeError, ValueError):
        raise CanvasError(f"{shown(size)} is not a size: give (width, height), for example (256, 144)") from None
    return width, height


def _misfit(size: tuple[int, int], ratio: float, area: float) -> float:
    """How far a size is from a shape and an area, in logarithms."""
    width, height = size
    return abs(math.log(width / height / ratio)) + abs(math.log(width * height / area))


def _around(side: int, step: int) -> tuple[int, int]:
    """The multiples of `step` at or below and at or above `side`, at least one step, at most the largest side."""
    low = max(step, side // step * step)
    return low, min(max(low, -(-side // step) * step), MAX_SIDE // step * step)
