"""What a model can fill that was trained with one noise level a clip: only what it invents, or remixes, all at once."""

from __future__ import annotations

from yozora.create.canvas import Canvas
from yozora.create.sizes import Native
from yozora.errors import CanvasError


def check_one_level(canvas: Canvas, native: Native, name: str) -> None:
    """Raises CanvasError for a canvas on which anything is held more firmly than the rest: pictures and clips that are
    given, loops, and what is longer than the model's window, whose parts hold the end of those before."""
    asked = None
    if canvas.loop:
        asked = "close a loop"
    elif canvas.frames > native.frames_max:
        asked = f"make more than {native.seconds_max:.3g} s, which takes parts that hold on to each other"
    elif canvas.anchors:
        hold = canvas.hold_map(native.grid).hold
        if hold.max() - hold.min() > 1e-6:
            asked = "hold some frames while it makes others"
    if asked:
        raise CanvasError(
            f"the model {name!r} has one noise level a clip and cannot {asked}: take one with levels of their own for "
            "every token, such as mini or Wan 2.2 TI2V-5B"
        )
