"""Creating: a canvas says what is wanted and what is held, a way draws a canvas, a Generator fills it.

All of it is loaded at first use: only the Generator needs torch, and a bad size can be refused without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yozora.create.anchors import Anchor, HoldMap, Mask
    from yozora.create.board import read_board, storyboard
    from yozora.create.canvas import Canvas, Cue
    from yozora.create.events import Chunk, Progress
    from yozora.create.generator import Generator, YozoraWarning, load
    from yozora.create.given import Fit, Picture, fit
    from yozora.create.join import blend, fill, recut
    from yozora.create.presets import Preset, apply_preset, find_preset, load_presets
    from yozora.create.settings import Settings
    from yozora.create.sizes import Grid, Native, choose_size, frames_for
    from yozora.create.ways import animate, extend, image_to_video, inpaint, loop, remix, text_to_image, text_to_video

__all__ = [
    "Anchor",
    "Canvas",
    "Chunk",
    "Cue",
    "Fit",
    "Generator",
    "Grid",
    "HoldMap",
    "Mask",
    "Native",
    "Picture",
    "Preset",
    "Progress",
    "Settings",
    "YozoraWarning",
    "animate",
    "apply_preset",
    "blend",
    "choose_size",
    "extend",
    "fill",
    "find_preset",
    "fit",
    "frames_for",
    "image_to_video",
    "inpaint",
    "load",
    "load_presets",
    "loop",
    "read_board",
    "recut",
    "remix",
    "storyboard",
    "text_to_image",
    "text_to_video",
]

_HOMES = {
    **dict.fromkeys(("Anchor", "HoldMap", "Mask"), "anchors"),
    **dict.fromkeys(("Canvas", "Cue"), "canvas"),
    **dict.fromkeys(("Generator", "YozoraWarning", "load"), "generator"),
    **dict.fromkeys(("Fit", "Picture", "fit"), "given"),
    **dict.fromkeys(("blend", "fill", "recut"), "join"),
    **dict.fromkeys(("Grid", "Native", "choose_size", "frames_for"), "sizes"),
    **dict.fromkeys(("Preset", "apply_preset", "find_preset", "load_presets"), "presets"),
    **dict.fromkeys(("read_board", "storyboard"), "board"),
    **dict.fromkeys(("Chunk", "Progress"), "events"),
    "Settings": "settings",
    **dict.fromkeys(
        ("animate", "extend", "image_to_video", "inpaint", "loop", "remix", "text_to_image", "text_to_video"), "ways"
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yozora.create' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"yozora.create.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOMES))
