"""Anchors: what a canvas holds, where, and how firmly; and the map of it on a model's grid.

Anchors may overlap where their holds add up to at most 1: they are shares, and what is known there is their mean.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from yozora.clip import Clip
from yozora.create.composite import box_mean
from yozora.create.given import Fit, check_fit, take
from yozora.create.sizes import Grid
from yozora.errors import CanvasError

FEATHER = 2  # pixels over which an inpainted region fades in, inside of its mask


@dataclass(frozen=True, eq=False)
class Mask:
    """Where a held clip is to be invented after all: bool [n, H, W], True = invented; the last of fewer frames than the
    clip has is repeated. `source` is its file, where known."""

    white: np.ndarray
    source: str = ""


@dataclass(frozen=True, eq=False)
class Anchor:
    """A picture or clip, already of the canvas's size and rate, that stands at frame `start` and is held there.

    `hold` is one number in [0, 1], or a curve: numbers spread evenly over the anchor's latent frames and interpolated
    between. A recipe refers to the anchor by `source`, the file it came from, where known; by `fit`, how it was brought
    to the canvas's size; and by `skip`, which of its frames is the anchor's first (frames before its first or after its
    last repeat these).
    """

    clip: Clip
    start: int = 0
    hold: float | tuple[float, ...] = 1.0
    source: str = ""
    skip: int = 0
    fit: Fit = "crop"
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if self.start < 0:
            raise CanvasError(f"an anchor cannot start at frame {self.start}: use 0 or more")
        curve = self.curve
        if not curve or not all(math.isfinite(h) and 0 <= h <= 1 for h in curve):
            raise CanvasError(f"hold must be between 0 (invent) and 1 (keep), not {self.hold}")
        check_fit(self.fit)
        if self.mask is not None and self.mask.white.shape[1:] != self.clip.frames.shape[1:3]:
            raise CanvasError("a mask must be of its clip's size: fit it to the canvas first")

    @property
    def curve(self) -> tuple[float, ...]:
        """`hold` as a curve."""
        return self.hold if isinstance(self.hold, tuple) else (self.hold,)

    @cached_property
    def sha256(self) -> str:
        """Of its frames, and of its mask's, as they stand on the canvas: by it a recipe knows its source again."""
        digest = hashlib.sha256(self.clip.frames.tobytes())
        if self.mask is not None:
            digest.update(np.packbits(self.mask.white).tobytes())
        return digest.hexdigest()

    @property
    def end(self) -> int:
        """The frame after its last."""
        return self.start + len(self.clip.frames)

    def span(self, grid: Grid) -> tuple[int, int]:
        """Its first latent frame and the one after its last."""
        return (grid.latent_frames(self.start) if self.start else 0), grid.latent_frames(self.end)

    def holds(self, grid: Grid) -> np.ndarray:
        """The hold of each latent frame of its `span`, float32."""
        first, last = self.span(grid)
        places = np.linspace(0, 1, last - first), np.linspace(0, 1, len(self.curve))
        return np.interp(*places, self.curve).astype(np.float32)

    def shares(self, grid: Grid) -> np.ndarray:
        """The hold frame by frame, float32 [F]: even within what is held firmly, else rising or falling from the middle
        of each latent frame to the next."""
        first, last = self.span(grid)
        holds = self.holds(grid)
        begins = np.array([grid.first_frame(k) for k in range(first, last)]) - self.start
        ends = np.append(begins[1:], len(self.clip.frames)) - 1
        firm = holds == 1
        middles = (begins + ends) / 2
        places = np.stack([np.where(firm, begins, middles) - 1e-3, np.where(firm, ends, middles) + 1e-3], axis=1)
        return np.interp(np.arange(len(self.clip.frames)), places.ravel(), holds.repeat(2)).astype(np.float32)

    def cut(self, start: int, end: int, grid: Grid) -> Anchor | None:
        """What of it stands in the canvas's frames start ≤ f < end, as an anchor there, where frame `start` is number
        0; both must be borders of `Canvas.cut`. None where nothing does."""
        low, high = max(start, self.start), min(end, self.end)
        if low >= high:
            return None
        skip, count = low - self.start, high - low
        first = self.span(grid)[0]
        curve = self.holds(grid)[grid.latent_frame(low) - first : grid.latent_frame(high - 1) + 1 - first]
        mask = self.mask and replace(self.mask, white=take(self.mask.white, skip, count))
        clip = Clip(self.clip.frames[skip : skip + count], self.clip.fps)
        hold = tuple(map(float, curve))
        return replace(self, clip=clip, start=low - start, hold=hold, skip=self.skip + skip, mask=mask)


