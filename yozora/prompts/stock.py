"""What a library is filled with: clips of a folder or of WebDataset shards with their captions, or of the simulated
world, each encoded once. What is there already is passed over, so an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from yozora.create.generator import choose_device, read_native
from yozora.create.sizes import Native
from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import read_json
from yozora.models.registry import autoencoder_of, autoencoder_version, load_autoencoder, quick_dtype
from yozora.models.tiled import Tiled
from yozora.models.wan_autoencoder import WanAutoencoder
from yozora.prompts.agree import with_count
from yozora.prompts.lexicon import LexiconReader
from yozora.prompts.library import NOTE, Entry, Library, copy_distance, create_library, open_library
from yozora.train.config import Footage
from yozora.train.data import HELD_OUT_SEEDS, LatentPool, PooledClip, load_mix
from yozora.train.footage import Item, Piece, Skipped, cut, read_shard, units_of
from yozora.train.latents import MANIFEST, clip_start
from yozora.world import Scene, render, sample_scene
from yozora.world.describe import describe, facts

ALIKE = 0.1  # distance of two latents of the same frames, up to which rounding made it
BATCH = 32  # clips that are put in together: what an interrupted run loses at most


class Added(NamedTuple):
    """What happened to one origin: how many clips of it were put in, none where it was there already; `reason` says why
    it was left out."""

    origin: str
    clips: int
    reason: str = ""


@dataclass(frozen=True)
class Coder:
    """A model's autoencoder, what the model makes, and which version it is."""

    model: str
    version: str
    native: Native
    autoencoder: Autoencoder | WanAutoencoder | Tiled
    device: torch.device

    @property
    def channels(self) -> int:
        return self.autoencoder.config.channels

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames uint8 `[1 + 4k, H, W, 3]` → latents float16 `[C, 1 + k, h, w]`."""
        pixels = torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2)[None].to(self.device)
        dtype = next(self.autoencoder.parameters()).dtype
        latents = self.autoencoder.encode((pixels.float() / 127.5 - 1).to(dtype))
        return latents[0].to("cpu", torch.float16)


def load_coder(model: str | Path = "mini", device: str = "auto") -> Coder:
    """The autoencoder of a model, by name or folder. Raises ModelError."""
    native, where = read_native(model), choose_device(device)
    autoencoder = load_autoencoder(autoencoder_of(model), where, quick_dtype(where))
    return Coder(str(model), autoencoder_version(model), native, autoencoder, where)


def library_for(folder: str | Path, coder: Coder) -> Library:
    """The library in a folder, made where there is none. Raises ConfigError where it is one of another version."""
    folder = Path(folder)
    if not (folder / NOTE).exists():
        create_library(folder, coder.model, coder.version, coder.channels)
    library = open_library(folder)
    if library.check_latents(coder.version):
        raise ConfigError(
            f"{folder} holds latents of another version of an autoencoder (of {library.model}): name another folder, "
            "or the model that it was made with (--model)"
        )
    return library


def add_footage(library: Library, coder: Coder, path: Path, caption: str = "") -> Iterator[Added]:
    """Puts in the clips of a folder or shard, as `yozora train latents` reads them: in pieces of the model's length, at
    its rate and in that of its sizes whose shape is nearest. Raises ConfigError."""
    native = coder.native
    footage = Footage(
        path=path, caption=caption, frames=native.frames_max, fps=native.fps, sizes=tuple(native.sizes), pieces=64
    )
    known, reader = library.marks(), LexiconReader()
    waiting: list[Entry] = []
    for item in _items(footage):
        if isinstance(item, Skipped):
            yield Added(item.name, 0, item.reason)
            continue
        mark = _mark(item)
        origin = _origin(path, item)
        if known.get(origin) == mark:
            yield Added(origin, 0)
            continue
        pieces = cut(item, footage)
        if isinstance(pieces, Skipped):
            yield Added(origin, 0, pieces.reason)
            continue
        waiting += [_of_piece(piece, origin, mark, coder, reader) for piece in pieces]
        yield Added(origin, len(pieces))
        if len(waiting) >= BATCH:
            library.add(waiting)
            waiting = []
    library.add(waiting)
    library.tidy()


def add_world(library: Library, coder: Coder, count: int, mix: str = "simple", seed: int = 0) -> Iterator[Added]:
    """Renders and puts in `count` scenes of a mix of the simulated world, from seed `seed` on. Raises ConfigError."""
    if count < 1 or seed < 0 or seed + count > HELD_OUT_SEEDS:
        raise ConfigError(f"{count} scenes from seed {seed} on cannot be added: use 1 or more, and seeds below 2^40")
    native, known = coder.native, library.marks()
    drawn = replace(load_mix(mix), duration=max(0.1, native.frames_max / native.fps))
    waiting: list[Entry] = []
    for number in range(seed, seed + count):
        origin = f"world/{mix}/{number}"
        if origin in known:
            yield Added(origin, 0)
            continue
        waiting.append(_of_scene(sample_scene(number, drawn), origin, coder))
        yield Added(origin, 1)
        if len(waiting) >= BATCH:
            library.add(waiting)
            waiting = []
    library.add(waiting)
    library.tidy()


def is_pool(folder: Path) -> bool:
    """Whether `yozora train latents` wrote a folder."""
    return (folder / MANIFEST).is_file()


def add_pool(library: Library, coder: Coder, folder: Path) -> Iterator[Added]:
    """Puts in the clips of a pool of latents that have the model's full length, a shard at a time. Raises ConfigError,
    also where another autoencoder has made them."""
    pool, known, reader = LatentPool(folder), library.marks(), LexiconReader()
    maker = read_json(folder / MANIFEST).get("autoencoder_sha256", "")
    checked = maker == coder.version
    for size in coder.native.sizes:
        shards: dict[Path, list[PooledClip]] = {}
        for clip in pool.clips.get((*size, coder.native.frames_max), ()):
            shards.setdefault(clip.file, []).append(clip)
        for file, clips in shards.items():
            origin = file.resolve().with_suffix("").as_posix()
            if known.get(origin) == maker:
                yield Added(origin, 0)
                continue
            entries = [_of_pooled(pool, clip, origin, maker, size, coder, reader) for clip in clips]
            if not checked:
                _check_alike(clips[0], entries[0], coder, folder)
                checked = True
            library.add(entries)
            yield Added(origin, len(entries))
    library.tidy()


def facts_of(scene: Scene) -> dict[str, str]:
    """What there is to see in a scene, without what there is not."""
    return {name: value for name, value in facts(scene).items() if value != "none"}


def _of_scene(scene: Scene, origin: str, coder: Coder) -> Entry:
    native = coder.native
    (width, height), frames = native.sizes[0], native.frames_max
    latents = coder.encode(render(scene, width, height, frames, native.fps, threads=1).frames)
    said, text = facts_of(scene), describe(scene, "en", "short", scene.seed)
    return Entry(origin, origin, "rendered", text, latents, (width, height), frames, native.fps, said)


def _of_piece(piece: Piece, origin: str, mark: str, coder: Coder, reader: LexiconReader) -> Entry:
    frames = piece.frames.permute(1, 2, 3, 0).numpy()
    said = piece.line["captions"][0]
    read = with_count(reader.read(said), said)
    size = (frames.shape[2], frames.shape[1])
    source = f"{origin}@{piece.line['start']:g}"
    return Entry(source, origin, mark, said, coder.encode(frames), size, len(frames), coder.native.fps, read)


def _of_pooled(
    pool: LatentPool,
    clip: PooledClip,
    origin: str,
    mark: str,
    size: tuple[int, int],
    coder: Coder,
    reader: LexiconReader,
) -> Entry:
    line, native = json.loads(clip.line), coder.native
    source, latents = f"{origin}#{clip.row}", pool.latents_of(clip)
    if "captions" in line:
        text = line["captions"][0]
        said = with_count(reader.read(text), text)
    else:
        scene = Scene.from_json(clip.line)
        text, said = describe(scene, "en", "short", scene.seed), facts_of(scene)
    return Entry(source, origin, mark, text, latents, size, native.frames_max, native.fps, said)


def _check_alike(clip: PooledClip, entry: Entry, coder: Coder, folder: Path) -> None:
    """Raises ConfigError unless the autoencoder at hand makes the same latents of a pool's clip as the one that made
    it: the weights may be other ones, those of the decoder, and the latents still the same."""
    refused = f"{folder} was made by another autoencoder than that of {coder.model}: make it again, or name its model"
    if "captions" in json.loads(clip.line):
        raise ConfigError(refused)  # there is nothing to render it from
    scene, (width, height) = Scene.from_json(clip.line), entry.size
    start = clip_start(scene, entry.frames, entry.fps)
    again = coder.encode(render(scene, width, height, entry.frames, entry.fps, start=start, threads=1).frames)
    if again.shape != entry.latents.shape or copy_distance(again, entry.latents) > ALIKE:
        raise ConfigError(refused)


def _items(footage: Footage) -> Iterator[Item | Skipped]:
    """Every clip of a folder and of its shards."""
    units: Sequence[Sequence[Item] | Path] = units_of(footage)
    for unit in units:
        if isinstance(unit, Path):
            with tempfile.TemporaryDirectory() as folder:
                inside = unit.parent.relative_to(footage.path) if unit != footage.path else Path()
                for item in read_shard(unit, Path(folder), footage.caption):
                    yield item._replace(name=(inside / item.name).as_posix())
        else:
            yield from unit


def _origin(path: Path, item: Item) -> str:
    """Where a clip is, whatever the folder that one stands in."""
    base = path.parent if path.is_file() else path
    return (base.resolve() / item.name).as_posix()


def _mark(item: Item) -> str:
    """A fingerprint of a file and what is said of it; "" for one that is gone."""
    try:
        about = item.path.stat()
        of_shard = item.path.name.startswith("clip.")  # written anew each time
        changed = hashlib.sha256(item.path.read_bytes()).hexdigest() if of_shard else about.st_mtime_ns
    except OSError:
        return ""
    return hashlib.sha256(repr((about.st_size, changed, item.captions)).encode()).hexdigest()[:16]
