"""Latent frames follow each other without a pulse.

Each latent frame brings details of its own, so that a decoded video steps more from its last frame to the next one's
first than within them, three times a second: grass boils where nothing moves. As video codecs smooth the borders of
their blocks, a latent frame's details come in evenly over its frames, where the picture stands still.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MOTION = 0.05  # of the -1..1 that pixels span: a change of a pixel's surroundings that is taken for motion
AROUND = 5  # pixels across that are a pixel's surroundings

Frames = Float[Tensor, "b 3 t h w"]


def deblock(frames: Frames, before: Float[Tensor, "b 3 h w"] | None, temporal: int) -> Frames:
    """The frames of whole latent frames, of `temporal` each, evened out; `before` is the frame before them, None at a
    video's beginning, where the first latent frame is one frame."""
    if before is None:
        first, rest = frames[:, :, :1], frames[:, :, 1:]
        return torch.cat([first, deblock(rest, first[:, :, 0], temporal)], dim=2) if rest.shape[2] else first
    groups = frames.unflatten(2, (-1, temporal))
    ends = torch.cat([before[:, :, None], groups[:, :, :-1, -1]], dim=2)  # the frame before each group
    jump = groups[:, :, :, 0] - ends
    change = torch.cat([jump[:, :, :, None], groups.diff(dim=3)], dim=3).abs().mean(1).amax(2)  # [B, groups, H, W]
    near = F.avg_pool2d(change, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)
    still = torch.exp(-(near / MOTION).square())
    share = 1 - torch.arange(1, temporal + 1, device=frames.device, dtype=frames.dtype) / temporal
    return (groups - (jump * still[:, None])[:, :, :, None] * share[:, None, None]).flatten(2, 3)