@dataclass(frozen=True)
class HoldMap:
    """What a canvas holds on a grid.

    `hold` float32 is 0 where it is free: [T] for latent frames, or [T, h, w] for tokens where something is masked.
    `frames` uint8 [F, H, W, 3] runs from frame 0 to the last held one; None where nothing is held. Free frames among
    them repeat a held one, so that the causal autoencoder has something calm to look back on. `kept` float32 [F], or
    [F, H, W], is 1 where a frame or a pixel comes back as it is.
    """

    hold: np.ndarray
    frames: np.ndarray | None
    kept: np.ndarray


def check_shares(anchors: Sequence[Anchor], frames: int, grid: Grid) -> None:
    """Raises CanvasError where anchors, each of whole latent frames, are held by more than 1 together."""
    total = np.zeros(grid.latent_frames(frames), np.float32)
    for anchor in anchors:
        first, last = anchor.span(grid)
        total[first:last] += anchor.holds(grid)
    if total.max() > 1 + 1e-4:
        frame = grid.first_frame(int(total.argmax()))
        raise CanvasError(f"two anchors are held at frame {frame}: move or shorten one, or hold both less")


def map_holds(anchors: Sequence[Anchor], frames: int, size: tuple[int, int], grid: Grid) -> HoldMap:
    """What `anchors`, each of whole latent frames, hold of a canvas that `check_shares` passed."""
    length, (width, height) = grid.latent_frames(frames), size
    if not anchors:
        return HoldMap(np.zeros(length, np.float32), None, np.zeros(0, np.float32))
    anchors = sorted(anchors, key=lambda anchor: anchor.start)
    masked = any(anchor.mask is not None for anchor in anchors)
    hold = np.zeros((length, height // grid.step, width // grid.step) if masked else length, np.float32)
    for anchor in anchors:
        first, last = anchor.span(grid)
        share = anchor.holds(grid)
        if masked:
            share = share[:, None, None] * ~_tokens(anchor, size, grid)
        hold[first:last] = np.maximum(hold[first:last], share)
    known, kept = _mix(anchors, size, masked, grid)
    return HoldMap(hold, known, kept)


def _mix(anchors: Sequence[Anchor], size: tuple[int, int], masked: bool, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """`frames` and `kept` of a HoldMap: each anchor in its place, the mean where several share one."""
    width, height = size
    count = max(anchor.end for anchor in anchors)
    frames = np.empty((count, height, width, 3), np.uint8)
    kept = np.zeros((count, height, width) if masked else count, np.float32)
    share, taken = np.zeros(count, np.float32), np.zeros(count, bool)
    for anchor in anchors:
        places, holds = range(anchor.start, anchor.end), anchor.shares(grid).tolist()
        for place, hold, frame in zip(places, holds, anchor.clip.frames, strict=True):
            if not taken[place]:
                frames[place] = frame
            elif hold:
                part = hold / (share[place] + hold)
                frames[place] = (frames[place] + (frame - frames[place].astype(np.float32)) * part).round()
            taken[place] = True
            share[place] += hold
            if hold == 1:
                kept[place] = 1 if anchor.mask is None else _outside(anchor.mask, place - anchor.start)
    _calm(frames, taken, grid.temporal)
    return frames, kept


def _calm(frames: np.ndarray, taken: np.ndarray, temporal: int) -> None:
    """Fills free frames: with the held one before, and just before a held one with that."""
    places = np.arange(len(frames))
    before = np.maximum.accumulate(np.where(taken, places, -1))
    after = np.minimum.accumulate(np.where(taken, places, len(frames))[::-1])[::-1]
    for place in places[~taken]:
        near = after[place] - place <= temporal or before[place] < 0
        frames[place] = frames[after[place] if near else before[place]]


def _tokens(anchor: Anchor, size: tuple[int, int], grid: Grid) -> np.ndarray:
    """bool [t, h, w]: the tokens of the anchor's latent frames in which anything is masked."""
    first, last = anchor.span(grid)
    rows, columns = size[1] // grid.step, size[0] // grid.step
    tokens = np.zeros((last - first, rows, columns), bool)
    if anchor.mask is not None:
        owners = grid.latent_frame(np.arange(anchor.start, anchor.end)) - first
        for frame, owner in enumerate(owners):
            white = take(anchor.mask.white, frame, 1)[0]
            tokens[owner] |= white.reshape(rows, grid.step, columns, grid.step).any((1, 3))
    return tokens


def _outside(mask: Mask, frame: int) -> np.ndarray:
    """float32 [H, W]: 1 outside of the mask, falling to 0 within its first pixels."""
    white = take(mask.white, frame, 1)[0]
    return 1 - np.where(white, np.clip(2 * box_mean(white, FEATHER) - 1, 0, 1), 0).astype(np.float32)
