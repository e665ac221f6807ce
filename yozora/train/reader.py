"""Training the reader: rendered clips in, what they show out, by name.

Rendering costs more than a training step, so a fixed number of batches is filmed, kept in memory, and learned from
several times. Generated clips are softer than renders, so half of the training clips are blurred, shaded and noised at
random, all frames of one alike; half are mirrored. A name is learned only where it can be read: the size and the
material of a thing that is alone, a motion where no two things move in ways of their own, a time of day outdoors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yozora.models.folder import load_module, save_module
from yozora.models.inspector import Inspector, squares
from yozora.models.reader import Reader, ReaderConfig, clip_to_read
from yozora.train.config import ReaderStage
from yozora.train.data import HELD_OUT_SEEDS, Source, load_mix, pick_bucket, stream, to_signed
from yozora.train.inspector import UNNAMED, LabelledFrames, named_loss, shaken, soften
from yozora.train.loop import fit
from yozora.train.resumed import settings_of
from yozora.train.settings import build
from yozora.world import Scene, render, sample_scene
from yozora.world.describe import facts
from yozora.world.scene import CAMERAS, DIRECTIONS, GROUNDS, MATERIALS, MOTIONS, SIZES, STYLES, TIMES, WEATHERS
from yozora.world.shapes import rolls

KINDS = tuple(kind for kind in MOTIONS if kind not in DIRECTIONS)  # what goes somewhere, rolls or slides
HEADS: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "motion": KINDS,
    "camera": CAMERAS,
    "ground": GROUNDS,
    "time": TIMES,
    "weather": WEATHERS,
    "style": STYLES,
}


def train_reader(config: ReaderStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights. Raises ConfigError."""
    return fit(ReaderTask(config), config.run, config.optim, resume, settings=settings_of(config))


class LabelledClips(NamedTuple):
    """Clips uint8 `[N, T, 4, S, S]` and the numbers of their names, int64 `[N, heads]`; squares around single things
    uint8 `[M, 4, s, s]` and their materials, int64 `[M]`. UNNAMED where there is none to read."""

    clips: Tensor
    names: Tensor
    squares: Tensor
    materials: Tensor


@dataclass(frozen=True)
class FilmedScenes(Source[LabelledClips]):
    """Scenes, each filmed from its start to its end; the same batches come again after `config.filmed` steps."""

    config: ReaderStage
    network: ReaderConfig
    inspector: Inspector
    first_seed: int = 0
    kept: dict[int, LabelledClips] = field(default_factory=dict, repr=False)

    def batch(self, step: int) -> LabelledClips:
        number = step % self.config.filmed
        if number not in self.kept:
            self.kept[number] = self._film(number)
        return self.kept[number]

    def _film(self, number: int) -> LabelledClips:
        if self.config.materials_only:
            none = torch.empty(0, self.network.frames, 4, self.network.side, self.network.side, dtype=torch.uint8)
            unnamed = torch.empty(0, len(self.network.heads), dtype=torch.long)
            return LabelledClips(none, unnamed, *self._close_up(number))
        world = self.config.world
        random = np.random.default_rng((self.config.run.seed, number))
        bucket, mix = pick_bucket(world.buckets, random), load_mix(world.mix)
        clips, names = [], []
        for seed in random.integers(0, HELD_OUT_SEEDS, bucket.batch):
            scene = sample_scene(int(seed) + self.first_seed, mix)
            film = render(scene, bucket.width, bucket.height, bucket.frames, world.fps, threads=1)
            with torch.no_grad():
                clips.append(to_bytes(clip_to_read(torch.from_numpy(film.frames), self.network, self.inspector)))
            names.append(numbers(names_of(scene), self.network.heads))
        return LabelledClips(torch.stack(clips), torch.tensor(names), *self._close_up(number))

    @torch.no_grad()
    def _close_up(self, number: int) -> tuple[Tensor, Tensor]:
        """Squares of single frames, cut out of them as they are and softened in turn, and their materials."""
        run, generator = self.config.run, torch.Generator().manual_seed(number)
        frames = LabelledFrames(self.config.closeups, run.seed, self.first_seed).batch(number)
        pictures = to_signed(frames.frames)
        pictures[::2] = soften(pictures[::2], generator)
        things = self.inspector(pictures).thing.sigmoid()
        return to_bytes(squares(pictures, things, shaken(frames.box, generator), self.network.crop)), frames.material


def names_of(scene: Scene) -> dict[str, str]:
    """What can be read off a clip of all of `scene`, by head; a head is left out where there is nothing to read."""
    seen = facts(scene)
    names = {head: seen[head] for head in ("camera", "ground", "time", "weather", "style")}
    names["motion"] = kind_of_motion(scene)
    if len(scene.bodies) == 1 and scene.bodies[0].motion.kind not in ("grow", "shrink"):
        names["size"] = scene.bodies[0].size
    return {head: name for head, name in names.items() if name in HEADS[head]}


def kind_of_motion(scene: Scene) -> str:
    """How the one thing moves that does so by itself; "still" where none does, "" where two do or it cannot be seen.

    What goes somewhere, at its own speed or slowing down, rolls or slides: which of the two is what a clip shows.
    """
    movers = [body for body in scene.bodies if body.motion.kind != "still"]
    if not movers:
        return "still"
    kind = movers[0].motion.kind
    if len(movers) > 1 or (kind == "recolour" and facts(scene)["colour"] == "none"):
        return ""
    if kind in (*DIRECTIONS, "roll", "slide"):
        return "roll" if rolls(movers[0]) else "slide"
    return kind


