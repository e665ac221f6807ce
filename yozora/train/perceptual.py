"""How alike two pictures look: the distance between what a network that has learned to see makes of them. Errors of
pixels ask for the mean of all that may be there, which is blurred; features tell a blur from a texture.

The features are the project's own inspector's, which knows the things of the simulated world; or VGG's with the
weights of LPIPS (Zhang et al. 2018), which were fitted to what people call alike, where somebody has them: they are not
shipped.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from yozora.errors import ConfigError
from yozora.models.folder import load_module
from yozora.models.inspector import Inspector
from yozora.train.config import Perceptual

VGG = (2, 2, 3, 3, 3)  # convolutions on each grid of VGG 16
WIDTHS = (3, 64, 128, 256, 512, 512)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in -1..1, as LPIPS has them
TINY = 1e-10
TO_MAKE_ONE = "python -c \"import lpips, torch; torch.save(lpips.LPIPS(net='vgg').state_dict(), 'lpips.pt')\""


class OwnFeatures(nn.Module):
    """The inspector's features on each of its grids, all of them counting the same."""

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = inspector

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] in -1..1 → how far each pair is apart [N], 0 for the same."""
        seen = zip(self.inspector.features(one), self.inspector.features(other), strict=True)
        return torch.stack([_difference(*pair).sum(1).mean((1, 2)) for pair in seen]).mean(0)


class Lpips(nn.Module):
    """LPIPS 0.1 by VGG 16. Its weights are called as in the package `lpips`."""

    def __init__(self) -> None:
        super().__init__()
        self.slices = nn.ModuleList()
        for (width, out), count in zip(pairwise(WIDTHS), VGG, strict=True):
            widths = (width, *(out,) * count)
            self.slices.append(nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)))
        self.counts = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in WIDTHS[1:])

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """As of OwnFeatures."""
        seen = zip(self.features(one), self.features(other), self.counts, strict=True)
        return torch.stack([(_difference(a, b) * count).sum(1).mean((1, 2)) for a, b, count in seen]).sum(0)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What each grid sees, from the finest on."""
        shift, scale = (torch.tensor(each, device=pictures.device).view(-1, 1, 1) for each in (SHIFT, SCALE))
        x, seen = (pictures - shift) / scale, []
        for number, slice_ in enumerate(self.slices):
            x = F.max_pool2d(x, 2) if number else x
            assert isinstance(slice_, nn.ModuleList)
            for layer in slice_:
                x = F.relu(layer(x))
            seen.append(x)
        return seen

    @staticmethod
    def names() -> dict[str, str]:
        """Of each of its weights, what the package calls it."""
        said, place = {}, 0
        for number, count in enumerate(VGG):
            place += 1 if number else 0  # a pooling layer
            for layer in range(count):
                for kind in ("weight", "bias"):
                    said[f"slices.{number}.{layer}.{kind}"] = f"net.slice{number + 1}.{place}.{kind}"
                place += 2  # and its ReLU
            said[f"counts.{number}"] = f"lin{number}.model.1.weight"
        return said


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """The squared difference of features [N, C, h, w], each place's brought to length 1."""
    one, other = (each.float() / (each.float().square().sum(1, keepdim=True) + TINY).sqrt() for each in (one, other))
    return (one - other).square()


def load_perceptual(config: Perceptual, device: torch.device) -> OwnFeatures | Lpips:
    """What is asked for, which learns nothing. Raises ConfigError, ModelError."""
    if config.features is not None:
        network: OwnFeatures | Lpips = OwnFeatures(load_module(Inspector, config.features))
    else:
        assert config.lpips is not None
        network = _load_lpips(config.lpips)
    return network.to(device).eval().requires_grad_(False)


def _load_lpips(path: Path) -> Lpips:
    """LPIPS from a file that the package's own state was saved to, by torch or safetensors."""
    try:
        stored = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        network = Lpips()
        network.load_state_dict({name: stored[there].float() for name, there in network.names().items()})
    except FileNotFoundError:
        raise ConfigError(f"perceptual.lpips: there is no {path}; make it with: {TO_MAKE_ONE}") from None
    except Exception as error:  # what is no such file raises all sorts
        reason = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
        raise ConfigError(
            f"perceptual.lpips: {path} holds no LPIPS by VGG ({reason}); make it with: {TO_MAKE_ONE}"
        ) from None
    return network


def in_one_row(clips: Tensor) -> Tensor:
    """Clips [B, 3, T, H, W] → their frames [B · T, 3, H, W]."""
    return clips.transpose(1, 2).flatten(0, 1)
