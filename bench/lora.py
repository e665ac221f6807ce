"""Does a LoRA teach the model a thing that it has never seen? Eight clips of a "zorbo", an orange ball in a cyan ring,
and one command: `yozora train lora FOLDER`. Then videos of a zorbo, on other grounds and in other places, are compared
with true ones, by the inspector's features and by the two colours, before and after; and for prompts that have nothing
to do with it, how often these are followed, before and after. `--prior 0 --prior 0.5` does all that twice, once
without scenes of the model's own world among what it learns from. The losses say the same sooner, if less plainly: on
true clips of a zorbo that it has not seen, and on scenes of the world; `--seeds 0 --others 0` makes no videos.
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
import torch
from common import show_table, write_results
from prompt_following import strip, write_sheet
from rich.progress import track

import yozora
from yozora.clip import Clip
from yozora.create import Generator
from yozora.evaluate import following_prompts, inspect_clip, load_inspector
from yozora.evaluate.features import Points, kernel_distance, point_of
from yozora.train.data import HELD_OUT_SEEDS, load_mix
from yozora.world import Body, Camera, Motion, Place, Scene, describe, render, sample_scene

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
    parser.add_argument(
        "--prior", type=float, action="append", help="scenes of its world for each clip; again, to compare"
    )
    parser.add_argument("--frames", type=int, default=25, help="of each clip, to learn from and to judge")
    parser.add_argument("--seeds", type=int, default=12, help="videos of a zorbo")
    parser.add_argument("--others", type=int, default=24, help="prompts of something else")
    parser.add_argument("--set", action="append", default=[], help="a setting of the training")
    parser.add_argument("--sheet", type=Path, help="write a PNG with true clips, and videos before and after")
    options = parser.parse_args()
    models = {"before": yozora.load(options.model)}
    minutes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        film_lessons(models["before"], clips, options.frames)
        for prior in options.prior or [0.5]:
            name = f"prior {prior:g}"
            file, minutes[name] = teach(options, clips, Path(folder), prior)
            models[name] = yozora.load(options.model, lora=file)
        size = file.stat().st_size / 2**20
    report(options, models, minutes, size)


def teach(options: argparse.Namespace, clips: Path, folder: Path, prior: float) -> tuple[Path, float]:
    """Trains a LoRA as a user does; returns its file, and how many minutes that took."""
    file = folder / f"zorbo-{prior}.safetensors"
    asked = ["--model", options.model, "--steps", str(options.steps), "-o", str(file)]
    for setting in [f"prior={prior}", f"footage.frames={options.frames}", *options.set]:
        asked += ["--set", setting]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "yozora", "train", "lora", str(clips), *asked], check=True)
    return file, (time.perf_counter() - started) / 60


def report(options: argparse.Namespace, models: dict[str, Generator], minutes: dict[str, float], size: float) -> None:
    """Measures all, prints the table and writes the JSON."""
    lost = {name: losses(model, options.frames) for name, model in models.items()}
    rows = [
        ["loss on other zorbos", *(f"{each['zorbo']:.4f}" for each in lost.values()), ""],
        ["loss on its own world", *(f"{each['world']:.4f}" for each in lost.values()), ""],
        ["minutes of training", "", *(f"{minutes[name]:.1f}" for name in minutes), ""],
    ]
    results: dict[str, Any] = {"model": options.model, "steps": options.steps, "frames": options.frames}
    results |= {"mebibytes": size, "minutes": minutes, "losses": lost}
    if options.seeds:
        more, found = judge_zorbos(options, models)
        rows, results = [*more, *rows], results | found
    if options.others:
        others = {name: followed(each, options.others, options.frames) for name, each in models.items()}
        for fact in ("colour", "shape"):
            said = [f"{each[fact]} of {options.others}" for each in others.values()]
            rows.append([f"other prompts: {fact}", *said, ""])
        results["other_prompts"] = others
    title = f"a LoRA of {size:.1f} MiB, {options.steps} steps, clips of {options.frames} frames"
    show_table(f"{title} (at most {LIMIT:g} minutes)", ["", *models, "true clips"], rows)
    write_results("lora", results)


def judge_zorbos(options: argparse.Namespace, models: dict[str, Generator]) -> tuple[list[list[str]], dict[str, Any]]:
    """Videos of a zorbo by each model, beside true ones: rows of the table, and results."""
    base, frames = models["before"], options.frames
    wanted = [zorbo(seed, list(NEW)[seed % len(NEW)], list(DOES)[seed % len(DOES)]) for seed in range(options.seeds)]
    true = [film(base, scene, frames) for scene, _ in wanted]
    more = [film(base, zorbo(1000 + seed, *_setting(scene))[0], frames) for seed, (scene, _) in enumerate(wanted)]
    made = {name: _make(model, wanted, name, frames) for name, model in models.items()}
    sets = made | {"true clips": more}
    inspector = load_inspector()
    points = {name: Points.join([point_of(clip, inspector) for clip in clips]) for name, clips in sets.items()}
    target = Points.join([point_of(clip, inspector) for clip in true])
    distances = {name: kernel_distance(each.picture, target.picture) for name, each in points.items()}
    colours = {name: sum(map(has_both, clips)) for name, clips in sets.items()}
    if options.sheet:
        shown = list(zip(true, *made.values(), strict=True))[:6]
        write_sheet([strip(clip, True) for clips in shown for clip in clips], options.sheet)
    rows = [
        ["distance to true zorbos", *(f"{distances[name]:.4f}" for name in sets)],
        ["orange and cyan seen", *(f"{colours[name]} of {options.seeds}" for name in sets)],
    ]
    return rows, {"distance": distances, "both_colours": colours}


@torch.no_grad()
def losses(model: Generator, frames: int) -> dict[str, float]:
    """The mean squared error of the velocity at four noise levels: of twelve true zorbos, a third of them on grounds
    that the lessons do not show, and of 36 held-out scenes of the world. The same noise for every model."""
    card, parts = model.bundle.card, model.bundle
    mix = load_mix(card.world or "simple")
    scenes = [zorbo(2000 + seed, list(NEW)[seed % len(NEW)], list(DOES)[seed % len(DOES)]) for seed in range(12)]
    others = [sample_scene(HELD_OUT_SEEDS + 777 + seed, mix) for seed in range(36)]
    sets = {"zorbo": scenes, "world": [(scene, describe(scene, seed=number)) for number, scene in enumerate(others)]}
    said = {}
    for name, each in sets.items():
        errors = []
        for scene, caption in each:
            pixels = torch.from_numpy(film(model, scene, frames).frames).permute(3, 0, 1, 2)[None]
            latents = parts.autoencoder.encode((pixels.float() / 127.5 - 1).to(model.bundle.dtype)).float()
            states, mask = parts.text_encoder([caption])
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(scene.seed))
            for level in (0.3, 0.5, 0.7, 0.9):
                noisy, levels = torch.lerp(latents, noise, level), torch.full((1, 1), level)
                velocity = parts.transformer(noisy, levels, states, mask).float()
                errors.append((velocity - (noise - latents)).square().mean().item())
        said[name] = sum(errors) / len(errors)
    return said


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


def film(generator: Generator, scene: Scene, frames: int) -> Clip:
    """The scene as large as the model's videos are."""
    native = generator.native
    return Clip(render(scene, *native.size, frames, native.fps).frames, native.fps)


def film_lessons(generator: Generator, folder: Path, frames: int) -> None:
    """Eight clips with captions."""
    folder.mkdir()
    for number in range(8):
        scene, caption = zorbo(500 + number, list(GROUNDS)[number % 4], list(DOES)[(number + number // 4) % 4])
        film(generator, scene, frames).write(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text(caption + "\n")


def _make(generator: Generator, wanted: list[tuple[Scene, str]], name: str, frames: int) -> list[Clip]:
    seconds = frames / generator.native.fps
    each = track(list(enumerate(wanted)), description=name)
    return [generator.generate(caption, seed=seed, seconds=seconds) for seed, (_, caption) in each]


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


def followed(generator: Generator, count: int, frames: int) -> dict[str, int]:
    """In how many videos of other prompts colour and shape are as these say."""
    inspector, right = load_inspector(), {"colour": 0, "shape": 0}
    for prompt in track(following_prompts(count), description="other prompts"):
        clip = generator.generate(prompt.text, seed=prompt.seed, seconds=frames / generator.native.fps)
        found = inspect_clip(clip, inspector)
        for fact in right:
            right[fact] += getattr(found, fact) == prompt.facts[fact]
    return right


if __name__ == "__main__":
    main()
