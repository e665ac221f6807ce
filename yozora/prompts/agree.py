"""Does a clip of a library show what a prompt asks for? Two sets of facts compared, and the first that disagrees named.

What a prompt states of count, shapes, colours and motion the clip must state, too, and alike. What a prompt leaves
unsaid of style, camera, time and weather is meant as usual. All else (ground, size, material) may differ: size and
material are painted over, for a clip is begun from under much noise, and for grounds see `other_ground`.
"""

from __future__ import annotations

from collections.abc import Mapping

from yozora.prompts.nearest import guess_language
from yozora.prompts.numbers import things_counted
from yozora.world.scene import DIRECTIONS
from yozora.world.words.partial import GOING, SECOND

FIRM = ("shape", "colour", f"{SECOND}shape", f"{SECOND}colour", "colour_to", "camera_direction")
USUAL = {"style": "realistic", "camera": "still", "time": "day", "weather": "clear"}
LOOSE = ("ground", "size", "material", f"{SECOND}size", f"{SECOND}material", "relation")


def disagreement(asked: Mapping[str, str], shown: Mapping[str, str]) -> str:
    """The first fact in which a clip that shows `shown` is not what a prompt with the facts `asked` wants, as "colour:
    red, not blue"; "" where it may stand for it. Facts are named as in `yozora.world.describe.FACTS`, with "count"."""
    if asked.get("count", "1") != shown.get("count", "1"):
        return _said("count", asked.get("count", "1"), shown.get("count", "1"))
    for name in FIRM:
        if name in asked and asked[name] != shown.get(name, ""):
            return _said(name, asked[name], shown.get(name, ""))
    for which in ("", SECOND):
        if (wanted := way_of(asked, which)) and not _moves_alike(wanted, way_of(shown, which)):
            told = way_of(shown, which) or ()
            return _said(f"{which}motion", " ".join(filter(None, wanted)), " ".join(filter(None, told)))
    for name, usual in USUAL.items():
        if asked.get(name, usual) != shown.get(name, usual):
            return _said(name, asked.get(name, usual), shown.get(name, usual))
    return ""


def likeness(asked: Mapping[str, str], shown: Mapping[str, str]) -> int:
    """How many more of the facts that may differ are the same than are not."""
    both = [asked[name] == shown[name] for name in LOOSE if name in asked and name in shown]
    return 2 * sum(both) - len(both)


def other_ground(asked: Mapping[str, str], shown: Mapping[str, str]) -> str:
    """The ground that is asked for, where a clip is known to show another; "" else."""
    ground = asked.get("ground", "")
    return "" if shown.get("ground", ground) == ground else ground


def differs(asked: Mapping[str, str], shown: Mapping[str, str]) -> bool:
    """Whether any of the facts that may differ does."""
    return any(asked[name] != shown[name] for name in LOOSE if name in asked and name in shown)


def with_count(facts: Mapping[str, str], text: str) -> dict[str, str]:
    """Facts that were read in a text, and how many things it tells of: one by one, or by a number."""
    if "shape" not in facts:
        return dict(facts)
    told = 2 if f"{SECOND}shape" in facts else 1
    if counted := things_counted(text, guess_language(text)):
        alike = told == 1 or all(facts.get(n) == facts.get(SECOND + n) for n in ("shape", "colour"))
        told = counted if alike else counted + 1  # two balls and a cube
    return {**facts, "count": str(told)}


def way_of(facts: Mapping[str, str], which: str = "") -> tuple[str, str] | None:
    """(motion, direction) of a thing, as far as they are stated; None where nothing is. What goes left by itself has
    the motion "left" in captions, and is ("", "left") here."""
    motion, direction = facts.get(f"{which}motion", ""), facts.get(f"{which}direction", "")
    if motion in DIRECTIONS:
        return "", motion
    return (motion, direction) if motion or direction else None


def _moves_alike(asked: tuple[str, str], shown: tuple[str, str] | None) -> bool:
    """Whether one motion may stand for another: to go left, it may roll or slide there."""
    if shown is None:
        return asked[0] == "still"
    if not asked[0]:
        return shown[1] == asked[1] and shown[0] in ("", *GOING[:2])
    return shown[0] == asked[0] and asked[1] in ("", shown[1])


def _said(name: str, asked: str, shown: str) -> str:
    return f"{name.replace('_', ' ')}: {asked}, not {shown or 'said'}"
