"""What a step of the transformer learns from: clips out of a pool, each with something that is said of it.

Either a batch of clips of one size and length, or a pack of clips of all sizes (see `yozora.train.packing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from yozora.errors import ConfigError
from yozora.train.config import Bucket, Lessons
from yozora.train.data import Drawn, LatentPool, pick, pick_bucket
from yozora.train.layout import name_bodies
from yozora.train.packing import TOGETHER, Packer, useful
from yozora.world import describe

FILLED = 0.9  # of a pack; where less is, that is said


class Captioned(NamedTuple):
    """A batch: latents `[B, C, T, h, w]`, captions ("" where dropped), and where that is asked for what stands where
    (`name_bodies`). Of a batch that processes share, those of one: the `whole` has so many, from the `first` on."""

    latents: Tensor
    captions: list[str]
    layout: Tensor | None
    first: int = 0
    whole: int | None = None


class Pack(NamedTuple):
    """A pack: each clip's latents `[C, T, h, w]`, captions, and what stands where; `tokens` of them in all. It has a
    `number` among those of its step."""

    latents: list[Tensor]
    captions: list[str]
    layouts: list[Tensor] | None
    tokens: int
    number: int = 0


@dataclass(frozen=True)
class _Drawing:
    """Clips drawn from the pool, each described anew; of what a step needs, one share of `shards`."""

    config: Lessons
    shard: int = 0
    shards: int = 1

    @cached_property
    def pool(self) -> LatentPool:
        return LatentPool(self.config.pool)

    def _say(self, drawn: list[Drawn], random: np.random.Generator) -> list[str]:
        """A caption for each clip."""
        detail = pick(self.config.details, random)  # one for all: a long caption would pad every short one
        return ["" if random.random() < self.config.drop_prompt else self._caption(c, detail, random) for c in drawn]

    def _layouts(self, drawn: list[Drawn]) -> list[Tensor] | None:
        """Where that is asked for, what stands where in each."""
        return [_layout(clip) for clip in drawn] if self.config.layout or self.config.things else None

    def _caption(self, clip: Drawn, detail: str, random: np.random.Generator) -> str:
        """One of what is said of footage, or a new description of a scene."""
        if clip.scene is None:
            return clip.captions[int(random.integers(len(clip.captions)))]
        return describe(clip.scene, pick(self.config.languages, random), detail, seed=int(random.integers(1 << 31)))


@dataclass(frozen=True)
class PoolBatches(_Drawing):
    """Batches of clips of one size, to which `prior` times as many of a second pool, the `world`, are added. Raises
    ConfigError where one has too few clips to share."""

    def __post_init__(self) -> None:
        if (least := min((bucket.batch for bucket in self.config.buckets), default=self.shards)) < self.shards:
            raise ConfigError(
                f"a batch of {least} clips cannot be shared by {self.shards}: give larger batches, fewer processes or "
                "a larger parallel.context"
            )

    def batch(self, step: int) -> Captioned:
        random = np.random.default_rng((self.config.run.seed, step))
        bucket = pick_bucket(self.config.buckets, random)
        drawn = [self.pool.draw(bucket, random) for _ in range(bucket.batch)]
        if self.world is not None:
            longer = bucket.model_copy(update={"exact": False})
            drawn += [self.world.draw(longer, random) for _ in range(round(self.config.prior * bucket.batch))]
        captions = self._say(drawn, random)
        first, end = (len(drawn) * n // self.shards for n in (self.shard, self.shard + 1))
        own, layouts = drawn[first:end], self._layouts(drawn[first:end])
        latents = torch.stack([clip.latents for clip in own]).float()
        layout = None if layouts is None else torch.stack(layouts)
        return Captioned(latents, captions[first:end], layout, first, len(drawn))

    @cached_property
    def world(self) -> LatentPool | None:
        return LatentPool(self.config.world) if self.config.world and self.config.prior else None


@dataclass(frozen=True)
class PackedBatches(_Drawing):
    """Packs of clips of all sizes, `packs` of them a step; a token is `patch` (frames, rows, columns) of the latents.
    Raises ConfigError where they cannot be shared evenly."""

    patch: tuple[int, int, int] = (1, 1, 1)
    packs: int = 1

    def __post_init__(self) -> None:
        if self.packs % self.shards:
            raise ConfigError(
                f"packs = {self.packs} cannot be shared by {self.shards}: set packs to a multiple of {self.shards}, or "
                "a larger parallel.context"
            )

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        return self.config.buckets or self.pool.buckets()

    @cached_property
    def packer(self) -> Packer:
        tokens = tuple(map(self._tokens, self.buckets))
        packer = Packer(self.config.packed, tokens, tuple(bucket.weight for bucket in self.buckets))
        if (filled := useful(packer, self.config.run.seed, TOGETHER)) < FILLED:
            print(f"packed: only {filled:.0%} of {packer.budget} tokens are filled; give more tokens", flush=True)
        return packer

    def batch(self, step: int) -> list[Pack]:
        each = self.packs // self.shards
        return [self._pack(step, number) for number in range(self.shard * each, (self.shard + 1) * each)]

    def _pack(self, step: int, number: int) -> Pack:
        seed, place = self.config.run.seed, step * self.packs + number
        kinds, random = self.packer.pack(seed, place), np.random.default_rng((seed, place))
        drawn = [self.pool.draw(self.buckets[kind], random) for kind in kinds]
        captions, layouts = self._say(drawn, random), self._layouts(drawn)
        tokens = sum(self.packer.tokens[kind] for kind in kinds)
        return Pack([clip.latents.float() for clip in drawn], captions, layouts, tokens, number)

    def _tokens(self, bucket: Bucket) -> int:
        clip = self.pool.clips_of(bucket)[0]
        _, frames, rows, columns = self.pool.shape_of(clip)
        frames = min(frames, 1 + (bucket.frames - 1) // 4)
        return frames * rows * columns // (self.patch[0] * self.patch[1] * self.patch[2])


def _layout(clip: Drawn) -> Tensor:
    """See `name_bodies`. Raises ConfigError for footage, of which nobody knows what stands where."""
    if clip.scene is None or clip.bodies is None:
        raise ConfigError("layout and things need a pool of rendered clips only: set both to 0 for footage")
    return name_bodies(clip.scene, clip.bodies)
