"""Prompts by category: for each kind of fact that a caption states, prompts that do, and whether clips show it.

As in `following`, the prompts describe scenes that no training run draws, their values come up about equally often, and
all but the category's own is kept simple: one thing by day, in clear air, before a still camera. About every third
prompt asks for a combination that training leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yozora.errors import ConfigError
from yozora.evaluate.following import FIRST_SEED, TRIES, Prompt, first_told, following_prompts
from yozora.evaluate.reading import ASIDE, Reading
from yozora.train.reader import HEADS, kind_of_motion
from yozora.world import MIXES, SceneMix, is_held_out
from yozora.world.describe import facts as facts_of
from yozora.world.mix import PAIR_MOTIONS
from yozora.world.scene import MATERIALS, Scene

FOUND = ("colour", "shape", "direction")  # what the inspector finds, in the prompts of `following`
BOUND = ("binding", "relation")  # of two things
CATEGORIES = (*FOUND, "size", "material", "count", *BOUND, "motion", "camera", "ground", "time", "weather", "style")
COUNTS = ("1", "2", "3", "4", "5")
RELATIONS = ("left", "right", "front", "behind")
HELD_OUT_EVERY = 3
PHRASINGS = 20  # captions of one scene; many leave out what is to be judged
SPACING = 1_000_000  # seeds of a category
CLEARLY = 1.5  # a relation is asked for where one of the two distances is so much the longer, as captions weigh them

SIMPLE = MIXES["simple"].to_dict() | {
    "count": {"1": 1.0},
    "cameras": {"still": 1.0},
    "times": {"day": 1.0},
    "weathers": {"clear": 1.0},
    "styles": {"realistic": 1.0},
}
OUTDOORS = {"grounds": {"grass": 1.0, "sand": 1.0, "snow": 1.0, "water": 1.0, "city": 1.0}}
RESTING = {"motions": {"still": 1.0}}
STAYING = {"motions": {"still": 1.0, "bounce": 1.0, "spin": 1.0}}
FACTORS = {  # of a scene mix
    "size": "sizes",
    "material": "materials",
    "count": "count",
    "motion": "motions",
    "camera": "cameras",
    "ground": "grounds",
    "time": "times",
    "weather": "weathers",
    "style": "styles",
}


@dataclass(frozen=True)
class CategoryPrompt:
    """A caption that states what it is judged by, `asked`: one name of the category, or for two things colour and
    shape of each, and for a relation where the second is from the first. `seed` is the one to generate with;
    `held_out` is whether training leaves out a combination that it asks for."""

    category: str
    text: str
    scene: Scene
    seed: int
    asked: tuple[str, ...]
    held_out: bool


def category_prompts(per_category: int, categories: Sequence[str] = CATEGORIES) -> list[CategoryPrompt]:
    """The same `per_category` prompts of each category every time. Raises ConfigError for an unknown category."""
    for category in categories:
        if category not in CATEGORIES:
            raise ConfigError(f"unknown category {category!r}; known: {', '.join(CATEGORIES)}")
    return [
        prompt
        for category in categories
        for prompt in (_found if category in FOUND else _stated)(category, max(0, per_category))
    ]


def judge(prompt: CategoryPrompt, reading: Reading) -> bool:
    """Whether a clip shows what was asked for; what was not found is wrong. A relation is judged by the colours of the
    two things, whatever their shapes."""
    shown, asked = found(prompt, reading), prompt.asked
    if prompt.category == "relation":
        return shown[::2] == asked[::2]
    return shown == asked


def found(prompt: CategoryPrompt, reading: Reading) -> tuple[str, ...]:
    """What a clip shows of what was asked for, in the same order; "" for what was not found."""
    if prompt.category in FOUND:
        return (getattr(reading.finding, prompt.category),)
    if prompt.category not in BOUND:
        return (reading.names.get(prompt.category, ""),)
    if len(reading.things) != 2:
        return ("",) * len(prompt.asked)
    first, second = sorted(reading.things, key=lambda thing: thing.colour != prompt.asked[0])
    looks = (first.colour, first.shape, second.colour, second.shape)
    return looks if prompt.category == "binding" else (*looks, second.relation(first))


def _found(category: str, count: int) -> list[CategoryPrompt]:
    """Prompts of `following`; where directions are asked for, those that name one: every second."""
    every = 2 if category == "direction" else 1
    held = count // HELD_OUT_EVERY
    prompts: list[tuple[Prompt, bool]] = []
    for number, held_out in ((count - held, False), (held, True)):
        prompts += [(prompt, held_out) for prompt in following_prompts(every * number, held_out)[::every]]
    return [
        CategoryPrompt(category, prompt.text, prompt.scene, prompt.seed, (prompt.facts[category],), held_out)
        for prompt, held_out in prompts
    ]


def values_of(category: str) -> tuple[str, ...]:
    """What a category's prompts ask for, in turn; for two things any, so that there is nothing to go through."""
    if category == "relation":
        return RELATIONS
    return {"material": MATERIALS, "count": COUNTS}.get(category) or HEADS.get(category, ("",))


