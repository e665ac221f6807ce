"""What a clip shows: the names that the reader reads off all of it, and the things that the inspector finds in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yozora.clip import Clip
from yozora.evaluate.inspector import Finding, Look, count_things, finding_of, load_inspector, look_at_things
from yozora.evaluate.motion import FOCAL, LEAST_FRAMES, LEAST_STEP, track
from yozora.models.folder import load_module
from yozora.models.inspector import Inspector
from yozora.models.reader import Reader, clip_to_read

WEIGHTS = Path(__file__).parent / "weights" / "reader"
SLOPE = 0.26  # how far down the frame, in focal lengths, a thing stands that is nearer by the camera's whole distance
ASIDE = 0.8  # of the distance in depth: what stands at least so far to the side is left or right, as captions say


@dataclass(frozen=True)
class Thing:
    """One of the things of a clip. `across` and `away` say where it first stands on the ground, to the right of the
    middle of the frame and away from the camera, over the camera's distance; from no fixed point in depth."""

    colour: str
    shape: str
    across: float
    away: float

    def relation(self, other: Thing) -> str:
        """Where it is from the other: left, right, front or behind; "" where too close to say."""
        across, away = self.across - other.across, self.away - other.away
        if max(abs(across), abs(away)) < LEAST_STEP:
            return ""
        if abs(across) >= ASIDE * abs(away):
            return "left" if across < 0 else "right"
        return "front" if away < 0 else "behind"


@dataclass(frozen=True)
class Reading:
    """What was found in a clip: by the inspector about the largest thing, and each of the two largest where there are
    as many. `names` are what the reader says of each of its heads and of the material, and how many things the
    inspector counts."""

    finding: Finding
    things: tuple[Thing, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def load_reader(folder: str | Path = WEIGHTS, device: str | torch.device = "cpu") -> Reader:
    """The shipped reader, or another. Raises ModelError for a folder that is missing or broken."""
    return _load(Path(folder), str(device))


@lru_cache(maxsize=2)
def _load(folder: Path, device: str) -> Reader:
    return load_module(Reader, folder, device=device, dtype=torch.float32).eval().requires_grad_(False)


def read_clip(clip: Clip, reader: Reader | None = None, inspector: Inspector | None = None) -> Reading:
    """Reads all that can be read; it never sees a prompt. The networks are the shipped ones where None."""
    inspector, reader = inspector or load_inspector(), reader or load_reader()
    looks = look_at_things(clip, inspector, pair=True)
    said = said_of(shown_to(reader, clip, inspector), reader)
    return reading_of(looks, said, surface_of(looks[0], reader), count_things(clip, inspector), inspector, reader)


def reading_of(
    looks: Sequence[Look],
    said: Mapping[str, Tensor],
    surface: Tensor,
    count: int,
    inspector: Inspector,
    reader: Reader,
) -> Reading:
    """What has been seen of a clip, put together: the `looks` of `look_at_things` with the pair, what the reader says
    of the clip and of the largest thing's surface (`said_of`, `surface_of`), and how many the inspector counts."""
    largest, *pair = looks
    names = {head: reader.config.heads[head][int(logs.argmax())] for head, logs in said.items()}
    if largest.judged.any():
        names["material"] = reader.config.materials[int(surface[largest.judged].sum(0).argmax())]
    names["count"] = str(count)
    return Reading(finding_of(largest, inspector), two_things(pair, inspector), names)


@torch.no_grad()
def shown_to(reader: Reader, clip: Clip, inspector: Inspector) -> Tensor:
    """What the reader is shown of a clip: `clip_to_read`, where the reader is."""
    return clip_to_read(torch.from_numpy(clip.frames).to(_device(reader)), reader.config, inspector)


@torch.no_grad()
def said_of(shown: Tensor, reader: Reader) -> dict[str, Tensor]:
    """What each of the reader's heads says of what it is shown: log probabilities [classes]."""
    return {head: logits[0].float().log_softmax(0).cpu() for head, logits in reader(shown[None]).items()}


@torch.no_grad()
def surface_of(look: Look, reader: Reader) -> Tensor:
    """What each square around a thing says about its material: log probabilities [T, materials]."""
    return reader.surface(look.squares.to(_device(reader))).float().log_softmax(1).cpu()


def _device(reader: Reader) -> torch.device:
    return next(reader.parameters()).device


def two_things(looks: Sequence[Look], inspector: Inspector) -> tuple[Thing, ...]:
    """The two largest things; none where hardly any frame shows both."""
    return tuple(thing_of(look, inspector) for look in follow_both(looks))


def follow_both(looks: Sequence[Look]) -> list[Look]:
    """The two looks of `look_at_things`, each followed through the frames that show both things; none where hardly any
    frame does."""
    both = torch.stack([look.mask.flatten(1).any(1) for look in looks]).all(0)
    if int(both.sum()) < min(LEAST_FRAMES, len(both)):
        return []
    return _followed([Look(*(x[both] for x in look)) for look in looks])


def _followed(looks: list[Look]) -> list[Look]:
    """Two looks whose frames are exchanged where the things would else jump: the larger need not stay the larger."""
    tracks = [track(look.mask.numpy()) for look in looks]
    middles = np.stack([np.stack([path.x, path.y], axis=1) for path in tracks])  # [2, T, 2]
    swapped = np.zeros(middles.shape[1], bool)
    for t in range(1, len(swapped)):
        before, now = middles[:, t - 1], middles[:, t]
        stay = np.linalg.norm(now - before, axis=1).sum()
        if np.linalg.norm(now[::-1] - before, axis=1).sum() < stay:
            swapped[t], middles[:, t] = True, now[::-1]
    where = torch.from_numpy(swapped)
    first, second = looks
    exchanged = [
        torch.where(where.view(-1, *[1] * (a.ndim - 1)), torch.stack([b, a]), torch.stack([a, b]))
        for a, b in zip(first, second, strict=True)
    ]
    return [Look(*(pair[n] for pair in exchanged)) for n in range(2)]


def thing_of(look: Look, inspector: Inspector) -> Thing:
    """A thing's names by `finding_of`, and its place by the first quarter of the frames."""
    finding, path = finding_of(look, inspector), track(look.mask.numpy())
    first = slice(0, max(1, len(path.x) // 4))
    focal = FOCAL * path.height
    foot = path.height - look.mask.any(2).flip(1).float().argmax(1).numpy()  # the row below its lowest cells
    across = float(np.mean(path.x[first]) - path.width / 2) / focal
    return Thing(finding.colour, finding.shape, across, -float(np.mean(foot[first])) / focal / SLOPE)
