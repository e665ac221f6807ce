"""Draws the README's pictures, each of the first and only try. docs/gallery.png: one row of frames for each of its
prompts, seed 0. docs/seeds.png: one row for some of them, the middle frame of each of the first eight seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import yozora
from yozora.clip import Clip

PROMPTS = (
    "a red ball bounces on the grass while the camera orbits",
    "a blue metal cube slides to the left on the sand",
    "a yellow cone spins on the snow",
    "a large green torus rolls to the right in the studio",
    "an orange cylinder grows on the city square",
    "ein pinker Ball fällt auf den Sand",
    "a purple capsule moves away from the camera on the water",
    "a white striped ball moves to the right in space",
)
FRAMES = 8
SEVERAL = (0, 2, 5, 7)  # of the prompts, those that are shown with other seeds
SEEDS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the gallery of the README.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "docs", help="folder")
    options = parser.parse_args()
    generator = yozora.load(options.model)

    def frames_of(prompt: str, seed: int, count: int) -> np.ndarray:
        """So many frames of the video, evenly from its first to its last; one is that in the middle."""
        frames = generator.generate(prompt, seed=seed).frames
        places = np.linspace(0, len(frames) - 1, count) if count > 1 else np.array([len(frames) / 2])
        return frames[places.round().astype(int)]

    draw(options.output / "gallery.png", [frames_of(prompt, 0, FRAMES) for prompt in PROMPTS])
    several = ([frames_of(PROMPTS[which], seed, 1) for seed in range(SEEDS)] for which in SEVERAL)
    draw(options.output / "seeds.png", [np.concatenate(frames) for frames in several])


def draw(path: Path, rows: list[np.ndarray]) -> None:
    """Writes rows of frames uint8 [n, H, W, 3] as one picture."""
    framed = [[np.pad(f, ((1, 1), (1, 1), (0, 0)), constant_values=255) for f in row] for row in rows]
    Clip(np.concatenate([np.concatenate(row, axis=1) for row in framed])[None], fps=1).write(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
