"""Are the open weights in a folder run here as diffusers runs them? One command, for weights that were just fetched.

The same prompt and noise go through both, part by part: what the text encoder says, the latents after a few steps with
guidance (the reference latent), the frames that these decode to, and the latents of a moving test picture. Of each, the
distance is told, relative to the size of diffusers' answer, and the latent's SHA-256 in float32, so that two machines
can compare. Exit status 1 if a distance is more than it may be. It needs diffusers, the memory of both, one after the
other, and of a 1.3B model in float32 on a CPU, some minutes.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import yozora
from yozora.diffusion import SCHEDULES, guided, in_whole_levels, sample
from yozora.models.folder import find_weights
from yozora.models.registry import find_model

MOST = {"float32": 1e-3, "bfloat16": 0.05}
"""Distances that rounding explains: of a few steps at full depth in float32, and of diffusers' bfloat16, which keeps
the stream between blocks in it, too."""
GUIDANCE = 5.0

Answers = dict[str, Tensor]


@torch.inference_mode()
def main() -> int:
    options = parse()
    folder = find_model(options.model)
    ours = our_answers(folder, options)
    gc.collect()
    theirs = their_answers(folder, options)
    print(f"{folder}: {options.frames} frames of {options.side}x{options.side}, {options.steps} steps, {options.dtype}")
    worst = 0.0
    for name, answer in theirs.items():
        far = float((ours[name] - answer).norm() / answer.norm())
        worst = max(worst, far if far == far else float("inf"))
        print(f"  {name:<28} {far:.2e} from diffusers', largest difference {(ours[name] - answer).abs().max():.2e}")
    print(f"  SHA-256 of our reference latent: {hashlib.sha256(ours['latents'].numpy().tobytes()).hexdigest()}")
    right = worst <= MOST[options.dtype]
    print(f"{'right' if right else 'NOT right'}: at most {MOST[options.dtype]:.0e} was to be expected")
    return 0 if right else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder in diffusers' layout, or the name of a fetched model")
    parser.add_argument("--prompt", default="a cat walks on the grass")
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--frames", type=int, default=5, help="1 + 4k")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--dtype", choices=tuple(MOST), default="float32")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def noise_for(channels: int, cell: int, options: argparse.Namespace) -> Tensor:
    shape = (1, channels, 1 + (options.frames - 1) // 4, options.side // cell, options.side // cell)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def moving_picture(options: argparse.Namespace) -> Tensor:
    """Waves that move: pixels [1, 3, T, H, W] in -1..1."""
    time, row, column = (torch.arange(n, dtype=torch.float32) for n in (options.frames, options.side, options.side))
    phase = time[:, None, None] / 3 + row[:, None] / 11 + column / 7
    return torch.stack([torch.sin(phase * (1 + n / 2)) for n in range(3)])[None]


def our_answers(folder: Path, options: argparse.Namespace) -> Answers:
    bundle = yozora.load(folder, options.device, getattr(torch, options.dtype)).bundle
    text, null = bundle.text_encoder([options.prompt]), bundle.text_encoder([""])
    noise = noise_for(bundle.autoencoder.config.channels, bundle.autoencoder.config.spatial, options)
    velocity = in_whole_levels(guided(bundle.transformer, text, null, GUIDANCE), 1000)
    levels = SCHEDULES["wan-0.37"](options.steps, bundle.card.shift)
    *_, step = sample(velocity, noise.to(options.device), levels, solver="unipc")
    frames = bundle.autoencoder.decode(noise.to(options.device)).clamp(-1, 1)
    encoded = bundle.autoencoder.encode(moving_picture(options).to(options.device))
    made = {"text": text[0], "latents": step.latents, "frames of the noise": frames, "a picture's latents": encoded}
    return {name: each.float().cpu() for name, each in made.items()}


def their_answers(folder: Path, options: argparse.Namespace) -> Answers:
    try:
        library: Any = importlib.import_module("diffusers")
    except ImportError:
        sys.exit("this compares with diffusers, which is not installed: pip install diffusers")
    dtype = getattr(torch, options.dtype)
    transformer = their_transformer(library, folder / "transformer", dtype)
    pipeline = library.WanPipeline.from_pretrained(folder, transformer=transformer, torch_dtype=dtype)
    pipeline.to(options.device).set_progress_bar_config(disable=True)
    pipeline.vae.to(torch.float32)  # as its page says: in bfloat16 it is the less exact of the two
    text, _ = pipeline.encode_prompt(options.prompt, do_classifier_free_guidance=False, max_sequence_length=512)
    config = pipeline.vae.config
    mean, std = (
        torch.tensor(each, device=options.device).view(1, -1, 1, 1, 1)
        for each in (config.latents_mean, config.latents_std)
    )
    noise = noise_for(config.z_dim, pipeline.vae_scale_factor_spatial, options).to(options.device)
    latents = pipeline(
        options.prompt, "", height=options.side, width=options.side, num_frames=options.frames,
        num_inference_steps=options.steps, guidance_scale=GUIDANCE, latents=noise, output_type="latent",
    ).frames  # fmt: skip
    frames = pipeline.vae.decode(noise * std + mean).sample
    encoded = (pipeline.vae.encode(moving_picture(options).to(options.device)).latent_dist.mode() - mean) / std
    made = {"text": text, "latents": latents, "frames of the noise": frames, "a picture's latents": encoded}
    return {name: each.float().cpu() for name, each in made.items()}


def their_transformer(library: Any, folder: Path, dtype: torch.dtype) -> Any:
    """diffusers' transformer, with float32 where it keeps that: `from_pretrained` does so with accelerate only."""
    config = library.WanTransformer3DModel.load_config(folder)
    model = library.WanTransformer3DModel.from_config(config).eval()
    weights = find_weights(folder, "diffusion_pytorch_model")
    model.load_state_dict({name: tensor for path in weights for name, tensor in load_file(path).items()})
    for name, parameter in model.named_parameters():
        kept = any(part in name for part in model._keep_in_fp32_modules)
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)
    return model


if __name__ == "__main__":
    sys.exit(main())
