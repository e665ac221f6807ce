"""Does enhancing add what was lost? On held-out scenes: enlarged frames against a bicubic resize, at the true large
rendering; frames between two against a cross-fade and a repeated frame, at the true frame; and what twenty seconds of
1080p take."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_memory, show_table, write_results

from yozora.clip import Clip, open_frames
from yozora.create.enhance import AGAIN_PIXELS, enhance, enlarge, load_enhancer, write_enhanced
from yozora.create.target import choose_target
from yozora.models.enhancer import Enhancer

SIZE, FPS = (160, 96), 12.0  # of the small clip
MEMORY = 4096  # MiB that enhancing may take
FIRST_SEED_AFTER = 3_000_000  # held-out seeds before it belong to other measurements


def main() -> None:
    parser = argparse.ArgumentParser(description="PSNR of enhanced held-out scenes; memory and time of a long clip.")
    parser.add_argument("--weights", help="another folder than that of the shipped enhancer")
    parser.add_argument("--model", default="mini", help="whose autoencoder the small frames pass through")
    parser.add_argument("--clips", type=int, default=24, help="held-out scenes")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the long clip")
    parser.add_argument("--size", default="1920x1080", help="size of the long clip")
    parser.add_argument("--fps", type=float, default=24.0, help="rate of the long clip")
    parser.add_argument("--only", type=Path, metavar="CLIP", help="only enhance this, and print frames, seconds, MiB")
    options = parser.parse_args()
    if options.only:
        print(*enhance_file(options.only, options))
        return

    enhancer = load_enhancer(options.weights)
    space = larger(enhancer, options.model, options.clips)
    show_table(
        f"{options.clips} held-out frames of {SIZE[0]}x{SIZE[1]}, enlarged: PSNR at the true rendering, dB",
        ["given", "to", "bicubic", "enhanced", "enhanced, never twice", "enhanced, twice"],
        [[given, to, *(f"{value:.2f}" for value in row.values())] for (given, to), row in space.items()],
    )
    between = inbetween(enhancer, options.clips)
    show_table(
        f"{options.clips} held-out clips at {FPS:g} frames a second, frames between: PSNR at the true frame, dB",
        ["to", "repeated", "cross-faded", "drawn", "better than the cross-fade in"],
        [
            [f"{fps:g} a second", *(f"{row[name]:.2f}" for name in ("repeated", "faded", "drawn")), f"{row['won']:.0%}"]
            for fps, row in between.items()
        ],
    )
    long = measure_long(options)
    show_table(
        f"{options.seconds:g} s of {options.size}, {options.fps:g} frames a second, from {SIZE[0]}x{SIZE[1]}",
        ["", "measured", "target"],
        [
            ["peak memory", f"{long['peak_mib']:.0f} MiB", f"< {MEMORY} MiB"],
            ["time", f"{long['seconds']:.1f} s", ""],
            ["frames a second", f"{long['frames'] / long['seconds']:.2f}", ""],
        ],
    )
    write_results(
        "enhance",
        {
            "clips": options.clips,
            "larger": {f"{given} to {to}": row for (given, to), row in space.items()},
            "between": {f"{fps:g} fps": row for fps, row in between.items()},
            "long": {"seconds_of_video": options.seconds, "size": options.size, "fps": options.fps} | long,
        },
    )


def larger(enhancer: Enhancer, model: str, clips: int) -> dict[tuple[str, str], dict[str, float]]:
    """Mean PSNR of enlarged frames, by what was given (a rendering, or what the autoencoder makes of it) and how large
    they become: bicubic, as `yozora enhance` does it, and with the network used once at most, or twice."""
    from yozora.evaluate import reconstruct
    from yozora.models.registry import load_bundle

    autoencoder = load_bundle(model).autoencoder
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for scene in scenes(clips):
        small = film(scene, SIZE, 5, FPS)
        for times in (4, 10):
            size = times * SIZE[0], times * SIZE[1]
            true, target = film(scene, size, 1, FPS, start=4 / FPS).frames, choose_target(SIZE, FPS, size)
            for given, clip in (("rendering", small), ("through the autoencoder", reconstruct(autoencoder, small))):
                last = Clip(clip.frames[-1:], FPS)
                made = {"bicubic": last.resized(*size).frames}
                for name, again in (("enhanced", AGAIN_PIXELS), ("once", 0), ("twice", 2**30)):
                    made[name] = enlarge(last.frames[0], target, enhancer.upscaler, again)[None]
                row = scores.setdefault((given, f"{size[0]}x{size[1]}"), {})
                for name, frames in made.items():
                    row.setdefault(name, []).append(likeness(true, frames))
    return {key: {name: float(np.mean(values)) for name, values in row.items()} for key, row in scores.items()}


def inbetween(enhancer: Enhancer, clips: int) -> dict[float, dict[str, float]]:
    """Mean PSNR of the frames that were not given, at several rates: the frame before repeated, a cross-fade of both
    neighbours, and what the enhancer draws; and the share of clips in which that is better than the cross-fade."""
    result = {}
    for fps in (2 * FPS, 2.5 * FPS):
        scores: dict[str, list[float]] = {"repeated": [], "faded": [], "drawn": []}
        target = choose_target(SIZE, FPS, SIZE, fps)
        for scene in scenes(clips):
            given = film(scene, SIZE, 9, FPS).frames
            true = film(scene, SIZE, int(8 / target.step) + 1, fps).frames
            drawn = np.stack(list(itertools.islice(enhance(given, target, enhancer), len(true))))
            places = np.arange(len(true)) * float(target.step)
            which = np.flatnonzero(np.abs(places - places.round()) > 1e-6)
            first, share = places[which].astype(int), (places[which] % 1)[:, None, None, None]
            faded = np.round((1 - share) * given[first] + share * given[first + 1]).astype(np.uint8)
            for name, frames in (("repeated", given[first]), ("faded", faded), ("drawn", drawn[which])):
                scores[name].append(likeness(true[which], frames))
        won = np.mean(np.array(scores["drawn"]) > np.array(scores["faded"]))
        result[fps] = {name: float(np.mean(values)) for name, values in scores.items()} | {"won": float(won)}
    return result


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR, at most 60 dB, so that frames without any difference leave a mean finite."""
    from yozora.evaluate import psnr

    return min(60.0, psnr(one, other))


