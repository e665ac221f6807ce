"""Building a pool of latents: scenes rendered, or footage cut, and encoded once, to be drawn from many times by the
transformer.

A pool is a folder of shards: `WxHxF-00007.safetensors` with a tensor `latents` `[n, C, 1+k, h, w]` (float16) and, of
rendered clips, a tensor `bodies` (what stands where: `yozora.train.layout.body_maps`), and a `.jsonl` beside it with a
line for each clip: a scene, which is described anew each time that it is drawn, or the captions of a piece of footage.
Shards of footage are called `WxHxF-u00003`, by the unit of files that they hold; `unit-00003.json` says how many clips
came of it and what was skipped. `pool.json` says with which settings, files and autoencoder the shards were made, so
that a resumed run cannot mix two.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, read_json, weights_digest, write_json
from yozora.train.config import Bucket, Footage, LatentsStage, PoolBucket
from yozora.train.data import HELD_OUT_SEEDS, clip_tensor, load_mix, scene_lines, stream, to_signed
from yozora.train.footage import Item, Piece, Skipped, cut, footage_digest, pieces_of_shard, units_of
from yozora.train.layout import body_maps
from yozora.train.loop import autocast, make_folder, pick_device
from yozora.world import Scene, sample_scene

BATCH = 16
MANIFEST = "pool.json"


def build_pool(config: LatentsStage, resume: bool = True) -> Path:
    """Renders and encodes what the configuration asks for; with `resume`, shards that are there are kept."""
    device = pick_device(config.run.device)
    autoencoder = load_module(Autoencoder, config.autoencoder, device).eval()
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
    """Makes the folder, and makes sure that what lies in it was made as is asked for now: see MANIFEST."""
    out = config.run.out
    make_folder(out)
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
    autoencoder: Autoencoder,
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
        with autocast(device, config.run.precision):
            latents.append(autoencoder.encode(to_signed(frames.to(device))).to("cpu", torch.float16))
        bodies.append(maps)
        scenes += batch
    tensors = {"latents": torch.cat(latents).contiguous(), "bodies": torch.cat(bodies).contiguous()}
    _store(stem, tensors, scene_lines(scenes))


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
        raise ConfigError(f"cannot write {weights} ({str(error).splitlines()[0]}); is the disk full?") from None


# ---- footage ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cuts:
    """The pieces of a unit's files, one file after the other."""

    items: Sequence[Item]
    footage: Footage

    def batch(self, step: int) -> list[Piece] | Skipped:
        return cut(self.items[step], self.footage)


def _encode_footage(
    config: LatentsStage, footage: Footage, autoencoder: Autoencoder, device: torch.device, resume: bool
) -> None:
    """Cuts and encodes all footage; with `resume`, units that are there are kept. Raises ConfigError where nothing of
    it could be read."""
    units, clips, skipped = units_of(footage), 0, 0
    for number, unit in enumerate(units):
        report = config.run.out / f"unit-{number:05d}.json"
        if not (resume and report.exists()):
            if isinstance(unit, Path):
                cuts = pieces_of_shard(unit, footage)
            else:
                cuts = stream(_Cuts(unit, footage), 0, len(unit), config.run.workers)
            _note(report, _encode_unit(config, autoencoder, device, cuts, number))
        said = read_json(report)
        clips, skipped = clips + said["clips"], skipped + len(said["skipped"])
        print(f"footage  {number + 1}/{len(units)}  {clips} clips, {skipped} files skipped", flush=True)
    if not clips:
        raise ConfigError(f"nothing in {footage.path} could be read: {skipped} files were skipped, as said above")


@torch.no_grad()
def _encode_unit(
    config: LatentsStage,
    autoencoder: Autoencoder,
    device: torch.device,
    cuts: Iterable[list[Piece] | Skipped],
    number: int,
) -> dict[str, Any]:
    """Writes a unit's shards, one for each size and length in it; returns its report."""
    latents: dict[tuple[int, int, int], list[Tensor]] = {}
    lines: dict[tuple[int, int, int], str] = {}
    skipped: list[Skipped] = []
    for pieces in cuts:
        if isinstance(pieces, Skipped):
            print(f"skipped {pieces.name}: {pieces.reason}", flush=True)
            skipped.append(pieces)
            continue
        for piece in pieces:
            _, frames, height, width = piece.frames.shape
            key = (width, height, frames)
            with autocast(device, config.run.precision):
                encoded = autoencoder.encode(to_signed(piece.frames[None].to(device)))
            latents.setdefault(key, []).append(encoded.to("cpu", torch.float16))
            lines[key] = lines.get(key, "") + json.dumps(piece.line, ensure_ascii=False) + "\n"
    for key, parts in latents.items():
        stem = config.run.out / ("x".join(map(str, key)) + f"-u{number:05d}")
        _store(stem, {"latents": torch.cat(parts).contiguous()}, lines[key])
    count = sum(len(parts) for parts in latents.values())
    return {"clips": count, "skipped": [each._asdict() for each in skipped]}
