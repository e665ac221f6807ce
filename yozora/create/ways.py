"""The ways of creating: each is a short function that draws a canvas. Those that join several things are in `join`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict, Unpack

from yozora.clip import Clip
from yozora.create.anchors import Anchor, Mask
from yozora.create.canvas import Canvas, Cue, check_prompt
from yozora.create.given import Fit, Given, Picture, open_given, read_mask, take
from yozora.create.sizes import Native, check_seconds, choose_size, frames_for, misshapen
from yozora.errors import CanvasError

STRENGTHS = {"subtle": 0.6, "mild": 0.85, "strong": 0.95}  # colours of what is given are seen up to a level of 0.9


class Asked(TypedDict, total=False):
    """What every way takes: the size (exact, or an aspect and a resolution), how what is given is fitted to it (cropped
    unless told), and what the video must not show. What is not said is as the model was trained and as what is given
    is."""

    size: str | tuple[int, int] | None
    aspect: str | float | None
    resolution: str | int | None
    fit: Fit
    negative: str


def text_to_video(prompt: str, *, native: Native, seconds: float | None = None, **asked: Unpack[Asked]) -> Canvas:
    """Nothing is held. What is not said is as the model was trained: its length, size and rate. Raises CanvasError."""
    return canvas_of(canvas_size(None, native, asked), frames_for(seconds, native.fps, native), prompt, native, asked)


def text_to_image(prompt: str, *, native: Native, **asked: Unpack[Asked]) -> Canvas:
    """A video of one frame. Raises CanvasError."""
    return canvas_of(canvas_size(None, native, asked), 1, prompt, native, asked)


def image_to_video(
    image: Picture, prompt: str = "", *, native: Native, seconds: float | None = None, **asked: Unpack[Asked]
) -> Canvas:
    """The first frame is held. `image` is a file, a Clip (its first frame counts) or uint8 [H, W, 3], fitted to the
    canvas, whose aspect is the picture's unless another is asked for. Raises CanvasError, MediaError."""
    given = open_given(image)
    size, how = canvas_size(given, native, asked), asked.get("fit", "crop")
    frames = frames_for(seconds, native.fps, native)
    anchor = Anchor(given.read(*size, native.fps, how, 1), 0, 1.0, given.path, fit=how)
    return canvas_of(size, frames, prompt, native, asked, (anchor,))


animate = image_to_video


