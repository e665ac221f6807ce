"""What does the autoencoder lose, and what does it need? Held-out PSNR at native size, decoding in a stream against
decoding in one pass, and the memory of a long decode against a short one."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from common import peak_memory, show_table, write_results

from yozora.clip import Clip
from yozora.create.streaming import CHUNK_LATENTS
from yozora.models.registry import Bundle, load_bundle

SHORT, LONG = 101, 1001  # frames: 1 + 4k
TARGETS = {"psnr": 30.0, "stream": 1e-4, "memory": 1.1}


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out PSNR, streaming and memory of a model's autoencoder.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--clips", type=int, default=32, help="held-out scenes of each mix")
    parser.add_argument("--decode", type=int, metavar="FRAMES", help="only decode, and print the peak memory")
    options = parser.parse_args()
    if options.decode:
        print(*decode_memory(load_bundle(options.model), options.decode))
        return

    bundle = load_bundle(options.model)
    results: dict[str, Any] = {"model": options.model, "clips": options.clips, "targets": TARGETS}
    rows = []
    for mix in ("full", "simple"):
        results[f"psnr_{mix}"] = quality = held_out_psnr(bundle, mix, options.clips)
        rows.append([f"PSNR, {mix} mix, mean", f"{quality['mean']:.2f} dB", f">= {TARGETS['psnr']:g} dB"])
        rows.append([f"PSNR, {mix} mix, worst clip", f"{quality['worst']:.2f} dB", ""])
    for n in (1, CHUNK_LATENTS):
        results[f"stream_by_{n}"] = difference = stream_difference(options.model, n)
        rows.append([f"stream by {n} against one pass", f"{difference:.1e}", f"<= {TARGETS['stream']:g}"])
    (loaded, short), (_, long) = (measure_memory(options.model, frames) for frames in (SHORT, LONG))
    results["peak_mib"] = {"loaded": round(loaded), SHORT: round(short), LONG: round(long)}
    results["memory_ratio"] = round(long / short, 4)
    rows.append(["memory before decoding", f"{loaded:.0f} MiB", ""])
    rows.append([f"peak memory, {SHORT} frames", f"{short:.0f} MiB", ""])
    rows.append([f"peak memory, {LONG} frames", f"{long:.0f} MiB", f"<= {TARGETS['memory'] * short:.0f} MiB"])
    (width, height), frames = native(bundle)
    results["size"], results["frames"] = (width, height), frames
    show_table(f"autoencoder of {options.model}, {frames} frames of {width}x{height}", ["", "measured", "target"], rows)
    write_results("autoencoder", results)


def native(bundle: Bundle) -> tuple[tuple[int, int], int]:
    """The largest trained size (width, height) and the longest trained length in frames."""
    return max(bundle.card.sizes, key=lambda size: (size[0] * size[1], min(size))), bundle.card.frames_max


def held_out_psnr(bundle: Bundle, mix: str, clips: int) -> dict[str, float]:
    """Mean and worst PSNR (dB) over scenes that training never drew, and the seconds that coding them took."""
    # imported here, so that a process that only decodes stays small
    from yozora.evaluate import psnr, reconstruct
    from yozora.train.data import HELD_OUT_SEEDS
    from yozora.world import MIXES, render, sample_scene

    size, frames = native(bundle)
    scores, seconds = [], 0.0
    for seed in range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + clips):
        clip = Clip(render(sample_scene(seed, MIXES[mix]), *size, frames, bundle.card.fps).frames, bundle.card.fps)
        started = time.perf_counter()
        again = reconstruct(bundle.autoencoder, clip)
        seconds += time.perf_counter() - started
        scores.append(psnr(clip.frames, again.frames))
    return {"mean": float(np.mean(scores)), "worst": min(scores), "seconds": seconds}


@torch.inference_mode()
def stream_difference(model: str, n: int) -> float:
    """The largest difference (frames are in -1..1) between decoding n latent frames at a time and all at once, in
    float32."""
    bundle = load_bundle(model, dtype=torch.float32)
    latents = _noise(bundle, native(bundle)[1], torch.Generator().manual_seed(0))
    whole = bundle.autoencoder.decode(latents)
    parts = list(bundle.autoencoder.decode_stream(latents.split(n, dim=2)))
    return float((torch.cat(parts, dim=2) - whole).abs().max())


def measure_memory(model: str, frames: int) -> tuple[float, float]:
    """Peak memory (MiB) of a fresh process that decodes so many frames in a stream: before it does, and at its end."""
    command = [sys.executable, __file__, "--model", model, "--decode", str(frames)]
    before, after = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(before), float(after)


@torch.inference_mode()
def decode_memory(bundle: Bundle, frames: int) -> tuple[float, float]:
    """Decodes random latents in a stream; the peak memory of this process before and after, MiB."""
    before, generator = peak_memory(), torch.Generator().manual_seed(0)
    left, done = 1 + (frames - 1) // 4, 0

    def chunks():
        for start in range(0, left, CHUNK_LATENTS):
            count = min(CHUNK_LATENTS, left - start)
            yield _noise(bundle, 1 + 4 * (count - 1), generator)

    for chunk in bundle.autoencoder.decode_stream(chunks()):
        done += chunk.shape[2]
    assert done == frames, f"decoded {done} frames instead of {frames}"
    return before, peak_memory()


def _noise(bundle: Bundle, frames: int, generator: torch.Generator) -> torch.Tensor:
    """Standard normal latents of so many frames at native size."""
    (width, height), config = native(bundle)[0], bundle.autoencoder.config
    shape = (1, config.channels, 1 + (frames - 1) // 4, height // config.spatial, width // config.spatial)
    return torch.randn(shape, generator=generator).to(bundle.dtype)


if __name__ == "__main__":
    main()
