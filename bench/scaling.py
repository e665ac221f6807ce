"""What more training buys: the same network from nothing on one, four and thirty-two times the compute.

Trains each budget with a schedule of its own (a longer run is not a shorter one that went on), then shows the same
prompts and seeds side by side, the curves of the losses, the held-out loss, and how many held-out prompts are followed.
Writes docs/scaling.md with its pictures. Interrupt it at any time: the same command goes on.
"""

from __future__ import annotations

import argparse
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, show_table, write_results
from from_nothing import LESSONS, ROOT, Bench, Trained
from rich.progress import track

import yozora
from yozora.clip import Clip
from yozora.evaluate import Score, following_prompts, inspect_clip, load_inspector, score

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
    """A run, how many times the smallest one's compute it had, and how well what came of it follows prompts."""

    times: int
    run: Trained
    scores: dict[str, Score]

    @property
    def figures(self) -> list[str]:
        """The columns of the tables."""
        shares = [f"{self.scores[fact].percent:.0f} %" for fact in ("colour", "shape")]
        return [f"{self.times}×", f"{self.run.steps:,}", f"{self.run.minutes:.1f}", f"{self.run.loss:.3f}", *shares]


COLUMNS = ("compute", "steps", "minutes", "held-out flow loss", "colour right", "shape right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="of the smallest budget")
    parser.add_argument("--config", type=Path, default=LESSONS)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--clips", type=int, default=4096, help="in the pool, which is rendered first")
    parser.add_argument("--held-out", type=int, default=32, help="scenes of the held-out loss")
    parser.add_argument("--prompts", type=int, default=48, help="held-out prompts of one thing")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "scaling", help="where the runs are kept")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs", help="folder of the page")
    options = parser.parse_args()

    bench = Bench(options.runs, options.config, options.overrides, options.clips, options.held_out)
    bench.build_pool()
    budgets = []
    for times in TIMES:
        trained = bench.train(f"{times}x", times * options.steps)
        budgets.append(Budget(times, trained, followed(trained, options.prompts)))
    write_page(budgets, options)
    show_table("training budgets", COLUMNS, [budget.figures for budget in budgets])
    figures = [
        {"times": b.times, "steps": b.run.steps, "minutes": b.run.minutes, "loss": b.run.loss}
        | {fact: b.scores[fact].percent for fact in ("colour", "shape")}
        for b in budgets
    ]
    write_results("scaling", {"budgets": figures, "held_out": options.held_out, "prompts": options.prompts})


def followed(trained: Trained, count: int) -> dict[str, Score]:
    """How well prompts of one thing are followed, judged as in bench/prompt_following.py."""
    generator, inspector, prompts = yozora.load(trained.model), load_inspector(), following_prompts(count)
    made = (generator.generate(p.text, seed=p.seed) for p in track(prompts, description=trained.name))
    return score(prompts, [inspect_clip(clip, inspector) for clip in made])


def write_page(budgets: Sequence[Budget], options: argparse.Namespace) -> None:
    """The page, a contact sheet a budget and the curves."""
    folder = options.output / "scaling"
    folder.mkdir(parents=True, exist_ok=True)
    for budget in budgets:
        Clip(sheet(yozora.load(budget.run.model))[None], 1).write(folder / f"{budget.times}x.webp")
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
    points = [(step, loss) for budget in budgets for step, loss in smooth(budget.run.curve)]
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
        line = [place(*point) for point in smooth(budget.run.curve)]
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
    cores = "one core" if about["cores"] == 1 else f"{about['cores']} cores"
    asked = budgets[0].scores["colour"].asked
    parts = [
        "# What more training buys\n",
        "The same network from nothing, on 1, 4 and 32 times the compute, each with a learning-rate schedule of its",
        "own, on pictures and three quarters of a second; the same prompts ("
        + " · ".join(f"*{p}*" for p in PROMPTS)
        + ") and the",
        f"same seed, 0, first try. Colour and shape: of {asked} held-out prompts of one thing, judged as in",
        "`bench/prompt_following.py`.",
        f"Made by [`bench/scaling.py`](../bench/scaling.py) on {cores} ({about['processor']}).\n",
        f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(b.figures)} |" for b in budgets),
        "",
        "![Training loss over steps, a curve for each budget](scaling/loss.svg)\n",
    ]
    for b in budgets:
        parts += [
            f"## {b.times}×\n",
            f"![Six frames each of three prompts, after {b.run.steps:,} steps](scaling/{b.times}x.webp)\n",
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
