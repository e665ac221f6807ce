"""Latents as a transformer makes them, of clips that are known: what a decoder is shown in use.

Noise of a middling level leaves of a clip where its things are and takes their outlines; a transformer that takes the
noise away draws these anew, with its own mistakes. A decoder that learns what the clip was draws better what the
transformer makes. (Zheng et al. 2025, "Diffusion Transformers with Representation Autoencoders", train a decoder
on latents under plain noise to the same end.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from yozora.diffusion import add_noise, guided
from yozora.diffusion.levels import shift_levels
from yozora.models.folder import load_module
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer
from yozora.train.config import Redraw
from yozora.train.distill import follow
from yozora.train.loop import pick_device


class Redrawn:
    """Puts latents under noise and lets a trained transformer take it away."""

    def __init__(self, config: Redraw, device: str):
        self.config, place = config, pick_device(device)
        self.text = load_module(TextEncoder, config.model / "text_encoder", place)
        self.transformer = load_module(Transformer, config.model / "transformer", place).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, latents: Tensor, captions: Sequence[str], generator: torch.Generator) -> Tensor:
        """Normalised latents float32 [B, C, T, h, w] and what is said of each clip → such latents, redrawn."""
        config, (batch, _, frames) = self.config, latents.shape[:3]
        drawn = torch.rand(batch, generator=generator, dtype=torch.float64)
        highest = config.lowest + (config.highest - config.lowest) * drawn
        falling = shift_levels(torch.linspace(1, 0, config.steps + 1, dtype=torch.float64), config.shift)
        path = (falling[:, None] * highest)[..., None].expand(-1, -1, frames).to(latents.device)
        noisy = add_noise(latents, torch.randn(latents.shape, generator=generator).to(latents), path[0])
        velocity = guided(self.transformer, self.text(list(captions)), self.text([""]), config.guidance)
        return follow(velocity, noisy.float(), path)
