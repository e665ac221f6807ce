"""What a clip of one thing shows: its colour, its shape and where it goes, found in the frames alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yozora.clip import Clip
from yozora.evaluate.motion import direction, track
from yozora.models.folder import load_module
from yozora.models.inspector import Inspector

WEIGHTS = Path(__file__).parent / "weights" / "inspector"
LEAST_CELLS = 6  # of a mask: fewer are taken for noise
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


@torch.no_grad()
def inspect_clip(clip: Clip, inspector: Inspector | None = None) -> Finding:
    """Judges the largest thing in each frame: its colour is what most of its cells say over all frames, its shape what
    the frames that show all of it say together, its direction the geometry of its masks."""
    inspector = inspector or load_inspector()
    looks = [_look(inspector, clip.frames[start : start + BATCH]) for start in range(0, len(clip.frames), BATCH)]
    masks, colours, shapes = (torch.cat(part) for part in zip(*looks, strict=True))
    path = track(masks.numpy())
    if not path.seen.any():
        return Finding()
    whole = path.seen & ~path.cut
    judged = torch.from_numpy(whole if whole.any() else path.seen)
    return Finding(
        inspector.config.colours[int(colours.sum(0).argmax())],
        inspector.config.shapes[int(shapes[judged].sum(0).argmax())],
        direction(path),
        float(path.seen.mean()),
    )


def _look(inspector: Inspector, frames: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 `[T, H, W, 3]` → of the largest thing in each frame the mask, bool `[T, h, w]`, how many of its cells are
    of each colour `[T, colours]`, and the log probability of each shape `[T, shapes]`; all on the CPU."""
    device = next(inspector.parameters()).device
    pictures = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    cells = inspector(pictures)
    mask = largest_part(cells.thing > 0)
    mask &= mask.sum((1, 2), keepdim=True) >= LEAST_CELLS
    votes = F.one_hot(cells.colour.argmax(1), len(inspector.config.colours)) * mask[..., None]
    shapes = inspector.shapes(pictures, cells.thing.sigmoid(), boxes(mask)).log_softmax(1)
    return mask.cpu(), votes.sum((1, 2)).cpu(), shapes.cpu()


def boxes(mask: Tensor) -> Tensor:
    """Left, top, right, bottom of each mask, bool `[N, h, w]` → float `[N, 4]`; the whole frame for an empty one."""
    sides = []
    for dim in (1, 2):  # columns, then rows
        filled = mask.any(dim).float()
        size = filled.shape[1]
        empty = ~filled.any(1)
        sides.append(
            (filled.argmax(1).masked_fill(empty, 0), (size - filled.flip(1).argmax(1)).masked_fill(empty, size))
        )
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def largest_part(mask: Tensor) -> Tensor:
    """The largest connected part (of eight neighbours) of each mask, bool `[N, h, w]`.

    Every cell takes the highest number among its neighbours until nothing changes; a part then shares one number.
    """
    count, height, width = mask.shape
    if count == 0 or not mask.any():
        return mask
    inside = mask.float()
    number = torch.arange(1, height * width + 1, device=mask.device).float().view(1, height, width) * inside
    while True:
        spread = F.max_pool2d(number[:, None], 3, stride=1, padding=1)[:, 0] * inside
        if torch.equal(spread, number):
            break
        number = spread
    flat = number.long().view(count, -1)
    sizes = torch.zeros(count, height * width + 1, dtype=torch.long, device=mask.device)
    sizes.scatter_add_(1, flat, torch.ones_like(flat))
    sizes[:, 0] = 0  # the background
    return mask & (number.long() == sizes.argmax(1)[:, None, None])
