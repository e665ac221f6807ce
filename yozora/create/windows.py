"""Long videos: a canvas longer than the model's window is made in windows, each of which holds the end of what exists.

What is given in full is passed on and needs no window. A window starts at the last frame of a latent frame, because a
causal autoencoder's first latent frame is one frame, so it holds the last 1 + 4k frames of what exists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from yozora.clip import Clip
from yozora.create.anchors import Anchor
from yozora.create.canvas import Canvas
from yozora.create.sizes import Grid, Native

TAIL = 1  # latent frames of a loop's beginning that its end is made with


@dataclass(frozen=True)
class Window:
    """Latent frames of a canvas: `start` ≤ k < `end` are sampled together, of which those from `fresh` on are new. What
    is given in full is not `sampled`."""

    start: int
    fresh: int
    end: int
    sampled: bool = True


def plan(canvas: Canvas, native: Native) -> list[Window]:
    """The windows that make the canvas, in order of time. In a loop, the last ones reach TAIL beyond its end."""
    given = given_latents(canvas, native.grid)
    most, overlap = native.window, native.overlap
    length = len(given)
    last = bridge = length
    if canvas.loop:
        given = np.append(given, np.ones(TAIL, bool))
        bridge = last - max(1, min(most - overlap - TAIL, last // 2))
        bridge = max(bridge, 1 + int(np.flatnonzero(given[:last]).max(initial=-1)))  # after the last that is given
    windows: list[Window] = []
    done = 0
    while done < last:
        ahead = given[done:]
        run = len(ahead) if (ahead == ahead[0]).all() else int((ahead != ahead[0]).argmax())
        if ahead[0]:
            windows.append(Window(done, done, min(last, done + run), sampled=False))
            done = windows[-1].end
            continue
        held = min(overlap, done)
        parts = -(-(run + held - overlap) // (most - overlap))
        end = min(len(given), done - held + most) if parts <= 1 else done + -(-run // parts)
        if end < len(given) and given[end] and not given[end - 1]:
            end -= 1  # what comes next must be seen
        if done < bridge < end and canvas.loop:
            end = bridge
        windows.append(Window(max(0, end - most), done, end))
        done = end
    return windows


def given_latents(canvas: Canvas, grid: Grid) -> np.ndarray:
    """bool [T]: the latent frames that are given in full and need not be made."""
    given = np.zeros(grid.latent_frames(canvas.frames), bool)
    for anchor in canvas.anchors:
        if anchor.mask is None:
            first, last = anchor.span(grid)
            given[first:last] |= anchor.holds(grid) == 1
    return given


def given_frames(canvas: Canvas, window: Window, grid: Grid) -> Iterator[np.ndarray]:
    """The frames uint8 [n, H, W, 3], a few at a time, of a window that is given in full."""
    place, end = grid.first_frame(window.fresh), grid.first_frame(window.end)
    while place < end:
        latent = int(grid.latent_frame(place))
        for anchor in canvas.anchors:
            first, last = anchor.span(grid)
            if anchor.mask is None and first <= latent < last and anchor.holds(grid)[latent - first] == 1:
                stop = grid.first_frame(latent + 1)
                yield anchor.clip.frames[place - anchor.start : stop - anchor.start]
                place = stop
                break


class Past:
    """The frames of one video that later windows look back on: the last few, and a loop's first few."""

    def __init__(self, canvas: Canvas, native: Native) -> None:
        self.recent: deque[np.ndarray] = deque(maxlen=native.grid.temporal * native.window)
        self.first: list[np.ndarray] = []
        self.skip, self.wanted = canvas.trim[0], native.grid.temporal * TAIL if canvas.loop else 0

    def add(self, frames: np.ndarray) -> None:
        """Remembers frames that have been made."""
        for frame in frames:
            if self.skip > 0:
                self.skip -= 1
            elif len(self.first) < self.wanted:
                self.first.append(frame)
            self.recent.append(frame)

    def last(self, count: int) -> np.ndarray:
        """The last `count` frames."""
        return np.stack(list(self.recent)[len(self.recent) - count :])

    def beginning(self) -> np.ndarray:
        """The loop's first frames; the last of them is repeated where not enough exist."""
        first = self.first or [self.recent[-1]]
        return np.stack(first + first[-1:] * (self.wanted - len(first)))


def part_of(canvas: Canvas, window: Window, past: Past, grid: Grid) -> Canvas:
    """The canvas of a window: its part of `canvas`, the end of what exists held before it, and in a loop its beginning
    after it."""
    start = grid.temporal * window.start
    fresh = grid.first_frame(window.fresh)
    stop = min(canvas.frames, grid.first_frame(window.end))
    part = canvas.cut(start, stop, grid)
    made: list[Anchor] = []
    if fresh > start:
        made.append(Anchor(Clip(past.last(fresh - start), canvas.fps)))
    own = (anchor.cut(fresh - start, stop - start, grid) for anchor in part.anchors)
    kept = tuple(replace(anchor, start=anchor.start + fresh - start) for anchor in own if anchor)
    frames = stop - start
    if grid.first_frame(window.end) > canvas.frames:
        made.append(Anchor(Clip(past.beginning(), canvas.fps), frames))
        frames += grid.temporal * TAIL
    return replace(part, frames=frames, anchors=(*kept, *made))
