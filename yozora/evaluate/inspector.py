"""What a clip of one thing shows: its colour, its shape and where it goes, found in the frames alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yozora.clip import Clip
from yozora.evaluate.motion import Track, direction, track
from yozora.models.folder import load_module
from yozora.models.inspector import Inspector, boxes, largest_part, parts_of, squares

WEIGHTS = Path(__file__).parent / "weights" / "inspector"
LEAST_CELLS = 6  # of a mask: fewer are taken for noise
LEAST_SHARE = 0.05  # of a part's cells that must be of another colour for it to be two things
LEAST_OF_LARGEST = 0.03  # of the largest thing's cells that another one has
COUNTED = 9  # frames in which things are counted
BATCH = 16  # frames at a time


@dataclass(frozen=True)
class Finding:
    """What was found; each is "" where nothing was. `seen` is the share of frames that show a thing."""

    colour: str = ""
    shape: str = ""
    direction: str = ""
    seen: float = 0.0


def load_inspector(folder: str | Path = WEIGHTS, device: str | torch.device = "cpu") -> Inspector:
    """The shipped inspector, or another. Raises ModelError for a folder that is missing or broken."""
    return _load(Path(folder), str(device))


@lru_cache(maxsize=2)
def _load(folder: Path, device: str) -> Inspector:
    return load_module(Inspector, folder, device=device, dtype=torch.float32).eval().requires_grad_(False)


class Look(NamedTuple):
    """One thing through a clip, on the CPU: its mask, bool `[T, h, w]`; how many of its cells are of each colour
    `[T, colours]`; the log probability of each shape `[T, shapes]`; the squares around it `[T, 4, crop, crop]`."""

    mask: Tensor
    votes: Tensor
    shapes: Tensor
    squares: Tensor

    @property
    def judged(self) -> Tensor:
        """Bool `[T]`: the frames that show all of it, or else those that show any."""
        return _judged(track(self.mask.numpy()))


def _judged(path: Track) -> Tensor:
    whole = path.seen & ~path.cut
    return torch.from_numpy(whole if whole.any() else path.seen)


def inspect_clip(clip: Clip, inspector: Inspector | None = None) -> Finding:
    """Judges the largest thing in each frame: its colour is what most of its cells say over all frames, its shape what
    the frames that show all of it say together, its direction the geometry of its masks."""
    inspector = inspector or load_inspector()
    return finding_of(look_at_things(clip, inspector)[0], inspector)


def finding_of(look: Look, inspector: Inspector) -> Finding:
    """The names of what was looked at."""
    path = track(look.mask.numpy())
    if not path.seen.any():
        return Finding()
    return Finding(
        inspector.config.colours[int(look.votes.sum(0).argmax())],
        inspector.config.shapes[int(look.shapes[_judged(path)].sum(0).argmax())],
        direction(path),
        float(path.seen.mean()),
    )


@torch.no_grad()
def look_at_things(clip: Clip, inspector: Inspector, pair: bool = False) -> list[Look]:
    """The largest thing of each frame; with `pair`, after it the two of `two_parts`, the second of which is empty where
    there is but one thing."""
    parts = [_look(inspector, clip.frames[start : start + BATCH], pair) for start in range(0, len(clip.frames), BATCH)]
    return [Look(*(torch.cat(column) for column in zip(*looks, strict=True))) for looks in zip(*parts, strict=True)]


def _look(inspector: Inspector, frames: np.ndarray, pair: bool) -> list[Look]:
    """`look_at_things` for frames uint8 `[T, H, W, 3]`."""
    pictures = pictures_of(frames, inspector)
    cells = inspector(pictures)
    colour, surely = cells.colour.argmax(1), cells.thing.sigmoid()
    largest = largest_part(cells.thing > 0)
    masks = [largest, *(two_parts(cells.thing > 0, colour, largest) if pair else [])]
    return [look_at(pictures, mask, surely, colour, inspector) for mask in masks]


def look_at(pictures: Tensor, mask: Tensor, surely: Tensor, colour: Tensor, inspector: Inspector) -> Look:
    """A look at what is in `mask`, bool `[T, h, w]`, unless that is noise. `surely` is how surely (0..1) each cell of
    `pictures` shows a thing, `colour` the number of its colour, both `[T, h, w]`."""
    mask = mask & (mask.sum((1, 2), keepdim=True) >= LEAST_CELLS)
    votes = F.one_hot(colour, len(inspector.config.colours)) * mask[..., None]
    around = squares(pictures, surely, boxes(mask), inspector.config.crop)
    shapes = inspector.classifier(around).float().log_softmax(1)
    return Look(mask.cpu(), votes.sum((1, 2)).cpu(), shapes.cpu(), around.cpu())


def two_parts(mask: Tensor, colour: Tensor, first: Tensor) -> list[Tensor]:
    """The two largest connected parts of each mask, bool `[N, h, w]`, the largest being `first`. Where there is but
    one, things that touch are told apart by their colours, int64 `[N, h, w]`: the largest part of the second most
    frequent colour, unless that is too small to be a thing."""
    second = largest_part(mask & ~first)
    second &= second.sum((1, 2), keepdim=True) >= LEAST_CELLS
    alone = ~second.any(2).any(1)
    votes = (F.one_hot(colour) * first[..., None]).sum((1, 2))
    runner_up = votes.topk(2).indices[:, 1] if votes.shape[1] > 1 else votes.argmax(1)
    other = largest_part(first & (colour == runner_up[:, None, None]) & alone[:, None, None])
    other &= other.sum((1, 2), keepdim=True) >= LEAST_SHARE * first.sum((1, 2), keepdim=True)
    return [first & ~other, second | other]


@torch.no_grad()
def count_things(clip: Clip, inspector: Inspector) -> int:
    """How many things most of COUNTED frames show: connected parts of one colour, where they are no mere specks."""
    where = np.linspace(0, len(clip.frames) - 1, COUNTED).round().astype(int)
    cells = inspector(pictures_of(clip.frames[where], inspector))
    colours = F.one_hot(cells.colour.argmax(1), len(inspector.config.colours)).permute(0, 3, 1, 2).bool()
    masks = colours & (cells.thing > 0)[:, None]  # [T, colours, h, w]
    sizes = parts_of(masks.flatten(0, 1))[1].view(len(where), -1)
    least = (LEAST_OF_LARGEST * sizes.amax(1)).clamp_min(LEAST_CELLS)
    return int((sizes >= least[:, None]).sum(1).mode().values)


def pictures_of(frames: np.ndarray, inspector: Inspector) -> Tensor:
    """uint8 `[T, H, W, 3]` → float32 `[T, 3, H, W]` in -1..1, where the inspector is."""
    device = next(inspector.parameters()).device
    return torch.from_numpy(np.array(frames)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
