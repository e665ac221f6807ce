"""Prompt following: prompts of one thing whose colour, shape and direction are known, and a score for what clips show.

The prompts describe scenes that no training run draws. They are balanced: every shape and every colour comes up about
equally often, and every second prompt names a direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.evaluate.inspector import Finding
from yozora.train.data import HELD_OUT_SEEDS
from yozora.world import MIXES, SceneMix, describe_with_facts, is_held_out, render, sample_scene
from yozora.world.heldout import COLOUR_SHAPES
from yozora.world.scene import COLOURS, DIRECTIONS, SHAPES, Scene

FIRST_SEED = HELD_OUT_SEEDS + 1_000_000
TRAVELS = ("left", "right", "towards", "away", "roll", "slide")
OTHERS = ("still", "fall", "bounce", "circle", "spin", "grow", "shrink")
Item = TypeVar("Item")
FACTS = ("colour", "shape", "direction")
TRIES = 2000  # scenes looked at for each prompt


@dataclass(frozen=True)
class Prompt:
    """A caption with what it states. `direction` is "" where it names none. `seed` is the one to generate with."""

    text: str
    scene: Scene
    seed: int
    colour: str
    shape: str
    direction: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What a clip of it must show."""
        facts = {"colour": self.colour, "shape": self.shape}
        return facts | ({"direction": self.direction} if self.direction else {})


@dataclass(frozen=True)
class Score:
    """How many of `asked` prompts that state a fact were followed in it."""

    right: int
    asked: int

    @property
    def percent(self) -> float:
        return 100 * self.right / max(1, self.asked)

    def __str__(self) -> str:
        return f"{self.percent:.1f} % ({self.right}/{self.asked})"


def following_prompts(count: int = 64, held_out: bool = False) -> list[Prompt]:
    """The same `count` prompts every time: realistic English one-thing scenes by day or at sunset, in clear air.

    With `held_out`, of combinations that training leaves out, and else of none of them.
    """
    colours, random = list(COLOURS), np.random.default_rng(2026)
    if held_out:
        looks = sorted(COLOUR_SHAPES, key=lambda pair: SHAPES.index(pair[1]))
        pairs = [looks[i % len(looks)] for i in range(count)]
    else:
        # 6 shapes and 10 colours share the factor 2: the shift by i // 30 makes the pairs run through all 60
        pairs = [(colours[(i + i // 30) % 10], SHAPES[i % 6]) for i in range(count)]
        pairs = [(c if (c, s) not in COLOUR_SHAPES else _next_colour(c, s), s) for c, s in pairs]
    travels = [TRAVELS[i % len(TRAVELS)] for i in range((count + 1) // 2)]
    others = [OTHERS[i % len(OTHERS)] for i in range(count // 2)]
    random.shuffle(travels)
    random.shuffle(others)
    motions = [(travels if i % 2 == 0 else others)[i // 2] for i in range(count)]
    order = random.permutation(count)  # or else every other shape would travel
    looks = [pairs[k] for k in order]
    return [_prompt(i, colour, shape, motions[i], held_out) for i, (colour, shape) in enumerate(looks)]


def _next_colour(colour: str, shape: str) -> str:
    colours = list(COLOURS)
    following = colours[(colours.index(colour) + 1) % len(colours)]
    return following if (following, shape) not in COLOUR_SHAPES else _next_colour(following, shape)


def _prompt(index: int, colour: str, shape: str, motion: str, held_out: bool) -> Prompt:
    """The first scene and phrasing of this look and motion whose caption states all that is to be judged."""
    simple = MIXES["simple"].to_dict()
    mix = SceneMix.from_dict(
        simple
        | {
            "count": {"1": 1.0},
            "colours": {colour: 1.0},
            "shapes": {shape: 1.0},
            "motions": {motion: 1.0},
            "cameras": {"still": 1.0} if motion in TRAVELS else simple["cameras"],
            "times": {"day": 0.87, "sunset": 0.13},
            "weathers": {"clear": 1.0},
            "styles": {"realistic": 1.0},
            "held_out": "only" if held_out else "exclude",
        }
    )

    def fits(scene: Scene, facts: dict[str, str]) -> bool:
        named = facts.get("direction", "none")
        wanted = named in DIRECTIONS if motion in TRAVELS else named not in DIRECTIONS
        look = (facts.get("colour"), facts.get("shape"))
        return look == (colour, shape) and wanted and is_held_out(scene) == held_out

    found = first_told(FIRST_SEED + (10_000 if held_out else 0) + index * TRIES, mix, fits)
    if not found:
        raise ConfigError(f"no caption of a {colour} {shape} ({motion}) states all of its colour, shape and direction")
    return Prompt(found.text, found.scene, index, colour, shape, found.facts["direction"] if motion in TRAVELS else "")


@dataclass(frozen=True)
class Told:
    """A scene, a caption of it, and the facts that the caption states."""

    scene: Scene
    text: str
    facts: dict[str, str]


def first_told(
    first_seed: int,
    mix: SceneMix,
    fits: Callable[[Scene, dict[str, str]], bool],
    detail: str = "short",
    phrasings: int = 1,
    suits: Callable[[Scene], bool] = lambda scene: True,
) -> Told | None:
    """The first scene of `mix` that suits, and the first of its `phrasings` English captions that fits; None where
    there is none among TRIES scenes."""
    for number in range(TRIES):
        scene = sample_scene(first_seed + number, mix)
        if not suits(scene):
            continue
        for phrasing in range(phrasings):
            text, facts = describe_with_facts(scene, "en", detail, seed=number * phrasings + phrasing)
            if fits(scene, facts):
                return Told(scene, text, facts)
    return None


class OfScene(Protocol):
    """A prompt of any kind that describes a scene."""

    @property
    def scene(self) -> Scene: ...


def film(prompt: OfScene, size: tuple[int, int], frames: int, fps: float) -> Clip:
    """The renderer's own clip of the prompt's scene, `size` (width, height)."""
    return Clip(render(prompt.scene, *size, frames, fps).frames, fps)


def score(prompts: Sequence[Prompt], findings: Sequence[Finding]) -> dict[str, Score]:
    """For each fact how often it was found as the prompt states it; nothing found is wrong."""
    pairs = list(zip(prompts, findings, strict=True))
    return {
        fact: Score(
            sum(getattr(finding, fact) == prompt.facts[fact] for prompt, finding in pairs if fact in prompt.facts),
            sum(fact in prompt.facts for prompt in prompts),
        )
        for fact in FACTS
    }


def shuffled(findings: Sequence[Finding], prompts: Sequence[Prompt]) -> list[Finding]:
    """Each clip's finding handed to another prompt: the floor that a model blind to its prompts would reach.

    Prompts that name a direction exchange clips among themselves, so that the floor of directions is about clips in
    which something travels.
    """
    random, out = np.random.default_rng(7), list(findings)
    for named in (True, False):
        group = [i for i, prompt in enumerate(prompts) if bool(prompt.direction) == named]
        for here, there in zip(group, exchanged(group, random), strict=True):
            out[here] = findings[there]
    return out


def exchanged(items: Sequence[Item], random: np.random.Generator) -> list[Item]:
    """The items in another order in which none of two or more keeps its place: each goes to a random other's."""
    order = [int(k) for k in random.permutation(len(items))]
    out = list(items)
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        out[here] = items[there]
    return out
