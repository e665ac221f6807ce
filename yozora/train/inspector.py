"""Training the inspector: rendered frames in, where the things are, their colours and shapes out.

Generated frames are softer than renders, so training frames are blurred, shaded and noised at random; colours are
shifted so little that they keep their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.models.folder import save_module
from yozora.models.inspector import Cells, Inspector, InspectorConfig
from yozora.train.config import InspectorStage, World
from yozora.train.data import HELD_OUT_SEEDS, Source, load_mix, pick_bucket, stream, to_signed
from yozora.train.loop import fit
from yozora.train.resumed import settings_of
from yozora.train.settings import build
from yozora.world import Scene, render, sample_scene
from yozora.world.scene import COLOURS, MATERIALS, SHAPES

UNNAMED = -100  # of a label: nothing to learn here (the ignored index of torch's cross entropy)
LEAST_CELLS = 6  # in view, for a body's shape to be asked for


def train_inspector(config: InspectorStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights."""
    return fit(InspectorTask(config), config.run, config.optim, resume, settings=settings_of(config))


class Labelled(NamedTuple):
    """Frames uint8 `[N, 3, H, W]` and, on the inspector's grid, int64 `[N, h, w]`: which body a cell shows (0: none)
    and its colour (UNNAMED where there is none); the shape and the material `[N]` of the largest body in view (UNNAMED
    where there is none) and its box float32 `[N, 4]`: left, top, right, bottom in cells."""

    frames: Tensor
    body: Tensor
    colour: Tensor
    shape: Tensor
    material: Tensor
    box: Tensor


@dataclass(frozen=True)
class LabelledFrames(Source[Labelled]):
    """Frames of fresh scenes with their labels."""

    world: World
    seed: int
    first_seed: int = 0

    def batch(self, step: int) -> Labelled:
        world = self.world
        random = np.random.default_rng((self.seed, step))
        bucket, mix = pick_bucket(world.buckets, random), load_mix(world.mix)
        parts = []
        for seed in random.integers(0, HELD_OUT_SEEDS, bucket.batch):
            scene = sample_scene(int(seed) + self.first_seed, mix)
            start = random.random() * max(0.0, scene.duration - bucket.frames / world.fps)
            film = render(scene, bucket.width, bucket.height, bucket.frames, world.fps, start, truth=True, threads=1)
            assert film.truth is not None
            parts.append((film.frames.transpose(0, 3, 1, 2), *label(scene, film.truth.ids)))
        return Labelled(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)))


