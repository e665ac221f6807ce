"""Building a pool of latents: scenes rendered, or footage cut, and encoded once, to be drawn from many times by the
transformer.

A pool is a folder of shards: `WxHxF-00007.safetensors` with a tensor `latents` `[n, C, 1+k, h, w]` (float16) and, of
rendered clips, a tensor `bodies` (what stands where: `yozora.train.layout.body_maps`), and a `.jsonl` beside it with a
line for each clip: a scene, which is described anew each time that it is drawn, or the captions of a piece of footage.
Shards of footage are called `WxHxF-u00003-00001`, by the unit of files that they hold, and the part of it;
`unit-00003.json` says how many of its files are done, how many clips came of them and what was skipped. `pool.json`
says with which settings, files and autoencoder the shards were made, so that a resumed run cannot mix two.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from yozora.errors import ConfigError, ModelError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import read_json, unwritten, weights_digest, write_json
from yozora.models.registry import load_autoencoder
from yozora.models.wan_autoencoder import WanAutoencoder
from yozora.train.claim import claimed
from yozora.train.config import Bucket, Footage, LatentsStage, PoolBucket
from yozora.train.data import HELD_OUT_SEEDS, clip_tensor, load_mix, scene_lines, stream, to_signed
from yozora.train.footage import Item, Piece, Skipped, cut, footage_digest, pieces_of_shard, units_of
from yozora.train.layout import body_maps
from yozora.train.loop import autocast, make_folder, memory_errors, pick_device
from yozora.world import Scene, sample_scene

BATCH = 16
MANIFEST = "pool.json"
KEEP_SECONDS = 20.0  # of encoding that a kill may cost, and the file that it was at


def build_pool(config: LatentsStage, resume: bool = True) -> Path:
    """Renders and encodes what the configuration asks for; with `resume`, shards that are there are kept."""
    make_folder(config.run.out)
    with claimed(config.run.out):
        return _build(config, resume)


def _build(config: LatentsStage, resume: bool) -> Path:
    """See `build_pool`."""
    device = pick_device(config.run.device)
    autoencoder = load_autoencoder(config.autoencoder, device)
    if isinstance(autoencoder, Autoencoder):
        autoencoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
    _claim(config, resume)
    for number, bucket in enumerate(config.buckets):
        shards = -(-bucket.clips // config.shard)
        for shard in range(shards):
            stem = config.run.out / f"{bucket.width}x{bucket.height}x{bucket.frames}-{shard:05d}"
            if resume and stem.with_suffix(".jsonl").exists():
                continue
            clips = min(config.shard, bucket.clips - shard * config.shard)
            started = time.monotonic()
            _write_shard(config, autoencoder, device, bucket, (config.run.seed, number, shard), clips, stem)
            rate = clips / (time.monotonic() - started)
            print(f"{stem.name}  {shard + 1}/{shards}  {rate:.1f} clips/s", flush=True)
    if config.footage:
        _encode_footage(config, config.footage, autoencoder, device, resume)
    return config.run.out


def _claim(config: LatentsStage, resume: bool) -> None:
    """Makes sure that what lies in the folder was made as is asked for now: see MANIFEST."""
    out = config.run.out
    asked = config.model_dump(mode="json", exclude={"run": {"out", "device", "workers"}, "autoencoder": True})
    asked["autoencoder_sha256"] = weights_digest(config.autoencoder)
    if config.footage:
        asked["footage_sha256"] = footage_digest(config.footage)
    if not resume:
        for path in (*out.glob("*.jsonl"), *out.glob("*.safetensors"), *out.glob("unit-*.json"), *out.glob(MANIFEST)):
            path.unlink()
    if (out / MANIFEST).exists():
        if read_json(out / MANIFEST) != asked:
            raise ConfigError(
                f"{out} holds latents made with other settings, footage or another autoencoder; "
                "use --no-resume to make them again, or another run.out"
            )
    elif any(out.glob("*.jsonl")):
        raise ConfigError(
            f"{out} holds latents of unknown origin; use --no-resume to make them again, or another run.out"
        )
    else:
        _note(out / MANIFEST, asked)


def _note(path: Path, value: dict[str, Any]) -> None:
    """Writes JSON. Raises ConfigError where it cannot."""
    try:
        write_json(path, value)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); is the disk full?") from None


@dataclass(frozen=True)
class _ShardClips:
    """The clips of one shard, in batches: uint8 `[n, 3, T, H, W]`, what stands where, and their scenes."""

    config: LatentsStage
    bucket: PoolBucket
    seeds: tuple[int, ...]

    def batch(self, step: int) -> tuple[Tensor, Tensor, list[Scene]]:
        mix, fps = load_mix(self.config.mix), self.config.fps
        scenes = [sample_scene(seed, mix) for seed in self.seeds[step * BATCH : (step + 1) * BATCH]]
        width, height, frames = self.bucket.width, self.bucket.height, self.bucket.frames
        size = Bucket(width=width, height=height, frames=frames, batch=1)
        starts = [clip_start(scene, frames, fps) for scene in scenes]
        clips = [clip_tensor(scene, size, fps, start) for scene, start in zip(scenes, starts, strict=True)]
        bodies = [body_maps(scene, width, height, frames, fps, s) for scene, s in zip(scenes, starts, strict=True)]
        return torch.stack(clips), torch.stack(bodies), scenes


def clip_start(scene: Scene, frames: int, fps: float) -> float:
    """Where a pooled clip of the scene begins, seconds: at 0 if it takes all of it, else anywhere, always the same."""
    return max(0.0, scene.duration - frames / fps) * np.random.default_rng(scene.seed).random()


@torch.no_grad()
def _write_shard(
    config: LatentsStage,
    autoencoder: Autoencoder | WanAutoencoder,
    device: torch.device,
    bucket: PoolBucket,
    key: tuple[int, int, int],
    clips: int,
    stem: Path,
) -> None:
    seeds = tuple(int(s) for s in np.random.default_rng(key).integers(0, HELD_OUT_SEEDS, clips))
    source = _ShardClips(config, bucket, seeds)
    latents: list[Tensor] = []
    bodies: list[Tensor] = []
    scenes: list[Scene] = []
    for frames, maps, batch in stream(source, 0, -(-clips // BATCH), config.run.workers):
        latents.append(_encoded(autoencoder, device, config.run.precision, frames))
        bodies.append(maps)
        scenes += batch
    tensors = {"latents": torch.cat(latents).contiguous(), "bodies": torch.cat(bodies).contiguous()}
    _store(stem, tensors, scene_lines(scenes))


def _encoded(autoencoder: Autoencoder | WanAutoencoder, device: torch.device, precision: str, frames: Tensor) -> Tensor:
    """Frames uint8 [n, 3, T, H, W] → latents float16 on the CPU; by Wan's autoencoders in float32, since that is done
    once."""
    *_, count, height, width = frames.shape
    advice = "give smaller sizes or fewer frames (footage.sizes, footage.frames), or run.device=cpu"
    with (
        memory_errors(f"encoding {count} frames of {width}x{height}", advice),
        autocast(device, "fp32" if isinstance(autoencoder, WanAutoencoder) else precision),
    ):
        latents = autoencoder.encode(to_signed(frames.to(device))).to("cpu", torch.float16)
    if not latents.isfinite().all():
        raise ConfigError(
            "the autoencoder gave numbers that are not finite: check its weights, or say run.precision=fp32"
        )
    return latents


def _store(stem: Path, tensors: dict[str, Tensor], lines: str) -> None:
    """Writes a shard. Raises ConfigError where it cannot."""
    weights, index, temporary = (stem.with_suffix(ending) for ending in (".safetensors", ".jsonl", ".tmp"))
    try:
        save_file(tensors, weights)
        temporary.write_text(lines, encoding="utf-8")
        os.replace(temporary, index)  # the index comes last: a shard with one is whole
    except (OSError, SafetensorError) as error:
        for path in (weights, temporary):
            path.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {weights} ({unwritten(error)}); is the disk full?") from None


# ---- footage ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cuts:
    """The pieces of a unit's files, one file after the other."""

    items: Sequence[Item]
    footage: Footage

    def batch(self, step: int) -> list[Piece] | Skipped:
        return cut(self.items[step], self.footage)


