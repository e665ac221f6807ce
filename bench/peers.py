"""Wan in Yozora and in diffusers: the same random weights, noise, text, steps, solver and type, each in its own
process, by turns.

What is timed is a step of sampling with guidance, and decoding. Of each process its peak memory is told, of both, and
how far its answers are from those of float32. Weights are random, so pictures show nothing, but the work is that of the
real ones at the width and depth that are asked for. Where other programs compete for the cores, `--clock cpu` counts
the time that each process had of them; it says something with one thread only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import importlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import peak_memory, show_table, write_results
from safetensors.torch import load_file
from torch import Tensor

from yozora.diffusion import SCHEDULES, guided, in_whole_levels, sample
from yozora.models.folder import find_weights
from yozora.models.running import Running
from yozora.models.transformer import Transformer
from yozora.models.wan import PRESETS, load_wan_autoencoder, load_wan_transformer

GUIDANCE, SHIFT, TOKENS = 5.0, 3.0, 512
STEM = "diffusion_pytorch_model"
SIDES = ("ours", "diffusers")
STAGES = ("sample", "decode")
EXACT = "exact.npz"
Runs = dict[str, Callable[[], Tensor]]


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep / described(options) if options.keep else Path(name)
        if not (folder / EXACT).is_file():
            in_its_own(write_weights, folder, options)
            exact = in_its_own(answers, folder, changed_options(options, dtype="float32", stages=STAGES))
            np.savez(folder / EXACT, **exact)
        if options.only_exact:
            return
        with np.load(folder / EXACT) as exact:
            told = by_turns(folder, options)
            show(told, exact, options)


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
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument(
        "--keep", type=Path, help="a folder where weights and float32's answers are kept for a next run"
    )
    parser.add_argument("--only-exact", action="store_true", help="end once these are kept: what follows is timed")
    parser.add_argument("--compile", action="store_true", help="compile our blocks")
    parser.add_argument("--weights", choices=("int8", "fp8"), help="ours in eight bits, which is an approximation")
    parser.add_argument("--offload", choices=("cpu", "disk"), help="our blocks wait there, which changes no number")
    options = parser.parse_args()
    if options.only_exact and not options.keep:
        parser.error("--only-exact needs --keep")
    return options


def described(options: argparse.Namespace) -> str:
    """The name of what weights and float32's answers depend on."""
    return "-".join(str(getattr(options, each)) for each in ("model", "depth", "side", "frames", "steps"))


def changed_options(options: argparse.Namespace, **changed: Any) -> argparse.Namespace:
    return argparse.Namespace(**(vars(options) | changed))


# ---- processes -------------------------------------------------------------------------------------------------------


def in_its_own(act: Callable[..., Any], *given: Any) -> Any:
    """What `act` says, in a process that is gone after it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(act, given)


def by_turns(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What each side tells of each stage: seconds (the median), peak memory in MiB, its answer."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = {}, []
    for side in SIDES:
        pipes[side], theirs = context.Pipe()
        workers.append(context.Process(target=work, args=(side, folder, options, theirs), daemon=True))
        workers[-1].start()
    told: dict[str, dict[str, Any]] = {side: {"seconds": {}, "memory": {}, "answer": {}} for side in SIDES}
    for stage in ("load", *options.stages):
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(1 if stage == "load" else 1 + options.repeats):
            for side in SIDES:
                pipes[side].send(stage)
                took, peak, answer = pipes[side].recv()
                seconds[side].append(took)
                told[side]["memory"][stage], told[side]["answer"][stage] = peak, answer
        for side in SIDES:
            told[side]["seconds"][stage] = statistics.median(seconds[side][1:] or seconds[side])
    for side, worker in zip(SIDES, workers, strict=True):
        pipes[side].send(None)
        worker.join()
    return told


@torch.inference_mode()
def work(side: str, folder: Path, options: argparse.Namespace, pipe: Any) -> None:
    """Does what it is told to, and says how long it took, its peak memory so far, and the answer."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    runs: Runs = {}
    while (stage := pipe.recv()) is not None:
        forget_peak()
        begun = clock()
        answer = None
        if stage == "load":
            runs = (our_runs if side == "ours" else their_runs)(folder, options)
        else:
            answer = runs[stage]().float()
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()
        took = clock() - begun
        on_gpu = options.device.startswith("cuda")
        peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else highest()
        pipe.send((took, peak, None if answer is None else answer.cpu().numpy()))


def forget_peak() -> None:
    """Lets the peak of memory begin anew, without what was let go of, where the system can (Linux)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def highest() -> float:
    """The most memory held since `forget_peak`, MiB; where the system cannot say, since the process began."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return peak_memory()


# ---- both sides ------------------------------------------------------------------------------------------------------


def write_weights(folder: Path, options: argparse.Namespace) -> None:
    """Random weights, in float32, in diffusers' layout."""
    library = importlib.import_module("diffusers")
    torch.manual_seed(0)
    their_transformer(options).save_pretrained(folder / "transformer")
    library.AutoencoderKLWan().save_pretrained(folder / "vae")


def their_transformer(options: argparse.Namespace) -> Any:
    config = dataclasses.replace(PRESETS[options.model], depth=options.depth)
    return importlib.import_module("diffusers").WanTransformer3DModel(
        num_attention_heads=config.heads, ffn_dim=config.ffn_width, num_layers=config.depth
    )


