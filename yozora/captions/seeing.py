"""A clip of the simulated world read back into facts: what the networks of `yozora.evaluate` say, where they are sure.

They were trained on renders by `yozora train inspector` and `yozora train reader`. What they are not sure of is left
unsaid: a caption that is silent misleads nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from yozora.captions.background import hardly_changes, stands_still
from yozora.captions.camera import camera_of, filmed
from yozora.clip import Clip
from yozora.evaluate.inspector import Look, count_things, finding_of, load_inspector, look_at_things
from yozora.evaluate.motion import track
from yozora.evaluate.reading import Thing, follow_both, load_reader, thing_of
from yozora.models.inspector import Inspector
from yozora.models.reader import Reader, clip_to_read
from yozora.world.scene import DIRECTIONS
from yozora.world.words.partial import SECOND
from yozora.world.words.seen import COLOURLESS_STYLES

SURE = 0.6  # probability from which on a name is said
LESS_SURE = {"material": 0.5}  # from which on one of these is: doubt is among the rare ones, mostly
USUAL = {  # how often values come up in the mix "simple", over how often in the networks' lessons (configs/reader.toml)
    "size": {"tiny": 0.3, "small": 0.9, "large": 1.6, "huge": 0.7},
    "material": {"matte": 0.45, "rubber": 0.13, "metal": 0.13, "checkered": 0.12, "striped": 0.12, "glowing": 0.05},
    "motion": {"still": 0.6, "fall": 1.2, "bounce": 1.4, "roll": 1.6, "slide": 1.6},  # the square roots of these
    "camera": {"still": 0.55 / 2} | dict.fromkeys(("pan", "tilt", "dolly", "orbit", "zoom", "handheld"), 0.075),
}
GOING = ("roll", "slide", "collide", "hide")  # motions that have a direction
GOES = ("roll", "slide")  # what goes somewhere by itself does one of them
INDOORS = ("studio", "space")  # grounds without a time of day and weather
OUTDONE = 2.0  # times as far must the smaller of two things get, to be told of first
STEP = 0.04  # of the frame's height, from which on a thing has moved


@dataclass(frozen=True)
class Read:
    """The facts that a clip shows (named as in `yozora.world.describe.FACTS`), as far as they are sure; "shape" is
    missing where no thing was found. `seconds` is its length, and from `start` on the main thing moves."""

    facts: dict[str, str]
    seconds: float
    start: float = 0.0


class Eyes(NamedTuple):
    """The networks that read."""

    inspector: Inspector
    reader: Reader


def load_eyes(folder: str | Path | None = None) -> Eyes:
    """The shipped networks, or those that `yozora train captioner` wrote to a folder. Raises ModelError."""
    if folder is None:
        return Eyes(load_inspector(), load_reader())
    return Eyes(load_inspector(Path(folder) / "inspector"), load_reader(Path(folder) / "reader"))


def see(clip: Clip, eyes: Eyes | None = None) -> Read:
    """Reads a clip of any size, with one or two things told of, by the shipped networks where no others are given."""
    inspector, reader = eyes or load_eyes()
    largest, *others = look_at_things(clip, inspector, pair=True)
    looks = _subject_first(follow_both(others)) if count_things(clip, inspector) > 1 else []
    things = tuple(thing for look in looks if (thing := thing_of(look, inspector)).colour and thing.shape)
    if len(things) < 2:
        things, looks = _alone(largest, inspector), [largest]
    if not things:
        return Read({}, clip.seconds)
    facts, going = sure_names(clip, reader, inspector)
    seen = torch.stack([look.mask for look in (largest, *others)]).any(0).numpy()
    if facts.get("ground", INDOORS[0]) in INDOORS:
        facts = {name: value for name, value in facts.items() if name not in ("time", "weather")}
    facts |= sure_material(looks[0], reader)
    if len(things) > 1:  # it is read of all that there is
        facts.pop("size", None)
    if facts.get("motion") == "hide":
        things = things[:1]  # what it hides behind is none that is told of
    for which, thing in zip(("", SECOND), things, strict=False):
        facts |= {f"{which}shape": thing.shape, f"{which}colour": thing.colour}
    if len(things) > 1 and (relation := _relation(things, looks)):
        facts["relation"] = relation
    read = filmed(clip.frames, seen)
    if read and (way := camera_of(read)):
        facts |= {"camera": way[0]} | ({"camera_direction": way[1]} if way[1] else {})
    elif stands_still(clip.frames, seen) or (read is None and hardly_changes(clip.frames, seen)):
        facts["camera"] = "still"
    direction = finding_of(looks[0], inspector).direction
    if (going or facts.get("motion") in GOING) and direction in DIRECTIONS:
        facts["direction"] = direction
    if facts.get("style") in COLOURLESS_STYLES:
        facts = {name: value for name, value in facts.items() if not name.endswith("colour")}
    moves = facts.get("motion", "still") != "still"
    return Read(facts, clip.seconds, _start(looks[0], clip) if moves else 0.0)


@torch.no_grad()
def sure_names(clip: Clip, reader: Reader, inspector: Inspector) -> tuple[dict[str, str], bool]:
    """What the reader's heads say, where they are sure; and whether it is sure that something goes somewhere, though
    perhaps not whether it rolls or slides."""
    frames = torch.from_numpy(clip.frames).to(next(reader.parameters()).device)
    logits = reader(clip_to_read(frames, reader.config, inspector)[None])
    names, going = {}, False
    for head, one in logits.items():
        values = reader.config.heads[head]
        chances = (one.float().log_softmax(1)[0] + _usual(head, values)).softmax(0)
        if float(chances.max()) >= LESS_SURE.get(head, SURE):
            names[head] = values[int(chances.argmax())]
        if head == "motion":
            going = float(chances[[value in GOES for value in values]].sum()) >= SURE
    return names, going


@torch.no_grad()
def sure_material(look: Look, reader: Reader) -> dict[str, str]:
    """What a thing is made of, where that is sure."""
    if not look.judged.any():
        return {}
    values = reader.config.materials
    said = reader.surface(look.squares[look.judged]).float().log_softmax(1).mean(0)
    chances = (said + _usual("material", values)).softmax(0)
    sure = float(chances.max()) >= LESS_SURE["material"]
    return {"material": values[int(chances.argmax())]} if sure else {}


def _usual(name: str, values: Sequence[str]) -> torch.Tensor:
    """How much more often than in the lessons each value of a fact comes up in clips, as a logarithm: the networks were
    shown rare things as often as others, and doubt between a rare one and a common one would go wrong half the time."""
    weights = USUAL.get(name, {})
    return torch.tensor([weights.get(value, 1.0) for value in values]).log()


def _subject_first(looks: list[Look]) -> list[Look]:
    """Two looks, the one first that is told of first: a caption begins with the thing that does something, however
    small. Where both do, or neither, that is the larger one. A moving camera moves both."""
    if len(looks) < 2:
        return looks
    moved = [_moved(look) for look in looks]
    return looks[::-1] if moved[1] > max(STEP, OUTDONE * moved[0]) else looks


def _relation(things: Sequence[Thing], looks: Sequence[Look]) -> str:
    """Whether the second thing is left or right of the first; "" where it is neither, and where it is not sure which
    is told of first. Which is nearer is read off their feet, too dimly to be said."""
    one, other = sorted(_moved(look) for look in looks)
    relation = things[1].relation(things[0])
    return relation if relation in ("left", "right") and other >= OUTDONE * one else ""


def _moved(look: Look) -> float:
    """How far a thing gets from where it was at first, and how much larger or smaller than then, at most: over the
    frame's height."""
    path = track(look.mask.numpy())
    seen = np.flatnonzero(path.seen)
    if len(seen) < 2:
        return 0.0
    x, y, side = path.x[seen], path.y[seen], path.area[seen] ** 0.5
    return float((np.hypot(x - x[0], y - y[0]) + np.abs(side - side[0])).max()) / path.height


def _alone(look: Look, inspector: Inspector) -> tuple[Thing, ...]:
    """The one thing, if there is any."""
    found = finding_of(look, inspector)
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
