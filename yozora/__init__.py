"""Yozora (夜空): text and pictures into video with a diffusion transformer over spacetime patches.

`import yozora; yozora.load("mini").generate("a red ball bounces on the grass").write("out.mp4")`
Everything public is loaded at first use, so that importing this is instant."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yozora.clip import Clip, Recipe
    from yozora.create import Anchor, Canvas, Cue, Generator, Progress, load
    from yozora.errors import YozoraError

__version__ = "0.1.0"
__all__ = ["Anchor", "Canvas", "Clip", "Cue", "Generator", "Progress", "Recipe", "YozoraError", "__version__", "load"]

_HOMES = {
    "Clip": "yozora.clip",
    "Recipe": "yozora.clip",
    "YozoraError": "yozora.errors",
    **dict.fromkeys(("Anchor", "Canvas", "Cue", "Generator", "Progress", "load"), "yozora.create"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yozora' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOMES))
