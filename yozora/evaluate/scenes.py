"""Held-out scenes to measure on, their captions as prompts, and what every measurement is made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yozora.clip import Clip
from yozora.create import Generator
from yozora.errors import ConfigError
from yozora.evaluate.following import Prompt, film
from yozora.evaluate.inspector import load_inspector
from yozora.models.inspector import Inspector
from yozora.train.data import HELD_OUT_SEEDS
from yozora.world import MIXES, Scene, SceneMix, describe_with_facts, sample_scene
from yozora.world.describe import facts
from yozora.world.scene import COLOURS, SHAPES

Show = Callable[[int, int, str], object]  # progress: done, total, what
NOTHING = float("nan")
# the first seeds of what is measured: no measurement shares a scene with another
FIRST = {
    name: HELD_OUT_SEEDS + 6_000_000 + 100_000 * number
    for number, name in enumerate(("quality", "reference", "twins", "hide", "camera", "long", "state"))
}
CLEAR = {"count": {"1": 1.0}, "times": {"day": 1.0}, "weathers": {"clear": 1.0}, "styles": {"realistic": 1.0}}
_EVENLY = {"shape": len(SHAPES), "colour": len(COLOURS) // 2}  # one more of each is taken after so many prompts
_TRIES = 200  # scenes and captions looked at for each prompt


def mean_known(values: Iterable[float]) -> float:
    """The mean of the finite ones, NaN where there are none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else NOTHING


@dataclass
class Bench:
    """A model with what it is measured by, and how far the measurement has got."""

    generator: Generator
    progress: Show
    total: int
    inspector: Inspector = field(init=False)
    done: int = 0

    def __post_init__(self) -> None:
        self.inspector = load_inspector(device=self.generator.bundle.device)
        self.progress(0, self.total, "")

    def step(self, what: str) -> None:
        """One more of `total` is done."""
        self.done += 1
        self.progress(self.done, self.total, what)

    @property
    def duration(self) -> float:
        """Seconds of a clip."""
        return self.generator.native.frames_max / self.generator.native.fps

    def render(self, prompt: Prompt, frames: int | None = None) -> Clip:
        """The renderer's own clip of a prompt's scene, as the model would make it."""
        native = self.generator.native
        return film(prompt, native.size, frames or native.frames_max, native.fps)

    def make(self, prompt: Prompt) -> Clip:
        """The model's clip of a prompt."""
        return self.generator.generate(prompt.text, seed=prompt.seed)


def draw_prompts(
    count: int,
    first_seed: int,
    duration: float,
    changes: Mapping[str, Any] | None = None,
    states: Sequence[str] = (),
) -> list[Prompt]:
    """The same `count` prompts every time: short English captions of scenes of the mix that `mini` learns from, with
    `changes` to it, that last `duration` seconds. The main things' shapes come up equally often, and no colour twice as
    often as others. A caption must state the facts named in `states`. Raises ConfigError where none does."""
    mix = SceneMix.from_dict(MIXES["simple"].to_dict() | {"duration": max(0.1, duration)} | dict(changes or {}))
    found: list[Prompt] = []
    looks = {"shape": Counter[str](), "colour": Counter[str]()}
    for attempt in range(count * _TRIES):
        if len(found) == count:
            break
        scene = sample_scene(first_seed + attempt, mix)
        look = {name: getattr(scene.bodies[0], name) for name in looks}
        text, said = _caption(scene)
        rare = all(looks[name][look[name]] <= len(found) // most for name, most in _EVENLY.items())
        if rare and all(name in said for name in states):
            found.append(Prompt(text, scene, len(found), said.get("colour", ""), said.get("shape", "")))
            for name, value in look.items():
                looks[name][value] += 1
    if len(found) < count:
        raise ConfigError(f"no caption of these scenes states all of {', '.join(states)}")
    return found


def twins(prompt: Prompt, count: int, duration: float) -> list[Prompt]:
    """Other scenes of one thing that agree with every fact which the prompt's caption states: what the prompt leaves
    open differs. Fewer than `count` where they are hard to find."""
    said = _caption(prompt.scene)[1]
    factors = {"shape": "shapes", "colour": "colours", "size": "sizes", "material": "materials", "motion": "motions"}
    factors |= {"ground": "grounds", "time": "times", "weather": "weathers", "camera": "cameras", "style": "styles"}
    fixed = {factors[name]: {value: 1.0} for name, value in said.items() if name in factors and value != "none"}
    changes = {"count": {"1": 1.0}, "duration": max(0.1, duration)} | fixed
    mix = SceneMix.from_dict(MIXES["simple"].to_dict() | changes)
    found: list[Prompt] = []
    for seed in range(_TRIES):
        if len(found) == count:
            break
        scene = sample_scene(FIRST["twins"] + 1000 * prompt.seed + seed, mix)
        shown = facts(scene)
        if all(shown[name] == value for name, value in said.items()):
            found.append(Prompt(prompt.text, scene, seed, prompt.colour, prompt.shape))
    return found


def _caption(scene: Scene) -> tuple[str, dict[str, str]]:
    """The caption that a scene is asked for with, and the facts that it states."""
    return describe_with_facts(scene, "en", "short", seed=scene.seed)
