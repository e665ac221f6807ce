"""The canvas: size, length, rate, what is prompted when, and what is held how firmly.

Every way of creating is a canvas. A token that is held with `hold` h starts from the given picture at noise level 1 - h
(h = 1: kept as it is; h = 0: invented), which is the one rule `level = min(t, 1 - h)` of the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from yozora.clip import Clip
from yozora.create.anchors import Anchor, HoldMap, Mask, check_shares, map_holds
from yozora.create.given import open_given, read_mask, take
from yozora.create.limits import check_number, check_whole, shown
from yozora.create.sizes import MAX_PIXELS, MAX_SECONDS, Grid, check_fps
from yozora.errors import CanvasError

MAX_PROMPT = 10_000  # characters
MAX_CUES = 64
MAX_SLACK = 8  # frames over a canvas's longest that bring it onto the grid


@dataclass(frozen=True)
class Cue:
    """What the video shows from `start` seconds on, until the next cue. `asked` is what somebody wrote, where `prompt`
    is a rewriting of it."""

    start: float
    prompt: str
    asked: str = ""

    def __post_init__(self) -> None:
        check_number(self.start, "the start of a prompt")
        if not 0 <= self.start < math.inf:
            raise CanvasError(f"a prompt cannot start at {shown(self.start)} s: use 0 or more")
        check_prompt(self.prompt)
        check_prompt(self.asked)


@dataclass(frozen=True)
class Canvas:
    """What a Generator fills: `frames` frames of `width` × `height` at `fps`, which follow `cues` and keep `anchors`.

    `loop` ties its end to its beginning. `trim` is how many frames at its beginning and end are left out of the video:
    they are there to bring what is given onto the grid. A `part` of a canvas need not have a prompt. `notes` are lines
    for whoever asked, one for each thing that had to give way to the model's grid; they are no part of a recipe.

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
    trim: tuple[int, int] = (0, 0)
    part: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("width", "height", "frames"):
            check_whole(getattr(self, name), name)
        if self.width <= 0 or self.height <= 0 or self.frames <= 0:
            raise CanvasError(f"a canvas of {self.frames} frames of {self.width}x{self.height} is empty")
        check_fps(self.fps)
        if self.seconds > MAX_SECONDS + MAX_SLACK / self.fps:
            raise CanvasError(f"{self.seconds:.6g} s is too long: at most {MAX_SECONDS:g} s")
        if self.width * self.height * self.frames > MAX_PIXELS:
            raise CanvasError(
                f"{self.frames} frames of {self.width}x{self.height} are too much: "
                "ask for a smaller size or fewer seconds"
            )
        check_prompt(self.negative, what="negative prompt")
        if min(self.trim) < 0 or sum(self.trim) >= self.frames:
            raise CanvasError(f"trimming {self.trim[0]} and {self.trim[1]} of {self.frames} frames leaves none")
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
    def turns(self) -> bool:
        """Whether it is a loop in which nothing is held: it may begin anywhere in its round. Its first frame, where the
        model begins, is no part of that."""
        return self.loop and not self.anchors

    @property
    def shown(self) -> int:
        """Frames of the video: all but those that are trimmed."""
        return self.frames - sum(self.trim) - self.turns

    @property
    def prompt(self) -> str:
        """The first cue's prompt."""
        return self.cues[0].prompt if self.cues else ""

    @property
    def layout(self) -> tuple[Any, ...]:
        """All of it but its words and pictures: canvases with the same layout can be made in one batch, which is at the
        same levels in all of its rows. No two masks are the same."""
        held = tuple((anchor.start, len(anchor.clip.frames), anchor.curve, anchor.mask) for anchor in self.anchors)
        return self.size, self.frames, self.fps, self.loop, self.trim, self.part, held

    def check(self, grid: Grid) -> None:
        """Raises CanvasError where size, length or an anchor does not fall on the model's grid."""
        grid.check_size(self.width, self.height)
        grid.check_frames(self.frames)
        least = 1 + grid.temporal * (2 if self.turns else 1)
        if self.loop and (self.frames < least or self.trim[1]):
            raise CanvasError(f"a loop has at least {least} frames, and none of them at its end is trimmed")
        for anchor in self.anchors:
            for frame in (anchor.start, anchor.end):
                if frame and (frame - 1) % grid.temporal:
                    raise CanvasError(
                        "an anchor must cover whole latent frames: its first frame and the one after its last are 0 "
                        f"or 1 + {grid.temporal}k, not {anchor.start} and {anchor.end}"
                    )
        check_shares(self.anchors, self.frames, grid)

    def hold_map(self, grid: Grid) -> HoldMap:
        """What is held on this grid. Raises CanvasError (see `check`)."""
        self.check(grid)
        return map_holds(self.anchors, self.frames, self.size, grid)

    def cut(self, start: int, end: int, grid: Grid) -> Canvas:
        """Its frames start ≤ f < end as a canvas of their own (a part), with their cues and anchors. `start` must be
        the last frame of a latent frame and `end` the first of one, or the canvas's end."""
        begin, stop = start / self.fps, end / self.fps
        after = [cue.start for cue in self.cues[1:]] + [math.inf]
        cues = tuple(
            Cue(max(0.0, cue.start - begin), cue.prompt)
            for cue, until in zip(self.cues, after, strict=True)
            if until > begin + 1e-9 and cue.start < stop - 1e-9
        )
        anchors = tuple(cut for anchor in self.anchors if (cut := anchor.cut(start, end, grid)))
        return replace(self, frames=end - start, cues=cues, anchors=anchors, loop=False, trim=(0, 0), part=True)

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
            "cues": [
                {"start": cue.start, "prompt": cue.prompt} | ({"asked": cue.asked} if cue.asked else {})
                for cue in self.cues
            ],
            "anchors": [_anchor_to_dict(anchor) for anchor in self.anchors],
            "loop": self.loop,
            "negative": self.negative,
            "trim": list(self.trim),
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Canvas:
        """Reads `to_dict`'s form, and each anchor from its source; notes where that is not what it was. Raises
        CanvasError, or MediaError for a source."""
        try:
            width, height = int(raw["width"]), int(raw["height"])
            cues = tuple(
                Cue(float(cue["start"]), str(cue["prompt"]), str(cue.get("asked", ""))) for cue in raw.get("cues", ())
            )
            frames, fps = int(raw["frames"]), float(raw["fps"])
            check_fps(fps)
            anchors = tuple(_read_anchor(anchor, width, height, fps) for anchor in raw.get("anchors", ()))
            loop, negative = bool(raw.get("loop", False)), str(raw.get("negative", ""))
            head, tail = map(int, raw.get("trim", (0, 0)))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CanvasError(f"not a canvas: {type(error).__name__} {error}") from None
        notes = _replaced(anchors, raw.get("anchors", ()))
        return cls(width, height, frames, fps, cues, anchors, loop, negative, (head, tail), notes=notes)

    def _check_cues(self) -> None:
        if not (self.anchors or self.part):
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
            if after.start < before.end and min(before.curve) + min(after.curve) > 1 + 1e-4:
                raise CanvasError(f"two anchors share frame {after.start}: move or shorten one")


