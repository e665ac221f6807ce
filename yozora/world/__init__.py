"""The simulated world: scenes drawn from a seed, set in motion, filmed with exact ground truth and put into words.

`sample_scene` → `simulate` → `render` and `describe`; each is a pure function of what it is given."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yozora.world.describe import describe, describe_with_facts
    from yozora.world.render import Rendering, render
    from yozora.world.sample import MIXES, SceneMix, is_held_out, sample_scene
    from yozora.world.scene import Body, Camera, Motion, Place, Scene, Trajectory, Wall
    from yozora.world.simulate import simulate
    from yozora.world.truth import Truth

_HOMES = {  # loaded when first asked for: numba is slow to import, and an extra
    "scene": ("Scene", "Body", "Motion", "Wall", "Camera", "Place", "Trajectory"),
    "simulate": ("simulate",),
    "sample": ("sample_scene", "SceneMix", "MIXES", "is_held_out"),
    "render": ("render", "Rendering"),
    "truth": ("Truth",),
    "describe": ("describe", "describe_with_facts"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "MIXES",
    "Body",
    "Camera",
    "Motion",
    "Place",
    "Rendering",
    "Scene",
    "SceneMix",
    "Trajectory",
    "Truth",
    "Wall",
    "describe",
    "describe_with_facts",
    "is_held_out",
    "render",
    "sample_scene",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


class _World(ModuleType):
    """Importing the submodule `yozora.world.render` anywhere would set the attribute `render` to it. The function of
    that name must win, whoever imports what first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _World