def numbers(names: Mapping[str, str], heads: Mapping[str, tuple[str, ...]]) -> list[int]:
    """The number of each head's name, UNNAMED where it has none."""
    return [classes.index(names[head]) if head in names else UNNAMED for head, classes in heads.items()]


class ReaderTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: ReaderStage):
        self.config = config
        torch.manual_seed(config.run.seed)
        self.inspector = load_module(Inspector, config.inspector).requires_grad_(False)
        if config.start_from:
            reader = load_module(Reader, config.start_from)
            if config.materials_only:
                reader = with_new_surface(reader, config.model)
        else:
            known = {"heads": HEADS, "materials": MATERIALS, "crop": self.inspector.config.crop}
            reader = Reader(build(ReaderConfig, known | config.model))
        self.network = reader.config
        self.model = reader.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return (
            parameter.ndim >= 3
            and name.split(".")[0] in ("down", "blocks", "over_time", "mix", "surface")
            and "stem" not in name
        )

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[LabelledClips]:
        run = self.config.run
        return stream(FilmedScenes(self.config, self.network, self.inspector), start, run.steps, run.workers)

    def size(self, batch: LabelledClips) -> int:
        return len(batch.squares if self.config.materials_only else batch.clips)

    def loss(self, batch: LabelledClips, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(self.model.parameters()).device
        clips, things = to_signed(batch.clips.to(device)), to_signed(batch.squares.to(device))
        if torch.rand((), generator=generator) < 0.5:
            clips, things = clips.flip(-1), things.flip(-1)  # no name tells left from right
        logits = self._read(self.model, clips, things, generator)
        names = columns(batch)[-len(logits) :]
        losses = [named_loss(one, name.to(device)) for one, name in zip(logits.values(), names, strict=True)]
        shares = {
            head: right / max(1, asked)
            for head, (right, asked) in zip(logits, read_rightly(logits, names), strict=True)
        }
        return torch.stack(losses).mean(), shares

    def _read(self, model: nn.Module, clips: Tensor, things: Tensor, soft: torch.Generator | None) -> dict[str, Tensor]:
        """What is said of clips and squares, the material last; of these alone where nothing else learns."""
        if self.config.materials_only:
            logits = {}
        else:
            logits = model(clips if soft is None else soften_clips(clips, soft))
        return logits | {"material": model.surface(things)}  # pyright: ignore[reportCallIssue]

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """How often each head is right about 12 batches of held-out scenes, as they are and softened."""
        source = FilmedScenes(self.config, self.network, self.inspector, first_seed=HELD_OUT_SEEDS)
        device = next(model.parameters()).device
        heads = (*(() if self.config.materials_only else self.network.heads), "material")
        counts = np.zeros((2, len(heads), 2))
        for number in range(12):
            batch, generator = source.batch(number), torch.Generator().manual_seed(number)
            clips, things = to_signed(batch.clips.to(device)), to_signed(batch.squares.to(device))
            for row, soft in enumerate((None, generator)):
                with torch.no_grad():
                    logits = self._read(model, clips, things, soft)
                counts[row] += np.array(read_rightly(logits, columns(batch)[-len(heads) :]))
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"{head:10s} {100 * sharp[0] / max(1, sharp[1]):5.1f} %  softened {100 * soft[0] / max(1, soft[1]):5.1f} %"
            for head, sharp, soft in zip(heads, *counts, strict=True)
        ]
        (folder / f"{step:07d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder, torch.bfloat16)


def with_new_surface(reader: Reader, model: Mapping[str, Any]) -> Reader:
    """The reader with nothing learned of materials, of the model's `surface_widths`; what else it knows does not learn
    on."""
    widths = {"surface_widths": model["surface_widths"]} if "surface_widths" in model else {}
    fresh = Reader(build(ReaderConfig, {**vars(reader.config), **widths}))
    known = {name: value for name, value in reader.state_dict().items() if not name.startswith("surface.")}
    fresh.load_state_dict(known, strict=False)
    for name, parameter in fresh.named_parameters():
        parameter.requires_grad_(name.startswith("surface."))
    return fresh


def to_bytes(pictures: Tensor) -> Tensor:
    """-1..1 → uint8."""
    return (pictures * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)


def soften_clips(clips: Tensor, generator: torch.Generator) -> Tensor:
    """`soften` for the pictures of clips `[N, T, 4, S, S]`: half of the clips, and all frames of one alike."""
    tall = clips[::2, :, :3].transpose(1, 2).flatten(2, 3)  # the frames of a clip below each other
    out = clips.clone()
    out[::2, :, :3] = soften(tall, generator).unflatten(2, (clips.shape[1], -1)).transpose(1, 2)
    return out


def columns(batch: LabelledClips) -> list[Tensor]:
    """The numbers of the names, a head at a time, the materials last."""
    return [*batch.names.unbind(1), batch.materials]


@torch.no_grad()
def read_rightly(logits: Mapping[str, Tensor], names: Sequence[Tensor]) -> list[tuple[int, int]]:
    """For each head how much was named rightly, and how much had a name."""
    return [
        (int((one.argmax(1).cpu() == name).sum()), int((name != UNNAMED).sum()))
        for one, name in zip(logits.values(), names, strict=True)
    ]
