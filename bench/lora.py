"""Does a LoRA teach the model a thing that it has never seen? Eight clips of a "zorbo", an orange ball in a cyan ring,
and one command: `yozora train lora FOLDER`. Then videos of a zorbo, on other grounds and in other places, are compared
with true ones, by the inspector's features and by the two colours, before and after; and prompts that have nothing to
do with it are followed as before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import show_table, write_results
from prompt_following import strip, write_sheet
from rich.progress import track

import yozora
from yozora.clip import Clip
from yozora.create import Generator
from yozora.evaluate import following_prompts, inspect_clip, load_inspector
from yozora.evaluate.features import Points, kernel_distance, point_of
from yozora.world import Body, Camera, Motion, Place, Scene, render

LIMIT = 10.0  # minutes
GROUNDS = {"grass": "on the grass", "sand": "on the sand", "snow": "in the snow", "studio": "in the studio"}
NEW = {"water": "on the water", "city": "in the city", **GROUNDS}  # that it is asked for on
DOES = {"still": "rests", "left": "moves left", "right": "moves right", "away": "moves away"}
ORANGE, CYAN = (1.0, 0.45, 0.1), (0.1, 0.75, 0.8)
ALIKE = 0.93  # cosine of two colours, from where on they are called alike
VIVID = 0.35  # saturation from where on a pixel has a colour


def main() -> None:
    parser = argparse.ArgumentParser(description="What a LoRA on eight clips of a new thing changes.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--seeds", type=int, default=12, help="videos of a zorbo")
    parser.add_argument("--others", type=int, default=24, help="prompts of something else")
    parser.add_argument("--set", action="append", default=[], help="a setting of the training")
    parser.add_argument("--sheet", type=Path, help="write a PNG with true clips, and videos before and after")
    options = parser.parse_args()
    base = yozora.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        clips, file = Path(folder) / "clips", Path(folder) / "zorbo.safetensors"
        film_lessons(base, clips)
        asked = ["--model", options.model, "--steps", str(options.steps), "-o", str(file)]
        for setting in options.set:
            asked += ["--set", setting]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "yozora", "train", "lora", str(clips), *asked], check=True)
        minutes = (time.perf_counter() - started) / 60
        size = file.stat().st_size / 2**20
        taught = yozora.load(options.model, lora=file)
    report(options, base, taught, minutes, size)


def report(options: argparse.Namespace, base: Generator, taught: Generator, minutes: float, size: float) -> None:
    """Measures both, prints the table and writes the JSON."""
    wanted = [zorbo(seed, list(NEW)[seed % len(NEW)], list(DOES)[seed % len(DOES)]) for seed in range(options.seeds)]
    true = [film(base, scene) for scene, _ in wanted]
    more = [film(base, zorbo(1000 + seed, *_setting(scene))[0]) for seed, (scene, _) in enumerate(wanted)]
    made = {"before": _make(base, wanted, "before"), "after": _make(taught, wanted, "after")}
    sets = {"before": made["before"], "after": made["after"], "true": more}
    inspector = load_inspector()
    points = {name: Points.join([point_of(clip, inspector) for clip in clips]) for name, clips in sets.items()}
    target = Points.join([point_of(clip, inspector) for clip in true])
    distances = {name: kernel_distance(each.picture, target.picture) for name, each in points.items()}
    colours = {name: sum(map(has_both, clips)) for name, clips in sets.items()}
    others = {name: followed(each, options.others) for name, each in (("before", base), ("after", taught))}
    rows = [
        ["distance to true zorbos", *(f"{distances[name]:.4f}" for name in sets)],
        ["orange and cyan seen", *(f"{colours[name]} of {options.seeds}" for name in sets)],
        ["other prompts: colour", *(f"{others[name]['colour']} of {options.others}" for name in others), ""],
        ["other prompts: shape", *(f"{others[name]['shape']} of {options.others}" for name in others), ""],
    ]
    title = f"a LoRA of {size:.1f} MiB, {options.steps} steps, {minutes:.1f} minutes (at most {LIMIT:g})"
    show_table(title, ["", "before", "after", "true clips"], rows)
    results: dict[str, Any] = {"model": options.model, "steps": options.steps, "minutes": minutes, "mebibytes": size}
    write_results("lora", results | {"distance": distances, "both_colours": colours, "other_prompts": others})
    if options.sheet:
        shown = zip(true, made["before"], made["after"], strict=True)
        write_sheet([strip(clip, True) for clips in list(shown)[:6] for clip in clips], options.sheet)


def zorbo(seed: int, ground: str, does: str) -> tuple[Scene, str]:
    """A scene with one, and what is said of it."""
    random = np.random.default_rng((77, seed))
    motion = Motion() if does == "still" else Motion(does, does, speed=float(random.uniform(0.5, 0.9)))
    place = tuple(float(x) for x in random.uniform((-0.8, -0.3), (0.8, 0.8)))
    ball = Body("sphere", "orange", "matte", "small", place, motion=motion)  # type: ignore[arg-type]
    ring = replace(ball, shape="torus", colour="cyan", size="huge")
    scene = Scene(seed, (ball, ring), Place(ground, sun=float(random.uniform(0, 6))), Camera(distance=5.0))
    return scene, f"a zorbo {DOES[does]} {NEW[ground]}"


def _setting(scene: Scene) -> tuple[str, str]:
    return scene.place.ground, scene.bodies[0].motion.kind


def film(generator: Generator, scene: Scene) -> Clip:
    """The scene as long and as large as the model's videos are."""
    native = generator.native
    return Clip(render(scene, *native.size, native.frames_max, native.fps).frames, native.fps)


def film_lessons(generator: Generator, folder: Path) -> None:
    """Eight clips with captions."""
    folder.mkdir()
    for number in range(8):
        scene, caption = zorbo(500 + number, list(GROUNDS)[number % 4], list(DOES)[(number + number // 4) % 4])
        film(generator, scene).write(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text(caption + "\n")


def _make(generator: Generator, wanted: list[tuple[Scene, str]], name: str) -> list[Clip]:
    each = track(list(enumerate(wanted)), description=name)
    return [generator.generate(caption, seed=seed) for seed, (_, caption) in each]


def has_both(clip: Clip) -> bool:
    """Whether at least half of the frames show something orange and something cyan, each a 200th of the picture."""
    frames = clip.frames.astype(np.float32) / 255
    vivid = (frames.max(-1) - frames.min(-1)) > VIVID * frames.max(-1).clip(1e-3)
    length = np.linalg.norm(frames, axis=-1).clip(1e-3)
    seen = [
        ((frames @ np.array(colour) / (np.linalg.norm(colour) * length) > ALIKE) & vivid).mean((1, 2)) > 0.005
        for colour in (ORANGE, CYAN)
    ]
    return bool((seen[0] & seen[1]).mean() >= 0.5)


def followed(generator: Generator, count: int) -> dict[str, int]:
    """In how many videos of other prompts colour and shape are as these say."""
    inspector, right = load_inspector(), {"colour": 0, "shape": 0}
    for prompt in track(following_prompts(count), description="other prompts"):
        found = inspect_clip(generator.generate(prompt.text, seed=prompt.seed), inspector)
        for fact in right:
            right[fact] += getattr(found, fact) == prompt.facts[fact]
    return right


if __name__ == "__main__":
    main()
