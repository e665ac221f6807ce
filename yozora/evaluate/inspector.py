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
    """Judges the largest thing in each frame: its colour and shape are what most of its cells say, over all frames."""
    inspector = inspector or load_inspector()
    masks, votes = [], torch.zeros(len(inspector.config.colours) + len(inspector.config.shapes))
    for start in range(0, len(clip.frames), BATCH):
        part, found = _look(inspector, clip.frames[start : start + BATCH])
        masks.append(part)
        votes += found
    mask = torch.cat(masks).numpy()
    if not mask.any():
        return Finding()
    colours, shapes = votes.split([len(inspector.config.colours), len(inspector.config.shapes)])
    return Finding(
        inspector.config.colours[int(colours.argmax())],
        inspector.config.shapes[int(shapes.argmax())],
        direction(track(mask)),
        float(mask.any((1, 2)).mean()),
    )


def _look(inspector: Inspector, frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """uint8 `[T, H, W, 3]` → the largest thing's mask, bool `[T, h, w]`, and how many of its cells are of each colour
    and each shape `[colours + shapes]`, all on the CPU."""
    device = next(inspector.parameters()).device
    pixels = inspector((torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float()) / 127.5 - 1)
    mask = largest_part(pixels.thing > 0)
    mask &= mask.sum((1, 2), keepdim=True) >= LEAST_CELLS
    counts = [
        torch.bincount(logits.argmax(1)[mask], minlength=logits.shape[1]) for logits in (pixels.colour, pixels.shape)
    ]
    return mask.cpu(), torch.cat(counts).float().cpu()


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