def label(scene: Scene, ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """Truth ids `[T, H, W]` → body, colour, shape, material and box as `Labelled` has them. Walls are background, and a
    thing that changes its colour has no name for it."""
    body = ids[:, ::2, ::2].astype(np.int64)
    body[body > len(scene.bodies)] = 0
    names = [
        UNNAMED,
        *(list(COLOURS).index(b.colour) if b.motion.kind != "recolour" else UNNAMED for b in scene.bodies),
    ]
    shape, material = np.full((2, len(ids)), UNNAMED, np.int64)
    box = np.tile(np.array([0, 0, 1, 1], np.float32), (len(ids), 1))
    for t, frame in enumerate(body):
        counts = np.bincount(frame.ravel(), minlength=2)[1:]
        if counts.max() >= LEAST_CELLS:
            largest = int(counts.argmax())
            shape[t] = SHAPES.index(scene.bodies[largest].shape)
            material[t] = MATERIALS.index(scene.bodies[largest].material)
            box[t] = bounds(frame == largest + 1)
    return body, np.array(names)[body], shape, material, box


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box of a mask, bool `[h, w]` with something in it: left, top, right, bottom."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class InspectorTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: InspectorStage):
        self.config = config
        torch.manual_seed(config.run.seed)
        names = {"colours": tuple(COLOURS), "shapes": SHAPES}
        self.model = Inspector(build(InspectorConfig, names | config.model)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 4 and "stem" not in name and "head" not in name

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Labelled]:
        run = self.config.run
        return stream(LabelledFrames(self.config.world, run.seed), start, run.steps, run.workers)

    def size(self, batch: Labelled) -> int:
        return len(batch.frames)

    def loss(self, batch: Labelled, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = self._move(batch)
        frames = soften(to_signed(batch.frames), generator)
        cells = self.model(frames)
        shapes = self._shapes(self.model, frames, cells, shaken(batch.box, generator))
        thing = F.binary_cross_entropy_with_logits(cells.thing, (batch.body > 0).float())
        loss = 8 * thing + named_loss(cells.colour, batch.colour) + named_loss(shapes, batch.shape)
        return loss, scores(cells, shapes.detach(), batch)

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """How well 16 batches of held-out scenes are read, sharp and softened."""
        source = LabelledFrames(self.config.world, self.config.run.seed, HELD_OUT_SEEDS)
        found: dict[str, list[float]] = {}
        for number in range(16):
            batch, generator = self._move(source.batch(number)), torch.Generator().manual_seed(number)
            sharp = to_signed(batch.frames)
            for name, frames in (("sharp", sharp), ("softened", soften(sharp, generator))):
                with torch.no_grad():
                    cells = model(frames)
                    shapes = self._shapes(model, frames, cells, batch.box)
                for key, value in scores(cells, shapes, batch).items():
                    found.setdefault(f"{name} {key}", []).append(value)
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}: {np.mean(values):.4f}\n" for name, values in found.items())
        (folder / f"{step:07d}.txt").write_text(text, encoding="utf-8")

    @staticmethod
    def _shapes(model: nn.Module, frames: Tensor, cells: Cells, box: Tensor) -> Tensor:
        """The shape's logits, the mask being what the network itself sees (but not learning from it)."""
        return model.shapes(frames, cells.thing.detach().sigmoid(), box)  # pyright: ignore[reportCallIssue]

    def _move(self, batch: Labelled) -> Labelled:
        device = next(self.model.parameters()).device
        return Labelled(*(part.to(device) for part in batch))

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder, torch.bfloat16)


def named_loss(logits: Tensor, names: Tensor) -> Tensor:
    """Cross entropy where there is a name; zero, not nan, where there is none at all."""
    if names.eq(UNNAMED).all():
        return logits.sum() * 0
    return F.cross_entropy(logits, names, ignore_index=UNNAMED)


@torch.no_grad()
def scores(cells: Cells, shapes: Tensor, batch: Labelled) -> dict[str, float]:
    """Intersection over union of things, and the shares of their cells' colours and of shapes named rightly."""
    found, there = cells.thing > 0, batch.body > 0
    iou = (found & there).sum() / (found | there).sum().clamp(min=1)
    right = {
        name: (logits.argmax(1) == truth)[truth != UNNAMED].float().mean().nan_to_num().item()
        for name, logits, truth in (("colour", cells.colour, batch.colour), ("shape", shapes, batch.shape))
    }
    return {"iou": iou.item(), **right}


def shaken(box: Tensor, generator: torch.Generator) -> Tensor:
    """Boxes whose sides are moved by up to a twelfth of their size, as those of found masks are."""
    size = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    return box + size * ((torch.rand(box.shape, generator=generator).to(box.device) - 0.5) / 6)


def soften(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Frames `[N, 3, H, W]` in -1..1, four in five of them blurred, and all slightly shaded, tinted and noised; the
    batch is cut into eighths that share a blur."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).to(frames.device)

    parts = []
    for part in frames.chunk(8):
        factor = max(1.0, float(uniform(0.5, 3.0)))
        size = tuple(max(8, round(side / factor)) for side in part.shape[-2:])
        small = F.interpolate(part, size=size, mode="bilinear", antialias=True, align_corners=False)
        parts.append(F.interpolate(small, size=part.shape[-2:], mode="bicubic", align_corners=False))
    x, count = torch.cat(parts), len(frames)
    contrast, brightness = uniform(0.88, 1.08, count, 1, 1, 1), uniform(-0.06, 0.06, count, 1, 1, 1)
    tint, grain = uniform(-0.02, 0.02, count, 3, 1, 1), uniform(0.0, 0.05, count, 1, 1, 1)
    noise = torch.randn(frames.shape, generator=generator).to(frames.device)
    return (contrast * x + brightness + tint + grain * noise).clamp(-1, 1)
