"""Packed sequences, beside buckets and padding, on one mix of clips: five aspects, 1 to 49 frames.

Every step has room for the same number of tokens, which is what a step costs wherever several machines wait for one
another. What counts of it are the tokens of clips that are learned from: padding is none, and of a clip that is cropped
or shortened to a bucket only what is left. Then the same transformer learns from each, and its useful tokens a second
are compared in one run.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from common import show_table, write_results
from torch import Tensor

from yozora.models.packed import run_packed
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.packing import Packer

TARGET = 0.95
AREA = 8 * 8  # latent pixels of a frame
ASPECTS = {"16:9": 16 / 9, "3:2": 3 / 2, "1:1": 1.0, "2:3": 2 / 3, "9:16": 9 / 16}
FRAMES = tuple(range(1, 50, 4))  # 1, 5, … 49, equally often
COARSE = (1, 3, 7, 13)  # latent frames of the buckets; a longer clip is shortened to the next
Clip = tuple[int, int, int]  # latent frames, rows, columns
SETTINGS = {"channels": 16, "width": 192, "depth": 4, "heads": 4, "text_width": 64, "patch": (1, 1, 1)}
WORDS = 12


@dataclass
class Batches:
    """What some steps are made of: for each the clips that are run, the tokens of them that are useful, and how much of
    what was drawn is thrown away by cropping and shortening."""

    steps: list[list[Clip]]
    useful: list[int]
    lost: float
    padded: bool = False

    @property
    def computed(self) -> int:
        """Tokens that are run, the padding among them."""
        return sum(volume(clip) for step in self.steps for clip in self.run(step))

    @property
    def share(self) -> float:
        """Useful tokens over those that are computed."""
        return sum(self.useful) / self.computed

    def filled(self, budget: int) -> float:
        """Useful tokens over those that there is room for: what machines that wait for one another get of a step."""
        return sum(self.useful) / (budget * len(self.steps))

    def run(self, step: Sequence[Clip]) -> Sequence[Clip]:
        """A step's clips as they are run: a padded one is as long as the longest."""
        return [max(step, key=volume)] * len(step) if self.padded else step


def main() -> None:
    parser = argparse.ArgumentParser(description="Packed sequences beside buckets and padding.")
    parser.add_argument("--tokens", type=int, default=4096, help="of a step")
    parser.add_argument("--steps", type=int, default=320, help="that are counted")
    parser.add_argument("--timed", type=int, default=6, help="steps of each that are timed; 0: none")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    ways: dict[str, Callable[[int, int], Batches]] = {"packed": packed, "buckets": bucketed, "padded": padded}
    made = {name: way(options.tokens, options.steps) for name, way in ways.items()}
    rates = {name: speed(batches, options) for name, batches in made.items()}
    rows = [
        [
            name,
            f"{batches.share:.1%}",
            f"{batches.filled(options.tokens):.1%}",
            f"{batches.lost:.1%}",
            f"{rates[name] / rates['packed']:.2f} ×" if options.timed else "not timed",
        ]
        for name, batches in made.items()
    ]
    title = (
        f"{options.tokens} tokens a step, {len(ASPECTS)} aspects, 1 to 49 frames; packs must use ≥ {TARGET:.0%} of it"
    )
    show_table(
        title, ["", "useful of computed", "useful of a step's room", "of clips thrown away", "useful tokens/s"], rows
    )
    results = {
        name: {
            "useful_of_computed": batches.share,
            "useful_of_room": batches.filled(options.tokens),
            "lost": batches.lost,
            "tokens_per_second": rates[name],
        }
        for name, batches in made.items()
    }
    write_results("packing", {"tokens": options.tokens, "steps": options.steps, "ways": results})


def sizes() -> list[Clip]:
    """Every kind of clip in the mix, at its native size."""
    sides = [(round((AREA / aspect) ** 0.5), round((AREA * aspect) ** 0.5)) for aspect in ASPECTS.values()]
    return [(1 + (frames - 1) // 4, *side) for side in sides for frames in FRAMES]


def volume(clip: Clip) -> int:
    """Its tokens."""
    return clip[0] * clip[1] * clip[2]


def packed(budget: int, steps: int) -> Batches:
    kinds = sizes()
    packer = Packer(budget, tuple(map(volume, kinds)), (1.0,) * len(kinds))
    made = [[kinds[i] for i in packer.pack(0, step)] for step in range(steps)]
    return Batches(made, [sum(map(volume, clips)) for clips in made], 0.0)


def bucketed(budget: int, steps: int) -> Batches:
    """Three shapes and four lengths: each clip is cropped and shortened to the nearest below, and a step is of one."""
    random, kinds = np.random.default_rng(0), sizes()
    shapes = sorted({kind[1:] for kind in kinds})[::2]
    waiting: dict[Clip, list[int]] = defaultdict(list)
    made: list[list[Clip]] = []
    useful, drawn, kept = [], 0, 0
    while len(made) < steps:
        clip = kinds[int(random.integers(len(kinds)))]
        ratio = clip[1] / clip[2]
        shape = min(shapes, key=lambda side: abs(np.log(side[0] / side[1] / ratio)))
        bucket = (max(n for n in COARSE if n <= clip[0]), *shape)
        left = bucket[0] * min(clip[1], shape[0]) * min(clip[2], shape[1])  # what is cropped is scaled up again
        drawn, kept = drawn + volume(clip), kept + left
        waiting[bucket].append(left)
        if (len(waiting[bucket]) + 1) * volume(bucket) > budget:
            made.append([bucket] * len(waiting[bucket]))
            useful.append(sum(waiting.pop(bucket)))
    return Batches(made, useful, 1 - kept / drawn)


def padded(budget: int, steps: int) -> Batches:
    """Clips as they come, as many as fit when all are as long as the longest."""
    random, kinds = np.random.default_rng(0), sizes()
    made, useful, clips = [], [], list[Clip]()
    while len(made) < steps:
        clip = kinds[int(random.integers(len(kinds)))]
        if (len(clips) + 1) * max(map(volume, [*clips, clip])) > budget:
            made.append(clips)
            useful.append(sum(map(volume, clips)))
            clips = []
        clips.append(clip)
    return Batches(made, useful, 0.0, padded=True)


def speed(batches: Batches, options: argparse.Namespace) -> float:
    """Useful tokens a second, forward and backward; 0 where nothing is timed."""
    if not options.timed:
        return 0.0
    torch.manual_seed(0)
    device = torch.device(options.device)
    transformer = Transformer(TransformerConfig(**SETTINGS)).to(device)
    for step in range(2):
        _step(transformer, batches.run(batches.steps[step]), device)
    begun = time.perf_counter()
    for step in range(options.timed):
        _step(transformer, batches.run(batches.steps[step]), device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return sum(batches.useful[: options.timed]) / (time.perf_counter() - begun)


def _step(transformer: Transformer, clips: Sequence[Clip], device: torch.device) -> None:
    """Learns from a step. A padded clip is run as a whole one, which costs the same without the mask that it would
    need."""
    latents = [torch.randn(16, *clip, device=device) for clip in clips]
    levels = [torch.rand(clip[0], device=device) for clip in clips]
    texts = torch.randn(len(clips), WORDS, 64, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        if len(set(clips)) == 1:
            loss: Tensor = transformer(torch.stack(latents), torch.stack(levels), texts).square().mean()
        else:
            said = run_packed(transformer, latents, levels, list(texts))
            loss = torch.stack([each.square().mean() for each in said]).mean()
    loss.backward()
    transformer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