def _stated(category: str, count: int) -> list[CategoryPrompt]:
    random = np.random.default_rng((2026, CATEGORIES.index(category)))
    values = [str(value) for value in random.permutation(values_of(category))]
    return [_prompt(category, number, values) for number in range(count)]


def _prompt(category: str, number: int, values: Sequence[str]) -> CategoryPrompt:
    """The first scene whose caption states the category's value."""
    value = values[number % len(values)]
    # shifted from round to round, so that it is not always the same values whose combinations are held out
    held_out = (number + number // len(values)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    mix = SceneMix.from_dict(SIMPLE | _changes(category, value) | {"held_out": "only" if held_out else "exclude"})

    def suits(scene: Scene) -> bool:
        return is_held_out(scene) == held_out and bool(_asked(category, value, scene, facts_of(scene)))

    def fits(scene: Scene, said: dict[str, str]) -> bool:
        return bool(_asked(category, value, scene, said))

    first_seed = FIRST_SEED + SPACING * (1 + CATEGORIES.index(category)) + TRIES * number
    detail = "dense" if category == "relation" else "short"
    told = first_told(first_seed, mix, fits, detail, PHRASINGS, suits)
    if told is None:
        raise ConfigError(f"no caption states the {category} {value!r}")
    asked = _asked(category, value, told.scene, told.facts)
    return CategoryPrompt(category, told.text, told.scene, number, asked, held_out)


def _changes(category: str, value: str) -> dict[str, Any]:
    """What a category's scenes change in the simple mix."""
    changes: dict[str, Any] = {FACTORS[category]: {value: 1.0}} if category in FACTORS else {}
    if category in BOUND:
        changes |= {"count": {"2": 1.0}}
    if category in ("count", "relation"):
        changes |= RESTING
    if category in ("size", "material", "binding", "camera", "ground", "time", "weather", "style"):
        changes |= STAYING
    if category == "material":
        changes |= {"sizes": {"small": 1.0, "large": 1.0, "huge": 1.0}}
    if category in ("time", "weather"):
        changes |= OUTDOORS
    if category == "motion" and value in PAIR_MOTIONS:
        changes |= {"count": {"2": 1.0}}
    return changes


def _asked(category: str, value: str, scene: Scene, facts: Mapping[str, str]) -> tuple[str, ...]:
    """What a caption that states `facts` asks for in the category; empty where it is not `value`, or not stated."""
    if category in BOUND:
        return _asked_of_two(value, scene, facts)
    if facts.get(category) != value or (category == "motion" and kind_of_motion(scene) != value):
        return ()
    return (value,)


def _asked_of_two(relation: str, scene: Scene, facts: Mapping[str, str]) -> tuple[str, ...]:
    """Colour and shape of each of two things that differ in both, and the relation where one is to be clear."""
    looks = tuple(facts.get(name, "") for name in ("colour", "shape", "second_colour", "second_shape"))
    if "" in looks or looks[0] == looks[2] or looks[1] == looks[3]:
        return ()
    if not relation:
        return looks
    clear = _clear(scene)
    return (*looks, relation) if facts.get("relation") == relation and clear else ()


def _clear(scene: Scene) -> bool:
    """Whether two things stand clearly aside of, or clearly before each other."""
    (x0, y0), (x1, y1) = (body.position for body in scene.bodies)
    far = scene.camera.distance
    across, away = abs(x1 / (1 + y1 / far) - x0 / (1 + y0 / far)), abs(y1 - y0)
    return max(across, ASIDE * away) >= CLEARLY * min(across, ASIDE * away)
