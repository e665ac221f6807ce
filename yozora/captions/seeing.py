"""A clip of the simulated world read back into facts: what the networks of `yozora.evaluate` and geometry say, weighed,
where it is sure.

They were trained on renders by `yozora train captioner`. What is not sure is left unsaid: a caption that is silent
misleads nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from yozora.clip import Clip
from yozora.evaluate.evidence import look_around
from yozora.evaluate.inspector import Look
from yozora.evaluate.motion import track
from yozora.evaluate.weighing import SURE, Eyes, Likely, load_eyes, weigh
from yozora.world.words.partial import GOING, SECOND
from yozora.world.words.seen import COLOURLESS_STYLES

SURER = {"relation": 0.45}  # and from which on one of these is
INDOORS = ("studio", "space")  # grounds without a time of day and weather
STEP = 0.04  # of the frame's height, from which on a thing has moved


@dataclass(frozen=True)
class Read:
    """The facts that a clip shows (named as in `yozora.world.describe.FACTS`), as far as they are sure; "shape" is
    missing where no thing was found. `seconds` is its length, and from `start` on the main thing moves."""

    facts: dict[str, str]
    seconds: float
    start: float = 0.0


def see(clip: Clip, eyes: Eyes | None = None) -> Read:
    """Reads a clip of any size, with one or two things told of, by the shipped networks where no others are given."""
    inspector, reader, weigher = eyes or load_eyes()
    sight = look_around(clip, inspector, reader)
    if not any(bool(look.mask.any()) for look in sight.looks):
        return Read({}, clip.seconds)
    told, main = weigh(sight, weigher)
    facts = facts_of(told)
    moves = facts.get("motion", "still") != "still"
    return Read(facts, clip.seconds, _start(main, clip) if moves else 0.0)


def facts_of(told: Mapping[str, Likely]) -> dict[str, str]:
    """The facts of which a caption tells, of what is sure and fits together."""
    sure = {head: each.name for head, each in told.items() if each.chance >= SURER.get(head, SURE)}
    facts = {"shape": told["shape"].name}
    facts |= {name: sure[name] for name in ("colour", "size", "material", "motion", "ground", "style") if name in sure}
    if facts.get("ground", INDOORS[0]) not in INDOORS:
        facts |= {name: sure[name] for name in ("time", "weather") if name in sure}
    camera, _, to = sure.get("filmed", "").partition(" ")
    facts |= {name: value for name, value in (("camera", camera), ("camera_direction", to)) if value}
    if sure.get("direction", "none") != "none" and facts.get("motion", GOING[0]) in GOING:
        facts["direction"] = sure["direction"]
    turns = told["colour_to"]
    if facts.get("motion") == "recolour" and turns.chance >= SURE and turns.name != facts.get("colour"):
        facts["colour_to"] = turns.name
    if sure.get("things", "1") != "1" and facts.get("motion") != "hide":  # a wall is none that is told of
        facts |= {
            f"{SECOND}{name}": sure[f"{SECOND}{name}"] for name in ("shape", "colour") if f"{SECOND}{name}" in sure
        }
        if f"{SECOND}shape" not in facts:
            facts.pop(f"{SECOND}colour", None)
        elif sure.get("relation", "none") != "none":
            facts["relation"] = sure["relation"]
    if facts.get("style") in COLOURLESS_STYLES:
        facts = {name: value for name, value in facts.items() if not name.endswith("colour") and name != "colour_to"}
    return facts


def _start(look: Look, clip: Clip) -> float:
    """When the thing begins to move or to change its size, in seconds: before the first step that is no noise."""
    path = track(look.mask.numpy())
    side = path.area**0.5
    for t in range(1, len(path.x)):
        if path.area[t] and path.area[0]:
            moved = abs(path.x[t] - path.x[0]) + abs(path.y[t] - path.y[0]) + abs(side[t] - side[0])
            if moved > STEP * path.height:
                return (t - 1) / clip.fps
    return 0.0
