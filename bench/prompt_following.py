"""Does a video show what its prompt says? 64 prompts of held-out scenes of one thing, each generated once.

A small network that was trained on renders, and never sees a prompt, names colour and shape in the frames; the
direction is the geometry of its masks. Beside the model stand the ceiling (the renderer's own clips of the scenes,
as they are and through the autoencoder) and the floor (the model's clips judged by each other's prompts).
A second table asks for combinations that training left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import show_table, write_results
from rich.progress import track

import yozora
from yozora.clip import Clip
from yozora.create import Generator
from yozora.evaluate import (
    Finding,
    Prompt,
    film,
    following_prompts,
    inspect_clip,
    load_inspector,
    reconstruct,
    score,
    shuffled,
)

TARGETS = {"colour": 95.0, "shape": 85.0, "direction": 85.0}
SHEET_COLUMNS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description="How well a model follows prompts.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--held-out", type=int, default=32, help="prompts of combinations that training left out")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--solver", help="flow-map: the few-step weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sheet", type=Path, help="write a PNG with three frames of every clip")
    options = parser.parse_args()

    generator = yozora.load(options.model, device=options.device)
    settings = generator.settings(options.steps, options.guidance, options.solver)
    results: dict[str, Any] = {"model": options.model, "settings": vars(settings)}
    blocks = {"held-out prompts": (options.prompts, False), "new combinations": (options.held_out, True)}
    strips: list[np.ndarray] = []
    for name, (count, held_out) in blocks.items():
        if count:
            results[name], made = measure(generator, following_prompts(count, held_out), options, name)
            strips += [strip(clip, record["right"]) for clip, record in zip(made, results[name]["clips"], strict=True)]
    write_results("prompt_following", results)
    if options.sheet:
        write_sheet(strips, options.sheet)


def measure(
    generator: Generator, prompts: list[Prompt], options: argparse.Namespace, name: str
) -> tuple[dict[str, Any], list[Clip]]:
    """Generates and judges a clip a prompt, prints the table; returns the block for the JSON, and the clips."""
    inspector, native = load_inspector(), generator.native
    autoencoder, started = generator.bundle.autoencoder, time.perf_counter()
    clips: list[Clip] = []
    findings: dict[str, list[Finding]] = {"model": [], "ceiling": [], "through autoencoder": []}
    for prompt in track(prompts, description=name):
        asked = {"steps": options.steps, "guidance": options.guidance, "solver": options.solver}
        made = generator.generate(prompt.text, seed=prompt.seed, **asked)
        real = film(prompt, native.size, native.frames_max, native.fps)
        clips.append(made)
        for column, clip in zip(findings, (made, real, reconstruct(autoencoder, real)), strict=True):
            findings[column].append(inspect_clip(clip, inspector))
    findings["floor"] = shuffled(findings["model"], prompts)
    scores = {column: score(prompts, found) for column, found in findings.items()}
    rows = [
        [fact, *(str(scores[column][fact]) for column in findings), f"{target:g} %"] for fact, target in TARGETS.items()
    ]
    show_table(f"{name}: {len(prompts)}, {generator.bundle.name}", ["", *findings, "target"], rows)
    block = {
        "percent": {column: {fact: round(s.percent, 1) for fact, s in by.items()} for column, by in scores.items()},
        "asked": {fact: s.asked for fact, s in scores["model"].items()},
        "target": TARGETS,
        "seconds": round(time.perf_counter() - started, 1),
        "clips": [_record(prompt, found) for prompt, found in zip(prompts, findings["model"], strict=True)],
    }
    return block, clips


def _record(prompt: Prompt, finding: Finding) -> dict[str, Any]:
    found = {fact: getattr(finding, fact) for fact in prompt.facts}
    right = found == prompt.facts
    return {"prompt": prompt.text, "seed": prompt.seed, "asked": prompt.facts, "found": found, "right": right}


def strip(clip: Clip, right: bool) -> np.ndarray:
    """First, middle and last frame side by side in a border, which is red where the prompt was not followed."""
    frames = clip.frames[[0, len(clip.frames) // 2, -1]]
    picture = np.full((clip.size[1] + 8, 3 * clip.size[0] + 8, 3), 255 if right else (220, 30, 30), np.uint8)
    picture[4:-4, 4:-4] = np.concatenate(list(frames), axis=1)
    return picture


def write_sheet(strips: Sequence[np.ndarray], path: Path) -> None:
    """All clips' strips in one picture, SHEET_COLUMNS to a row, in the order of the prompts."""
    whole = [*strips, *[np.full_like(strips[0], 255)] * (-len(strips) % SHEET_COLUMNS)]
    rows = [np.concatenate(whole[i : i + SHEET_COLUMNS], axis=1) for i in range(0, len(whole), SHEET_COLUMNS)]
    Clip(np.concatenate(rows)[None], fps=1).write(path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
