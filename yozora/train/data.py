"""Where batches come from: clips rendered on the fly, and pools of latents on disk.

A batch is a function of (seed, step) alone, which is what makes a resumed run the same run. Worker processes of torch's
DataLoader prepare the next batches while the model trains.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from yozora.errors import ConfigError, YozoraError
from yozora.train.config import Bucket, World
from yozora.train.mesh import processes
from yozora.world import MIXES, Scene, SceneMix, render, sample_scene, simulate
from yozora.world.truth import truth_of

Batch = TypeVar("Batch", covariant=True)
HELD_OUT_SEEDS = 1 << 40  # scenes for evaluation have seeds from here on, which no training run draws


class Source(Protocol[Batch]):
    """Makes the batch of a step."""

    def batch(self, step: int) -> Batch: ...


class _Steps(Dataset[Any]):
    def __init__(self, source: Source[Any]):
        self.source = source

    def __getitem__(self, step: int) -> Any:
        return self.source.batch(step)


def stream(source: Source[Batch], start: int, steps: int, workers: int) -> Iterator[Batch]:
    """The batches of steps `start` to `steps` - 1, prepared ahead by `workers` processes (0: in this one)."""
    loader = DataLoader(
        _Steps(source),
        batch_size=None,
        sampler=range(start, steps),  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except YozoraError as error:  # from a worker, its message is the last line of a whole traceback
        raise type(error)(
            str(error).strip().splitlines()[-1].removeprefix(f"yozora.errors.{type(error).__name__}: ")
        ) from None


def _start_worker(index: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    # torchrun tells all that a process has started to end, and its workers are needed until it has
    signal.signal(signal.SIGTERM, signal.SIG_IGN if processes() > 1 else signal.SIG_DFL)
    torch.set_num_threads(1)
    os.nice(5)


def load_mix(mix: str | Mapping[str, Any]) -> SceneMix:
    """A mix by name, or from its weights; ConfigError names the known ones."""
    if not isinstance(mix, str):
        return SceneMix.from_dict(dict(mix))
    if mix not in MIXES:
        raise ConfigError(f"unknown mix {mix!r}; known: {', '.join(MIXES)}")
    return MIXES[mix]


def pick(weights: Mapping[str, float], random: np.random.Generator) -> str:
    """One key, drawn by weight."""
    p = np.array(list(weights.values()))
    return list(weights)[int(random.choice(len(p), p=p / p.sum()))]


def pick_bucket(buckets: Sequence[Bucket], random: np.random.Generator) -> Bucket:
    """One bucket, drawn by weight."""
    weights = np.array([bucket.weight for bucket in buckets])
    return buckets[int(random.choice(len(buckets), p=weights / weights.sum()))]


class Rendered(NamedTuple):
    """Clips uint8 `[B, 3, T, H, W]`, and where a body is seen in them, bool `[B, T, H / 4, W / 4]`."""

    frames: Tensor
    bodies: Tensor


@dataclass(frozen=True)
class RenderedClips(Source[Rendered]):
    """Fresh scenes, rendered, each clip starting at a random moment of its scene."""

    world: World
    seed: int

    def batch(self, step: int) -> Rendered:
        random = np.random.default_rng((self.seed, step))
        bucket = pick_bucket(self.world.buckets, random)
        seeds = random.integers(0, HELD_OUT_SEEDS, bucket.batch)
        clips = [self._clip(int(seed), bucket, random.random()) for seed in seeds]
        return Rendered(*(torch.stack(each) for each in zip(*clips, strict=True)))

    def _clip(self, seed: int, bucket: Bucket, moment: float) -> tuple[Tensor, Tensor]:
        scene, fps = sample_scene(seed, load_mix(self.world.mix)), self.world.fps
        start = moment * max(0.0, scene.duration - bucket.frames / fps)
        trajectory = simulate(scene, start + np.arange(bucket.frames) / fps)
        ids = truth_of(trajectory, bucket.width // 4, bucket.height // 4).ids
        bodies = (ids > 0) & (ids <= len(scene.bodies))  # walls come after them
        return clip_tensor(scene, bucket, fps, start), torch.from_numpy(bodies)


def clip_tensor(scene: Scene, bucket: Bucket, fps: float, start: float = 0.0) -> Tensor:
    """A scene rendered to uint8 `[3, T, H, W]`."""
    rendering = render(scene, bucket.width, bucket.height, bucket.frames, fps, start=start, threads=1)
    return torch.from_numpy(rendering.frames).permute(3, 0, 1, 2).contiguous()


def to_signed(frames: Tensor) -> Tensor:
    """uint8 0..255 → float32 -1..1, as the models take them."""
    return frames.float() / 127.5 - 1


@dataclass(frozen=True)
class PooledClip:
    """One clip of a pool: where its tensors lie, and its line of the index."""

    file: Path
    row: int
    line: str


class Drawn(NamedTuple):
    """A clip out of a pool: latents `[C, T, h, w]`, and its scene with the scene's `body_maps`, or of footage what is
    said of it."""

    latents: Tensor
    scene: Scene | None
    bodies: Tensor | None
    captions: tuple[str, ...] = ()


class LatentPool:
    """The folder that `yozora train latents` writes: shards of latents with a line of JSON for each clip, a scene or
    what is said of a piece of footage.

    Raises ConfigError when the folder is missing, empty or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.clips: dict[tuple[int, int, int], list[PooledClip]] = {}
        for index in sorted(self.folder.glob("*.jsonl")):
            shard = index.with_suffix(".safetensors")
            width, height, frames = (int(part) for part in index.stem.split("-")[0].split("x"))
            lines = index.read_text(encoding="utf-8").split("\n")  # a caption may hold other ends of lines
            rows = [PooledClip(shard, row, line) for row, line in enumerate(lines) if line]
            self.clips.setdefault((width, height, frames), []).extend(rows)
        if not self.clips:
            raise ConfigError(f"no latents in {folder}; make them with: yozora train latents CONFIG.toml")
        self._fit: dict[tuple[int, int, int, bool], list[PooledClip]] = {}
        self._open: dict[Path, dict[str, Tensor]] = {}

    def draw(self, bucket: Bucket, random: np.random.Generator) -> Drawn:
        """A random clip of the bucket's size and length: see `clips_of`."""
        clips = self.clips_of(bucket)
        return self.take(clips[int(random.integers(len(clips)))], bucket.frames)

    def take(self, clip: PooledClip, length: int) -> Drawn:
        """A clip's first `length` frames, and what is known of it."""
        shard, frames = self._read(clip.file), 1 + (length - 1) // 4
        latents = self.latents_of(clip)[:, :frames]
        if "bodies" in shard:
            return Drawn(latents, Scene.from_json(clip.line), shard["bodies"][clip.row][..., :frames, :, :])
        return Drawn(latents, None, None, _said_of(clip))

    def buckets(self) -> tuple[Bucket, ...]:
        """Every size and length in it, to be drawn as often as there are clips of it."""
        return tuple(
            Bucket(width=width, height=height, frames=frames, batch=1, weight=len(clips), exact=True)
            for (width, height, frames), clips in sorted(self.clips.items())
        )

    def captions(self) -> Iterator[tuple[str, ...]]:
        """What is said of each clip of footage."""
        for clips in self.clips.values():
            for clip in clips:
                yield _said_of(clip)

    def clips_of(self, bucket: Bucket) -> list[PooledClip]:
        """Every clip of that size and of at least that length, or of that very length. Raises ConfigError where there
        is none."""
        size, frames = (bucket.width, bucket.height), bucket.frames
        key = (*size, frames, bucket.exact)
        if key not in self._fit:
            lengths = {f: of for (w, h, f), of in self.clips.items() if (w, h) == size and f >= frames}
            clips = [clip for f, of in lengths.items() if f == frames or not bucket.exact for clip in of]
            if not clips:
                raise ConfigError(f"{self.folder} has no clips of {bucket.width}x{bucket.height}, {frames} frames")
            self._fit[key] = clips
        return self._fit[key]

    def latents_of(self, clip: PooledClip) -> Tensor:
        """Its latents, `[C, T, h, w]`. Raises ConfigError where the shard has none for this line of its index."""
        latents = self._read(clip.file)["latents"]
        if clip.row >= len(latents):
            raise _damaged(clip)
        return latents[clip.row]

    def shape_of(self, clip: PooledClip) -> tuple[int, ...]:
        """(C, T, h, w) of its latents."""
        return tuple(self._read(clip.file)["latents"].shape[1:])

    def _read(self, file: Path) -> dict[str, Tensor]:
        if file not in self._open:
            try:
                with safe_open(file, "pt") as shard:
                    self._open[file] = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
            except (SafetensorError, OSError) as error:
                raise ConfigError(
                    f"{file} cannot be read ({error}); delete it and its .jsonl, then make it again"
                ) from None
        return self._open[file]


def _said_of(clip: PooledClip) -> tuple[str, ...]:
    """The captions in its line of the index; none of a scene. Raises ConfigError where that is damaged."""
    try:
        return tuple(json.loads(clip.line).get("captions", ()))
    except (ValueError, AttributeError, TypeError):
        raise _damaged(clip) from None


def _damaged(clip: PooledClip) -> ConfigError:
    index = clip.file.with_suffix(".jsonl")
    return ConfigError(f"{index} is damaged at line {clip.row + 1}: make the pool again (--no-resume)")


def scene_lines(scenes: Sequence[Scene]) -> str:
    """The .jsonl text of a shard."""
    return "".join(json.dumps(json.loads(scene.to_json()), ensure_ascii=False) + "\n" for scene in scenes)