def check_prompt(text: str, needed: bool = False, what: str = "prompt") -> None:
    """Raises CanvasError for what is no text, is too long, is not valid, or is blank where one is `needed`."""
    if not isinstance(text, str):
        raise CanvasError(f"the {what} must be text, not {shown(text)}")
    if needed and not text.strip():
        raise CanvasError(f"the {what} is empty: say what the video should show")
    if len(text) > MAX_PROMPT:
        raise CanvasError(f"the {what} has {len(text)} characters: at most {MAX_PROMPT}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CanvasError(f"the {what} is not valid text (UTF-8)") from None


def _anchor_to_dict(anchor: Anchor) -> dict[str, Any]:
    return {
        "source": anchor.source,
        "skip": anchor.skip,
        "fit": anchor.fit,
        "frames": len(anchor.clip.frames),
        "start": anchor.start,
        "hold": list(anchor.hold) if isinstance(anchor.hold, tuple) else anchor.hold,
        "mask": None if anchor.mask is None else anchor.mask.source,
        "sha256": anchor.sha256,
    }


def _read_anchor(raw: dict[str, Any], width: int, height: int, fps: float) -> Anchor:
    source, hold, mask = str(raw["source"]), raw["hold"], raw.get("mask")
    skip, count, how = int(raw.get("skip", 0)), int(raw["frames"]), raw.get("fit", "crop")
    if not source or mask == "":
        raise CanvasError("an anchor of this canvas did not come from a file and cannot be read again")
    if not 0 < count <= MAX_SECONDS * fps + MAX_SLACK or abs(skip) > MAX_SECONDS * fps + MAX_SLACK:
        raise CanvasError(f"an anchor of {count} frames from frame {skip} on is out of range")
    Canvas(width, height, count, fps, (Cue(0.0, "checked"),))  # before any frame of such a size is made
    given = open_given(source)
    frames = take(given.read(width, height, fps, how, max(1, skip + count)).frames, skip, count)
    white = None
    if mask is not None:
        white = Mask(read_mask(open_given(str(mask)), given.size, width, height, fps, how), str(mask))
    hold = tuple(map(float, hold)) if isinstance(hold, list) else float(hold)
    return Anchor(Clip(frames, fps), int(raw["start"]), hold, source, skip, how, white)


def _replaced(anchors: Sequence[Anchor], raws: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """A line for each source that is not what it was when the recipe was written, as far as that is told there."""
    changed = [
        " or ".join(filter(None, (anchor.source, anchor.mask.source if anchor.mask else "")))
        for anchor, raw in zip(anchors, raws, strict=True)
        if raw.get("sha256", anchor.sha256) != anchor.sha256
    ]
    what = "is not what it was when this was made: what is made now is not the same"
    return tuple(f"{name} {what}" for name in dict.fromkeys(changed))
