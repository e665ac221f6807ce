"""Video quality: how far the model's clips are from the renderer's, whether they flicker and move evenly, what the
autoencoder loses, how much the seed changes, and whether clips are copied from training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from yozora.clip import Clip
from yozora.create import Generator, text_to_video
from yozora.evaluate.features import Points, frechet, kernel_distance, nearest, point_of, spread
from yozora.evaluate.following import Prompt
from yozora.evaluate.pixels import flicker, smoothness, ssim
from yozora.evaluate.reconstruction import psnr, reconstruct
from yozora.evaluate.scenes import FIRST, NOTHING, Bench, Show, draw_prompts, mean_known, twins
from yozora.evaluate.section import Section, Shown
from yozora.train.data import HELD_OUT_SEEDS
from yozora.train.latents import clip_start
from yozora.world import MIXES, render, sample_scene

COLUMNS = ("model", "renders", "renders through the autoencoder")
SEEDS = 4  # clips of one prompt, for diversity
REFERENCE, TRAINING = 2, 4  # renders to compare with, for each prompt
TRAINED = (3, 0)  # seed and bucket of the pool that `mini` learned from: configs/mini/latents.toml
SHARD = 256  # clips of a shard of it
SHOWN = 12  # clips in the report

Row = dict[str, float]  # a figure a column


@dataclass(frozen=True, eq=False)
class Filmed:
    """The prompts' clips a column: as points, and by name the figures that each clip has by itself."""

    points: dict[str, Points]
    figures: dict[str, dict[str, list[float]]]
    shown: list[Clip]


def quality(generator: Generator, prompts: int, progress: Show) -> Section:
    """Measures on clips of so many held-out prompts, at least 2, one a prompt. Raises ConfigError, CanvasError."""
    varied = max(2, prompts // 8)
    bench = Bench(generator, progress, (1 + REFERENCE + TRAINING) * prompts + varied * (SEEDS - 1))
    asked = draw_prompts(prompts, FIRST["quality"], bench.duration)
    filmed = _film(bench, asked)
    reference = Points.join(
        [
            _seen(bench, bench.render(prompt), "renders")
            for prompt in draw_prompts(REFERENCE * prompts, FIRST["reference"], bench.duration)
        ]
    )
    rows = {name: _against(filmed, reference, *measure) for name, measure in DISTANCES.items()}
    rows |= {name: {c: _median(v) for c, v in filmed.figures[name].items()} for name in PIXELS}
    rows |= {name: {c: mean_known(v) for c, v in filmed.figures[name].items()} for name in LOSSES}
    rows |= _diversity(bench, asked, filmed, varied) | _copies(bench, filmed, TRAINING * prompts)
    clips = [Shown(clip, prompt.text) for clip, prompt in zip(filmed.shown, asked, strict=False)]
    return Section(
        "Video quality",
        f"{prompts} prompts of held-out scenes, a clip each of {bench.duration:.2g} s, beside the renderer's own clips "
        "of the same scenes and these through the model's autoencoder. Distances are in the features of this project's "
        "own inspector (they are no FVD), and to renders of other scenes: what renders themselves reach is the best.",
        ("", *COLUMNS),
        tuple((name, *(_shown(row.get(column, NOTHING), name) for column in COLUMNS)) for name, row in rows.items()),
        {"prompts": prompts, "rows": {name: _finite(row) for name, row in rows.items()}},
        _notes(prompts),
        tuple(clips),
    )


DISTANCES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], str]] = {
    "Fréchet distance of pictures": (frechet, "picture"),
    "Fréchet distance of changes": (frechet, "pace"),
    "kernel distance of pictures": (kernel_distance, "picture"),
    "kernel distance of changes": (kernel_distance, "pace"),
}
PIXELS: dict[str, Callable[[np.ndarray], float]] = {"flicker, of 255": flicker, "motion smoothness": smoothness}
LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"PSNR, dB": psnr, "SSIM": ssim}


def _notes(prompts: int) -> tuple[str, ...]:
    """How to read the table."""
    return (
        "Pictures: the mean of the features over a clip; changes: the logarithm of their mean step between frames.",
        f"Fréchet distances of {prompts} clips to {REFERENCE * prompts} renders are too large by what so few clips "
        "add, in every column alike; kernel distances are not, but scatter around 0.",
        "Flicker: mean of |x[t-1] - 2 x[t] + x[t+1]| where the picture stands still, of the median clip before a still "
        "camera; lower is steadier.",
        "Motion smoothness: 1 - sum |s[t+1] - s[t]| / sum (s[t+1] + s[t]) of the steps s between frames where it "
        "moves; 1 is an even pace, and what falls and bounces is not even.",
        f"Seeds: mean distance between {SEEDS} clips of one prompt; renders: of scenes that agree with all its caption "
        "states. A model that makes the same of every seed has 0.",
        f"Training: the median clip's distance to the nearest of {TRAINING * prompts} clips out of those the shipped "
        "model learned from. A model that copies is nearer to them than renders of held-out scenes are.",
    )