def _encode_footage(
    config: LatentsStage,
    footage: Footage,
    autoencoder: Autoencoder | WanAutoencoder,
    device: torch.device,
    resume: bool,
) -> None:
    """Cuts and encodes all footage; with `resume`, what is there is kept. Raises ConfigError where nothing of it could
    be read."""
    units, clips, skipped = units_of(footage), 0, 0
    for number, unit in enumerate(units):
        stored = _Unit(config.run.out, number)
        if not (resume and stored.done):
            first = stored.begin(resume)
            if isinstance(unit, Path):
                cuts = pieces_of_shard(unit, footage, first)
            else:
                cuts = stream(_Cuts(unit, footage), first, len(unit), config.run.workers)
            with torch.no_grad():
                for pieces in cuts:
                    stored.add(pieces, partial(_encoded, autoencoder, device, config.run.precision))
            stored.finish()
        clips, skipped = clips + stored.said["clips"], skipped + len(stored.said["skipped"])
        print(f"footage  {number + 1}/{len(units)}  {clips} clips, {skipped} files skipped", flush=True)
    if not clips:
        raise ConfigError(f"nothing in {footage.path} could be read: {skipped} files were skipped, as said above")


class _Unit:
    """What has been encoded of a unit's files: parts that are written every few seconds, each with a shard for each
    size and length in it, and the unit's report, which says how much of it is whole."""

    def __init__(self, out: Path, number: int) -> None:
        self.out, self.name = out, f"u{number:05d}"
        self.report = out / f"unit-{number:05d}.json"
        self.said: dict[str, Any] = {"clips": 0, "skipped": [], "files": 0, "parts": 0, "done": False}
        if self.report.exists():
            self.said |= self._reported()
        self.latents: dict[tuple[int, int, int], list[Tensor]] = {}
        self.lines: dict[tuple[int, int, int], str] = {}
        self.since = time.monotonic()

    def _reported(self) -> dict[str, Any]:
        """What the report says. Raises ConfigError where somebody has written into it what cannot be."""
        damaged = f"{self.report} is damaged: make the pool again (--no-resume)"
        try:
            said = {"done": True} | read_json(self.report)  # those of before were written when all was done
        except ModelError:
            raise ConfigError(damaged) from None
        kinds = {"clips": int, "files": int, "parts": int, "skipped": list, "done": bool}
        for name, kind in kinds.items():
            value = said.get(name, kind())
            if type(value) is not kind or (isinstance(value, int) and value < 0):
                raise ConfigError(damaged)
        return said

    @property
    def done(self) -> bool:
        return bool(self.said["done"])

    def begin(self, resume: bool) -> int:
        """Makes ready to go on from what is whole; returns of how many files that is."""
        if not resume or self.done:
            self.said = {"clips": 0, "skipped": [], "files": 0, "parts": 0, "done": False}
        for path in self.out.glob(f"*-{self.name}-*"):
            if int(path.stem.rpartition("-")[2]) >= self.said["parts"]:
                path.unlink()  # of a part that was being written
        return int(self.said["files"])

    def add(self, pieces: list[Piece] | Skipped, encoded: Callable[[Tensor], Tensor]) -> None:
        """The next file's pieces."""
        self.said["files"] += 1
        if isinstance(pieces, Skipped):
            print(f"skipped {pieces.name}: {pieces.reason}", flush=True)
            self.said["skipped"].append(pieces._asdict())
            return
        for piece in pieces:
            _, frames, height, width = piece.frames.shape
            key = (width, height, frames)
            self.latents.setdefault(key, []).append(encoded(piece.frames[None]))
            self.lines[key] = self.lines.get(key, "") + json.dumps(piece.line, ensure_ascii=False) + "\n"
        if time.monotonic() - self.since > KEEP_SECONDS:
            self._store()

    def finish(self) -> None:
        """After the last file."""
        self.said["done"] = True
        self._store()

    def _store(self) -> None:
        for key, parts in self.latents.items():
            stem = self.out / ("x".join(map(str, key)) + f"-{self.name}-{self.said['parts']:05d}")
            _store(stem, {"latents": torch.cat(parts).contiguous()}, self.lines[key])
            self.said["clips"] += len(parts)
        self.said["parts"] += 1
        _note(self.report, self.said)  # last: before it, the part counts for nothing
        self.latents, self.lines, self.since = {}, {}, time.monotonic()
