"""Wan in Yozora and in diffusers: the same random weights, noise, text, steps, solver and type, by turns, one process.

What is timed is a step of sampling with guidance, and decoding; the two answers are compared as well. Weights are
random, so pictures show nothing, but the work is that of the real ones at the width and depth that are asked for. With
`--reuse`, ours is also run with that dial, and its distance to our own exact answer is said, and that of as many fewer
steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import peak_memory, show_table, write_results
from torch import Tensor

from yozora.diffusion import SCHEDULES, guided, in_whole_levels, sample
from yozora.diffusion.reuse import Reuse
from yozora.models.transformer import Transformer
from yozora.models.wan import PRESETS, load_wan_autoencoder, load_wan_transformer

GUIDANCE, SHIFT, TOKENS = 5.0, 3.0, 512


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = both_transformers(Path(name), options, dtype)
        decoders = both_autoencoders(Path(name), dtype, options.device)
    grid = (1 + (options.frames - 1) // 4, options.side // 8, options.side // 8)
    noise = torch.randn(1, 16, *grid, device=options.device)
    text, null = (torch.randn(1, TOKENS, 4096, device=options.device, dtype=dtype) for _ in range(2))

    runs: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: our_run(ours, noise, text, null, options.steps),
        "diffusers": lambda: their_run(theirs, noise, text, null, options.steps),
    }
    seconds, answers = by_turns(runs, options.repeats, options.device)
    per_step = {name: value / options.steps for name, value in seconds.items()}
    decode, videos = by_turns({name: (lambda d=d: d(noise)) for name, d in decoders.items()}, options.repeats,
                              options.device)  # fmt: skip
    rows = [
        [what, *(f"{table[name]:.2f}" for name in runs), f"{table['diffusers'] / table['ours']:.2f}"]
        for what, table in (("a step, s", per_step), ("decoding, s", decode))
    ]
    results: dict[str, Any] = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "step": per_step, "decode": decode, "peak MiB of both": peak_memory(),
        "apart": {"latents": apart(answers), "frames": apart(videos)},
    }  # fmt: skip
    show_table(f"{options.model}, {options.depth} blocks, {options.frames} frames of {options.side}², {options.dtype}",
               ["", "ours", "diffusers", "times as fast"], rows)  # fmt: skip
    print(f"relative distance: latents {apart(answers):.2e}, frames {apart(videos):.2e}")
    if options.reuse:
        results["reuse"] = compare_reuse(ours, noise, text, null, options)
    write_results("peers", results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("wan2.1-1.3b", "wan2.1-14b"), default="wan2.1-1.3b")
    parser.add_argument("--depth", type=int, default=6, help="blocks, of the model's 30 or 40")
    parser.add_argument("--side", type=int, default=256, help="pixels, a multiple of 16")
    parser.add_argument("--frames", type=int, default=17, help="1 + 4k")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many, after one to warm up")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--reuse", type=float, default=0.0, help="also ours with this dial")
    return parser.parse_args()


def both_transformers(folder: Path, options: argparse.Namespace, dtype: torch.dtype) -> tuple[Transformer, Any]:
    """Ours and theirs with the same random weights, through a file."""
    library = importlib.import_module("diffusers")
    config = dataclasses.replace(PRESETS[options.model], depth=options.depth)
    theirs = library.WanTransformer3DModel(
        num_attention_heads=config.heads, ffn_dim=config.ffn_width, num_layers=config.depth
    )
    theirs.save_pretrained(folder / "transformer")
    ours = load_wan_transformer(folder / "transformer", options.device, dtype)
    for name, parameter in theirs.named_parameters():  # as its from_pretrained does where accelerate is installed
        kept = any(part in name for part in theirs._keep_in_fp32_modules)
        parameter.data = parameter.data.to(options.device, torch.float32 if kept else dtype)
    return ours, theirs.to(options.device).eval()


def both_autoencoders(folder: Path, dtype: torch.dtype, device: str) -> dict[str, Callable[[Tensor], Tensor]]:
    library = importlib.import_module("diffusers")
    theirs = library.AutoencoderKLWan()
    theirs.save_pretrained(folder / "vae")
    theirs = theirs.to(device, dtype).eval()
    ours = load_wan_autoencoder(folder / "vae", device, dtype)
    mean, std = (
        torch.tensor(each, device=device).view(1, -1, 1, 1, 1)
        for each in (theirs.config.latents_mean, theirs.config.latents_std)
    )
    return {
        "ours": lambda latents: ours.decode(latents).clamp(-1, 1),
        "diffusers": lambda latents: theirs.decode((latents * std + mean).to(dtype)).sample,
    }


def our_run(model: Transformer | Reuse, noise: Tensor, text: Tensor, null: Tensor, steps: int) -> Tensor:
    velocity = in_whole_levels(guided(model, (text, None), (null, None), GUIDANCE), 1000)
    *_, step = sample(velocity, noise, SCHEDULES["wan-0.37"](steps, SHIFT), solver="unipc")
    return step.latents


def their_run(model: Any, noise: Tensor, text: Tensor, null: Tensor, steps: int) -> Tensor:
    """As diffusers' pipeline does it."""
    library = importlib.import_module("diffusers")
    scheduler = library.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
    )
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise
    for level in scheduler.timesteps:
        given, when = latents.to(text.dtype), level.expand(1)
        said, null_said = (model(given, when, states, return_dict=False)[0] for states in (text, null))
        latents = scheduler.step(null_said + GUIDANCE * (said - null_said), level, latents, return_dict=False)[0]
    return latents


@torch.inference_mode()
def by_turns(
    runs: dict[str, Callable[[], Tensor]], repeats: int, device: str
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The median seconds of each, one after the other in each round, and its answer."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    answers = {}
    for _ in range(1 + repeats):
        for name, run in runs.items():
            begun = time.perf_counter()
            answers[name] = run().float()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each[1:] or each) for name, each in seconds.items()}, answers


def apart(answers: dict[str, Tensor]) -> float:
    """The distance of the two answers, relative to the size of diffusers'."""
    return float((answers["ours"] - answers["diffusers"]).norm() / answers["diffusers"].norm())


@torch.inference_mode()
def compare_reuse(
    model: Transformer, noise: Tensor, text: Tensor, null: Tensor, options: argparse.Namespace
) -> dict[str, float]:
    """Ours with reuse, and ours with as many steps as that works out in full, each against ours."""
    exact, reuse = our_run(model, noise, text, null, options.steps), Reuse(model, options.reuse)
    begun = time.perf_counter()
    reused = our_run(reuse, noise, text, null, options.steps)
    seconds = time.perf_counter() - begun
    fewer = our_run(model, noise, text, null, reuse.full)
    found = {
        "dial": options.reuse, "full steps": reuse.full, "a step, s": seconds / options.steps,
        "apart": float((reused - exact).norm() / exact.norm()),
        "as many fewer steps apart": float((fewer - exact).norm() / exact.norm()),
    }  # fmt: skip
    print("reuse: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return found


if __name__ == "__main__":
    main()
