"""Creating: a canvas says what is wanted and what is held, a way draws a canvas, a Generator fills it.

All of it is loaded at first use: only the Generator needs torch, and a bad size can be refused without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yozora.create.canvas import Anchor, Canvas, Cue, HoldMap, fit
    from yozora.create.generator import Generator, Progress, Settings, YozoraWarning, load
    from yozora.create.sizes import Grid, Native, choose_size, frames_for
    from yozora.create.ways import image_to_video, text_to_image, text_to_video

__all__ = [
    "Anchor",
    "Canvas",
    "Cue",
    "Generator",
    "Grid",
    "HoldMap",
    "Native",
    "Progress",
    "Settings",
    "YozoraWarning",
    "choose_size",
    "fit",
    "frames_for",
    "image_to_video",
    "load",
    "text_to_image",
    "text_to_video",
]

_HOMES = {
    **dict.fromkeys(("Anchor", "Canvas", "Cue", "HoldMap", "fit"), "canvas"),
    **dict.fromkeys(("Generator", "Progress", "Settings", "YozoraWarning", "load"), "generator"),
    **dict.fromkeys(("Grid", "Native", "choose_size", "frames_for"), "sizes"),
    **dict.fromkeys(("image_to_video", "text_to_image", "text_to_video"), "ways"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yozora.create' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"yozora.create.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOMES))
