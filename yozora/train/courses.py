"""Courses: how a trained transformer goes from noise to picture, in all its steps and with its guidance, recorded once.

Few-step weights learn from them (`yozora train distill`) at a third of the cost of asking the transformer at every
step anew, and where it matters, on the way from noise that sampling takes (knowledge distillation, Luhman & Luhman
2021). Any two moments of a course are a lesson. Captions and held frames are those of the pool's clips.

A folder of courses holds shards `WxHxF-00007.safetensors` with the latents before each step and after the last,
`states` `[n, steps + 1, C, T, h, w]` (float16), and how firmly each frame is held, `hold` `[n, T]`; the captions are in
a `.jsonl` beside it, a line each. `courses.json` says with which settings and weights they were made.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from yozora.diffusion import guided, sample, schedule
from yozora.diffusion.sampler import level_ceiling, start
from yozora.errors import ConfigError, ModelError
from yozora.models.folder import read_json, unwritten, weights_digest, write_json
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer
from yozora.train import latents
from yozora.train.claim import claimed
from yozora.train.config import Bucket, Courses, DistillStage
from yozora.train.data import pick_bucket, stream
from yozora.train.flow import draw_hold
from yozora.train.lessons import Captioned, PoolBatches
from yozora.train.loop import autocast, make_folder

FOLDER, MANIFEST = "courses", "courses.json"


class Recorded(NamedTuple):
    """A batch of courses: `states` float32 `[B, steps + 1, C, T, h, w]`, `hold` 0..1 `[B, T]`, captions."""

    states: Tensor
    hold: Tensor
    captions: list[str]


@dataclass(frozen=True)
class _Shard:
    """So many courses of a bucket, to be recorded or read."""

    stem: Path
    bucket: Bucket
    number: int


@torch.no_grad()
def record(config: DistillStage, teacher: Transformer, text: TextEncoder, resume: bool) -> Path:
    """Records the courses that the configuration asks for in `courses` of its `run.out`, and returns that folder; with
    `resume`, those that are there are kept. Raises ConfigError where there are others, or they cannot be written."""
    asked, folder = _asked(config), config.run.out / FOLDER
    make_folder(folder)
    with claimed(config.run.out):
        _record_all(config, asked, teacher, text, folder, resume)
    return folder


def _record_all(
    config: DistillStage, asked: Courses, teacher: Transformer, text: TextEncoder, folder: Path, resume: bool
) -> None:
    """See `record`."""
    _claim(folder, config, resume)
    shards = list(_shards(config, asked, folder))
    for done, shard in enumerate(shards, start=1):
        if shard.stem.with_suffix(".jsonl").exists():
            continue
        started = time.monotonic()
        recorded = _record(config, asked, teacher, text, shard)
        _store(shard.stem, recorded)
        rate = len(recorded.captions) / (time.monotonic() - started)
        print(f"course {shard.stem.name}  {done}/{len(shards)}  {rate:.2f} clips/s", flush=True)


def _asked(config: DistillStage) -> Courses:
    if config.courses is None:
        raise ConfigError("courses: say how many clips")
    return config.courses


def _shards(config: DistillStage, asked: Courses, folder: Path) -> Iterator[_Shard]:
    """All of them, a bucket's as often as its weight says; at least one each."""
    share = asked.clips / sum(bucket.weight * bucket.batch for bucket in config.buckets)
    for place, bucket in enumerate(config.buckets):
        for number in range(max(1, round(bucket.weight * share))):
            name = f"{place}-{bucket.width}x{bucket.height}x{bucket.frames}-{number:05d}"
            yield _Shard(folder / name, bucket, number)


def _record(config: DistillStage, asked: Courses, teacher: Transformer, text: TextEncoder, shard: _Shard) -> Recorded:
    """As `yozora generate` samples; each shard has noise, clips and captions of its own."""
    device, place = next(teacher.parameters()).device, config.buckets.index(shard.bucket)
    run = config.run.model_copy(update={"seed": int(np.random.default_rng((config.run.seed, place)).integers(1 << 31))})
    lessons = config.model_copy(update={"buckets": (shard.bucket,), "run": run, "things": 0.0})
    batch = PoolBatches(lessons).batch(shard.number)
    generator = torch.Generator().manual_seed(run.seed + shard.number)
    hold = draw_hold(len(batch.captions), batch.latents.shape[2], config.anchored, generator)
    known, noise = batch.latents.to(device), torch.randn(batch.latents.shape, generator=generator).to(device)
    with autocast(device, config.run.precision):
        velocity = guided(teacher, text(batch.captions), text([""]), config.guidance, projected=config.projected)
        levels = schedule(asked.steps, config.shift)
        steps = sample(velocity, noise, levels, known=known, hold=hold.to(device))
        states = [step.latents for step in steps]
        first = start(noise, known, level_ceiling(noise, known, hold.to(device)), 1.0)
    return Recorded(torch.stack([first, *states], 1).to("cpu", torch.float16), hold, batch.captions)


