"""The ways that join several things on one canvas: fill, blend, recut. (The storyboard has a file of its own.)"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Unpack

import numpy as np

from yozora.clip import Clip
from yozora.create.anchors import Anchor
from yozora.create.canvas import Canvas
from yozora.create.given import Fit, Given, Picture, open_given, take
from yozora.create.limits import check_number, shown
from yozora.create.sizes import MAX_SECONDS, Grid, Native, check_seconds
from yozora.create.ways import Asked, canvas_of, canvas_size
from yozora.errors import CanvasError

CURVES = ("transition", "mix")
NARROWEST = 0.3  # of a blend's length: how long a transition takes at least
TURN = 3  # a transition holds each by so high a power of its share: where both are held by a half, both are seen


@dataclass(frozen=True, eq=False)
class Card:
    """What is given, from `at` seconds on."""

    at: float
    given: Given

    @property
    def name(self) -> str:
        """What a message calls it."""
        return self.given.path or "what is given"


def fill(
    cards: Sequence[tuple[float, Picture]],
    prompt: str = "",
    *,
    native: Native,
    seconds: float | None = None,
    **asked: Unpack[Asked],
) -> Canvas:
    """Pictures and clips, each at its time in seconds, are held and all between is invented. Without `seconds` the
    video ends with the last of them, or is as long as the model was trained for if that is one picture. Raises
    CanvasError, MediaError."""
    if not cards:
        raise CanvasError("nothing is given: say what is seen at which time, for example 0=first.png")
    pairs = [(check_time(at), what) for at, what in check_pairs(cards, "a card is (seconds, picture)")]
    placed = [Card(at, open_given(what)) for at, what in sorted(pairs, key=lambda card: card[0])]
    size = canvas_size(placed[0].given, native, asked)
    frames = None
    if seconds is not None:
        check_seconds(seconds)
        frames = native.grid.nearest_frames(seconds, native.fps)
    anchors, notes, over = stand(placed, size, native, asked.get("fit", "crop"), frames)
    if frames is None:
        frames = anchors[-1].end if anchors[-1].end > 1 else native.frames_max
    return canvas_of(size, frames, prompt, native, asked, anchors, trim=(0, over), notes=notes)


def blend(
    a: Picture,
    b: Picture,
    prompt: str = "",
    *,
    native: Native,
    curve: str = "transition",
    seconds: float | None = None,
    **asked: Unpack[Asked],
) -> Canvas:
    """`a` at the left, `b` at the right: along the influence curve, from 0 to 1, the hold of `a` falls and that of `b`
    rises. Curves: "transition" from the one into the other, "mix" with both seen between, or points "x:y,x:y" with x
    the part of the time and y the share of `b`. Without `seconds` they overlap wholly, so that the change takes all the
    time there is. Raises CanvasError, MediaError."""
    points = parse_curve(curve)
    given, grid, how = (open_given(a), open_given(b)), native.grid, asked.get("fit", "crop")
    size = canvas_size(given[0], native, asked)
    first, second = (each.read(*size, native.fps, how).frames for each in given)
    if seconds is None:
        seconds = max(len(first), len(second)) / native.fps
    check_seconds(seconds)
    frames = max(1 + grid.temporal, grid.nearest_frames(seconds, native.fps))
    until = min(frames, 1 + (len(first) - 1) // grid.temporal * grid.temporal)
    since = max(0, frames - max(1, len(second) // grid.temporal) * grid.temporal)
    places = np.linspace(0, 1, grid.latent_frames(frames))
    share = _transition(places, until / frames, since / frames) if points is None else np.interp(places, *points)
    power = TURN if points is None else 1
    falling = tuple(map(float, ((1 - share) ** power)[: grid.latent_frames(until)]))
    rising = tuple(map(float, (share**power)[grid.latent_frame(since) :]))
    left = Clip(take(first, 0, until), native.fps)
    skip = len(second) - (frames - since)
    right = Clip(take(second, skip, frames - since), native.fps)
    anchors = (Anchor(left, 0, falling, given[0].path, 0, how), Anchor(right, since, rising, given[1].path, skip, how))
    return canvas_of(size, frames, prompt, native, asked, anchors)


def recut(
    clip: Picture,
    keep: Sequence[tuple[float, float]],
    prompt: str = "",
    *,
    native: Native,
    to: float | None = None,
    **asked: Unpack[Asked],
) -> Canvas:
    """The pieces of the clip between `keep`'s times in seconds stay where they are and all else is invented, up to `to`
    (the end of the last piece unless told). What is kept are the groups of frames nearest to a piece; where these are
    not quite the piece, the canvas notes it. Raises CanvasError, MediaError."""
    pieces = check_pieces(keep)
    if to is not None:
        check_seconds(to)
    given, grid, how = open_given(clip), native.grid, asked.get("fit", "crop")
    size = canvas_size(given, native, asked)
    frames = given.read(*size, native.fps, how).frames
    have = len(frames) / native.fps
    if pieces[-1][1] > have + 0.5 / native.fps:
        raise CanvasError(f"{pieces[-1][1]:g} s is past the end of the clip ({have:.3g} s): keep less of it")
    last = pieces[-1][1] if to is None else to
    if last < pieces[-1][1]:
        raise CanvasError(f"the last piece ends at {pieces[-1][1]:g} s, after {last:g} s: keep less of it")
    for start, end in pieces:
        if (end - start) * native.fps < 1 - 1e-6:
            frame = f"a frame ({1 / native.fps:.3f} s)"
            raise CanvasError(f"the piece from {start:g} to {end:g} s is shorter than {frame}: keep more of it")
    spans = [_latents_of(start * native.fps, end * native.fps, grid) for start, end in pieces]
    visible = max(1, round(last * native.fps))
    total = max(visible + -(visible - 1) % grid.temporal, spans[-1][1])
    anchors: list[Anchor] = []
    notes: list[str] = []
    for (start, end), (low, high) in zip(pieces, spans, strict=True):
        if len(frames) < high < total and high - grid.temporal > low:
            high -= grid.temporal
        if low >= visible:  # the group begins where the video ends: what is left of the piece is in the one before
            low, high = grid.first_frame(grid.latent_frame(low - 1)), low
        if high <= low or (anchors and low < anchors[-1].end):
            raise CanvasError(
                f"the piece from {start:g} to {end:g} s is too short or too near another: keep more of it"
            )
        anchors.append(Anchor(Clip(take(frames, low, high - low), native.fps), low, 1.0, given.path, low, how))
        ends = min(high, visible, len(frames))
        if max(abs(low - start * native.fps), abs(ends - end * native.fps)) > 0.5:
            kept = f"{low / native.fps:.2f} to {ends / native.fps:.2f} s"
            notes.append(f"the piece from {start:g} to {end:g} s is kept from {kept}: {_groups(grid)}")
    return canvas_of(size, total, prompt, native, asked, anchors, trim=(0, total - visible), notes=notes)


# ---- what they share -------------------------------------------------------------------------------------------------


def stand(
    cards: Sequence[Card], size: tuple[int, int], native: Native, how: Fit, frames: int | None = None, cut: float = 0.0
) -> tuple[list[Anchor], list[str], int]:
    """Each card, in order of time, as an anchor on the latent frames nearest to its time: a picture on one, a clip on
    the whole ones that it covers; the last of all, where no end (`frames`) is asked for, up to its last frame. Of two
    that fall on one the later moves on to the next, and of two that are less than `cut` seconds apart the first lasts
    up to the second. With them come a line for each that is moved or not whole, and by how many frames the last goes
    on beyond what is given. Raises CanvasError where two overlap, or one starts at or after the end."""
    grid, anchors, notes, over = native.grid, [], [], 0
    free = 0  # the frame after the last one that is really given
    for card in cards:
        moment = round(card.at * native.fps)
        if frames is not None and moment >= frames:
            raise CanvasError(
                f"{card.name} at {card.at:g} s is past the end of the video ({frames / native.fps:.3g} s)"
            )
        clip = card.given.read(*size, native.fps, how).frames
        first = grid.latent_frame(moment) if len(clip) == 1 else _border(moment, grid)
        if anchors and free <= moment:
            first = max(first, grid.latent_frames(anchors[-1].end))
        first = first if frames is None else min(first, grid.latent_frames(frames) - 1)
        start, free = grid.first_frame(first), moment + len(clip)
        last = frames is None and card is cards[-1] and len(clip) > 1
        until = start + len(clip)
        end = grid.first_frame(max(first + 1, grid.latent_frame(until - 1) + 1 if last else grid.latent_frames(until)))
        end, over = end if frames is None else min(end, frames), end - until if last else 0
        if anchors and start < anchors[-1].end:
            raise CanvasError(f"{card.name} at {card.at:g} s overlaps what is before it: move it or shorten that")
        if anchors and start - anchors[-1].end < cut * native.fps:
            anchors[-1] = _lasting(anchors[-1], start)
        anchors.append(Anchor(Clip(take(clip, 0, end - start), native.fps), start, 1.0, card.given.path, 0, how))
        notes += _given_way(card, len(clip), moment, anchors[-1], native, frames)
    return anchors, notes, over


def _given_way(
    card: Card, count: int, moment: int, anchor: Anchor, native: Native, frames: int | None
) -> Iterator[str]:
    """What is not as asked of a card of `count` frames that was to stand at frame `moment`."""
    grid, fps = native.grid, native.fps
    if anchor.start > moment or (moment >= anchor.end if count == 1 else moment > anchor.start):
        yield f"{card.name} is at {anchor.start / fps:.2f} s instead of {card.at:g} s: {_groups(grid)}"
    if (left := count - len(anchor.clip.frames)) > 0:
        why = "the video ends before them" if anchor.end == frames else _groups(grid)
        yield f"the last {left} of the {count} frames of {card.name} are left out: {why}"


def _groups(grid: Grid) -> str:
    return f"with this model what is given stands on whole groups of {grid.temporal} frames"


def check_time(at: float) -> float:
    """Raises CanvasError for a time that no video has."""
    check_number(at, "a time")
    if not (math.isfinite(at) and 0 <= at <= MAX_SECONDS):
        raise CanvasError(f"{shown(at)} s is no time in a video: use 0 to {MAX_SECONDS:g}")
    return float(at)


def check_pairs(pairs: Any, what: str) -> list[tuple[Any, Any]]:
    """What is given as pairs. Raises CanvasError, which says `what` one is."""
    try:
        return [(one, other) for one, other in pairs]
    except (TypeError, ValueError):
        raise CanvasError(f"{what}, and a list of them is needed, not {shown(pairs)}") from None


def check_pieces(keep: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pieces in order of time. Raises CanvasError for none, and for empty or overlapping ones."""
    if not keep:
        raise CanvasError("nothing is kept: say which piece, for example 0-1.5")
    pairs = check_pairs(keep, "a piece is (from, to) in seconds")
    pieces = sorted((check_time(start), check_time(end)) for start, end in pairs)
    for start, end in pieces:
        if end <= start:
            raise CanvasError(f"the piece from {start:g} to {end:g} s is empty: it must end after it starts")
    for before, after in pairwise(pieces):
        if after[0] < before[1]:
            raise CanvasError(f"two kept pieces overlap at {after[0]:g} s: make them one")
    return pieces


