"""The thing that passes behind a wall, told apart from the wall: of all that the inspector takes for things (and a wall
is one to it) the wall is what stays where it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from yozora.clip import Clip
from yozora.evaluate.inspector import BATCH, Look, look_at, pictures_of
from yozora.models.inspector import Inspector, largest_part

STAYS = 0.6  # of the frames: a cell that shows a thing in more of them shows the wall
HIDDEN = 0.5  # of its usual area: a thing of which less is seen is out of sight


@torch.no_grad()
def moving_thing(clip: Clip, inspector: Inspector) -> Look:
    """The largest thing in each frame that is no wall: see STAYS."""
    pictures = pictures_of(clip.frames, inspector)
    cells = [inspector(part) for part in pictures.split(BATCH)]
    thing, colour = (torch.cat(part) for part in zip(*cells, strict=True))
    stays = ((thing > 0).float().mean(0) > STAYS).float()
    wall = F.max_pool2d(stays[None, None], 3, stride=1, padding=1)[0, 0] > 0  # and its edge, which wavers
    mask = largest_part((thing > 0) & ~wall)
    return look_at(pictures, mask, thing.sigmoid() * ~wall, colour.argmax(1), inspector)


def fullest(look: Look, first: int, end: int) -> Look:
    """Of the frames first ≤ t < end the half that shows the most of it: the others may show a part alone."""
    areas = look.mask[first:end].sum((1, 2))
    best = first + areas.argsort(descending=True, stable=True)[: -(-len(areas) // 2)].sort().values
    return Look(*(each[best] for each in look))


def goes_out_of_sight(look: Look, ends: int) -> bool:
    """Whether the thing is hidden at some time that is not among the first or the last `ends` frames."""
    areas = look.mask.sum((1, 2)).float()
    usual = torch.cat([areas[:ends], areas[-ends:]]).median()
    between = areas[ends:-ends]
    return bool(len(between) and usual > 0 and between.min() < HIDDEN * usual)
