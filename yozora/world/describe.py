"""A scene in words: what can be seen and what happens, in English, German, French and Spanish.

`describe` is a pure function of the scene, the language, the detail and a seed that chooses among phrasings. What a
caption states is always true; what it leaves out is chance. `describe_with_facts` also tells which facts it states.
"""

from __future__ import annotations

from yozora.errors import SceneError
from yozora.world.scene import Scene
from yozora.world.words import LANGUAGES, load_words
from yozora.world.words.seen import FACTS, labels, look_at
from yozora.world.words.teller import Teller
from yozora.world.words.timed import timed

DETAILS = ("short", "dense", "timed")

__all__ = ["DETAILS", "FACTS", "LANGUAGES", "describe", "describe_with_facts", "facts"]


def describe(scene: Scene, language: str = "en", detail: str = "short", seed: int = 0) -> str:
    """A caption of `scene`.

    short: the main content, what moves and how, often the place and the camera. dense: everything that can be seen.
    timed: events with their seconds. The same arguments give the same caption; raises SceneError for an unknown
    language or detail.
    """
    return describe_with_facts(scene, language, detail, seed)[0]


def describe_with_facts(
    scene: Scene, language: str = "en", detail: str = "short", seed: int = 0
) -> tuple[str, dict[str, str]]:
    """`describe`'s caption and those entries of `facts(scene)` that it states."""
    if detail not in DETAILS:
        raise SceneError(f"unknown detail {detail!r}; known: {', '.join(DETAILS)}")
    teller = Teller(look_at(scene), load_words(language), seed, detail)
    text = {"short": teller.short, "dense": teller.dense, "timed": lambda: timed(teller)}[detail]()
    return text, {name: teller.stated[name] for name in FACTS if name in teller.stated}


def facts(scene: Scene) -> dict[str, str]:
    """What a caption could state about `scene`: each of FACTS in the scene's own words, "none" where there is nothing.

    The main body is the first that does something; `second_…` is the one that it meets, or the next one.
    """
    return labels(look_at(scene))
