"""How well does the transformer predict the flow on scenes it never saw? By noise level, with and without prompt."""

from __future__ import annotations

import argparse

import torch
from common import show_table, write_results

from yozora.diffusion import add_noise, flow_loss
from yozora.models.registry import Bundle, load_bundle
from yozora.train.config import Bucket
from yozora.train.data import HELD_OUT_SEEDS, clip_tensor, load_mix, to_signed
from yozora.world import describe, sample_scene

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
FIRST_SEED = HELD_OUT_SEEDS + 2_000_000
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out flow loss by noise level.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--clips", type=int, default=64, help="held-out scenes")
    parser.add_argument("--mix", default="simple")
    options = parser.parse_args()

    bundle = load_bundle(options.model)
    sums = torch.zeros(2, len(LEVELS))
    for first in range(0, options.clips, BATCH):
        count = min(BATCH, options.clips - first)
        sums += count * losses(bundle, options.mix, FIRST_SEED + first, count)
    means = sums / options.clips
    names = ("short English caption", "no prompt")
    rows = [
        [name, *(f"{loss:.4f}" for loss in row), f"{row.mean():.4f}"] for name, row in zip(names, means, strict=True)
    ]
    show_table(
        f"{options.model}: mean squared error of velocity, {options.clips} held-out scenes, {options.mix} mix",
        ["noise level", *(f"{level:g}" for level in LEVELS), "mean"],
        rows,
    )
    write_results(
        "flow_loss", {"model": options.model, "levels": LEVELS} | dict(zip(names, means.tolist(), strict=True))
    )


@torch.no_grad()
def losses(bundle: Bundle, mix: str, seed: int, count: int) -> torch.Tensor:
    """Mean loss of `count` scenes from `seed` on, `[with prompt or without, level]`."""
    (width, height), frames = bundle.card.sizes[0], bundle.card.frames_max
    bucket = Bucket(width=width, height=height, frames=frames, batch=1)
    scenes = [sample_scene(s, load_mix(mix)) for s in range(seed, seed + count)]
    pixels = torch.stack([clip_tensor(scene, bucket, bundle.card.fps) for scene in scenes])
    latents = bundle.autoencoder.encode(to_signed(pixels).to(bundle.dtype)).float()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    captions = [describe(scene, "en", "short", seed=0) for scene in scenes]
    result = torch.zeros(2, len(LEVELS))
    for row, prompts in enumerate((captions, [""] * count)):
        text, mask = bundle.text_encoder(prompts)
        for column, level in enumerate(LEVELS):
            levels = torch.full((count, latents.shape[2]), level)
            velocity = bundle.transformer(add_noise(latents, noise, levels), levels, text, mask)
            result[row, column] = flow_loss(velocity, latents, noise, levels)
    return result


if __name__ == "__main__":
    main()
