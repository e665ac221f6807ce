"""What reuse between steps saves and costs, with the shipped model's real weights: seconds of sampling, and how near
the frames are to those of every step worked out in full (PSNR), beside simply taking fewer steps in the same time.

The exact video of each prompt is the reference; "fewer" takes as many steps as fit into the time that reuse took. Time
is the processor's (of all threads), of sampling only; decoding is the same for all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
from common import show_table, write_results

from yozora.clip import Clip
from yozora.create import Generator, Progress, load, text_to_video

PROMPTS = (
    "a red ball bounces on the grass",
    "a blue metal cube slides to the left on the sand",
    "a yellow cone spins on the snow",
    "a large green torus rolls to the right in the studio",
)


def main() -> None:
    options = parse()
    exact = load(options.model, "cpu")
    dials = {dial: Generator(replace(exact.bundle, reuse=dial)) for dial in options.dial}
    found: dict[float, list[dict[str, float]]] = {dial: [] for dial in options.dial}
    for prompt in PROMPTS[: options.prompts]:
        reference, whole = make(exact, prompt, options.steps, options)
        for dial, generator in dials.items():
            frames, seconds = make(generator, prompt, options.steps, options)
            steps = max(1, round(options.steps * seconds / whole))
            fewer, _ = make(exact, prompt, steps, options)
            found[dial].append({"times as fast": whole / seconds, "PSNR": psnr(frames, reference),
                                "fewer steps": steps, "PSNR of fewer": psnr(fewer, reference)})  # fmt: skip
    rows, results = [], {}
    for dial, each in found.items():
        results[str(dial)] = each
        mean = {key: statistics.mean(row[key] for row in each) for key in each[0]}
        rows.append([f"{dial:g}", *(f"{value:.2f}" for value in mean.values()),
                     f"{min(row['PSNR'] for row in each):.2f}"])  # fmt: skip
    title = f"{options.model}, {options.steps} steps of {options.solver}, {options.prompts} prompts, seed 0"
    show_table(title, ["reuse", *found[options.dial[0]][0], "worst PSNR"], rows)
    write_results("reuse", {"options": {key: str(value) for key, value in vars(options).items()}, "dials": results})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dial", type=float, nargs="+", default=[0.055, 0.065])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--solver", default="unipc")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--prompts", type=int, choices=range(1, len(PROMPTS) + 1), default=len(PROMPTS))
    return parser.parse_args()


def make(generator: Generator, prompt: str, steps: int, options: argparse.Namespace) -> tuple[np.ndarray, float]:
    """A video's frames, and the processor's seconds that sampling them took."""
    canvas = text_to_video(prompt, native=generator.native, seconds=options.seconds)
    begun = ended = 0.0
    for event in generator.run(canvas, 0, steps=steps, guidance=options.guidance, solver=options.solver):
        if isinstance(event, Progress) and event.stage == "text":
            begun = time.process_time()
        elif isinstance(event, Progress) and event.stage == "sample":
            ended = time.process_time()
        elif isinstance(event, Clip):
            return event.frames, ended - begun
    raise AssertionError("a run ends with a clip")


def psnr(frames: np.ndarray, reference: np.ndarray) -> float:
    """dB, of frames uint8."""
    error = ((frames.astype(np.float64) - reference) ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


if __name__ == "__main__":
    main()
