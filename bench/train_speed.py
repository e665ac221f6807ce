"""Training speed: tokens a second and MFU of the presets `small` and `wan2.1-1.3b`, beside diffusers' transformer of
the same sizes in a plain loop.

Both learn from the same clip, by the same optimiser, in turns within one run; what differs is the model and the step
around it. MFU is the operations that the matrices of a step need (nothing that is worked out twice counts twice) over
what the device reaches in matrix products alone. Without a GPU, depth and tokens are cut down so that it ends in some
minutes, and the table says so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from common import show_table, write_results
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from yozora.diffusion import add_noise, flow_loss, velocity_target
from yozora.models.presets import PRESETS
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.config import Optim
from yozora.train.flops import step_flops
from yozora.train.log import matmul_rate
from yozora.train.optim import Optimisers
from yozora.train.parallel import with_checkpointing, with_float8, with_kernels

TARGET = 0.5  # MFU of wan2.1-1.3b on an H200
CUT = {"small": (2, "3x12x20"), "wan2.1-1.3b": (1, "3x12x20")}  # depth and tokens without a GPU
FULL = "21x30x52"  # 81 frames of 832 x 480 pixels: 32,760 tokens
WORDS = 128
OPTIM = Optim(adamw=1e-4, warmup=0)
Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed of the presets, beside diffusers' transformer.")
    parser.add_argument("--preset", action="append", choices=list(CUT), help="one or more; else both")
    parser.add_argument("--depth", type=int, help="blocks; else all of them, or few without a GPU")
    parser.add_argument("--tokens", metavar="TxHxW", help=f"of the clip; else {FULL}, or few without a GPU")
    parser.add_argument("--steps", type=int, help="of each that are timed; else 10, or 3 without a GPU")
    parser.add_argument("--checkpointing", choices=["none", "selective", "full"], help="else selective on a GPU")
    parser.add_argument("--compile", action="store_true", help="the blocks of both")
    parser.add_argument("--float8", action="store_true", help="ours with matrix products in eight bits")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    results = {name: measure(name, device, options) for name in options.preset or list(CUT)}
    rows = [
        [name, way, f"{made[way]['tokens_per_second']:.0f}", f"{made[way]['mfu']:.1%}", f"{made[way]['seconds']:.2f}"]
        for name, made in results.items()
        for way in ("yozora", "diffusers")
    ]
    about = "; ".join(f"{name}: {made['depth']} of {PRESETS[name].depth} blocks, {made['tokens']} tokens"
                      for name, made in results.items())  # fmt: skip
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU only"
    show_table(f"{where}, {options.precision}; {about}", ["", "", "tokens/s", "MFU", "s a step"], rows)
    write_results("train_speed", {"device": where, "precision": options.precision, "presets": results})


def measure(name: str, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways of a preset, in turns."""
    depth, tokens = (PRESETS[name].depth, FULL) if device.type == "cuda" else CUT[name]
    config = replace(PRESETS[name], depth=options.depth or depth, absolute=False)  # diffusers has no such positions
    grid = tuple(int(side) for side in (options.tokens or tokens).split("x"))
    checkpointing = options.checkpointing or ("selective" if device.type == "cuda" else "none")
    clip = example(config, grid, device)
    steps = {
        "yozora": our_step(config, clip, device, checkpointing, options),
        "diffusers": their_step(config, clip, device, checkpointing, options),
    }
    took: dict[str, list[float]] = {way: [] for way in steps}
    for turn in range(1 + (options.steps or (10 if device.type == "cuda" else 3))):
        for way, step in steps.items():
            begun = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first is for warming up
                took[way].append(time.perf_counter() - begun)
    count = grid[0] * grid[1] * grid[2]
    flops, rate = step_flops(config, [count], [WORDS]), matmul_rate(device, options.precision)
    made: dict[str, Any] = {"depth": config.depth, "tokens": count, "checkpointing": checkpointing}
    for way, seconds in took.items():
        median = statistics.median(seconds)
        made[way] = {"tokens_per_second": count / median, "mfu": flops / median / rate, "seconds": median}
    return made


def example(config: TransformerConfig, grid: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Latents [1, C, T, H, W] of so many tokens, noise like them, one noise level, and a text."""
    random = torch.Generator().manual_seed(0)
    size = [side * part for side, part in zip(grid, config.patch, strict=True)]
    latents, noise = (torch.randn(1, config.channels, *size, generator=random).to(device) for _ in range(2))
    text = torch.randn(1, WORDS, config.text_width, generator=random).to(device)
    return latents, noise, torch.full((1, 1), 0.6, device=device), text


def our_step(
    config: TransformerConfig,
    clip: tuple[Tensor, ...],
    device: torch.device,
    checkpointing: str,
    options: argparse.Namespace,
) -> Step:
    """A step as `yozora train transformer` does it."""
    torch.manual_seed(0)
    transformer = Transformer(config).to(device)
    if options.float8:
        transformer = with_float8(transformer, device)
    transformer = with_checkpointing(transformer, checkpointing)
    if options.compile:
        transformer = with_kernels(transformer)
    optimisers = Optimisers(transformer, OPTIM, lambda name, parameter: False)
    latents, noise, levels, text = clip

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            said = transformer(add_noise(latents, noise, levels), levels, text)
            loss = flow_loss(said, latents, noise, levels)
        loss.backward()
        optimisers.step(1.0)

    return step


def their_step(
    config: TransformerConfig,
    clip: tuple[Tensor, ...],
    device: torch.device,
    checkpointing: str,
    options: argparse.Namespace,
) -> Step:
    """A step of diffusers' transformer of the same sizes, as its users write it."""
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=config.patch,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_width,
        in_channels=config.channels,
        out_channels=config.channels,
        text_dim=config.text_width,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_width,
        num_layers=config.depth,
    )
    model.to(device)  # pyright: ignore[reportArgumentType]
    if checkpointing != "none":
        model.enable_gradient_checkpointing()  # of whole blocks: there is no other
    if options.compile:
        for block in model.blocks:
            block.compile()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)
    latents, noise, levels, text = clip

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            noisy = add_noise(latents, noise, levels)
            said = model(noisy, levels[:, 0] * 1000, text, return_dict=False)[0]
            loss = (said.float() - velocity_target(latents, noise)).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
