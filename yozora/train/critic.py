"""A critic for the autoencoder: it learns to tell reconstructions from true frames, patch by patch, and the decoder
learns what it takes for true (Goodfellow et al. 2014; by patches, Isola et al. 2017; hinge loss, Lim and Ye 2017).

Both learn in one step: the decoder from a critic whose weights stand still, and the critic from frames that do.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

GROUPS = 8


class Critic(nn.Module):
    """Clips [B, 3, T, H, W] in -1..1 → for each frame how true each of its patches seems: [B · T, H / 8, W / 8]. It is
    shown what has changed since the frame before, too, so that a flicker is seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, 2, 1), nn.GroupNorm(GROUPS, wide), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, clips: Tensor) -> Tensor:
        changed = F.pad(clips.diff(dim=2), (0, 0, 0, 0, 1, 0))  # nothing, of the first
        both = torch.cat((clips, changed), dim=1).transpose(1, 2).flatten(0, 1)
        return self.layers(both)[:, 0].float()


def contest(critic: Critic, again: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, float]:
    """What the decoder is to make small, and what the critic is, each with gradients to its own weights alone; and the
    share of patches that the critic tells rightly."""
    still = {name: each.detach() for name, each in critic.named_parameters()}
    fooled = -functional_call(critic, still, again).mean()
    true, made = critic(frames), critic(again.detach())
    caught = F.relu(1 - true).mean() + F.relu(1 + made).mean()
    right = ((true > 0).float().mean() + (made < 0).float().mean()) / 2
    return fooled, caught, right.item()
