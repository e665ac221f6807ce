"""What more training buys: the same network from nothing on one, four and thirty-two times the compute.

Trains each budget with a schedule of its own (a longer run is not a shorter one that went on), then shows the same
prompts and seeds side by side, the curves of the losses, and the held-out loss. Writes docs/scaling.md with its
pictures. Interrupt it at any time: the same command goes on.
"""

from __future__ import annotations

import argparse
import html
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, show_table, write_results
from flow_loss import FIRST_SEED, losses

import yozora
from yozora.clip import Clip
from yozora.models.registry import SHIPPED, load_bundle
from yozora.train import run
from yozora.train.config import TransformerStage
from yozora.train.settings import read_config

ROOT = Path(__file__).parents[1]
TIMES = (1, 4, 32)
PROMPTS = (
    "a red ball bounces on the grass",
    "a blue box slides to the left on the sand",
    "a yellow cone spins on the snow",
)
FRAMES = 6
WIDTH, HEIGHT, MARGIN = 640, 320, 44  # of the curves, pixels
COLOURS = ("#9aa5b1", "#e0862f", "#2463b8")
LEAST_POINTS = 8  # of a curve


@dataclass(frozen=True)
class Budget:
    """A run: how many times the smallest one's compute, its steps, and what came of it."""

    times: int
    steps: int
    model: Path
    curve: list[tuple[int, float]]
    minutes: float
    loss: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="of the smallest budget")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "mini" / "transformer.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--clips", type=int, default=2048, help="in the pool, which is rendered first")
    parser.add_argument("--held-out", type=int, default=32, help="scenes of the held-out loss")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "scaling", help="where the runs are kept")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs", help="folder of the page")
    options = parser.parse_args()

    base = [*options.overrides, *shipped_parts(options.runs)]
    build_pool(options, read_config(TransformerStage, options.config, base))
    budgets = [train(options, base, times) for times in TIMES]
    write_page(budgets, options)
    rows = [[f"{b.times}×", f"{b.steps:,}", f"{b.minutes:.1f}", f"{b.loss:.4f}"] for b in budgets]
    show_table("training budgets", ["compute", "steps", "minutes", "held-out flow loss"], rows)
    figures = [{"times": b.times, "steps": b.steps, "minutes": b.minutes, "loss": b.loss} for b in budgets]
    write_results("scaling", {"budgets": figures, "held_out": options.held_out})


def shipped_parts(runs: Path) -> list[str]:
    """Overrides with which a run takes the shipped autoencoder and text encoder, and starts from nothing."""
    mini = SHIPPED / "mini"
    parts = {"pool": runs / "pool", "autoencoder": mini / "autoencoder", "text_encoder": mini / "text_encoder"}
    return [f'{key}="{path}"' for key, path in parts.items()]


def build_pool(options: argparse.Namespace, config: TransformerStage) -> None:
    """Clips of each size that the run draws, as many as its weight says."""
    longest: dict[tuple[int, int], int] = {}
    for bucket in config.buckets:
        longest[bucket.width, bucket.height] = max(bucket.frames, longest.get((bucket.width, bucket.height), 0))
    weight = {size: sum(b.weight for b in config.buckets if (b.width, b.height) == size) for size in longest}
    options.runs.mkdir(parents=True, exist_ok=True)
    path = options.runs / "pool.toml"
    lines = [
        f"{{ width = {w}, height = {h}, frames = {frames}, clips = {clips} }},"
        for (w, h), frames in longest.items()
        if (clips := round(options.clips * weight[w, h] / sum(weight.values())))
    ]
    head = f'autoencoder = "{SHIPPED / "mini" / "autoencoder"}"\nmix = "simple"\nfps = 12\nbuckets = [\n'
    path.write_text(head + "\n".join(lines) + f'\n]\n[run]\nout = "{options.runs / "pool"}"\nseed = 3\n')
    run("latents", path)


