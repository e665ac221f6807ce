"""Long videos: a canvas longer than the model's window is made in windows, each of which holds the end of what exists;
where the first that is given comes late, what is before it is made from there backward, in leads.

What is given in full is passed on and needs no window. A window starts at the last frame of a latent frame, because a
causal autoencoder's first latent frame is one frame, so it holds the last 1 + 4k frames of what exists. What a window
has made the next one holds as latents, and decoding goes on where it stopped: frames that are encoded again, or decoded
without what was before them, are not quite the same, which would show at the border.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from yozora.clip import Clip
from yozora.create.anchors import Anchor
from yozora.create.canvas import Canvas
from yozora.create.composite import Left
from yozora.create.sizes import Grid, Native
from yozora.models.autoencoder import State

TAIL = 2  # latent frames of a loop's beginning that its end is made with, at most


@dataclass(frozen=True)
class Window:
    """Latent frames of a canvas: `start` ≤ k < `end` are sampled together, of which those from `fresh` on are new. What
    is given in full is not `sampled`."""

    start: int
    fresh: int
    end: int
    sampled: bool = True


@dataclass(frozen=True)
class Lead:
    """Latent frames of a canvas before all that is given: `start` ≤ k < `end` are sampled together, of which those
    before `until` are new; the others exist. Of latent frame `start`, unless it is the canvas's first, a window knows
    one frame only: so it is no part of what is new, and is made by the lead before."""

    start: int
    until: int
    end: int

    @property
    def fresh(self) -> int:
        """The first latent frame that is new."""
        return self.start + 1 if self.start else 0


def plan_leads(canvas: Canvas, native: Native) -> list[Lead]:
    """What makes that which comes before all that is given, in the order of making: from there backward, each holding
    the beginning of what exists. None where one window sees all of it and what is given, and where nothing is."""
    given = given_latents(canvas, native.grid)
    done = int(given.argmax())
    after = given[done:]
    held = min(native.overlap, len(after) if after.all() else int(after.argmin()))
    if canvas.loop or not done or done + held <= native.window:
        return []
    leads: list[Lead] = []
    most = native.window - native.overlap - 1
    share = min(most, -(-done // -(-(done - 1) // most)))  # evenly; the earliest may be longer by one
    while done:
        leads.append(Lead(max(0, done - share - 1), done, done + held))
        done, held = leads[-1].fresh, native.overlap
    return leads


def plan(canvas: Canvas, native: Native) -> list[Window]:
    """The windows that make the canvas, in order of time, after the leads. In a loop, the last ones reach a tail beyond
    its end."""
    given = given_latents(canvas, native.grid)
    most, overlap = native.window, native.overlap
    last = bridge = len(given)
    if tail := tail_of(canvas, native):
        given = np.append(given, np.ones(tail, bool))
        bridge = last - max(1, min(most - overlap - tail, last // 2))
        bridge = max(bridge, 1 + int(np.flatnonzero(given[:last]).max(initial=-1)))  # after the last that is given
    windows: list[Window] = []
    leads = plan_leads(canvas, native)
    done = leads[0].until if leads else 0
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


def tail_of(canvas: Canvas, native: Native) -> int:
    """How many latent frames of a loop's beginning its end is made with: as many as leave room in a window for what
    comes before them, and are made by then. 0 where it is no loop."""
    if not canvas.loop:
        return 0
    room = native.window - native.overlap - 1
    return min(TAIL, room, TAIL if native.grid.latent_frames(canvas.frames) > 2 * TAIL else 1)


def turn_of(canvas: Canvas, native: Native) -> int:
    """By how many frames the video of a loop that turns begins later than the canvas, not counting the first: it begins
    and ends within a latent frame, where steps are small, that is made long before and, as part of the tail, last."""
    return native.grid.temporal * tail_of(canvas, native) - native.grid.temporal // 2 if canvas.turns else 0


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


@dataclass(frozen=True, eq=False)
class Decoded:
    """Where decoding stands: the decoder's state, and the last frame [1, 3, H, W] that came of it."""

    state: State
    last: Tensor


@dataclass(frozen=True, eq=False)
class Made:
    """What a window leaves to the next one: its latents [1, C, n, h, w], of which the first is the canvas's latent
    frame `first`, where decoding stands, and what is `left` of the difference to given frames."""

    first: int
    latents: Tensor
    decoded: Decoded
    left: Left | None

    @property
    def end(self) -> int:
        """The latent frame after the last."""
        return self.first + self.latents.shape[2]


class Past:
    """What of one video later windows look back on: the last few frames, a loop's first few, and what the window before
    has `made`, unless what came last was given. In a loop that turns, `begun` are the latents of its first few."""

    def __init__(self, canvas: Canvas, native: Native) -> None:
        self.made: Made | None = None
        self.begun: Tensor | None = None
        self.recent: deque[np.ndarray] = deque(maxlen=native.grid.temporal * native.window)
        self.first: list[np.ndarray] = []
        self.length, self.tail = native.grid.latent_frames(canvas.frames), tail_of(canvas, native)
        self.skip, self.wanted = canvas.trim[0] + canvas.turns, native.grid.temporal * self.tail

    def add(self, frames: np.ndarray) -> None:
        """Remembers frames that have been made."""
        for frame in frames:
            if self.skip > 0:
                self.skip -= 1
            elif len(self.first) < self.wanted:
                self.first.append(frame)
            self.recent.append(frame)

    def recall(self, known: Tensor, start: int) -> Tensor:
        """Known latents [1, C, T, h, w] of a window that starts at the canvas's latent frame `start`, with those that
        were made instead of those of their frames encoded again."""
        if self.made is None:
            return known
        # a window's first latent frame is one frame, unless the video's own is
        begin = max(self.made.first, start + 1 if start else 0)
        known = known.clone()
        known[:, :, begin - start : self.made.end - start] = self.made.latents[:, :, begin - self.made.first :]
        if self.begun is not None and start + known.shape[2] > self.length:
            known[:, :, -self.tail :] = self.begun
        return known

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
        frames += past.wanted
    return replace(part, frames=frames, anchors=(*kept, *made))


def part_before(canvas: Canvas, lead: Lead, made: np.ndarray | None, grid: Grid) -> Canvas:
    """The canvas of a lead: its part of `canvas`, at the end of which it holds what is given or, where a lead after it
    has `made` frames, their first."""
    start, until = grid.temporal * lead.start, grid.first_frame(lead.until)
    stop = min(canvas.frames, grid.first_frame(lead.end))
    part = canvas.cut(start, stop, grid)
    if made is None:
        return part
    own = tuple(cut for anchor in part.anchors if (cut := anchor.cut(0, until - start, grid)))
    return replace(part, anchors=(*own, Anchor(Clip(made[: stop - until], canvas.fps), until - start)))


def window_seed(seed: int, index: int) -> int:
    """The seed of a window's noise; that of the first is the video's own."""
    if not index:
        return seed
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> 1)