def _film(bench: Bench, prompts: Sequence[Prompt]) -> Filmed:
    """Every prompt's clip as the model makes it, as the renderer does, and that through the autoencoder. No clips are
    kept but a few to show."""
    points: dict[str, list[Points]] = {column: [] for column in COLUMNS}
    figures = {name: {column: list[float]() for column in COLUMNS} for name in PIXELS}
    figures |= {name: {COLUMNS[2]: list[float]()} for name in LOSSES}
    shown: list[Clip] = []
    for prompt in prompts:
        made, real = bench.make(prompt), bench.render(prompt)
        through = reconstruct(bench.generator.bundle.autoencoder, real)
        for column, clip in zip(COLUMNS, (made, real, through), strict=True):
            points[column].append(point_of(clip, bench.inspector))
            if prompt.scene.camera.kind == "still":
                for name, measure in PIXELS.items():
                    figures[name][column].append(measure(clip.frames))
        for name, likeness in LOSSES.items():
            figures[name][COLUMNS[2]].append(likeness(real.frames, through.frames))
        shown += [made] if len(shown) < SHOWN else []
        bench.step("clips")
    return Filmed({name: Points.join(rows) for name, rows in points.items()}, figures, shown)


def _against(filmed: Filmed, reference: Points, measure: Callable[[np.ndarray, np.ndarray], float], which: str) -> Row:
    """A distance of each column's clips to renders of other scenes, whose mean is at 0 and whose mean variance is 1."""
    others = getattr(reference, which)
    middle, unit = others.mean(0), float(np.sqrt(others.var(0).mean())) or 1.0
    scaled = {name: (getattr(points, which) - middle) / unit for name, points in filmed.points.items()}
    return {name: measure(points, (others - middle) / unit) for name, points in scaled.items()}


def _diversity(bench: Bench, prompts: Sequence[Prompt], filmed: Filmed, count: int) -> dict[str, Row]:
    """How far apart clips are: those of one prompt, and those of different prompts."""
    native, made, real = bench.generator.native, list[float](), list[float]()
    alone = [i for i, p in enumerate(prompts) if len(p.scene.bodies) == 1]
    for index in alone[:count]:
        prompt = prompts[index]
        points = [Points(*(v[index : index + 1] for v in vars(filmed.points["model"]).values()))]
        for seed in range(1, SEEDS):
            canvas = text_to_video(prompt.text, native=native)
            clip = bench.generator.run_many(canvas, [len(prompts) * seed + prompt.seed])[0]
            points.append(_seen(bench, clip, "seeds"))
        made.append(spread(Points.join(points).features))
        others = [bench.render(twin) for twin in twins(prompt, SEEDS, bench.duration)]
        if len(others) > 1:
            real.append(spread(Points.join([point_of(clip, bench.inspector) for clip in others]).features))
    return {
        "distance between seeds of a prompt": {"model": mean_known(made), "renders": mean_known(real)},
        "distance between prompts": {name: spread(points.features) for name, points in filmed.points.items()},
    }


def _copies(bench: Bench, filmed: Filmed, count: int) -> dict[str, Row]:
    """The distance to the nearest training clip, of the median clip: in features, and in shrunken pixels."""
    training = Points.join([_seen(bench, _trained(bench, number), "training clips") for number in range(count)])
    rows: dict[str, Row] = {"nearest training clip, features": {}, "nearest training clip, pixels of 255": {}}
    for name, points in filmed.points.items():
        for row, kind in zip(rows.values(), ("features", "small"), strict=True):
            row[name] = float(np.median(nearest(getattr(points, kind), getattr(training, kind))))
    return rows


def _trained(bench: Bench, number: int) -> Clip:
    """One of the clips that the shipped model learned from, rendered anew at the native size."""
    native = bench.generator.native
    shard = np.random.default_rng((*TRAINED, number // SHARD)).integers(0, HELD_OUT_SEEDS, SHARD)
    scene = sample_scene(int(shard[number % SHARD]), MIXES["simple"])
    start = clip_start(scene, native.frames_max, native.fps)
    return Clip(render(scene, *native.size, native.frames_max, native.fps, start).frames, native.fps)


def _seen(bench: Bench, clip: Clip, what: str) -> Points:
    point = point_of(clip, bench.inspector)
    bench.step(what)
    return point


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else NOTHING


def _shown(value: float, name: str) -> str:
    """A figure in the table, "" where there is none."""
    if not np.isfinite(value):
        return ""
    return f"{value:.2f} dB" if "dB" in name else f"{value:.4f}" if "kernel" in name else f"{value:.3f}"


def _finite(row: Row) -> dict[str, float]:
    """What JSON can say of a row."""
    return {name: round(value, 6) for name, value in row.items() if np.isfinite(value)}
