"""The canvas: size, length, rate, what is prompted when, and what is held how firmly.

Every way of creating is a canvas. A token that is held with `hold` h starts from the given picture at noise level 1 - h
(h = 1: kept as it is; h = 0: invented), which is the one rule `level = min(t, 1 - h)` of the sampler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from yozora.clip import Clip
from yozora.create.sizes import MAX_PIXELS, MAX_SECONDS, Grid, check_fps
from yozora.errors import CanvasError

MAX_PROMPT = 10_000  # characters
MAX_CUES = 64


@dataclass(frozen=True)
class Cue:
    """What the video shows from `start` seconds on, until the next cue."""

    start: float
    prompt: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise CanvasError(f"a prompt cannot start at {self.start:g} s: use 0 or more")
        check_prompt(self.prompt)


@dataclass(frozen=True, eq=False)
class Anchor:
    """A picture or clip, already of the canvas's size, that stands at frame `start` and is held there.

    `hold` is one number in [0, 1], or a curve: numbers spread evenly over the anchor and interpolated between. `source`
    is the file it came from, where known; a recipe refers to the anchor by it.
    """

    clip: Clip
    start: int = 0
    hold: float | tuple[float, ...] = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.start < 0:
            raise CanvasError(f"an anchor cannot start at frame {self.start}: use 0 or more")
        curve = self.curve
        if not curve or not all(math.isfinite(h) and 0 <= h <= 1 for h in curve):
            raise CanvasError(f"hold must be between 0 (invent) and 1 (keep), not {self.hold}")

    @property
    def curve(self) -> tuple[float, ...]:
        """`hold` as a curve."""
        return self.hold if isinstance(self.hold, tuple) else (self.hold,)

    @property
    def end(self) -> int:
        """The frame after its last."""
        return self.start + len(self.clip.frames)


@dataclass(frozen=True)
class HoldMap:
    """What a canvas holds. `hold` float32 [T] is each latent frame's hold, 0 where it is free. `frames` uint8
    [F, H, W, 3] runs from frame 0 to the last held one (free frames repeat the nearest held frame, so that the causal
    autoencoder has something calm to look back on); None where nothing is held."""

    hold: np.ndarray
    frames: np.ndarray | None


@dataclass(frozen=True)
class Canvas:
    """What a Generator fills: `frames` frames of `width` × `height` at `fps`, which follow `cues` and keep `anchors`.

    Raises CanvasError for anything that no model could fill; `check(grid)` adds what one model's grid asks.
    """

    width: int
    height: int
    frames: int
    fps: float
    cues: tuple[Cue, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    loop: bool = False
    negative: str = ""

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0 or self.frames <= 0:
            raise CanvasError(f"a canvas of {self.frames} frames of {self.width}x{self.height} is empty")
        check_fps(self.fps)
        # one latent frame of slack, because a length is rounded to the grid
        if self.seconds > MAX_SECONDS + 4 / self.fps:
            raise CanvasError(f"{self.seconds:.6g} s is too long: at most {MAX_SECONDS:g} s")
        if self.width * self.height * self.frames > MAX_PIXELS:
            raise CanvasError(
                f"{self.frames} frames of {self.width}x{self.height} are too much: "
                "ask for a smaller size or fewer seconds"
            )
        check_prompt(self.negative, what="negative prompt")
        self._check_cues()
        self._check_anchors()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def prompt(self) -> str:
        """The first cue's prompt."""
        return self.cues[0].prompt if self.cues else ""

    def check(self, grid: Grid) -> None:
        """Raises CanvasError where size, length or an anchor does not fall on the model's grid."""
        grid.check_size(self.width, self.height)
        grid.check_frames(self.frames)
        for anchor in self.anchors:
            for frame in (anchor.start, anchor.end):
                if frame and (frame - 1) % grid.temporal:
                    raise CanvasError(
                        "an anchor must cover whole latent frames: its first frame and the one after its last are 0 "
                        f"or 1 + {grid.temporal}k, not {anchor.start} and {anchor.end}"
                    )

    def hold_map(self, grid: Grid) -> HoldMap:
        """What is held on this grid. Raises CanvasError (see `check`)."""
        self.check(grid)
        hold = np.zeros(grid.latent_frames(self.frames), np.float32)
        if not self.anchors:
            return HoldMap(hold, None)
        anchors = sorted(self.anchors, key=lambda anchor: anchor.start)
        pieces: list[np.ndarray] = []
        filled = 0
        for anchor in anchors:
            first = grid.latent_frames(anchor.start) if anchor.start else 0
            last = grid.latent_frames(anchor.end)
            curve = anchor.curve
            hold[first:last] = np.interp(np.linspace(0, 1, last - first), np.linspace(0, 1, len(curve)), curve)
            before = pieces[-1][-1:] if pieces else anchor.clip.frames[:1]
            pieces += [np.repeat(before, anchor.start - filled, 0), anchor.clip.frames]
            filled = anchor.end
        return HoldMap(hold, np.concatenate(pieces))

    def cue_map(self, grid: Grid) -> np.ndarray:
        """int [T]: which cue each latent frame follows, by the time in the middle of the frames it covers."""
        latent = np.arange(grid.latent_frames(self.frames))
        middle = np.maximum(0, latent * grid.temporal - (grid.temporal - 1) / 2) / self.fps
        starts = np.array([cue.start for cue in self.cues] or [0.0])
        return np.maximum(0, np.searchsorted(starts, middle + 1e-9, side="right") - 1)

    def to_dict(self) -> dict[str, Any]:
        """The canvas for a recipe, JSON-able; anchors are referred to by their source, size and place."""
        return {
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "fps": self.fps,
            "cues": [{"start": cue.start, "prompt": cue.prompt} for cue in self.cues],
            "anchors": [
                {
                    "source": anchor.source,
                    "frames": len(anchor.clip.frames),
                    "start": anchor.start,
                    "hold": list(anchor.hold) if isinstance(anchor.hold, tuple) else anchor.hold,
                }
                for anchor in self.anchors
            ],
            "loop": self.loop,
            "negative": self.negative,
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Canvas:
        """Reads `to_dict`'s form, and each anchor from its source. Raises CanvasError, or MediaError for a source."""
        try:
            width, height = int(raw["width"]), int(raw["height"])
            cues = tuple(Cue(float(cue["start"]), str(cue["prompt"])) for cue in raw.get("cues", ()))
            anchors = tuple(_read_anchor(anchor, width, height) for anchor in raw.get("anchors", ()))
            frames, fps = int(raw["frames"]), float(raw["fps"])
            loop, negative = bool(raw.get("loop", False)), str(raw.get("negative", ""))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CanvasError(f"not a canvas: {type(error).__name__} {error}") from None
        return cls(width, height, frames, fps, cues, anchors, loop, negative)

    def _check_cues(self) -> None:
        if not self.anchors:
            check_prompt("".join(cue.prompt for cue in self.cues[:1]), needed=True)
        if len(self.cues) > MAX_CUES:
            raise CanvasError(f"{len(self.cues)} prompts are too many: at most {MAX_CUES}")
        starts = [cue.start for cue in self.cues]
        if starts and starts[0] != 0:
            raise CanvasError(f"the first prompt must start at 0 s, not {starts[0]:g} s")
        for before, after in pairwise(starts):
            if after <= before:
                raise CanvasError(f"prompts must be in order of time: one at {after:g} s follows one at {before:g} s")
        if starts and starts[-1] >= self.seconds:
            raise CanvasError(f"a prompt starts at {starts[-1]:g} s, after the end of the video ({self.seconds:.3g} s)")

    def _check_anchors(self) -> None:
        anchors = sorted(self.anchors, key=lambda anchor: anchor.start)
        for anchor in anchors:
            if anchor.clip.size != self.size:
                (w, h), (width, height) = anchor.clip.size, self.size
                raise CanvasError(f"an anchor is {w}x{h} and the canvas {width}x{height}: fit it to the canvas first")
            if anchor.end > self.frames:
                raise CanvasError(
                    f"an anchor covers frames {anchor.start} to {anchor.end - 1}, "
                    f"past the canvas's last, {self.frames - 1}"
                )
        for before, after in pairwise(anchors):
            if after.start < before.end:
                raise CanvasError(f"two anchors share frame {after.start}: move or shorten one")


def check_prompt(text: str, needed: bool = False, what: str = "prompt") -> None:
    """Raises CanvasError for a text that is too long, is not valid, or is blank where one is `needed`."""
    if needed and not text.strip():
        raise CanvasError(f"the {what} is empty: say what the video should show")
    if len(text) > MAX_PROMPT:
        raise CanvasError(f"the {what} has {len(text)} characters: at most {MAX_PROMPT}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CanvasError(f"the {what} is not valid text (UTF-8)") from None


def fit(clip: Clip, width: int, height: int) -> Clip:
    """The clip at width × height pixels: cropped about its centre to that aspect, then resized."""
    w, h = clip.size
    if w * height > h * width:
        cropped_w, cropped_h = max(1, round(h * width / height)), h
    else:
        cropped_w, cropped_h = w, max(1, round(w * height / width))
    left, top = (w - cropped_w) // 2, (h - cropped_h) // 2
    frames = clip.frames[:, top : top + cropped_h, left : left + cropped_w]
    return Clip(np.ascontiguousarray(frames), clip.fps, clip.recipe).resized(width, height)


def _read_anchor(raw: dict[str, Any], width: int, height: int) -> Anchor:
    source, hold = str(raw["source"]), raw["hold"]
    if not source:
        raise CanvasError("an anchor of this canvas did not come from a file and cannot be read again")
    clip = fit(Clip.read(Path(source), max_frames=int(raw["frames"])), width, height)
    return Anchor(clip, int(raw["start"]), tuple(map(float, hold)) if isinstance(hold, list) else float(hold), source)
