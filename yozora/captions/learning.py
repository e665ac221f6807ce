"""Training what the captioner reads with: the inspector, which finds things, the reader, which needs it, and last the
weigher, which learns from what the two say of renders whom to believe when.

Each is a stage of its own with its own file; `train_captioner` runs them one after the other and puts the networks into
a folder for `yozora caption --captioner`. What is told of what they read is no network: it is the world's grammar.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from yozora.clip import Clip
from yozora.evaluate.evidence import (
    CANDIDATES,
    CHANNELS,
    MOMENTS,
    PICTURES,
    ROWS,
    Evidence,
    gather,
    look_around,
    mirrored,
)
from yozora.models.folder import load_module, save_module
from yozora.models.inspector import Inspector
from yozora.models.reader import Reader
from yozora.models.weigher import Weigher, WeigherConfig
from yozora.train import run as run_stage
from yozora.train.captioner import put, settings_for, train_eyes
from yozora.train.config import CaptionerStage, WeigherStage
from yozora.train.data import HELD_OUT_SEEDS, load_mix, pick_bucket, stream
from yozora.train.inspector import UNNAMED, soften
from yozora.train.loop import fit, make_folder
from yozora.train.reader import KINDS, kind_of_motion, to_bytes
from yozora.train.resumed import settings_of
from yozora.train.settings import build, read_config
from yozora.world import Body, Scene, render, sample_scene
from yozora.world.describe import facts
from yozora.world.scene import CAMERA_DIRECTIONS, CAMERAS, COLOURS, DIRECTIONS, GROUNDS, SIZES, STYLES, TIMES, WEATHERS

FILMED = tuple(f"{kind} {to}".strip() for kind in CAMERAS for to in CAMERA_DIRECTIONS[kind])
HEADS: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "motion": KINDS,
    "direction": ("none", *DIRECTIONS),
    "filmed": FILMED,
    "ground": GROUNDS,
    "time": TIMES,
    "weather": WEATHERS,
    "style": STYLES,
    "things": ("1", "2", "more"),
    "relation": ("none", "left", "right", "behind", "front"),
    "colour_to": tuple(COLOURS),
}
MIRRORED = ("direction", "relation", "filmed")  # heads whose names tell left from right
NOISE = 0.05  # of the evidence, whose numbers are about 1
TOLD = 10  # batches are filmed between two lines that say how many
SHOWN = 4  # held-out batches
LESSONS = "lessons"  # the folder in a run's own that keeps what was gathered
STAGES = {  # as `yozora.train.STAGES`
    "weigher": (__name__, "train_weigher", "WeigherStage", "Whom of the two judges captions believe, and when."),
    "captioner": (__name__, "train_captioner", "CaptionerStage", "What the captioner reads with: all three."),
}


def run(stage: str, config: Path, overrides: Sequence[str] = (), resume: bool = True) -> Path:
    """`yozora.train.run` for the two stages that this room has. Raises ConfigError."""
    return run_stage(stage, config, overrides, resume, STAGES)


def train_captioner(config: CaptionerStage, resume: bool = True) -> Path:
    """Runs all three stages; with `resume`, each goes on where it stopped. Returns the folder of the networks. Raises
    ConfigError."""
    # checked before anything is trained
    own = settings_for(config, "weigher")
    read_config(WeigherStage, config.weigher, [*own, 'inspector="made"', 'reader="made first"'])
    export = train_eyes(config, resume)
    eyes = [f"{name}={json.dumps(str(export / name))}" for name in ("inspector", "reader")]
    made = train_weigher(read_config(WeigherStage, config.weigher, [*own, *eyes]), resume)
    put(made, export / "weigher")
    return export


def train_weigher(config: WeigherStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights. Raises ConfigError."""
    return fit(WeigherTask(config), config.run, config.optim, resume, settings=settings_of(config))


class Lesson(NamedTuple):
    """What is said of clips [N], and the number of each of their names, int64 `[N, heads]`: UNNAMED where there is
    none."""

    tracks: Tensor
    looks: Tensor
    said: Tensor
    whole: Tensor
    names: Tensor

    @property
    def evidence(self) -> Evidence:
        return Evidence(*self[:4])


@dataclass(frozen=True)
class Gathered:
    """Batches of filmed clips, by their numbers (`yozora.train.data.Source`). What was gathered is kept in `folder`."""

    config: WeigherStage
    inspector: Inspector
    reader: Reader
    names: Mapping[str, tuple[str, ...]]
    folder: Path
    first_seed: int = 0

    def batch(self, step: int) -> Lesson:
        path = self.folder / f"{self.first_seed}-{step:05d}.safetensors"
        try:
            return Lesson(**load_file(path))
        except (OSError, SafetensorError, TypeError):  # not there yet, or not whole
            made = self._film(step)
            save_file(made._asdict(), path)
            return made

    def _film(self, step: int) -> Lesson:
        world = self.config.world
        random = np.random.default_rng((self.config.run.seed, step))
        bucket, mix = pick_bucket(world.buckets, random), load_mix(world.mix)
        parts, names = [], []
        for seed in random.integers(0, HELD_OUT_SEEDS, bucket.batch):
            scene = sample_scene(int(seed) + self.first_seed, mix)
            film = render(scene, bucket.width, bucket.height, bucket.frames, world.fps, threads=1).frames
            if random.random() < self.config.softened:
                film = softened(film, int(seed) % (1 << 62))
            parts.append(gather(look_around(Clip(film, world.fps), self.inspector, self.reader)))
            names.append(numbers_of(names_of(scene), self.names))
        evidence = Evidence(*(torch.cat(column) for column in zip(*parts, strict=True)))
        return Lesson(*evidence, names=torch.tensor(names))


class WeigherTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: WeigherStage) -> None:
        self.config = config
        torch.manual_seed(config.run.seed)
        self.inspector = load_module(Inspector, config.inspector).requires_grad_(False)
        self.reader = load_module(Reader, config.reader).requires_grad_(False)
        make_folder(config.run.out / LESSONS)
        probe = gather(look_around(Clip(np.zeros((5, 32, 32, 3), np.uint8), 4), self.inspector, self.reader))
        seen, read = self.inspector.config, self.reader.config
        known = {"heads": HEADS, "reader": read.heads, "shapes": seen.shapes, "colours": seen.colours}
        known |= {"materials": read.materials, "candidates": CANDIDATES, "channels": CHANNELS, "moments": MOMENTS}
        known["rows"] = ROWS * PICTURES
        self.model = Weigher(build(WeigherConfig, known | {"whole": probe.whole.shape[1]} | config.model))
        self.names = self.model.names

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return False

    def rate(self, name: str) -> float:
        return 1.0

    def source(self, first_seed: int = 0) -> Gathered:
        folder = self.config.run.out / LESSONS
        return Gathered(self.config, self.inspector, self.reader, self.names, folder, first_seed)

    def batches(self, start: int) -> Iterator[Lesson]:
        config, run = self.config, self.config.run
        parts = []
        for number, part in enumerate(stream(self.source(), 0, config.filmed, run.workers)):
            parts.append(part)
            if (number + 1) % TOLD == 0 and number + 1 < config.filmed:
                print(f"filmed {number + 1}/{config.filmed}", flush=True)
        every = Lesson(*(torch.cat(column) for column in zip(*parts, strict=True)))
        both = Lesson(*(torch.cat(pair) for pair in zip(every, self._mirrored(every), strict=True)))
        for step in range(start, run.steps):
            drawn = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
            which = torch.randint(len(both.names), (config.batch,), generator=drawn)
            yield Lesson(*(part[which] for part in both))

    def _mirrored(self, lesson: Lesson) -> Lesson:
        """The same in a mirror: what goes left goes right."""
        names = lesson.names.clone()
        for column, (head, values) in enumerate(self.names.items()):
            if head in MIRRORED:
                other = torch.tensor([values.index(_other_side(value)) for value in values])
                named = names[:, column] != UNNAMED
                names[named, column] = other[names[named, column]]
        return Lesson(*mirrored(lesson.evidence), names)

    def size(self, batch: Lesson) -> int:
        return len(batch.names)

    def loss(self, batch: Lesson, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(self.model.parameters()).device
        shaken = [part + NOISE * torch.randn(part.shape, generator=generator) for part in batch.evidence]
        told = self.model(*(part.to(device) for part in shaken))
        losses = {
            head: F.nll_loss(told[head], names.to(device), ignore_index=UNNAMED, reduction="sum") / len(names)
            for head, names in zip(self.names, batch.names.unbind(1), strict=True)
        }
        return torch.stack([*losses.values()]).sum(), {head: loss.item() for head, loss in losses.items()}

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """How often each name is right in SHOWN held-out batches."""
        parts = [self.source(HELD_OUT_SEEDS).batch(number) for number in range(SHOWN)]
        lesson = Lesson(*(torch.cat(column) for column in zip(*parts, strict=True)))
        device = next(model.parameters()).device
        with torch.no_grad():
            told = model(*(part.to(device) for part in lesson.evidence))
        lines = []
        for head, names in zip(self.names, lesson.names.unbind(1), strict=True):
            named = names != UNNAMED
            right = int((told[head].argmax(1).cpu()[named] == names[named]).sum())
            lines.append(f"{head:14s} {100 * right / max(1, int(named.sum())):5.1f} % of {int(named.sum())}\n")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{step:07d}.txt").write_text("".join(lines), encoding="utf-8")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder, torch.bfloat16)


def names_of(scene: Scene) -> dict[str, str]:
    """What is to be told of a scene, by head. Where several things do something, or none does, the one that looks
    largest comes first: in what order a scene has them cannot be seen."""

    def nearness(body: Body) -> float:
        return body.radius / max(scene.camera.distance + body.position[1], 0.1)

    bodies = tuple(sorted(scene.bodies, key=nearness, reverse=True))
    names = facts(replace(scene, bodies=bodies)) | {"motion": kind_of_motion(scene)}
    count = int(names["count"])
    way = f"{names['camera']} {names['camera_direction'].replace('none', '')}".strip()
    return names | {"filmed": way, "things": HEADS["things"][min(count, 3) - 1]}


def numbers_of(names: Mapping[str, str], heads: Mapping[str, tuple[str, ...]]) -> list[int]:
    """The number of each head's name, UNNAMED where it has none."""
    return [values.index(names[head]) if names.get(head) in values else UNNAMED for head, values in heads.items()]


def softened(frames: np.ndarray, seed: int) -> np.ndarray:
    """A clip uint8 `[T, H, W, 3]` as soft as generated ones are, all frames alike."""
    count, height, width = frames.shape[:3]
    tall = torch.from_numpy(frames).permute(3, 0, 1, 2).reshape(1, 3, count * height, width).float() / 127.5 - 1
    soft = soften(tall, torch.Generator().manual_seed(seed)).reshape(3, count, height, width).permute(1, 2, 3, 0)
    return to_bytes(soft).numpy()


def _other_side(name: str) -> str:
    """ "pan left" → "pan right"."""
    sides = {"left": "right", "right": "left"}
    return " ".join(sides.get(word, word) for word in name.split(" "))