def train(options: argparse.Namespace, base: Sequence[str], times: int) -> Budget:
    """Trains a budget, or goes on with it, and measures what came out."""
    out, steps = options.runs / f"{times}x", options.steps * times
    model = out / "model"
    if not (model / "model.json").exists():
        config = options.runs / f"{times}x.toml"
        lines = options.config.read_text(encoding="utf-8").splitlines()
        config.write_text("\n".join(line for line in lines if not line.startswith("start_from")), encoding="utf-8")
        log_every = max(1, steps // 64)
        own = [f'run.out="{out}"', f"run.steps={steps}", "run.sample_every=0", f"run.log_every={log_every}"]
        started = time.monotonic()
        run("transformer", config, [*base, *own])
        (out / "minutes.txt").write_text(f"{(time.monotonic() - started) / 60:.2f}")
        write_bundle(out, model)
    bundle = load_bundle(model)
    loss = float(losses(bundle, "simple", FIRST_SEED, options.held_out)[0].mean())
    return Budget(times, steps, model, curve_of(out), float((out / "minutes.txt").read_text()), loss)


def write_bundle(out: Path, model: Path) -> None:
    """The run's networks beside the shipped autoencoder, as a model folder."""
    card = yozora.models.registry.read_card(SHIPPED / "mini")
    config = out / "bundle.toml"
    sizes = [list(size) for size in card.sizes]
    config.write_text(
        f'out = "{model}"\ntransformer = "{out / "export"}"\nautoencoder = "{SHIPPED / "mini" / "autoencoder"}"\n'
        f'[card]\nname = "{out.name}"\ndescription = "a training budget"\nfps = {card.fps}\nsizes = {sizes}\n'
        f"frames_min = {card.frames_min}\nframes_max = {card.frames_max}\nsteps = {card.steps}\n"
        f"guidance = {card.guidance}\nshift = {card.shift}\n"
    )
    run("bundle", config)


def curve_of(out: Path) -> list[tuple[int, float]]:
    """(step, training loss of clips in which nothing was held) from the run's TensorBoard log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(out / "tensorboard"))
    log.Reload()
    return [(event.step, event.value) for event in log.Scalars("loss_unanchored")]


def write_page(budgets: Sequence[Budget], options: argparse.Namespace) -> None:
    """The page, a contact sheet a budget and the curves."""
    folder = options.output / "scaling"
    folder.mkdir(parents=True, exist_ok=True)
    for budget in budgets:
        Clip(sheet(yozora.load(budget.model))[None], 1).write(folder / f"{budget.times}x.webp")
    (folder / "loss.svg").write_text(curves(budgets), encoding="utf-8")
    (options.output / "scaling.md").write_text(page(budgets), encoding="utf-8")


def sheet(generator: yozora.Generator) -> np.ndarray:
    """A row for each of PROMPTS, seed 0."""
    rows = []
    for prompt in PROMPTS:
        frames = generator.generate(prompt, seed=0).frames
        chosen = frames[np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)]
        rows.append(np.concatenate([np.pad(f, ((1, 1), (1, 1), (0, 0)), constant_values=255) for f in chosen], axis=1))
    return np.concatenate(rows)


def curves(budgets: Sequence[Budget]) -> str:
    """Training loss over steps, the steps in a logarithmic scale, as SVG."""
    points = [(step, loss) for budget in budgets for step, loss in smooth(budget.curve)]
    left, right = np.log(min(step for step, _ in points)), np.log(max(step for step, _ in points))
    low, high = min(loss for _, loss in points) * 0.97, max(loss for _, loss in points) * 1.03

    def place(step: int, loss: float) -> tuple[float, float]:
        x = MARGIN + (np.log(step) - left) / max(right - left, 1e-9) * (WIDTH - 2 * MARGIN)
        return x, HEIGHT - MARGIN - (loss - low) / max(high - low, 1e-9) * (HEIGHT - 2 * MARGIN)

    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box}>']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>')
    for loss in np.linspace(low, high, 5):
        y = place(1, loss)[1]
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}" stroke="#e3e7eb"/>')
        parts.append(f'<text x="4" y="{y + 4:.1f}" fill="#52606d">{loss:.2f}</text>')
    for budget, colour in zip(budgets, COLOURS, strict=True):
        line = [place(*point) for point in smooth(budget.curve)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = line[-1]
        label = html.escape(f"{budget.times}×")
        parts.append(f'<text x="{min(x + 5, WIDTH - 30):.1f}" y="{y + 4:.1f}" fill="{colour}">{label}</text>')
    parts.append(
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 12}" text-anchor="end" fill="#52606d">steps, logarithmic</text>'
    )
    parts.append('<text x="4" y="16" fill="#52606d">training loss</text></svg>')
    return "\n".join(parts) + "\n"


def smooth(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means of neighbouring points, as many points as LEAST_POINTS or a quarter of them."""
    count = max(LEAST_POINTS, len(curve) // 4)
    groups = np.array_split(np.array(curve, float), min(count, len(curve)))
    return [(round(group[:, 0].mean()), float(group[:, 1].mean())) for group in groups]


def page(budgets: Sequence[Budget]) -> str:
    """The page's text."""
    about: dict[str, Any] = machine()
    parts = [
        "# What more training buys\n",
        "The same network from nothing, on 1, 4 and 32 times the compute, each with a learning-rate schedule",
        "of its own; the same prompts (" + " · ".join(f"*{prompt}*" for prompt in PROMPTS) + ") and the",
        "same seed, 0, first try. Made by [`bench/scaling.py`](../bench/scaling.py)",
        f"on {about['cores']} cores ({about['processor']}).\n",
        "| compute | steps | minutes | held-out flow loss |\n|---|---|---|---|",
        *(f"| {b.times}× | {b.steps:,} | {b.minutes:.1f} | {b.loss:.3f} |" for b in budgets),
        "",
        "![Training loss over steps, a curve for each budget](scaling/loss.svg)\n",
    ]
    for b in budgets:
        parts += [
            f"## {b.times}×\n",
            f"![Six frames each of three prompts, after {b.steps:,} steps](scaling/{b.times}x.webp)\n",
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