def parse_curve(curve: str) -> tuple[list[float], list[float]] | None:
    """The points' x and y; None is the transition, which depends on the clips. Raises CanvasError."""
    if not isinstance(curve, str):
        raise CanvasError(f"a curve is text, {', '.join(CURVES)} or x:y,x:y, not {shown(curve)}")
    if curve == "transition":
        return None
    if curve == "mix":
        return [0, 0.25, 0.75, 1], [0, 0.5, 0.5, 1]
    try:
        points = [(float(x), float(y)) for x, y in (point.split(":") for point in curve.split(","))]
    except ValueError:
        points = []
    inside = all(0 <= value <= 1 for point in points for value in point)
    rising = all(before[0] < after[0] for before, after in pairwise(points))
    if not (points and inside and rising):
        known = ", ".join(CURVES)
        raise CanvasError(f"{curve[:40]!r} is no curve: use {known}, or points x:y,x:y with rising x, all from 0 to 1")
    return [x for x, _ in points], [y for _, y in points]


def _transition(places: np.ndarray, until: float, since: float) -> np.ndarray:
    """0 while only the first is there (up to `since`), 1 when only the second is left (from `until` on)."""
    half = max(abs(until - since), NARROWEST) / 2
    middle = np.clip((until + since) / 2, half, 1 - half)
    return np.clip((places - middle + half) / (2 * half), 0, 1)


def _border(frame: int, grid: Grid) -> int:
    """The latent frame whose first frame is nearest."""
    return 0 if frame < 1 else 1 + round((frame - 1) / grid.temporal)


def _latents_of(start: float, end: float, grid: Grid) -> tuple[int, int]:
    """The first frame, and the one after the last, of the latent frames nearest to a piece between two times in frames:
    at least one of them."""
    first = _border(round(start), grid)
    return grid.first_frame(first), grid.first_frame(max(_border(round(end), grid), first + 1))


def _lasting(anchor: Anchor, end: int) -> Anchor:
    frames = take(anchor.clip.frames, 0, end - anchor.start)
    return Anchor(Clip(frames, anchor.clip.fps), anchor.start, 1.0, anchor.source, anchor.skip, anchor.fit)
