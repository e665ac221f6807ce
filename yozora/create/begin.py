"""A warm start: sampling begins from another clip's latents under fresh noise, and the first steps are left out.

It is the one rule of the canvas once more: all of it is held as firmly as the level asks at which sampling begins, and
from there on nothing is. What the skipped steps would have decided, the outlines, is that clip's; the rest is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from yozora.create.canvas import Canvas
from yozora.create.limits import check_number
from yozora.create.sizes import Native
from yozora.errors import CanvasError

SHARE = 0.4  # of the steps that a warm start skips, unless told


@dataclass(frozen=True, eq=False)
class Begin:
    """What sampling begins from: clean latents `[C, T, h, w]` of the model's own autoencoder, of the canvas's size and
    at least its length. `share` (0 to below 1) of the steps are skipped, to the nearest whole one. `source` names the
    clip in recipes. Raises CanvasError."""

    latents: Tensor
    share: float = SHARE
    source: str = ""

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.latents.ndim != 4:
            raise CanvasError(f"a warm start takes latents [C, T, h, w], not {list(self.latents.shape)}")

    def skipped(self, steps: int) -> int:
        """How many of so many steps are left out; one is always taken."""
        return min(steps - 1, round(self.share * steps))

    def check(self, canvas: Canvas, native: Native, channels: int) -> None:
        """Raises CanvasError for a canvas that it is no start for: one that something is held on, that takes several
        windows or closes to a loop, or that is of another size or longer."""
        frames, *sides = native.grid.latent_shape(*canvas.size, canvas.frames)
        if canvas.anchors or canvas.loop or frames > native.window:
            raise CanvasError("only a video of the model's own length, made from text, can begin from another clip")
        have = tuple(self.latents.shape)
        if (have[0], *have[2:]) != (channels, *sides) or have[1] < frames:
            wanted = (channels, frames, *sides)
            raise CanvasError(f"latents of {have} are no start for a canvas of {wanted}: ask for the clip's own size")

    def start(self, levels: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """The levels that are left of [steps + 1], the known latents `[1, C, frames, h, w]` and how firmly they are
        held there, float64 `[1, frames]`: as `yozora.diffusion.sample` takes them."""
        left = levels[self.skipped(len(levels) - 1) :]
        hold = (1 - left[:1].double()).repeat(frames)[None]
        return left, self.latents[None, :, :frames].float(), hold

    def to_dict(self, steps: int) -> dict[str, Any]:
        """For a recipe."""
        return {"begin": self.source, "share": self.share, "skipped": self.skipped(steps)}


def check_share(share: float) -> None:
    """Raises CanvasError for what is no share of the steps that can be skipped."""
    check_number(share, "the share of steps that a warm start skips")
    if not 0 <= share < 1:
        raise CanvasError(f"a warm start skips a share of 0 to below 1 of the steps, not {share:g}")