def given(options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """The noise [1, 16, T, h, w], and the states of a prompt and of the null prompt [1, 512, 4096]."""
    generator = torch.Generator().manual_seed(1)
    grid = (1 + (options.frames - 1) // 4, options.side // 8, options.side // 8)
    shapes = ((1, 16, *grid), (1, TOKENS, 4096), (1, TOKENS, 4096))
    noise, text, null = (torch.randn(shape, generator=generator).to(options.device) for shape in shapes)
    dtype = getattr(torch, options.dtype)
    return noise, text.bfloat16().to(dtype), null.bfloat16().to(dtype)


def our_runs(folder: Path, options: argparse.Namespace) -> Runs:
    dtype = getattr(torch, options.dtype)
    running = Running(options.weights, options.offload, options.compile)
    model = load_wan_transformer(folder / "transformer", options.device, dtype, running=running)
    autoencoder = load_wan_autoencoder(folder / "vae", options.device, dtype, options.offload)
    noise, text, null = given(options)
    return {
        "sample": lambda: our_sampling(model, noise, text, null, options.steps),
        "decode": lambda: autoencoder.decode(noise).clamp(-1, 1),
    }


def our_sampling(model: Transformer, noise: Tensor, text: Tensor, null: Tensor, steps: int) -> Tensor:
    velocity = in_whole_levels(guided(model, (text, None), (null, None), GUIDANCE), 1000)
    *_, step = sample(velocity, noise, SCHEDULES["wan-0.37"](steps, SHIFT), solver="unipc")
    return step.latents


def their_runs(folder: Path, options: argparse.Namespace) -> Runs:
    library = importlib.import_module("diffusers")
    dtype = getattr(torch, options.dtype)
    model = their_transformer(options).eval()  # not from_pretrained, which takes accelerate
    model.load_state_dict({name: each for path in find_weights(folder / "transformer", STEM) for name, each in
                           load_file(path).items()})  # fmt: skip
    for name, parameter in model.named_parameters():  # as it does itself where accelerate is installed
        kept = any(part in name for part in model._keep_in_fp32_modules)
        parameter.data = parameter.data.to(options.device, torch.float32 if kept else dtype)
    model = model.to(options.device)
    autoencoder = library.AutoencoderKLWan.from_pretrained(folder / "vae").to(options.device, dtype).eval()
    noise, text, null = given(options)
    mean, std = (
        torch.tensor(each, device=options.device).view(1, -1, 1, 1, 1)
        for each in (autoencoder.config.latents_mean, autoencoder.config.latents_std)
    )
    return {
        "sample": lambda: their_sampling(model, noise, text, null, options.steps),
        "decode": lambda: autoencoder.decode((noise * std + mean).to(dtype)).sample,
    }


def their_sampling(model: Any, noise: Tensor, text: Tensor, null: Tensor, steps: int) -> Tensor:
    """As diffusers' pipeline does it."""
    library = importlib.import_module("diffusers")
    scheduler = library.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
    )
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise
    for level in scheduler.timesteps:
        put_in, when = latents.to(text.dtype), level.expand(1)
        said, null_said = (model(put_in, when, states, return_dict=False)[0] for states in (text, null))
        latents = scheduler.step(null_said + GUIDANCE * (said - null_said), level, latents, return_dict=False)[0]
    return latents


@torch.inference_mode()
def answers(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """diffusers' answers, in the type that is asked for."""
    runs = their_runs(folder, options)
    return {stage: runs[stage]().float().cpu().numpy() for stage in options.stages}


# ---- the table -------------------------------------------------------------------------------------------------------


def show(told: dict[str, dict[str, Any]], exact: Mapping[str, Any], options: argparse.Namespace) -> None:
    rows, results = [], {}
    for stage in options.stages:
        label, share = ("a step", options.steps) if stage == "sample" else ("decoding", 1)
        seconds = {side: told[side]["seconds"][stage] / share for side in SIDES}
        far = {side: apart(told[side]["answer"][stage], exact[stage]) for side in SIDES}
        ratio = seconds["diffusers"] / seconds["ours"]
        rows.append([f"{label}, s", *(f"{seconds[side]:.2f}" for side in SIDES), f"{ratio:.2f} times as fast"])
        rows.append([f"{label}, from float32", *(f"{far[side]:.2%}" for side in SIDES), ""])
        results[stage] = {"seconds": seconds, "times as fast": ratio, "from float32": far}
    for stage in options.stages:
        peak = {side: told[side]["memory"][stage] for side in SIDES}
        share = peak["ours"] / peak["diffusers"]
        rows.append([f"peak memory, {stage}, MiB", *(f"{peak[side]:.0f}" for side in SIDES), f"{share:.2f} of it"])
        results.setdefault(stage, {})["peak MiB"] = peak
    title = f"{options.model}, {options.depth} blocks, {options.frames} frames of {options.side}², {options.dtype}"
    show_table(title, ["", *SIDES, "ours to diffusers'"], rows)
    write_results("peers", {"options": {key: str(value) for key, value in vars(options).items()}} | results)


def apart(answer: Any, exact: Any) -> float:
    """The distance to what float32 says, relative to its size."""
    return float(((answer - exact) ** 2).sum() ** 0.5 / (exact**2).sum() ** 0.5)


if __name__ == "__main__":
    main()
