"""What the enhancer learns from: short clips of moments that are known better than the clips show them, larger and
between their frames. Rendered from the simulated world, or cut from any folder of clips.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from yozora.clip import Clip, open_frames
from yozora.create.given import fit_frames
from yozora.errors import ConfigError, MediaError
from yozora.train.config import Bucket, Media, World
from yozora.train.data import HELD_OUT_SEEDS, Source, clip_tensor, load_mix, pick_bucket
from yozora.world import sample_scene

LONGEST_SKIP = 240  # frames of a file that are passed over before a clip is cut from it


class Moments(NamedTuple):
    """`low` uint8 `[B, 3, T, h, w]`: short clips. `high` uint8 `[B, 3, factor * h, factor * w]`: their frame `shown`,
    larger. `middle` uint8 `[B, 3, h, w]`: what is seen at `moment` (float32 `[B]`, 0..1) between their frames `first`
    and `first` + 1."""

    low: Tensor
    high: Tensor
    middle: Tensor
    moment: Tensor
    shown: int
    first: int


@dataclass(frozen=True)
class MomentSource(Source[Moments]):
    """A share of the batches from a folder of clips, if there is one, and the others rendered."""

    world: World
    media: Media | None
    factor: int
    seed: int
    first_seed: int = 0

    def batch(self, step: int) -> Moments:
        random = np.random.default_rng((self.seed, step))
        bucket = pick_bucket(self.world.buckets, random)
        shown, first = int(random.integers(bucket.frames)), int(random.integers(max(1, bucket.frames - 1)))
        filmed = self.media is not None and random.random() < self.media.share
        one = self._cut if filmed else self._render
        parts = [one(bucket, shown, first, random) for _ in range(bucket.batch)]
        low, high, middle, moment = zip(*parts, strict=True)
        return Moments(
            torch.stack(low), torch.stack(high), torch.stack(middle), torch.tensor(moment).float(), shown, first
        )

    def _render(
        self, bucket: Bucket, shown: int, first: int, random: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """A fresh scene, filmed three times: as it is, larger, and at one more moment."""
        fps = self.world.fps
        scene = sample_scene(self.first_seed + int(random.integers(HELD_OUT_SEEDS)), load_mix(self.world.mix))
        start = random.random() * max(0.0, scene.duration - bucket.frames / fps)
        moment = random.uniform(0.1, 0.9)
        one = bucket.model_copy(update={"frames": 1})
        size = {"width": self.factor * bucket.width, "height": self.factor * bucket.height}
        high = clip_tensor(scene, one.model_copy(update=size), fps, start + shown / fps)
        middle = clip_tensor(scene, one, fps, start + (first + moment) / fps)
        return clip_tensor(scene, bucket, fps, start), high[:, 0], middle[:, 0], moment

    def _cut(
        self, bucket: Bucket, shown: int, first: int, random: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """A piece of a random clip: every second, third … frame of it, and one of those left out."""
        assert self.media is not None
        high = self.factor * bucket.width, self.factor * bucket.height
        paths = clips_in(self.media.folder, high)
        with open_frames(paths[int(random.integers(len(paths)))]) as reader:
            step = max(2, round(reader.fps / self.world.fps))
            passed = int(random.integers(1, step))
            wanted = [*range(0, step * bucket.frames, step), first * step + passed]
            frames = _frames_at(reader, wanted, int(random.integers(LONGEST_SKIP)), high)
        clip = Clip(np.stack(frames), 1.0)
        low = _pixels(clip.resized(bucket.width, bucket.height))
        return low[:, :-1], _pixels(clip)[:, shown], low[:, -1], passed / step


@lru_cache(maxsize=8)
def clips_in(folder: Path, size: tuple[int, int]) -> tuple[Path, ...]:
    """The videos and pictures in a folder, and in those in it, that are at least of `size` (width, height). Raises
    ConfigError where there is none."""
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.name.startswith("."):
            try:
                with open_frames(path) as reader:
                    large = reader.size[0] >= size[0] and reader.size[1] >= size[1]
            except MediaError:  # captions and the like
                continue
            found += [path] if large else []
    if not found:
        raise ConfigError(f"media.folder: there is no clip of {size[0]}x{size[1]} or more in {folder}")
    return tuple(found)


def _frames_at(frames: Iterator[np.ndarray], wanted: list[int], skip: int, size: tuple[int, int]) -> list[np.ndarray]:
    """The frames of these numbers after the first `skip`, fitted to `size`; of a file that ends before, its last ones
    (and where it is shorter still, its very last again and again)."""
    length = max(wanted) + 1
    window = deque(islice(frames, skip + length), maxlen=length)
    return [fit_frames(window[min(number, len(window) - 1)][None], *size)[0] for number in wanted]


def _pixels(clip: Clip) -> Tensor:
    """uint8 `[3, T, H, W]`."""
    return torch.from_numpy(clip.frames).permute(3, 0, 1, 2).contiguous()