def _store(stem: Path, recorded: Recorded) -> None:
    weights, index, temporary = (stem.with_suffix(ending) for ending in (".safetensors", ".jsonl", ".tmp"))
    if not recorded.states.isfinite().all():
        raise ConfigError("the transformer gave numbers that are not finite: check its weights, or say precision=fp32")
    try:
        save_file({"states": recorded.states.contiguous(), "hold": recorded.hold}, weights)
        temporary.write_text("".join(json.dumps(caption) + "\n" for caption in recorded.captions), encoding="utf-8")
        os.replace(temporary, index)  # the index comes last: a shard with one is whole
    except (OSError, SafetensorError) as error:
        for path in (weights, temporary):
            path.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {weights} ({unwritten(error)}); is the disk full?") from None


def _claim(folder: Path, config: DistillStage, resume: bool) -> None:
    """Makes sure that what lies in the folder was recorded as is asked for now: see MANIFEST. Without `resume` what was
    recorded otherwise goes; what was not would come out the same again."""
    kept = {"buckets", "languages", "details", "drop_prompt", "anchored", "shift", "guidance", "projected"}
    asked: dict[str, Any] = config.model_dump(mode="json", include=kept)
    asked |= {"seed": config.run.seed, "precision": config.run.precision, "steps": _asked(config).steps}
    pool = config.pool / latents.MANIFEST
    asked["pool"] = read_json(pool) if pool.exists() else str(config.pool)
    for part in ("transformer", "text_encoder"):
        asked[f"{part}_sha256"] = weights_digest(config.start_from / part)
    asked["tokenizer_sha256"] = weights_digest(config.start_from / "text_encoder" / "tokenizer.json")
    if _manifest(folder) == asked:
        return
    recorded = [*folder.glob("*.jsonl"), *folder.glob("*.safetensors")]
    if recorded and resume:
        raise ConfigError(
            f"{folder} holds courses recorded with other settings or weights; use --no-resume to begin anew, or "
            "another run.out"
        )
    try:
        for path in recorded:
            path.unlink()
        write_json(folder / MANIFEST, asked)
    except OSError as error:
        raise ConfigError(f"cannot write {folder} ({error.strerror}); is the disk full?") from None


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What the folder's MANIFEST says; None where there is none that can be read."""
    try:
        return read_json(folder / MANIFEST)
    except ModelError:
        return None


@dataclass(frozen=True)
class CourseBatches:
    """Batches of recorded courses, in a share of the steps, and of clips from the pool in the others."""

    config: DistillStage
    folder: Path

    @cached_property
    def pool(self) -> PoolBatches:
        return PoolBatches(self.config)

    @cached_property
    def shards(self) -> dict[Bucket, list[Path]]:
        """Of each bucket the files with its courses."""
        indices = sorted(self.folder.glob("*.jsonl"))
        places = enumerate(self.config.buckets)
        return {b: [each.with_suffix("") for each in indices if each.name.startswith(f"{n}-")] for n, b in places}

    def batch(self, step: int) -> Captioned | Recorded:
        random = np.random.default_rng((self.config.run.seed, step, 1))
        if random.random() >= _asked(self.config).share:
            return self.pool.batch(step)
        bucket = pick_bucket(self.config.buckets, random)
        drawn = [self._draw(self.shards[bucket], random) for _ in range(bucket.batch)]
        states, hold, captions = zip(*drawn, strict=True)
        return Recorded(torch.stack(states).float(), torch.stack(hold), list(captions))

    def _draw(self, shards: list[Path], random: np.random.Generator) -> tuple[Tensor, Tensor, str]:
        """One course of one of these shards. Raises ConfigError where it cannot be read."""
        stem = shards[int(random.integers(len(shards)))]
        try:
            captions = [
                json.loads(line) for line in stem.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
            ]
            with safe_open(stem.with_suffix(".safetensors"), "pt") as shard:
                row = int(random.integers(len(captions)))
                return shard.get_slice("states")[row], shard.get_slice("hold")[row], captions[row]
        except (SafetensorError, OSError, ValueError, IndexError) as error:
            raise ConfigError(
                f"{stem} cannot be read ({error}); delete its files, then run the command again"
            ) from None


def batches(config: DistillStage, folder: Path | None, start: int) -> Iterator[Captioned | Recorded]:
    """The batches of a run's steps from `start` on; without a folder of courses all are of the pool's clips."""
    source = PoolBatches(config) if folder is None else CourseBatches(config, folder)
    return stream(source, start, config.run.steps, config.run.workers)


def state_at(states: Tensor, places: Tensor) -> Tensor:
    """States `[B, steps + 1, C, T, h, w]` → those at `places` float `[B]`, 0..steps, `[B, C, T, h, w]`: between two
    recorded ones along a cubic through these with the slopes of their neighbours (Catmull & Rom 1974)."""
    last = states.shape[1] - 1
    here = places.floor().long().clamp(0, last - 1)
    part = (places - here).float().view(-1, 1, 1, 1, 1)
    rows = torch.arange(len(states))
    before, begin, end, after = (states[rows, (here + n).clamp(0, last)] for n in (-1, 0, 1, 2))
    leaves = torch.where((here > 0).view(-1, 1, 1, 1, 1), (end - before) / 2, end - begin)
    arrives = torch.where((here < last - 1).view(-1, 1, 1, 1, 1), (after - begin) / 2, end - begin)
    curve = (2 * (begin - end) + leaves + arrives) * part**3
    return curve + (3 * (end - begin) - 2 * leaves - arrives) * part**2 + leaves * part + begin