def extend(
    clip: Picture,
    prompt: str = "",
    *,
    native: Native,
    seconds: float | None = None,
    backward: bool = False,
    **asked: Unpack[Asked],
) -> Canvas:
    """The clip is held and `seconds` (half the longest trained length unless told) are invented after it, or before it
    where `backward`. Raises CanvasError, MediaError."""
    given = open_given(clip)
    added = seconds_or(seconds, native.window // 2, native)
    if backward:
        held = _Held(given, native, asked)
        start = native.grid.nearest_frames(added, native.fps)
        rest = -held.count % native.grid.temporal
        anchor = held.anchor(start, 0, held.count + rest)
        notes = at_least(seconds, start, native, "what is added")
        return held.canvas(start + held.count + rest, prompt, anchor, (0, rest), notes=notes)
    return _onward(_Held(given, native, asked), prompt, added)


def loop(
    clip: Picture | None,
    prompt: str = "",
    *,
    native: Native,
    seconds: float | None = None,
    **asked: Unpack[Asked],
) -> Canvas:
    """Without a clip, a video of `prompt` that is `seconds` long and whose end leads into its beginning. With a clip,
    that is held, and `seconds` more lead from its end back to its beginning. Raises CanvasError, MediaError."""
    if clip is not None:
        added = seconds_or(seconds, native.window // 2, native)
        return _onward(_Held(open_given(clip), native, asked), prompt, added, loop=True)
    frames = max(1 + 2 * native.grid.temporal, frames_for(seconds, native.fps, native))
    notes = at_least(seconds, frames - 1, native, "a loop")
    return canvas_of(canvas_size(None, native, asked), frames, prompt, native, asked, loop=True, notes=notes)


def remix(
    clip: Picture, prompt: str, *, native: Native, strength: str | float = "mild", **asked: Unpack[Asked]
) -> Canvas:
    """The whole clip is held at 1 - `strength` (a name in STRENGTHS, or 0..1) under a new prompt. Raises CanvasError,
    MediaError."""
    hold = 1 - parse_strength(strength)
    check_prompt(prompt, needed=True)
    return _whole(_Held(open_given(clip), native, asked), prompt, hold, None)


def inpaint(clip: Picture, prompt: str, mask: Picture, *, native: Native, **asked: Unpack[Asked]) -> Canvas:
    """The clip is held but where `mask`, a picture or a clip of its shape, is white. Raises CanvasError, MediaError."""
    check_prompt(prompt, needed=True)
    given, painted = open_given(clip), open_given(mask)
    held = _Held(given, native, asked)
    white = read_mask(painted, given.size, *held.size, native.fps, held.fit)
    return _whole(held, prompt, 1.0, Mask(white, painted.path))


# ---- what they share -------------------------------------------------------------------------------------------------


class _Held:
    """A given clip at the canvas's size and rate, `count` frames, and the canvas that it is to stand on."""

    def __init__(self, given: Given, native: Native, asked: Asked) -> None:
        self.native, self.path, self.asked = native, given.path, asked
        self.fit: Fit = asked.get("fit", "crop")
        self.size = canvas_size(given, native, asked)
        self.frames = given.read(*self.size, native.fps, self.fit).frames
        self.count = len(self.frames)

    def anchor(self, start: int, skip: int, count: int, hold: float = 1.0, mask: Mask | None = None) -> Anchor:
        clip = Clip(take(self.frames, skip, count), self.native.fps)
        return Anchor(clip, start, hold, self.path, skip, self.fit, mask)

    def canvas(
        self,
        frames: int,
        prompt: str,
        anchor: Anchor,
        trim: tuple[int, int] = (0, 0),
        loop: bool = False,
        notes: Sequence[str] = (),
    ) -> Canvas:
        return canvas_of(self.size, frames, prompt, self.native, self.asked, (anchor,), loop, trim, notes)


def _onward(held: _Held, prompt: str, seconds: float, loop: bool = False) -> Canvas:
    """The whole clip, and more after it. Its first frame is repeated to bring its end onto the grid."""
    temporal = held.native.grid.temporal
    rest = -(held.count - 1) % temporal
    added = temporal * max(1, round(seconds * held.native.fps / temporal))
    anchor = held.anchor(0, -rest, rest + held.count)
    notes = at_least(seconds, added, held.native, "what is added")
    return held.canvas(rest + held.count + added, prompt, anchor, (rest, 0), loop, notes)


def _whole(held: _Held, prompt: str, hold: float, mask: Mask | None) -> Canvas:
    """The clip and nothing else. Its last frame is repeated to bring its end onto the grid."""
    rest = -(held.count - 1) % held.native.grid.temporal
    return held.canvas(held.count + rest, prompt, held.anchor(0, 0, held.count + rest, hold, mask), (0, rest))


def canvas_of(
    size: tuple[int, int],
    frames: int,
    prompt: str,
    native: Native,
    asked: Asked,
    anchors: Sequence[Anchor] = (),
    loop: bool = False,
    trim: tuple[int, int] = (0, 0),
    notes: Sequence[str] = (),
) -> Canvas:
    """A canvas of one prompt at the model's rate, with what is asked of every way. Raises CanvasError."""
    cues, negative = (Cue(0.0, prompt),), asked.get("negative", "")
    lines = (*notes, *misshapen(size, asked.get("aspect")))
    return Canvas(*size, frames, native.fps, cues, tuple(anchors), loop, negative, trim, notes=lines)


def canvas_size(given: Given | None, native: Native, asked: Asked) -> tuple[int, int]:
    """(width, height) as asked; else that of what is given, if the model makes such a size; else the trained size that
    is nearest to its shape. Raises CanvasError."""
    size, aspect, resolution = asked.get("size"), asked.get("aspect"), asked.get("resolution")
    if given is not None and size is None and aspect is None:
        if resolution is None and native.makes(*given.size):
            return given.size
        aspect = given.aspect
    return choose_size(native, size, aspect, resolution)


def seconds_or(seconds: float | None, latents: int, native: Native) -> float:
    """A length that is asked for, checked, or so many latent frames."""
    if seconds is None:
        return latents * native.grid.temporal / native.fps
    check_seconds(seconds)
    return seconds


def at_least(seconds: float | None, frames: int, native: Native, what: str) -> list[str]:
    """A line where so many `frames` are made of `what` because there cannot be fewer, and more than was asked for."""
    if seconds is None or frames / native.fps - seconds <= native.grid.temporal / 2 / native.fps + 1e-6:
        return []
    return [f"{what} takes at least {frames / native.fps:.2f} s with this model: {seconds:g} s were asked for"]


def parse_strength(strength: str | float) -> float:
    """0..1 from a name in STRENGTHS or a number. Raises CanvasError."""
    try:
        value = STRENGTHS.get(strength.strip(), strength) if isinstance(strength, str) else strength
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= 1:
        names = ", ".join(STRENGTHS)
        raise CanvasError(f"{str(strength)[:40]!r} is no strength: use {names}, or a number from 0 to 1")
    return value
