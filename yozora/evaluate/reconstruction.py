"""How well an autoencoder gives back what it was given."""

from __future__ import annotations

import numpy as np
import torch

from yozora.clip import Clip
from yozora.models.autoencoder import Streams


@torch.inference_mode()
def reconstruct(autoencoder: Streams, clip: Clip) -> Clip:
    """The clip, of 1 + 4k frames and sides that are multiples of 16, encoded and decoded again."""
    weight = next(autoencoder.parameters())
    pixels = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].to(weight.device)
    latents = autoencoder.encode((pixels.float() / 127.5 - 1).to(weight.dtype))
    frames = autoencoder.decode(latents)[0].float()
    out = (frames * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 3, 0)
    return Clip(out.cpu().numpy(), clip.fps)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pictures in dB; infinite where they are equal."""
    error = np.square(one.astype(np.float64) - other.astype(np.float64)).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