def scenes(count: int) -> Iterator[Any]:
    """Held-out scenes in which something moves, or the camera does."""
    from yozora.train.data import HELD_OUT_SEEDS
    from yozora.world import MIXES, sample_scene

    all_scenes = (sample_scene(seed, MIXES["full"]) for seed in itertools.count(HELD_OUT_SEEDS + FIRST_SEED_AFTER))
    moving = (
        scene
        for scene in all_scenes
        if scene.camera.kind != "still" or any(body.motion.kind != "still" for body in scene.bodies)
    )
    return itertools.islice(moving, count)


def film(scene: Any, size: tuple[int, int], frames: int, fps: float, start: float = 0.0) -> Clip:
    """A rendered clip."""
    from yozora.world import render

    return Clip(render(scene, *size, frames, fps, start).frames, fps)


def measure_long(options: argparse.Namespace) -> dict[str, float]:
    """`enhance_file` in a process of its own, whose peak memory is only that of enhancing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.mp4"
        film(next(scenes(1)), SIZE, max(1, round(options.seconds * FPS)), FPS).write(path)
        asked = ["--size", options.size, "--fps", str(options.fps)]
        weights = ["--weights", options.weights] if options.weights else []
        command = [sys.executable, __file__, "--only", str(path), *asked, *weights]
        frames, seconds, peak = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return {"frames": int(frames), "seconds": float(seconds), "peak_mib": float(peak)}


def enhance_file(path: Path, options: argparse.Namespace) -> tuple[int, float, float]:
    """Enhances a clip from file to file; how many frames it wrote, the seconds and the peak memory, MiB."""
    start, enhancer = time.perf_counter(), load_enhancer(options.weights)
    with open_frames(path) as reader:
        target = choose_target(reader.size, reader.fps, options.size, options.fps)
        frames = write_enhanced(reader, target, path.with_name("large.mp4"), None, enhancer)
    return frames, time.perf_counter() - start, peak_memory()


if __name__ == "__main__":
    main()
