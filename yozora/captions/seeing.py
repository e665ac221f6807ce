"""A clip of the simulated world read back into facts: what the networks of `yozora.evaluate` say, where they are sure.

They were trained on renders by `yozora train inspector` and `yozora train reader`. What they are not sure of is left
unsaid: a caption that is silent misleads nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from yozora.clip import Clip
from yozora.evaluate.inspector import Look, count_things, finding_of, load_inspector, look_at_things
from yozora.evaluate.motion import track
from yozora.evaluate.reading import Thing, load_reader, two_things
from yozora.models.inspector import Inspector
from yozora.models.reader import Reader, clip_to_read
from yozora.world.scene import DIRECTIONS
from yozora.world.words.partial import SECOND
from yozora.world.words.seen import COLOURLESS_STYLES

SURE = 0.6  # probability from which on a name is said
GOING = ("roll", "slide", "collide", "hide")  # motions that have a direction
INDOORS = ("studio", "space")  # grounds without a time of day and weather
STEP = 0.04  # of the frame's height, from which on a thing has moved


@dataclass(frozen=True)
class Read:
    """The facts that a clip shows (named as in `yozora.world.describe.FACTS`), as far as they are sure; "shape" is
    missing where no thing was found. `seconds` is its length, and from `start` on the main thing moves."""

    facts: dict[str, str]
    seconds: float
    start: float = 0.0


def see(clip: Clip) -> Read:
    """Reads a clip of any size, with one or two things told of."""
    inspector, reader = load_inspector(), load_reader()
    largest, *looks = look_at_things(clip, inspector, pair=True)
    things = _things(largest, looks, clip, inspector)
    if not things:
        return Read({}, clip.seconds)
    facts = sure_names(clip, reader, inspector)
    if facts.get("ground", INDOORS[0]) in INDOORS:
        facts = {name: value for name, value in facts.items() if name not in ("time", "weather")}
    if len(things) == 1:  # neither is read of one among several
        facts |= sure_material(largest, reader)
    else:
        facts.pop("size", None)
    for which, thing in zip(("", SECOND), things, strict=False):
        facts |= {f"{which}shape": thing.shape, f"{which}colour": thing.colour}
    if len(things) > 1 and (relation := things[1].relation(things[0])):
        facts["relation"] = relation
    direction = finding_of(largest, inspector).direction
    if facts.get("motion") in GOING and direction in DIRECTIONS:
        facts["direction"] = direction
    if facts.get("style") in COLOURLESS_STYLES:
        facts = {name: value for name, value in facts.items() if not name.endswith("colour")}
    moves = facts.get("motion", "still") != "still"
    return Read(facts, clip.seconds, _start(largest, clip) if moves else 0.0)


@torch.no_grad()
def sure_names(clip: Clip, reader: Reader, inspector: Inspector) -> dict[str, str]:
    """What the reader's heads say, where they are sure."""
    frames = torch.from_numpy(clip.frames).to(next(reader.parameters()).device)
    logits = reader(clip_to_read(frames, reader.config, inspector)[None])
    names = {}
    for head, one in logits.items():
        chance, best = one.softmax(1)[0].max(0)
        if float(chance) >= SURE:
            names[head] = reader.config.heads[head][int(best)]
    return names


@torch.no_grad()
def sure_material(look: Look, reader: Reader) -> dict[str, str]:
    """What a thing is made of, where that is sure."""
    if not look.judged.any():
        return {}
    chances = reader.surface(look.squares[look.judged]).float().log_softmax(1).mean(0).softmax(0)
    return {"material": reader.config.materials[int(chances.argmax())]} if float(chances.max()) >= SURE else {}


def _things(largest: Look, looks: list[Look], clip: Clip, inspector: Inspector) -> tuple[Thing, ...]:
    """The two largest things where there are several, else the one."""
    if count_things(clip, inspector) > 1 and (pair := two_things(looks, inspector)):
        return tuple(thing for thing in pair if thing.colour and thing.shape)
    found = finding_of(largest, inspector)
    return (Thing(found.colour, found.shape, 0.0, 0.0),) if found.colour and found.shape else ()


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
