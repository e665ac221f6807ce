"""What the autoencoder's other losses change: the decoder of a trained one goes on for some steps with errors alone,
with what looks alike to the inspector beside them, and with a critic, too. Then clips that none has seen are decoded:
how near they are (PSNR), how sharp (the strength of edges over that of the true ones'; 1 is as sharp), and how far
apart by the inspector's features, which the second was asked to lessen.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import show_table, write_results
from torch import Tensor

from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module
from yozora.models.inspector import Inspector
from yozora.train.autoencoder import train_autoencoder
from yozora.train.config import AutoencoderStage, Bucket
from yozora.train.data import HELD_OUT_SEEDS, clip_tensor, load_mix, to_signed
from yozora.train.perceptual import OwnFeatures, in_one_row
from yozora.world import sample_scene

PACKAGE = Path(__file__).parents[1] / "yozora"
MIX, FPS = "simple", 12.0


def main() -> None:
    parser = argparse.ArgumentParser(description="The autoencoder's perceptual and adversarial losses.")
    parser.add_argument("--start", type=Path, default=PACKAGE / "models" / "weights" / "mini" / "autoencoder")
    parser.add_argument("--steps", type=int, default=120, help="of each")
    parser.add_argument("--side", type=int, default=96, help="pixels, to learn from and to judge")
    parser.add_argument("--clips", type=int, default=24, help="to judge")
    parser.add_argument("--perceptual", type=float, default=0.2, help="its weight")
    parser.add_argument("--adversarial", type=float, default=0.02, help="its weight")
    options = parser.parse_args()
    looks = {"perceptual": {"weight": options.perceptual, "features": PACKAGE / "evaluate" / "weights" / "inspector"}}
    ways: dict[str, dict[str, Any]] = {
        "errors alone": {},
        "and looks": looks,
        "and a critic": looks | {"adversarial": {"weight": options.adversarial}},
    }
    results = {"before": judge(options.start, options)}
    with tempfile.TemporaryDirectory() as folder:
        for name, asked in ways.items():
            results[name] = judge(train_autoencoder(stage(options, Path(folder) / name, asked)), options)
    rows = [
        [name, f"{made['psnr']:.2f} dB", f"{made['sharpness']:.3f}", f"{1000 * made['apart']:.2f}"]
        for name, made in results.items()
    ]
    title = f"{options.steps} steps of the decoder, {options.clips} held-out clips of {options.side}x{options.side}"
    show_table(title, ["", "PSNR", "sharpness", "apart (1/1000)"], rows)
    write_results("looks", {"steps": options.steps, "clips": options.clips, "side": options.side, "ways": results})


def stage(options: argparse.Namespace, out: Path, asked: dict[str, Any]) -> AutoencoderStage:
    """The same lessons for all."""
    size = {"width": options.side, "height": options.side, "frames": 9, "batch": 2}
    return AutoencoderStage.model_validate(
        {
            "start_from": options.start,
            "decoder_only": True,
            "run": {"out": out, "steps": options.steps, "seed": 5, "log_every": 20},
            "optim": {"adamw": 3e-4, "muon": 1e-3, "warmup": 10, "decay": 0.7, "ema": 0.95},
            "world": {"mix": MIX, "fps": FPS, "buckets": [size]},
        }
        | asked
    )


@torch.no_grad()
def judge(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Means over held-out clips."""
    autoencoder = load_module(Autoencoder, folder)
    looks = OwnFeatures(load_module(Inspector, PACKAGE / "evaluate" / "weights" / "inspector"))
    bucket = Bucket(width=options.side, height=options.side, frames=9, batch=1)
    found: dict[str, list[float]] = {"psnr": [], "sharpness": [], "apart": []}
    for seed in range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + options.clips):
        true = to_signed(clip_tensor(sample_scene(seed, load_mix(MIX)), bucket, FPS)[None])
        again = autoencoder(true).clamp(-1, 1)
        found["psnr"].append(10 * float(torch.log10(4 / (again - true).square().mean())))
        found["sharpness"].append(edges(again) / edges(true))
        found["apart"].append(float(looks(in_one_row(again), in_one_row(true)).mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def edges(clip: Tensor) -> float:
    """The mean square of the differences between neighbouring pixels, of which few strong ones are most."""
    return float(clip.diff(dim=3).square().mean() + clip.diff(dim=4).square().mean())


if __name__ == "__main__":
    main()
