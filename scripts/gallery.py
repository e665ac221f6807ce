"""Draws docs/gallery.png: one row of frames for each of the README's prompts, seed 0, the first and only try."""

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


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the gallery of the README.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "docs" / "gallery.png")
    options = parser.parse_args()
    generator = yozora.load(options.model)
    rows = []
    for prompt in PROMPTS:
        frames = generator.generate(prompt, seed=0).frames
        chosen = frames[np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)]
        rows.append(np.concatenate([np.pad(f, ((1, 1), (1, 1), (0, 0)), constant_values=255) for f in chosen], axis=1))
    Clip(np.concatenate(rows)[None], fps=1).write(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
